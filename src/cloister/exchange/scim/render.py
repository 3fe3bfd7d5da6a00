"""From what is stored to what a directory reads: whole representations (RFC 7643 §3), with everything that the document says."""

from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from typing import Any

from cloister.exchange.state import State
from cloister.identity.scim.schema import ENTERPRISE, TYPES, Kind
from cloister.model.documents import Group, User
from cloister.store.types import ScimEntry

BASE_PATH = "/scim/v2"


def base_of(state: State) -> str:
    """The address of the service as everybody is told it; never what a request says."""
    return f"https://{state.address}{BASE_PATH}"


def version_of(state: State, entry: ScimEntry) -> str:
    """A weak ETag: the later of the changes of the body and of the document."""
    document = state.documents.get(entry.id)
    return f'W/"{max(entry.generation, 0 if document is None else document.generation)}"'


def render(
    state: State, entry: ScimEntry, body: Mapping[str, Any], *, with_members: bool = True, with_groups: bool = True
) -> dict[str, Any]:
    """The resource; members of a group and groups of a user are left out where nobody asks for them."""
    kind, base = TYPES[entry.kind], base_of(state)
    resource: dict[str, Any] = {"schemas": [kind.schema.urn, *([ENTERPRISE] if ENTERPRISE in body else [])], "id": entry.id, **body}
    document = state.parsed.get(entry.id)
    if isinstance(document, User):
        if "active" in body:
            resource["active"] = not document.disabled
        if with_groups and (groups := _groups_of(state, entry, document, base)):
            resource["groups"] = groups
    elif isinstance(document, Group) and with_members:
        members = [_member(id, kind, base) for id, kind in members_of(state, entry.directory, document)]
        if members:
            resource["members"] = members
    resource["meta"] = _meta(state, entry, base)
    return resource


def members_of(state: State, directory: str, group: Group) -> Iterable[tuple[str, Kind]]:
    """The members that are this directory's; what an administrator added is nobody else's business."""
    names, book = state.library.names, state.directories
    listed: tuple[tuple[str, Kind, tuple[str, ...]], ...] = (("user", "User", group.users), ("group", "Group", group.groups))
    for kind, scim_kind, members in listed:
        for name in members:
            id = names.get((kind, name))
            if id is not None and book.owns(directory, id):
                yield id, scim_kind


def describe_member(state: State, id: str) -> dict[str, Any]:
    entry = state.directories.get(id)
    return {"value": id} if entry is None else _member(id, entry.kind, base_of(state))


def _member(id: str, kind: Kind, base: str) -> dict[str, Any]:
    return {"value": id, "$ref": f"{base}{TYPES[kind].endpoint}/{id}", "type": kind}


def _groups_of(state: State, entry: ScimEntry, user: User, base: str) -> list[dict[str, Any]]:
    book, library, found = state.directories, state.library, []  # one library: a search runs beside changes
    for name in sorted(library.membership.direct("user", user.name)):
        group = book.get(library.names[("group", name)])
        if group is not None and group.directory == entry.directory:
            found.append({"value": group.id, "$ref": f"{base}/Groups/{group.id}", "display": group.title, "type": "direct"})
    return found


def _meta(state: State, entry: ScimEntry, base: str) -> dict[str, Any]:
    document = state.documents.get(entry.id)
    modified = max(entry.modified_at, 0 if document is None else document.changed_at)
    return {
        "resourceType": entry.kind,
        "created": _instant(entry.created_at),
        "lastModified": _instant(modified),
        "location": f"{base}{TYPES[entry.kind].endpoint}/{entry.id}",
        "version": version_of(state, entry),
    }


def _instant(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
