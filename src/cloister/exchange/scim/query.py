"""Looking resources up (RFC 7644 §3.4.2): by index where the filter allows it, else one by one, in a thread and one search at a time."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.exchange.scim.render import render
from cloister.exchange.state import State
from cloister.identity.scim.errors import ScimError, invalid
from cloister.identity.scim.filter import All, AttrPath, Comparison, Filter, Selection, parse_filter, parse_path
from cloister.identity.scim.match import check_filter, matches, sort_key
from cloister.identity.scim.names import key_of
from cloister.identity.scim.project import EVERYTHING, Projection, make_projection, project
from cloister.identity.scim.schema import TYPES, Kind
from cloister.store import directories as rows
from cloister.store.service import Store
from cloister.store.types import Directory

LIST_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:ListResponse"
SEARCH_SCHEMA = "urn:ietf:params:scim:api:messages:2.0:SearchRequest"
DEFAULT_COUNT = 100
MAX_WAITING = 32  # searches that may wait for their turn


@dataclass(frozen=True, slots=True)
class Query:
    """What a list is asked for. `start` counts from 1."""

    filter: Filter | None = None
    sort_by: AttrPath | None = None
    descending: bool = False
    start: int = 1
    count: int = DEFAULT_COUNT
    projection: Projection = EVERYTHING


def make_query(
    wanted: str | None,
    sort_by: str | None,
    sort_order: str | None,
    start: int | None,
    count: int | None,
    attributes: Sequence[str],
    excluded: Sequence[str],
    page: int,
) -> Query:
    """Out-of-range numbers mean the nearest in range (RFC 7644 §3.4.2.4)."""
    if sort_order not in (None, "", "ascending", "descending"):
        raise invalid("`sortOrder` is ascending or descending")
    return Query(
        parse_filter(wanted) if wanted else None,
        parse_path(sort_by).path if sort_by else None,
        sort_order == "descending",
        max(1, start or 1),
        DEFAULT_COUNT if count is None else min(max(0, count), page),
        make_projection(attributes, excluded),
    )


def read_search(raw: Any, page: int) -> Query:
    """The body of a `.search` (RFC 7644 §3.4.3)."""
    fields = {str(name).lower(): value for name, value in raw.items()} if isinstance(raw, Mapping) else {}
    schemas = fields.get("schemas")
    if not isinstance(schemas, list) or SEARCH_SCHEMA not in schemas:
        raise invalid(f"`schemas` does not name `{SEARCH_SCHEMA}`", "invalidSyntax")
    texts = {name: fields.get(name) for name in ("filter", "sortby", "sortorder")}
    numbers = {name: fields.get(name) for name in ("startindex", "count")}
    lists = {name: fields.get(name) or [] for name in ("attributes", "excludedattributes")}
    if any(value is not None and not isinstance(value, str) for value in texts.values()):
        raise invalid("`filter`, `sortBy` and `sortOrder` are texts", "invalidSyntax")
    if any(value is not None and (isinstance(value, bool) or not isinstance(value, int)) for value in numbers.values()):
        raise invalid("`startIndex` and `count` are whole numbers", "invalidSyntax")
    if any(not isinstance(value, list) or any(not isinstance(one, str) for one in value) for value in lists.values()):
        raise invalid("`attributes` and `excludedAttributes` are lists of texts", "invalidSyntax")
    return make_query(
        texts["filter"], texts["sortby"], texts["sortorder"], numbers["startindex"], numbers["count"], lists["attributes"],
        lists["excludedattributes"], page,
    )  # fmt: skip


class Searches:
    def __init__(self, state: State, store: Store) -> None:
        self._state = state
        self._store = store
        self._turn = asyncio.Semaphore(1)
        self._waiting = 0

    async def page(self, directory: Directory, kinds: Sequence[Kind], query: Query) -> dict[str, Any]:
        """One page of the resources of this directory that fulfil the filter."""
        if query.filter is not None:
            _check(kinds, query.filter)
        if self._waiting >= MAX_WAITING:
            raise ScimError(429, "too many searches at once: try again later")
        self._waiting += 1
        try:
            async with self._turn:
                return await asyncio.to_thread(self._page, directory, kinds, query)
        finally:
            self._waiting -= 1

    def _page(self, directory: Directory, kinds: Sequence[Kind], query: Query) -> dict[str, Any]:
        if query.filter is None and query.sort_by is None:
            found = [id for kind in kinds for id in self._state.directories.ids(directory.id, kind)]
        else:
            found = self._search(directory, kinds, query)
        chosen = found[query.start - 1 : query.start - 1 + query.count]
        answer: dict[str, Any] = {
            "schemas": [LIST_SCHEMA],
            "totalResults": len(found),
            "startIndex": query.start,
            "itemsPerPage": len(chosen),
        }
        with self._store.read() as connection:
            bodies = rows.read_bodies(connection, chosen)
        resources = [shown for id in chosen if (shown := self._show(id, bodies.get(id), query.projection)) is not None]
        return answer | {"Resources": resources}

    def _show(self, id: str, body: dict[str, Any] | None, projection: Projection) -> dict[str, Any] | None:
        entry = self._state.directories.get(id)
        if entry is None or body is None:
            return None
        kind = TYPES[entry.kind]
        resource = render(
            self._state,
            entry,
            body,
            with_members=projection.wants(kind, "members"),
            with_groups=projection.wants(kind, "groups"),
        )
        return project(kind, resource, projection)

    def _search(self, directory: Directory, kinds: Sequence[Kind], query: Query) -> list[str]:
        found: list[tuple[Any, str]] = []
        for kind in kinds:
            names = attributes_in(query.filter) | ({query.sort_by.name.lower()} if query.sort_by is not None else set())
            key = (lambda _resource: (False, "")) if query.sort_by is None else sort_key(TYPES[kind], query.sort_by)
            for id, body in self._bodies(directory, kind, query.filter):
                entry = self._state.directories.find(directory.id, kind, id)
                if entry is None:
                    continue
                resource = render(self._state, entry, body, with_members="members" in names, with_groups="groups" in names)
                if query.filter is None or matches(TYPES[kind], query.filter, resource):
                    found.append((key(resource), id))
        if query.sort_by is not None:
            with_value = sorted((one for one in found if not one[0][0]), key=lambda one: one[0][1], reverse=query.descending)
            without = [one for one in found if one[0][0]]
            found = [*without, *with_value] if query.descending else [*with_value, *without]
        return [id for _, id in found]

    def _bodies(self, directory: Directory, kind: Kind, wanted: Filter | None) -> list[tuple[str, dict[str, Any]]]:
        ids = None if wanted is None else self._narrowed(directory.id, kind, wanted)
        with self._store.read() as connection:
            if ids is None:
                return list(rows.scan_bodies(connection, directory.id, kind))
            return list(rows.read_bodies(connection, ids).items())

    def _narrowed(self, directory: str, kind: Kind, wanted: Filter) -> list[str] | None:
        """The ids among which all that fulfil the filter are; None if an index cannot tell."""
        match wanted:
            case All(terms):
                return next((ids for term in terms if (ids := self._narrowed(directory, kind, term)) is not None), None)
            case Comparison(path, "eq", str(value)) if not path.urn or path.urn.lower() == TYPES[kind].schema.urn.lower():
                return self._by_index(directory, kind, f"{path.name}.{path.part}".lower().rstrip("."), value)
            case Selection(AttrPath("members", "", ""), Comparison(AttrPath("value", "", ""), "eq", str(value))):
                return self._by_index(directory, kind, "members.value", value)
            case _:
                return None

    def _by_index(self, directory: str, kind: Kind, name: str, value: str) -> list[str] | None:
        book = self._state.directories
        match name, kind:
            case "id", _:
                return [value] if book.find(directory, kind, value) is not None else []
            case ("username", "User") | ("displayname", "Group"):
                id = book.by_key(directory, kind, key_of(value))
                return [] if id is None else [id]
            case "externalid", _:
                return book.by_external(directory, kind, value)
            case (("members" | "members.value"), "Group"):
                library = self._state.library
                member = library.documents.get(value) if book.owns(directory, value) else None
                groups = library.membership.direct(member.kind, member.name) if member is not None else ()
                return [library.names[("group", group)] for group in groups]
            case _:
                return None


def _check(kinds: Sequence[Kind], wanted: Filter) -> None:
    """An attribute is wrong if no kind has it (RFC 7644 §3.4.2.1)."""
    errors: list[ScimError] = []
    for kind in kinds:
        try:
            check_filter(TYPES[kind], wanted)
        except ScimError as error:
            errors.append(error)
    if len(errors) == len(kinds):
        raise errors[0]


def attributes_in(wanted: Filter | None) -> set[str]:
    """The names, in lower case, that a filter speaks of."""
    found: set[str] = set()
    waiting: list[Any] = [wanted]
    while waiting:
        one = waiting.pop()
        if (path := getattr(one, "path", None)) is not None:
            found.add(path.name.lower())
        waiting.extend(getattr(one, "terms", ()))
        if (inner := getattr(one, "inner", None)) is not None and not isinstance(one, Selection):
            waiting.append(inner)
    return found
