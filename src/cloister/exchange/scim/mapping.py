"""From resources to documents."""

from collections.abc import Sequence
from typing import Any

from cloister.identity.scim.errors import invalid
from cloister.identity.scim.members import MAX_MEMBERS
from cloister.identity.scim.values import Body
from cloister.model.documents import Document, Group, User
from cloister.model.fields import MAX_LIST

MAX_DISPLAY = 256
NOBODY = "deleted"  # the issuer of what is left of a deleted user


def user_of(name: str, issuer: str, subject: str, body: Body, known: User | None = None) -> User:
    """Disabled unless the directory says that the person is active. Labels are the administrator's and stay."""
    labels = {} if known is None else known.labels
    active = body.get("active") is True
    return User(name=name, labels=labels, issuer=issuer, subject=subject, display=_display(body), disabled=not active)


def group_of(name: str, users: Sequence[str], groups: Sequence[str], known: Group | None = None) -> Group:
    if len(users) > MAX_MEMBERS or len(groups) > MAX_LIST:
        raise invalid(f"a group has at most `{MAX_MEMBERS}` users and `{MAX_LIST}` groups as members", "tooMany")
    labels = {} if known is None else known.labels
    workloads = () if known is None else known.workloads
    return Group(name=name, labels=labels, users=tuple(users), workloads=workloads, groups=tuple(groups))


def tombstone_of(document: Document, id: str) -> Document:
    """What stays of a document that rules name: the name, and nothing that anybody could have by it."""
    if isinstance(document, User):
        return User(name=document.name, issuer=NOBODY, subject=id, disabled=True)
    return Group(name=document.name)


def _display(body: Body) -> str | None:
    name: Any = body.get("name", {})
    parts = (name.get("givenName"), name.get("familyName"))
    text = (
        body.get("displayName") or name.get("formatted") or " ".join(part for part in parts if part) or body.get("userName") or ""
    )
    line = " ".join("".join(character if character.isprintable() else " " for character in str(text)).split())
    return line[:MAX_DISPLAY].strip() or None
