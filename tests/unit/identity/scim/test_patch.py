"""PATCH: what each operation does, in every form that providers send, and agreement with scim2-models."""

import copy
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scim2_models import Context, EnterpriseUser, PatchOp
from scim2_models import User as OracleUser

from cloister.identity.scim.errors import ScimError
from cloister.identity.scim.members import Members
from cloister.identity.scim.patch import MESSAGE, apply, read_operations
from cloister.identity.scim.schema import ENTERPRISE, GROUP, TYPES, USER

BODY: dict[str, Any] = {
    "userName": "ada",
    "active": True,
    "name": {"givenName": "Ada", "familyName": "Lovelace"},
    "emails": [{"value": "w@x.org", "type": "work", "primary": True}, {"value": "h@x.org", "type": "home"}],
    ENTERPRISE: {"department": "Engines"},
}


def patch(
    *operations: dict[str, Any], body: dict[str, Any] = BODY, kind: Any = "User", members: Members | None = None
) -> dict[str, Any]:
    before = copy.deepcopy(body)
    found = read_operations({"schemas": [MESSAGE], "Operations": list(operations)})
    after = apply(TYPES[kind], body, members or Members((), lambda id: {"value": id}, lambda _id: True), found, "the-id")
    assert body == before, "the resource that was handed in has changed"
    return after


def changed(**fields: Any) -> dict[str, Any]:
    after = copy.deepcopy(BODY) | fields
    return {name: value for name, value in after.items() if value is not None}


WORK, HOME = BODY["emails"]
CASES: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "replace": ([{"op": "replace", "path": "active", "value": False}], changed(active=False)),
    "Entra deactivates": ([{"op": "Replace", "path": "active", "value": "False"}], changed(active=False)),
    "Entra deactivates without a path": ([{"op": "Replace", "value": {"active": "False"}}], changed(active=False)),
    "Okta deactivates": ([{"op": "replace", "value": {"active": False}}], changed(active=False)),
    "Okta sends the id too": ([{"op": "replace", "value": {"id": "the-id", "title": "x"}}], changed(title="x")),
    "a URN before the path": ([{"op": "add", "path": f"{USER}:title", "value": "x"}], changed(title="x")),
    "any case": ([{"op": "ADD", "path": "TITLE", "value": "x"}], changed(title="x")),
    "a part": ([{"op": "replace", "path": "name.familyName", "value": "King"}], changed(name={"givenName": "Ada", "familyName": "King"})),
    "a part as a key": (
        [{"op": "Add", "value": {"name.familyName": "King", "title": "x"}}],
        changed(name={"givenName": "Ada", "familyName": "King"}, title="x"),
    ),
    "an extension's attribute": ([{"op": "Add", "path": f"{ENTERPRISE}:department", "value": "x"}], changed(**{ENTERPRISE: {"department": "x"}})),
    "an extension's attribute as a key": (
        [{"op": "Add", "value": {f"{ENTERPRISE}:department": "x"}}],
        changed(**{ENTERPRISE: {"department": "x"}}),
    ),
    "an extension as a key": (
        [{"op": "replace", "value": {ENTERPRISE: {"costCenter": "7"}}}],
        changed(**{ENTERPRISE: {"department": "Engines", "costCenter": "7"}}),
    ),
    "an extension as a path": ([{"op": "remove", "path": ENTERPRISE}], changed(**{ENTERPRISE: None})),
    "the last attribute of an extension": ([{"op": "remove", "path": f"{ENTERPRISE}:department"}], changed(**{ENTERPRISE: None})),
    "the manager as text": (
        [{"op": "Add", "path": f"{ENTERPRISE}:manager", "value": "abc"}],
        changed(**{ENTERPRISE: {"department": "Engines", "manager": {"value": "abc"}}}),
    ),
    "parts that are not named stay": (
        [{"op": "replace", "path": "name", "value": {"givenName": "Augusta"}}],
        changed(name={"givenName": "Augusta", "familyName": "Lovelace"}),
    ),
    "null unassigns": ([{"op": "replace", "path": "name.givenName", "value": None}], changed(name={"familyName": "Lovelace"})),
    "remove": ([{"op": "remove", "path": "name"}], changed(name=None)),
    "remove what is not there": ([{"op": "remove", "path": "title"}], changed()),
    "add a value": (
        [{"op": "add", "path": "emails", "value": [{"value": "o@x.org", "type": "other"}]}],
        changed(emails=[WORK, HOME, {"value": "o@x.org", "type": "other"}]),
    ),
    "add a value that is there": ([{"op": "add", "path": "emails", "value": [HOME]}], changed()),
    "add a lone value": (
        [{"op": "add", "path": "emails", "value": {"value": "o@x.org"}}],
        changed(emails=[WORK, HOME, {"value": "o@x.org"}]),
    ),
    "a new primary value takes that from the old": (
        [{"op": "add", "path": "emails", "value": [{"value": "o@x.org", "primary": True}]}],
        changed(emails=[WORK | {"primary": False}, HOME, {"value": "o@x.org", "primary": True}]),
    ),
    "a selected value": (
        [{"op": "replace", "path": 'emails[type eq "work"].value', "value": "n@x.org"}],
        changed(emails=[WORK | {"value": "n@x.org"}, HOME]),
    ),
    "a selected value as a key": (
        [{"op": "Replace", "value": {'emails[type eq "work"].value': "n@x.org"}}],
        changed(emails=[WORK | {"value": "n@x.org"}, HOME]),
    ),
    "a selected value as a whole": (
        [{"op": "replace", "path": 'emails[type eq "home"]', "value": {"value": "n@x.org", "display": "d"}}],
        changed(emails=[WORK, {"value": "n@x.org", "type": "home", "display": "d"}]),
    ),
    "a selected value made primary": (
        [{"op": "replace", "path": 'emails[type eq "home"].primary', "value": "True"}],
        changed(emails=[WORK | {"primary": False}, HOME | {"primary": True}]),
    ),
    "a selected value that is not there is made": (
        [{"op": "Add", "path": 'phoneNumbers[type eq "mobile"].value', "value": "1"}],
        changed(phoneNumbers=[{"type": "mobile", "value": "1"}]),
    ),
    "a selected value goes": ([{"op": "remove", "path": 'emails[value ew "@x.org" and not (primary eq true)]'}], changed(emails=[WORK])),
    "a part of a selected value goes": (
        [{"op": "remove", "path": 'emails[type eq "work"].primary'}],
        changed(emails=[{"value": "w@x.org", "type": "work"}, HOME]),
    ),
    "a part of every value": (
        [{"op": "replace", "path": "emails.display", "value": "d"}],
        changed(emails=[WORK | {"display": "d"}, HOME | {"display": "d"}]),
    ),
    "the last values go with the attribute": ([{"op": "remove", "path": "emails[value pr]"}], changed(emails=None)),
    "Entra removes values": ([{"op": "Remove", "path": "emails", "value": [{"value": "w@x.org"}]}], changed(emails=[HOME])),
    "replace all": ([{"op": "replace", "path": "emails", "value": [HOME]}], changed(emails=[HOME])),
    "one after the other": (
        [{"op": "remove", "path": "emails"}, {"op": "add", "path": "emails", "value": [HOME]}, {"op": "add", "path": "title", "value": "x"}],
        changed(emails=[HOME], title="x"),
    ),
    "what is not known is left out of a value": ([{"op": "add", "value": {"title": "x", "shoeSize": 42, "urn:x:y": {"z": 1}}}], changed(title="x")),
    "a password is dropped": ([{"op": "replace", "value": {"password": "secret"}}], changed()),
    "what may not be written is left out of a value": ([{"op": "replace", "value": {"groups": [], "meta": {}, "title": "x"}}], changed(title="x")),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_operations(case: str) -> None:
    operations, after = CASES[case]
    assert patch(*operations) == after


@pytest.mark.parametrize(
    ("operation", "scim_type"),
    [
        ({"op": "replace", "path": "nothing", "value": 1}, "invalidPath"),
        ({"op": "replace", "path": "password", "value": "x"}, "invalidPath"),
        ({"op": "replace", "path": "name.nothing", "value": 1}, "invalidPath"),
        ({"op": "replace", "path": 'name[givenName eq "x"]', "value": 1}, "invalidPath"),
        ({"op": "replace", "path": 'emails[nothing eq "x"].value', "value": 1}, "invalidPath"),
        ({"op": "replace", "path": 'emails[type eq "x"', "value": 1}, "invalidPath"),
        ({"op": "replace", "path": 7, "value": 1}, "invalidPath"),
        ({"op": "remove"}, "noTarget"),
        ({"op": "replace", "path": 'emails[type co "x"].value', "value": "v"}, "noTarget"),
        ({"op": "replace", "path": 'emails[type eq "x" or type eq "y"].value', "value": "v"}, "noTarget"),
        ({"op": "add", "path": "title"}, "invalidValue"),
        ({"op": "add", "value": 3}, "invalidValue"),
        ({"op": "add"}, "invalidValue"),
        ({"op": "replace", "path": "active", "value": "no"}, "invalidValue"),
        ({"op": "replace", "path": "title", "value": 3}, "invalidValue"),
        ({"op": "replace", "path": "title", "value": ["x"]}, "invalidValue"),
        ({"op": "replace", "path": "name", "value": "x"}, "invalidValue"),
        ({"op": "add", "path": "emails", "value": [WORK | {"value": "1"}, WORK | {"value": "2"}]}, "invalidValue"),
        ({"op": "replace", "path": ENTERPRISE, "value": "x"}, "invalidValue"),
        ({"op": "replace", "path": "id", "value": "x"}, "mutability"),
        ({"op": "replace", "value": {"id": "x"}}, "mutability"),
        ({"op": "remove", "path": "userName"}, "mutability"),
        ({"op": "replace", "path": "userName", "value": None}, "mutability"),
        ({"op": "add", "path": "groups", "value": []}, "mutability"),
        ({"op": "replace", "path": f"{ENTERPRISE}:manager.displayName", "value": "x"}, "mutability"),
        ({"op": "move", "path": "title"}, "invalidSyntax"),
        ({"path": "title"}, "invalidSyntax"),
        ({"op": "replace", "value": {"title": "x", "TITLE": "y"}}, "invalidSyntax"),
    ],
)
def test_what_is_refused(operation: dict[str, Any], scim_type: str) -> None:
    with pytest.raises(ScimError) as refused:
        patch(operation)
    assert (refused.value.status, refused.value.scim_type) == (400, scim_type)


@pytest.mark.parametrize("raw", [None, [], {}, {"schemas": [MESSAGE]}, {"schemas": [MESSAGE], "Operations": []},
                                 {"schemas": [MESSAGE], "Operations": [3]}, {"Operations": [{"op": "add", "value": {}}]}])  # fmt: skip
def test_what_is_no_patch_is_refused(raw: Any) -> None:
    with pytest.raises(ScimError):
        read_operations(raw)


# ------------------------------------------------------------------ members


def group(*ids: str) -> Members:
    known = {"a", "b", "c", "d"}
    return Members(ids, lambda id: {"value": id, "type": "Group" if id == "d" else "User"}, lambda id: id in known)


@pytest.mark.parametrize(
    ("operations", "after"),
    [
        ([{"op": "add", "path": "members", "value": [{"value": "c"}]}], "abc"),
        ([{"op": "Add", "path": "members", "value": [{"$ref": None, "value": "c"}]}], "abc"),
        ([{"op": "add", "path": "members", "value": {"value": "c"}}], "abc"),
        ([{"op": "add", "value": {"members": [{"value": "c"}, {"value": "d"}]}}], "abcd"),
        ([{"op": "add", "path": "members", "value": [{"value": "a"}]}], "ab"),
        ([{"op": "remove", "path": 'members[value eq "a"]'}], "b"),
        ([{"op": "remove", "path": 'MEMBERS[VALUE EQ "a"]'}], "b"),
        ([{"op": "remove", "path": f'{GROUP}:members[value eq "a"]'}], "b"),
        ([{"op": "Remove", "path": "members", "value": [{"value": "a"}]}], "b"),
        ([{"op": "remove", "path": 'members[value eq "a" or value eq "b"]'}], ""),
        ([{"op": "remove", "path": 'members[type eq "Group"]'}], "ab"),
        ([{"op": "remove", "path": 'members[value eq "nobody"]'}], "ab"),
        ([{"op": "remove", "path": "members", "value": [{"value": "nobody"}]}], "ab"),
        ([{"op": "remove", "path": "members", "value": []}], "ab"),
        ([{"op": "remove", "path": "members"}], ""),
        ([{"op": "replace", "path": "members", "value": [{"value": "d"}]}], "d"),
        ([{"op": "replace", "path": "members", "value": []}], ""),
        ([{"op": "replace", "value": {"id": "the-id", "displayName": "x", "members": [{"value": "d"}]}}], "d"),
        ([{"op": "remove", "path": 'members[value eq "a"]'}, {"op": "add", "path": "members", "value": [{"value": "a"}]}], "ba"),
    ],
)  # fmt: skip
def test_members(operations: list[dict[str, Any]], after: str) -> None:
    members = group("a", "b")
    patch(*operations, body={"displayName": "g"}, kind="Group", members=members)
    assert "".join(members.ids) == after


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "add", "path": "members", "value": [{"value": "nobody"}]},
        {"op": "add", "path": "members", "value": [{"display": "a"}]},
        {"op": "add", "path": "members", "value": [7]},
        {"op": "add", "path": "members.value", "value": "a"},
        {"op": "replace", "path": 'members[value eq "a"].value', "value": "b"},
        {"op": "replace", "path": 'members[value eq "a"]', "value": {"value": "c"}},
        {"op": "replace", "path": 'members[value eq "nobody"]', "value": {"value": "c"}},
        {"op": "remove", "path": "displayName"},
    ],
)
def test_members_that_cannot_be(operation: dict[str, Any]) -> None:
    members = group("a", "b")
    with pytest.raises(ScimError):
        patch(operation, body={"displayName": "g"}, kind="Group", members=members)
    assert list(members.ids) == ["a", "b"]


# ------------------------------------------------------------------ the oracle

VALUES = st.sampled_from(["a@x.org", "w@x.org", "h@x.org"])
KINDS = st.sampled_from(["work", "home", "other"])
EMAIL = st.fixed_dictionaries({"value": VALUES, "type": KINDS})
OPERATIONS = st.one_of(
    st.builds(lambda op, value: {"op": op, "path": "title", "value": value}, st.sampled_from(["add", "replace"]), VALUES),
    st.builds(lambda op, value: {"op": op, "path": "name.givenName", "value": value}, st.sampled_from(["add", "replace"]), VALUES),
    st.builds(
        lambda op, value: {"op": op, "path": "name", "value": {"middleName": value}}, st.sampled_from(["add", "replace"]), VALUES
    ),
    st.builds(
        lambda op, value: {"op": op, "path": f"{ENTERPRISE}:department", "value": value},
        st.sampled_from(["add", "replace"]),
        VALUES,
    ),
    st.builds(lambda op, value: {"op": op, "value": {"nickName": value}}, st.sampled_from(["add", "replace"]), VALUES),
    st.builds(lambda value: {"op": "add", "path": "emails", "value": [value]}, EMAIL),
    st.builds(lambda values: {"op": "replace", "path": "emails", "value": values}, st.lists(EMAIL, min_size=1, max_size=3)),
    st.builds(lambda kind: {"op": "remove", "path": f'emails[type eq "{kind}"]'}, KINDS),
    st.builds(
        lambda path: {"op": "remove", "path": path},
        st.sampled_from(["title", "name.givenName", "emails", f"{ENTERPRISE}:department"]),
    ),
)
Oracle = OracleUser[EnterpriseUser]


def _plain(user: Any) -> dict[str, Any]:
    fields = user.model_dump(scim_ctx=Context.RESOURCE_QUERY_RESPONSE)
    return {name: value for name, value in fields.items() if name not in ("schemas", "id", "meta")}


@settings(max_examples=200, deadline=None)
@given(st.lists(OPERATIONS, min_size=1, max_size=4))
def test_patches_do_what_the_oracle_does(operations: list[dict[str, Any]]) -> None:
    user = Oracle.model_validate({"schemas": [USER, ENTERPRISE], **BODY})
    message = {"schemas": [MESSAGE], "Operations": operations}
    PatchOp[Oracle].model_validate(message, scim_ctx=Context.RESOURCE_PATCH_REQUEST).patch(user)
    assert patch(*operations) == _plain(user)


@settings(max_examples=300, deadline=None)
@given(
    st.lists(
        st.fixed_dictionaries(
            {"op": st.sampled_from(["add", "replace", "remove", "x", 3])},
            optional={
                "path": st.one_of(st.none(), st.text(max_size=20), st.sampled_from(["active", "emails", "members", "name.x", "emails.value"])),
                "value": st.recursive(
                    st.one_of(st.none(), st.booleans(), st.integers(), st.text(max_size=5)),
                    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.sampled_from(["active", "value", "x"]), inner, max_size=3)),
                    max_leaves=5,
                ),
            },
        ),
        max_size=4,
    )
)  # fmt: skip
def test_any_patch_is_applied_or_refused_and_nothing_else(operations: list[dict[str, Any]]) -> None:
    try:
        after = patch(*operations)
    except ScimError:
        return
    assert after["userName"] == "ada"
    assert after.get("active") in (True, False, None)
