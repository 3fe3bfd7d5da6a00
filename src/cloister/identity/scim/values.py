"""Resources as they come in (RFC 7643 §2): every attribute in its canonical spelling, type and bound, or refused.

What no schema names is dropped. `active` is read strictly: what takes access away in any usual spelling, what gives it only as a true.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Any

from cloister.identity.scim.errors import invalid
from cloister.identity.scim.schema import Attribute, ResourceType, resolve

MAX_TEXT = 1024  # characters of one text
MAX_LONG_TEXT = 4096  # of a formatted address or name
MAX_BINARY = 16 * 1024
MAX_VALUES = 100  # of a multi-valued attribute; members of groups are counted elsewhere
MAX_BODY = 32 * 1024  # bytes of one resource as it is stored, without members

Body = dict[str, Any]

_BINARY = re.compile(r"[A-Za-z0-9+/_=\r\n-]*")
_INSTANT = re.compile(r"\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(?:\.\d{1,9})?(?:Z|[+-]\d{2}:\d{2})")


def read_resource(kind: ResourceType, raw: Any, *, ignore: frozenset[str] = frozenset()) -> Body:
    """The body of a POST or PUT with the attributes that may be written; `ignore` names, in lower case, those that somebody else reads."""
    if not isinstance(raw, Mapping):
        raise invalid("a resource is a JSON object", "invalidSyntax")
    body: Body = {}
    seen: set[str] = set()
    for name, value in raw.items():
        lowered = str(name).lower()
        if lowered in seen:
            raise invalid(f"`{_shown(name)}` is given twice", "invalidSyntax")
        seen.add(lowered)
        if lowered in ignore:
            continue
        if lowered in kind.extensions:
            extension = kind.extensions[lowered]
            parts = _read_parts(extension.attributes, value, extension.urn)
            if parts:
                body[extension.urn] = parts
            continue
        target = resolve(kind, kind.schema.urn, lowered)
        if target is None or target.attribute.mutability == "readOnly" or lowered == "schemas":
            continue
        read = read_value(target.attribute, value)
        if read is not None:
            body[target.attribute.name] = read
    return body


def check_schemas(kind: ResourceType, raw: Any) -> None:
    """A resource says which schemas it is of (RFC 7643 §3)."""
    schemas = (
        next((value for name, value in raw.items() if str(name).lower() == "schemas"), None) if isinstance(raw, Mapping) else None
    )
    known = isinstance(schemas, list) and kind.schema.urn.lower() in {str(one).lower() for one in schemas}
    if not known:
        raise invalid(f"`schemas` does not name `{kind.schema.urn}`", "invalidSyntax")


def read_value(attribute: Attribute, raw: Any) -> Any:
    """The value of one attribute; None if it is unassigned (RFC 7643 §2.5)."""
    if raw is None and attribute.name != "active":
        return None
    if not attribute.multi:
        return read_one(attribute, raw)
    values = raw if isinstance(raw, list) else [raw]
    if len(values) > MAX_VALUES:
        raise invalid(f"`{attribute.name}` has at most `{MAX_VALUES}` values", "tooMany")
    read = [one for value in values if value is not None and (one := read_one(attribute, value)) not in (None, {})]
    check_primary(attribute, read)
    return read or None


def read_one(attribute: Attribute, raw: Any) -> Any:
    """One value of an attribute, whether it has one or many."""
    match attribute.type:
        case "boolean":
            return read_boolean(attribute.name, raw)
        case "complex":
            if isinstance(raw, str) and "value" in attribute.parts:
                raw = {"value": raw}
            return _read_parts(attribute.parts, raw, attribute.name) or None
        case "integer":
            if isinstance(raw, bool) or not isinstance(raw, int):
                raise invalid(f"`{attribute.name}` is a whole number")
            return raw
        case _:
            return _read_text(attribute, raw)


def read_boolean(name: str, raw: Any) -> bool:
    """`"False"` and `"True"` are what Microsoft Entra sends; 0 is read too, since it can only take away. Nothing else is a boolean."""
    if raw is True or raw is False:
        return bool(raw)
    if isinstance(raw, str) and raw.lower() in ("true", "false"):
        return raw.lower() == "true"
    if name == "active" and raw in (0, "0"):
        return False
    raise invalid(f"`{name}` is true or false")


def _read_parts(attributes: Mapping[str, Attribute], raw: Any, where: str) -> Body:
    if not isinstance(raw, Mapping):
        raise invalid(f"`{where}` is a JSON object")
    found: Body = {}
    seen: set[str] = set()
    for name, value in raw.items():
        lowered = str(name).lower()
        if lowered in seen:
            raise invalid(f"`{where}` names `{_shown(name)}` twice", "invalidSyntax")
        seen.add(lowered)
        attribute = attributes.get(lowered)
        if attribute is None or attribute.mutability == "readOnly":
            continue
        read = read_value(attribute, value)
        if read is not None:
            found[attribute.name] = read
    return found


def _read_text(attribute: Attribute, raw: Any) -> str:
    if not isinstance(raw, str):
        raise invalid(f"`{attribute.name}` is a text")
    longest = MAX_BINARY if attribute.type == "binary" else MAX_LONG_TEXT if attribute.name == "formatted" else MAX_TEXT
    if len(raw) > longest:
        raise invalid(f"`{attribute.name}` has at most `{longest}` characters")
    if attribute.type == "binary" and not _BINARY.fullmatch(raw):
        raise invalid(f"`{attribute.name}` is base64")
    if attribute.type == "dateTime" and not _INSTANT.fullmatch(raw):
        raise invalid(f"`{attribute.name}` is a date and time, such as `2026-12-31T18:00:00Z`")
    if not raw.isascii() or not raw.isprintable():
        for character in raw:
            if unicodedata.category(character) in ("Cc", "Cs") and character not in "\n\r\t":
                raise invalid(f"`{attribute.name}` holds a control character")
    return raw


def check_primary(attribute: Attribute, values: list[Any]) -> None:
    """At most one value is the preferred one (RFC 7643 §2.4)."""
    if sum(isinstance(value, dict) and value.get("primary") is True for value in values) > 1:
        raise invalid(f"`{attribute.name}` has more than one primary value")


def _shown(name: object) -> str:
    return repr(str(name)[:64])[1:-1]
