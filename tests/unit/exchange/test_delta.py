"""The short way of a change gives what the long way gives: library, errors, and the principals that it touches."""

import dataclasses
import secrets
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.exchange.delta import Delta, check_delta, group_changes, is_named, touched_principals, update_library
from cloister.exchange.facts import principal_of
from cloister.exchange.state import Library, make_library
from cloister.model.documents import Device, Document, Group, Rule, User, What, Who, Workload, to_fields
from cloister.model.references import check_documents
from cloister.store.types import StoredDocument

NAMES = ["a", "b", "c", "d"]
SOME = st.lists(st.sampled_from(NAMES), unique=True, max_size=3).map(tuple)
USERS = st.builds(
    lambda name, subject, disabled: User(name=name, issuer="i", subject=subject, disabled=disabled),
    st.sampled_from(NAMES), st.sampled_from([None, "s1", "s2", "a"]), st.booleans(),
)  # fmt: skip
GROUPS = st.builds(
    lambda name, users, workloads, groups: Group(name=name, users=users, workloads=workloads, groups=groups),
    st.sampled_from(NAMES), SOME, SOME, SOME,
)  # fmt: skip
OTHERS = st.one_of(
    st.sampled_from(NAMES).map(lambda name: Workload(name=name, issuer="local", subject=name)),
    st.builds(lambda name, disabled: Device(name=name, disabled=disabled), st.sampled_from(NAMES), st.booleans()),
)
LEAVES = st.one_of(USERS, GROUPS, OTHERS)
RULES = st.builds(
    lambda name, users, groups: Rule(name=name, effect="permit", who=Who(users=users, groups=groups, any=True), what=What(any=True)),
    st.sampled_from(NAMES), SOME, SOME,
)  # fmt: skip
KEYS = st.tuples(st.sampled_from(["user", "group", "workload", "device"]), st.sampled_from(NAMES))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("write"), st.lists(LEAVES, min_size=1, max_size=3), st.lists(KEYS, max_size=2)),
        st.tuples(st.just("rename"), KEYS, st.sampled_from(NAMES)),
    ),
    max_size=8,
)


def row_of(document: Document, id: str | None = None) -> StoredDocument:
    return StoredDocument(id or secrets.token_hex(8), document.kind, document.name, to_fields(document), 1, 1)


def made(
    old: Library, written: tuple[StoredDocument, ...], removed: tuple[StoredDocument, ...], documents: dict[str, Document]
) -> Delta:
    return Delta(written, removed, documents, group_changes(old, documents, removed))


def full(old: Library, delta: Delta, generation: int) -> tuple[Library | None, list[Any]]:
    """The long way: the whole set anew."""
    rows = {id: row for id, row in old.documents.items() if id not in {gone.id for gone in delta.removed}}
    rows.update((row.id, row) for row in delta.written)
    documents = [delta.documents.get(id) or old.parsed[id] for id in rows]
    errors = check_documents(documents)
    return (None if errors else make_library(list(rows.values()), generation)), errors


def delta_of(old: Library, step: Any) -> Delta | None:
    if step[0] == "rename":
        _, key, name = step
        id = old.names.get(key)
        if id is None or (key[0], name) in old.names:
            return None
        renamed = old.parsed[id].model_copy(update={"name": name})
        return made(old, (row_of(renamed, id),), (), {id: renamed})
    _, documents, keys = step
    last = {(document.kind, document.name): document for document in documents}
    rows = {key: row_of(document, old.names.get(key)) for key, document in last.items()}
    removed = tuple(old.documents[old.names[key]] for key in dict.fromkeys(keys) if key in old.names and key not in last)
    return made(old, tuple(rows.values()), removed, {rows[key].id: document for key, document in last.items()})


@settings(max_examples=400, deadline=None)
@given(st.lists(LEAVES, max_size=8), st.lists(RULES, max_size=2), STEPS)
def test_the_short_way_gives_what_the_long_way_gives(start: list[Document], rules: list[Rule], steps: list[Any]) -> None:
    first = {(document.kind, document.name): document for document in [*start, *rules]}
    documents = list(first.values())
    while errors := check_documents(documents):
        bad = {error.document for error in errors}
        documents = [document for document in documents if f"{document.kind} {document.name}" not in bad]
    library = make_library([row_of(document) for document in documents], 1)
    for generation, step in enumerate(steps, start=2):
        delta = delta_of(library, step)
        if delta is None:
            continue
        expected, errors = full(library, delta, generation)
        assert bool(check_delta(library, delta)) == bool(errors), (errors, check_delta(library, delta))
        if expected is None:
            continue
        after = update_library(library, delta, generation)
        assert (after.documents, after.parsed, after.names) == (expected.documents, expected.parsed, expected.names)
        assert (after.subjects, after.referers) == (expected.subjects, expected.referers)
        assert after.policy.generation == expected.policy.generation
        everybody = list(library.parsed.keys() | after.parsed.keys())
        for id in everybody:
            assert principal_of(after, id) == principal_of(expected, id)
        for kind, name in after.names:
            assert after.membership.direct(kind, name) == expected.membership.direct(kind, name)
        different = {id for id in everybody if principal_of(library, id) != principal_of(after, id)}
        assert different <= touched_principals(library, after, delta)
        library = after


def test_only_who_is_concerned_is_touched() -> None:
    users = [User(name=name, issuer="i", subject=name) for name in ("ada", "bob", "cid", "dan")]
    inner, outer = Group(name="inner", users=("ada", "bob")), Group(name="outer", users=("cid",), groups=("inner",))
    library = make_library([row_of(document) for document in (*users, inner, outer)], 1)
    ids = {name: library.names["user", name] for name in ("ada", "bob", "cid", "dan")}
    without = inner.model_copy(update={"users": ("ada",)})
    row = dataclasses.replace(library.documents[library.names["group", "inner"]], fields=to_fields(without))
    delta = made(library, (row,), (), {row.id: without})
    assert touched_principals(library, update_library(library, delta, 2), delta) == {ids["bob"]}
    alone = outer.model_copy(update={"groups": ()})
    row = dataclasses.replace(library.documents[library.names["group", "outer"]], fields=to_fields(alone))
    delta = made(library, (row,), (), {row.id: alone})
    assert touched_principals(library, update_library(library, delta, 2), delta) == {ids["ada"], ids["bob"]}


def test_what_rules_name_is_known() -> None:
    rule = Rule(name="r", effect="permit", who=Who(users=("ada",), groups=("staff",)), what=What(any=True))
    documents = [
        User(name="ada"),
        User(name="bob"),
        Group(name="staff", users=("bob",)),
        Group(name="other", groups=("staff",)),
        rule,
    ]
    library = make_library([row_of(document) for document in documents], 1)
    named = {key for key in library.names if key[0] in ("user", "group") and is_named(library, key)}
    assert named == {("user", "ada"), ("group", "staff")}
