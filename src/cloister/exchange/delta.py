"""What one change of documents touches, and the library after it, without a look at what stays: the cost is that of the change.

Users, groups, workloads and devices are leaves: rules and segments name them, and they are no part of a compiled policy. A change of leaves alone
takes this way; any other compiles the whole set anew (`state.make_library`). Both give the same library and touch the same principals (property test).
"""

import dataclasses
from collections.abc import Callable, Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from typing import Any

from cloister.exchange.layered import Layered
from cloister.exchange.state import Library, policy_at
from cloister.model.documents import Document, Group, User
from cloister.model.facts import NO_GROUPS, Membership
from cloister.model.parse import DocumentError, Key, parse_fields
from cloister.model.references import check_some
from cloister.store.types import StoredDocument

LEAVES = frozenset({"user", "group", "workload", "device"})
PRINCIPALS = ("user", "workload")
MEMBER_FIELDS = (("user", "users"), ("workload", "workloads"), ("group", "groups"))


@dataclass(frozen=True, slots=True)
class GroupChange:
    """A group before and after; None: it was not, or is not any more. `left` and `entered` are members, by kind and name: under the name that the group
    had, and under the one that it has, so that of a group with another name all leave and all enter."""

    before: Group | None
    after: Group | None
    left: Mapping[str, AbstractSet[str]]
    entered: Mapping[str, AbstractSet[str]]


@dataclass(frozen=True, slots=True)
class Delta:
    """Rows that are written, with the documents that they hold, and rows that are removed."""

    written: tuple[StoredDocument, ...] = ()
    removed: tuple[StoredDocument, ...] = ()
    documents: Mapping[str, Document] = dataclasses.field(default_factory=dict)
    groups: tuple[GroupChange, ...] = ()

    @property
    def is_of_leaves(self) -> bool:
        return all(row.kind in LEAVES for row in (*self.written, *self.removed))

    @property
    def kinds(self) -> set[str]:
        return {row.kind for row in (*self.written, *self.removed)}

    def at(self, generation: int) -> "Delta":
        written = tuple(dataclasses.replace(row, generation=generation) for row in self.written)
        return dataclasses.replace(self, written=written)


class _After(Mapping[Key, Document]):
    """The documents by kind and name as they will be."""

    def __init__(self, old: Library, delta: Delta) -> None:
        self._old = old
        self._written = {(row.kind, row.name): delta.documents[row.id] for row in delta.written}
        self._gone = set(keys_that_go(old, delta))

    def __getitem__(self, key: Key) -> Document:
        if key in self._written:
            return self._written[key]
        if key in self._gone:
            raise KeyError(key)
        return self._old.parsed[self._old.names[key]]

    def __contains__(self, key: object) -> bool:
        return key in self._written or (key not in self._gone and key in self._old.names)

    def __iter__(self) -> Iterator[Key]:
        yield from self._written
        yield from (key for key in self._old.names if key not in self._gone and key not in self._written)

    def __len__(self) -> int:
        return sum(1 for _ in self)


def keys_that_go(old: Library, delta: Delta) -> list[Key]:
    """Names that nothing has any more: of documents that are removed or get another name."""
    kept = {(row.kind, row.name) for row in delta.written}
    gone = [(row.kind, row.name) for row in delta.removed]
    gone += [(before.kind, before.name) for row in delta.written if (before := old.documents.get(row.id)) is not None]
    return [key for key in dict.fromkeys(gone) if key not in kept]


def check_delta(old: Library, delta: Delta) -> list[DocumentError]:
    """As `check_documents` of the whole set after the change, for a change of leaves of a set that is without errors."""
    after = _After(old, delta)
    written = {row.id for row in delta.written} | {row.id for row in delta.removed}
    concerned: dict[str, Document] = dict(delta.documents)
    gone = keys_that_go(old, delta)
    whole: set[str] = set()  # groups of which every member is looked at
    if gone:
        concerned.update((id, document) for id, document in old.referers.items() if id not in written)
        for kind, name in gone:
            for group in old.membership.direct(kind, name):
                id = old.names[("group", group)]
                concerned[id] = delta.documents.get(id) or old.parsed[id]
                if id in delta.documents or id not in written:
                    whole.add(concerned[id].name)
    for row in delta.removed:
        concerned.pop(row.id, None)
    entered = {
        change.after.name: change.entered for change in delta.groups if change.after is not None and change.after.name not in whole
    }
    return check_some(list(concerned.values()), after, entered, _subject_holder(old, delta))


def is_named(old: Library, key: Key) -> bool:
    """Whether something other than a group refers to this document by its name."""
    gone = Delta(removed=(old.documents[old.names[key]],))
    return bool(check_some(list(old.referers.values()), _After(old, gone), {}, lambda _user: None))


def _subject_holder(old: Library, delta: Delta) -> Callable[[User], str | None]:
    """Who else has the issuer and subject of this user."""
    changed = {row.id for row in (*delta.written, *delta.removed)}
    mine: dict[tuple[str, str], list[str]] = {}
    for document in delta.documents.values():
        if isinstance(document, User):
            mine.setdefault(document.key, []).append(document.name)

    def holder(user: User) -> str | None:
        other = old.subjects.get(user.key)
        if other is not None and other not in changed:
            return old.documents[other].name
        return next((name for name in mine.get(user.key, ()) if name != user.name), None)

    return holder


def groups_without(old: Library, key: Key) -> list[Group]:
    """The groups that list this member, each without it."""
    kind, name = key
    found = []
    for title in old.membership.direct(kind, name):
        group = old.parsed[old.names[("group", title)]]
        if isinstance(group, Group):
            field = f"{kind}s"
            found.append(group.model_copy(update={field: tuple(one for one in getattr(group, field) if one != name)}))
    return found


def groups_with(old: Library, key: Key, new: str) -> list[Group]:
    """The groups that list this member, each with its new name."""
    kind, name = key
    found = []
    for title in old.membership.direct(kind, name):
        group = old.parsed[old.names[("group", title)]]
        if isinstance(group, Group):
            field = f"{kind}s"
            found.append(group.model_copy(update={field: tuple(new if one == name else one for one in getattr(group, field))}))
    return found


def members_of(group: Group) -> Iterator[Key]:
    return ((kind, name) for kind, field in MEMBER_FIELDS for name in getattr(group, field))


def update_library(old: Library, delta: Delta, generation: int) -> Library:
    """The library after a change of leaves."""
    documents, parsed = Layered(old.documents), Layered(old.parsed)
    names, subjects = Layered(old.names), Layered(old.subjects)
    for row in (*delta.removed, *(old.documents[row.id] for row in delta.written if row.id in old.documents)):
        before = parsed[row.id]
        names.drop((row.kind, row.name))
        if isinstance(before, User) and subjects.get(before.key) == row.id:
            subjects.drop(before.key)
    for row in delta.removed:
        documents.drop(row.id)
        parsed.drop(row.id)
    for row in delta.written:
        document = delta.documents[row.id]
        documents.put(row.id, row)
        parsed.put(row.id, document)
        names.put((row.kind, row.name), row.id)
        if isinstance(document, User):
            subjects.put(document.key, row.id)
    return Library(
        documents=documents,
        parsed=parsed,
        names=names,
        membership=_membership(old.membership, delta.groups) if delta.groups else old.membership,
        policy=policy_at(old.policy, generation),
        subjects=subjects,
        referers=old.referers,
        profiles=old.profiles,
        networks=old.networks,
    )


def _membership(old: Membership, changes: Iterable[GroupChange]) -> Membership:
    lists = Layered(old.lists)
    # First all that leave, then all that enter: two groups may have changed their names.
    for change in changes:
        for kind, names in change.left.items() if change.before is not None else ():
            for name in names:
                _list(
                    lists,
                    (kind, name),
                    lists.get((kind, name), NO_GROUPS) - {change.before.name if change.before is not None else ""},
                )
    for change in changes:
        for kind, names in change.entered.items() if change.after is not None else ():
            for name in names:
                _list(
                    lists,
                    (kind, name),
                    lists.get((kind, name), NO_GROUPS) | {change.after.name if change.after is not None else ""},
                )
    return Membership.of(lists)


def _list(lists: "Layered[Key, frozenset[str]]", key: Key, groups: frozenset[str]) -> None:
    if groups:
        lists.put(key, groups)
    else:
        lists.drop(key)


def parse_again(document: Document, fields: Mapping[str, Any]) -> Document:
    """The document as it will be read from the store: what was put together by `model_copy` is checked here. Long lists of members take the short way."""
    if isinstance(document, Group):
        values = {name: getattr(document, name) for name in type(document).model_fields}
        return Group.model_validate(values)
    return parse_fields(fields)


def group_changes(old: Library, written: Mapping[str, Document], removed: Iterable[StoredDocument]) -> tuple[GroupChange, ...]:
    """Of documents by id and of removed rows, the groups."""
    pairs: list[tuple[Document | None, Group | None]] = [
        (old.parsed.get(id), document) for id, document in written.items() if isinstance(document, Group)
    ]
    pairs += [(old.parsed[row.id], None) for row in removed if row.kind == "group"]
    return tuple(_group_change(before if isinstance(before, Group) else None, after) for before, after in pairs)


def _group_change(before: Group | None, after: Group | None) -> GroupChange:
    stays = before is not None and after is not None and before.name == after.name
    left, entered = {}, {}
    for kind, field in MEMBER_FIELDS:
        was = set(() if before is None else getattr(before, field))
        now = set(() if after is None else getattr(after, field))
        left[kind], entered[kind] = (was - now, now - was) if stays else (was, now)
    return GroupChange(before, after, left, entered)


def touched_principals(old: Library, new: Library, delta: Delta) -> set[str]:
    """The users and workloads that may be different after the change: themselves, or in the groups that they are in."""
    found = {row.id for row in (*delta.written, *delta.removed) if row.kind in PRINCIPALS}
    members = {
        (kind, name) for change in delta.groups for part in (change.left, change.entered) for kind in part for name in part[kind]
    }
    for library in (old, new):
        for key in _inside(library, members):
            id = library.names.get(key)
            if id is not None:
                found.add(id)
    return found


def _inside(library: Library, members: Iterable[Key]) -> set[Key]:
    """The users and workloads among these, and those in the groups among these, however deep."""
    found: set[Key] = set()
    waiting, seen = list(members), set(members)
    while waiting:
        key = waiting.pop()
        if key[0] != "group":
            found.add(key)
            continue
        group = library.parsed.get(library.names.get(key, ""))
        inner = [] if not isinstance(group, Group) else [one for one in members_of(group) if one not in seen]
        seen.update(inner)
        waiting.extend(inner)
    return found
