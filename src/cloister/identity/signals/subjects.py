"""Subject identifiers (RFC 9493) and complex subjects (Shared Signals Framework 1.0, section 3.2). Pure."""

from collections.abc import Mapping
from typing import Any

from cloister.identity.signals.types import Account, Email, EventRefused, EventSubject, Identifier, IssuerSubject, Opaque
from cloister.model.reasons import Code

MAX_TEXT = 512
_FIELDS: Mapping[str, tuple[str, ...]] = {
    "iss_sub": ("iss", "sub"),
    "email": ("email",),
    "account": ("uri",),
    "opaque": ("id",),
}
_MEMBERS = ("user", "device", "session", "tenant")
_FOREIGN = ("application", "org_unit", "group")


def read_subject(value: Any) -> EventSubject:
    """Whom this names. Raises EventRefused for a format that is not known, or one that is not whole."""
    if not isinstance(value, dict):
        raise _refused("the subject is not an object")
    format = value.get("format")
    members = [name for name in (*_MEMBERS, *_FOREIGN) if name in value]
    if format == "complex" or (format is None and members):  # the framework's early drafts left `format` out
        named = {name: read_identifier(value[name]) for name in members}
        unknown = value.keys() - {"format", *members}
        if unknown or not members:
            raise _refused("the complex subject has members that are not known")
        foreign = tuple(name for name in _FOREIGN if name in named)
        user, device, session, tenant = (named.get(name) for name in _MEMBERS)
        return EventSubject(None, user, device, session, tenant, foreign)
    return EventSubject(read_identifier(value))


def read_identifier(value: Any) -> Identifier:
    """One simple identifier: exactly the fields of its format, each a short line of text."""
    if not isinstance(value, dict):
        raise _refused("a subject identifier is not an object")
    format = value.get("format")
    fields = _FIELDS.get(format) if isinstance(format, str) else None
    if fields is None:
        raise _refused("the format of a subject identifier is not known")
    if value.keys() != {"format", *fields}:
        raise _refused("a subject identifier has not exactly the fields of its format")
    texts = [_text(value[name]) for name in fields]
    match format:
        case "iss_sub":
            return IssuerSubject(texts[0], texts[1])
        case "email":
            return Email(texts[0])
        case "account":
            return Account(texts[0])
        case _:
            return Opaque(texts[0])


def _text(value: Any) -> str:
    if not isinstance(value, str) or not 0 < len(value) <= MAX_TEXT or not value.isprintable():
        raise _refused("a field of a subject identifier is not a short line of text")
    return value


def _refused(message: str) -> EventRefused:
    return EventRefused("invalid_request", Code.TOKEN_CLAIM, message)
