"""What a directory's requests do: read in the lock of all changes, turned into documents, written through `Changes`."""

import asyncio
import dataclasses
import json
import secrets
from collections.abc import Callable
from typing import Any, Literal

from cloister.exchange.changes import Changes, Draft
from cloister.exchange.delta import groups_with, groups_without, is_named
from cloister.exchange.errors import Refusal
from cloister.exchange.scim.mapping import group_of, tombstone_of, user_of
from cloister.exchange.scim.render import describe_member, members_of, render, version_of
from cloister.exchange.settings import Limits
from cloister.exchange.state import State
from cloister.identity.scim.errors import ScimError, invalid, not_found
from cloister.identity.scim.members import Members
from cloister.identity.scim.names import check_name, document_name, key_of, with_suffix
from cloister.identity.scim.patch import apply, read_operations
from cloister.identity.scim.schema import TYPES, Kind
from cloister.identity.scim.values import MAX_BODY, Body, check_schemas, read_resource
from cloister.model.documents import Document, Group, User
from cloister.model.reasons import Code
from cloister.store import directories as rows
from cloister.store.service import Change, Store
from cloister.store.types import Actor, Directory, ScimEntry

Conditions = Callable[[str], None]  # raises if the resource of this ETag is not the one that the caller has seen
DOCUMENT_KINDS: dict[Kind, Literal["user", "group"]] = {"User": "user", "Group": "group"}
TITLES: dict[Kind, str] = {"User": "userName", "Group": "displayName"}


class Scim:
    """Every method raises ScimError for what it refuses, and returns the resource and its body as they are then."""

    def __init__(self, limits: Limits, state: State, changes: Changes, store: Store, clock: Callable[[], float]) -> None:
        self._limits = limits
        self._state = state
        self._changes = changes
        self._store = store
        self._clock = clock

    # ------------------------------------------------------------ requests

    def read(self, directory: Directory, kind: Kind, id: str) -> tuple[ScimEntry, Body]:
        entry = self._entry(directory, kind, id)
        return entry, self._body(entry)

    async def create(self, directory: Directory, source: str, kind: Kind, raw: Any) -> tuple[ScimEntry, Body]:
        def draft() -> tuple[Draft, Body]:
            check_schemas(TYPES[kind], raw)
            body, ids = self._read_body(directory, kind, raw)
            if len(self._state.directories.retired) >= self._limits.retired_names:
                raise ScimError(507, f"at most `{self._limits.retired_names}` names can be used up")
            return self._write(directory, kind, None, body, ids)

        return await self._edit(directory, source, f"scim.{DOCUMENT_KINDS[kind]}.create", draft)

    async def replace(
        self, directory: Directory, source: str, kind: Kind, id: str, raw: Any, conditions: Conditions
    ) -> tuple[ScimEntry, Body]:
        def draft() -> tuple[Draft, Body]:
            entry = self._entry(directory, kind, id)
            conditions(version_of(self._state, entry))
            check_schemas(TYPES[kind], raw)
            body, ids = self._read_body(directory, kind, raw)
            if kind == "User":
                known = self._shown(entry)
                # Saying nothing of these gives nobody access back, and makes nobody another person.
                body |= {name: known[name] for name in ("active", "externalId") if name in known and name not in body}
            return self._write(directory, kind, entry, body, ids)

        return await self._edit(directory, source, f"scim.{DOCUMENT_KINDS[kind]}.put", draft)

    async def patch(
        self, directory: Directory, source: str, kind: Kind, id: str, raw: Any, conditions: Conditions
    ) -> tuple[ScimEntry, Body]:
        def draft() -> tuple[Draft, Body]:
            entry = self._entry(directory, kind, id)
            conditions(version_of(self._state, entry))
            members = self._members(directory, entry)
            body = apply(TYPES[kind], self._shown(entry), members, read_operations(raw), id)
            return self._write(directory, kind, entry, body, list(members.ids))

        return await self._edit(directory, source, f"scim.{DOCUMENT_KINDS[kind]}.patch", draft)

    async def delete(self, directory: Directory, source: str, kind: Kind, id: str, conditions: Conditions) -> None:
        """The resource is gone for the directory. A document that rules name stays behind, empty or disabled, and is nobody's."""

        def draft() -> Draft:
            entry = self._entry(directory, kind, id)
            conditions(version_of(self._state, entry))
            row = self._state.documents[id]
            key, named = (row.kind, row.name), is_named(self._state.library, (row.kind, row.name))
            documents: list[Document] = [*groups_without(self._state.library, key)]
            if named:
                documents.append(tombstone_of(self._state.parsed[id], id))
            now = int(self._clock())

            def also(change: Change) -> None:
                rows.delete_resource(change, id)
                rows.retire_names(change, [(row.kind, row.name, directory.id)], now)

            def then(_generation: int) -> None:
                self._state.directories.drop(id)
                self._state.directories.retired[row.kind, row.name] = directory.id

            return Draft(
                documents,
                [] if named else [key],
                also=also,
                then=then,
                target=f"{row.kind} {row.name}",
                detail={"id": id, "title": entry.title},
                cause=Code.USER_DISABLED if kind == "User" else Code.GROUP_CHANGED,
            )

        await self._run(directory, source, f"scim.{DOCUMENT_KINDS[kind]}.delete", draft)

    def show(self, entry: ScimEntry, body: Body, *, with_members: bool = True, with_groups: bool = True) -> dict[str, Any]:
        return render(self._state, entry, body, with_members=with_members, with_groups=with_groups)

    # ------------------------------------------------------------ what is there

    def _entry(self, directory: Directory, kind: Kind, id: str) -> ScimEntry:
        entry = self._state.directories.find(directory.id, kind, id)
        if entry is None or id not in self._state.documents:
            raise not_found()
        return entry

    def _body(self, entry: ScimEntry) -> Body:
        with self._store.read() as connection:
            found = rows.read_bodies(connection, [entry.id])
        if entry.id not in found:
            raise not_found()
        return found[entry.id]

    def _shown(self, entry: ScimEntry) -> Body:
        """The body with `active` as it is in force."""
        body, document = self._body(entry), self._state.parsed[entry.id]
        return body | ({"active": not document.disabled} if isinstance(document, User) and "active" in body else {})

    def _members(self, directory: Directory, entry: ScimEntry | None) -> Members:
        document = None if entry is None else self._state.parsed[entry.id]
        own = members_of(self._state, directory.id, document) if isinstance(document, Group) else ()
        book = self._state.directories
        return Members((id for id, _ in own), lambda id: describe_member(self._state, id), lambda id: book.owns(directory.id, id))

    def _read_body(self, directory: Directory, kind: Kind, raw: Any) -> tuple[Body, list[str]]:
        """Body and members of a POST or PUT."""
        body = read_resource(TYPES[kind], raw, ignore=frozenset({"members"}))
        listed = next((value for name, value in raw.items() if str(name).lower() == "members"), None) if kind == "Group" else None
        return body, list(self._members(directory, None).read(listed))

    # ------------------------------------------------------------ what is written

    def _write(
        self, directory: Directory, kind: Kind, entry: ScimEntry | None, body: Body, members: list[str]
    ) -> tuple[Draft, Body]:
        """The draft that makes or changes a resource to be this, and the body as it will be."""
        title = body.get(TITLES[kind])
        if not isinstance(title, str):
            raise invalid(f"`{TITLES[kind]}` is required")
        key = key_of(check_name(TITLES[kind], title))
        holder = self._state.directories.by_key(directory.id, kind, key)
        if holder is not None and (entry is None or holder != entry.id):
            raise ScimError(409, f"the {TITLES[kind]} is another resource's", "uniqueness")
        if len(json.dumps(body)) > MAX_BODY:
            raise ScimError(413, f"a resource has at most `{MAX_BODY}` bytes")
        made = self._user(directory, entry, body, title) if kind == "User" else self._group(directory, entry, members, title)
        id, document, delete = made
        now = int(self._clock())
        created = now if entry is None else entry.created_at
        fresh = ScimEntry(id, directory.id, kind, key, title, body.get("externalId"), 0, created, now)
        before = self._state.documents.get(id)
        documents: list[Document] = [document]
        if before is not None and before.name != document.name:
            documents += groups_with(self._state.library, (before.kind, before.name), document.name)
        unchanged = (
            entry is not None
            and dataclasses.replace(fresh, generation=entry.generation, modified_at=entry.modified_at) == entry
            and self._body(entry) == body
        )
        draft = Draft(
            documents,
            delete,
            ids={(document.kind, document.name): id},
            also=None if unchanged else lambda change: rows.put_resource(change, fresh, body),
            then=None if unchanged else lambda generation: self._put(fresh, generation),
            target=f"{document.kind} {document.name}",
            detail={"id": id, "title": title},
        )
        return draft, body

    def _put(self, entry: ScimEntry, generation: int) -> None:
        self._state.directories.put(dataclasses.replace(entry, generation=generation))

    def _user(
        self, directory: Directory, entry: ScimEntry | None, body: Body, title: str
    ) -> tuple[str, Document, list[tuple[str, str]]]:
        subject = title if directory.subject == "userName" else body.get("externalId")
        if subject is None:
            raise invalid(f"`{directory.subject}` is required: it is what the issuer of this directory calls the person")
        check_name(directory.subject, subject)
        same = self._state.find_user(directory.issuer, subject)
        known = None if entry is None else self._state.parsed[entry.id]
        if not isinstance(known, User):
            # Saying nothing of it gives nobody access back who is here already.
            body.setdefault("active", same is None or self._state.is_active_principal(same.id))
            if same is not None and self._state.directories.get(same.id) is not None:
                raise ScimError(409, f"the {directory.subject} is another resource's", "uniqueness")
            if same is None:
                id = secrets.token_hex(8)
                return id, user_of(self._free_name("user", title, directory, id), directory.issuer, subject, body), []
            known = self._state.parsed[
                same.id
            ]  # the issuer's own, made by a sign-in or in a file: it is the directory's from now on
            return same.id, user_of(same.name, directory.issuer, subject, body, known if isinstance(known, User) else None), []
        assert entry is not None  # noqa: S101 (known is of the entry)
        if directory.subject == "externalId" and subject != known.subject:
            raise invalid("`externalId` never changes: it says who the person is", "mutability")
        if same is not None and same.id != entry.id:
            raise ScimError(409, f"the {directory.subject} is another resource's", "uniqueness")
        name = self._new_name("user", known.name, entry, title, directory)
        return entry.id, user_of(name, directory.issuer, subject, body, known), []

    def _group(
        self, directory: Directory, entry: ScimEntry | None, members: list[str], title: str
    ) -> tuple[str, Document, list[tuple[str, str]]]:
        known = None if entry is None else self._state.parsed[entry.id]
        documents, book = self._state.documents, self._state.directories
        if entry is None:
            id, delete = secrets.token_hex(8), []
            name = self._free_name("group", title, directory, id)
            if self._state.find("group", name) is not None:
                delete = [("group", name)]  # what this directory left behind under the name
        else:
            id, delete, name = entry.id, [], self._new_name("group", documents[entry.id].name, entry, title, directory)
        users = [documents[member].name for member in members if documents[member].kind == "user"]
        groups = [documents[member].name for member in members if documents[member].kind == "group"]
        names = self._state.library.names
        if isinstance(known, Group):
            # What an administrator added stays: it is not the directory's to take away.
            users = [one for one in known.users if not book.owns(directory.id, names[("user", one)])] + users
            groups = [one for one in known.groups if not book.owns(directory.id, names[("group", one)])] + groups
        return id, group_of(name, users, groups, known if isinstance(known, Group) else None), delete

    def _new_name(self, kind: Literal["user", "group"], name: str, entry: ScimEntry, title: str, directory: Directory) -> str:
        """The name of a document whose resource has another one now. What rules name keeps its name, so that they go on meaning it."""
        if key_of(title) == entry.key or is_named(self._state.library, (kind, name)):
            return name
        return self._free_name(kind, title, directory, entry.id)

    def _free_name(self, kind: Literal["user", "group"], title: str, directory: Directory, id: str) -> str:
        """The plain name if nobody has or had it, else one with the directory's. A directory may take up a group's name that it left behind."""
        plain = document_name(title)
        for name in (plain, with_suffix(plain, directory.name), with_suffix(plain, f"{directory.name}-{id[:8]}")):
            holder, retired = self._state.find(kind, name), self._state.directories.retired.get((kind, name))
            if holder is not None and holder.id == id:
                return name
            left = kind == "group" and retired == directory.id
            if (retired is None or left) and (holder is None or (left and self._state.directories.get(holder.id) is None)):
                return name
        raise ScimError(409, f"the {TITLES['User' if kind == 'user' else 'Group']} cannot be used again", "uniqueness")

    # ------------------------------------------------------------

    async def _edit(
        self, directory: Directory, source: str, action: str, draft: Callable[[], tuple[Draft, Body]]
    ) -> tuple[ScimEntry, Body]:
        written: list[tuple[str, Body]] = []

        def noting() -> Draft:
            made, body = draft()
            written.append((str(made.detail["id"]), body))
            return made

        await self._run(directory, source, action, noting)
        ((id, body),) = written
        entry = self._state.directories.get(id)
        if entry is None:
            raise not_found()
        return entry, body

    async def _run(self, directory: Directory, source: str, action: str, draft: Callable[[], Draft]) -> None:
        def checked() -> Draft:
            if self._state.directories.directories.get(directory.id) != directory:
                raise ScimError(401, "the token is not valid any more")
            return draft()

        try:
            # Shielded, so that a caller who hangs up half-way leaves nothing half done.
            await asyncio.shield(self._changes.edit(Actor(f"directory:{directory.name}", source), action, checked))
        except Refusal as refusal:
            raise _scim_error(refusal) from None


def _scim_error(refusal: Refusal) -> ScimError:
    match refusal.code:
        case Code.NOT_FOUND:
            return not_found()
        case Code.LIMIT_REACHED:
            return ScimError(507, refusal.message)
        case Code.CONFLICT:
            return ScimError(409, "this would leave no administrator, or the resource was changed meanwhile")
        case Code.DOCUMENT_MALFORMED:
            return invalid("the groups would be members of each other in a circle, or two users would be one person")
        case _:
            return invalid("the resource cannot be kept")
