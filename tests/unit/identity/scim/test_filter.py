"""Filters and paths: a table, bounds, and agreement with scim2-models on what both read."""

import json
import string
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scim2_models import EnterpriseUser, SCIMException, ScimFilter
from scim2_models import User as OracleUser

from cloister.identity.scim.errors import ScimError
from cloister.identity.scim.filter import MAX_CHARS, MAX_DEPTH, MAX_TERMS, AttrPath, PatchPath, parse_filter, parse_path
from cloister.identity.scim.match import check_filter, matches, sort_key
from cloister.identity.scim.schema import ENTERPRISE, TYPES, USER

KIND = TYPES["User"]
ADA: dict[str, Any] = {
    "schemas": [USER, ENTERPRISE],
    "id": "00000000000000aa",
    "userName": "Ada@Lab.example",
    "externalId": "E-1",
    "active": True,
    "name": {"givenName": "Ada", "familyName": "Lovelace"},
    "title": "Countess",
    "emails": [
        {"value": "ada@work.example", "type": "work", "primary": True},
        {"value": "ada@home.example", "type": "home"},
    ],
    "meta": {"resourceType": "User", "created": "2026-01-02T03:04:05Z", "lastModified": "2026-02-03T04:05:06Z"},
    ENTERPRISE: {"department": "Engines", "manager": {"value": "00000000000000bb"}},
}

HOLD = [
    'userName eq "ada@lab.EXAMPLE"',
    'USERNAME Eq "ada@lab.example"',
    f'{USER}:userName sw "ada"',
    'externalId eq "E-1"',
    'name.familyName co "love"',
    'emails[type eq "work" and value ew "@work.example"]',
    'emails[type eq "work"].value eq "ada@work.example"',
    'emails.type eq "home"',
    'emails eq "ada@home.example"',
    "emails[primary eq true]",
    'emails[primary eq "True"]',
    f'{ENTERPRISE}:department eq "engines"',
    f'{ENTERPRISE}:manager.value eq "00000000000000bb"',
    f'{ENTERPRISE}:manager eq "00000000000000bb"',
    'meta.created gt "2026-01-01T00:00:00Z"',
    'meta.created le "2026-01-02T04:04:05+01:00"',
    'meta.lastModified ge "2026-02-03T04:05:06Z" and meta.lastModified lt "2027-01-01T00:00:00.000Z"',
    "title pr and not (nickName pr)",
    "nickName eq null",
    "title ne null",
    'userName eq "x" or title eq "countess" and active eq true',
    '(userName eq "x" or title eq "countess") and active eq true',
    'not (userName eq "x") and not(emails[type eq "other"])',
    'title ne "duchess"',
    'nickName ne "x"',
    'userName gt "abc" and userName lt "b"',
    "active eq True",
    f'schemas eq "{USER}"',
]  # fmt: skip
FAIL = [
    'externalId eq "e-1"',  # this one is exact
    'userName eq "ada"',
    'emails[type eq "work" and value ew "@home.example"]',
    'emails[type eq "work"].value eq "ada@home.example"',
    'emails.type ne "work"',
    "active eq false",
    'nickName co "x"',
    "title eq null",
    'meta.created gt "2026-01-02T03:04:05Z"',
    "not (title pr)",
    "roles pr",
]  # fmt: skip


@pytest.mark.parametrize("text", HOLD)
def test_filters_that_hold(text: str) -> None:
    found = parse_filter(text)
    check_filter(KIND, found)
    assert matches(KIND, found, ADA)


@pytest.mark.parametrize("text", FAIL)
def test_filters_that_do_not_hold(text: str) -> None:
    found = parse_filter(text)
    check_filter(KIND, found)
    assert not matches(KIND, found, ADA)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "userName", "userName eq", 'eq "x"', 'userName eq "x', "userName eq x", "userName eq 'x'", 'userName eq "a" "b"',
        "(userName pr", "userName pr)", "not userName pr", 'emails[type eq "x"', "emails[]", 'emails[type eq "x"] and', "and userName pr",
        'emails[type eq "x"].value', 'userName.x.y eq "1"', 'userName eq "\\x"', 'userName eq "\\ud800"', 'userName eq "\\u0000"',
        "userName eq 01", "userName eq 1e999", "userName eq " + "9" * 30, "userName pr userName pr", "userName  eq", 'urn: eq "x"',
        "not pr", "id pr and NOT pr", "not.a pr",
        "a[b[c eq 1] eq 2]", "a.b[c eq 1]", "usérName pr", "userName pr;", 'userName eq "x"\0', "[userName pr]", 'userName lk "x"',
    ],
)  # fmt: skip
def test_what_is_no_filter_is_refused_with_its_scim_type(text: str) -> None:
    with pytest.raises(ScimError) as refused:
        parse_filter(text)
    assert (refused.value.status, refused.value.scim_type) == (400, "invalidFilter")


@pytest.mark.parametrize(
    "text", ["nothing pr", "name eq 1", "active gt true", 'active eq "perhaps"', 'meta eq "x"', "userName eq 1", 'title.value eq "x"',
             'meta.created gt "soon"', 'emails[nothing eq "x"]', 'emails[value.x eq "x"]', f'{ENTERPRISE}:userName eq "x"', "password pr",
             'urn:x:y:userName eq "x"', "active lt null"]
)  # fmt: skip
def test_a_filter_that_the_schema_cannot_answer_is_refused(text: str) -> None:
    with pytest.raises(ScimError) as refused:
        check_filter(KIND, parse_filter(text))
    assert refused.value.scim_type == "invalidFilter"


def test_bounds_of_length_depth_and_terms() -> None:
    parse_filter("(" * (MAX_DEPTH - 1) + "userName pr" + ")" * (MAX_DEPTH - 1))
    parse_filter(" or ".join(["id pr"] * MAX_TERMS))
    for text in (
        "(" * MAX_DEPTH + "userName pr" + ")" * MAX_DEPTH,
        "not (" * MAX_DEPTH + "userName pr" + ")" * MAX_DEPTH,
        " or ".join(["id pr"] * (MAX_TERMS + 1)),
        "userName eq " + json.dumps("x" * MAX_CHARS),
        "(" * 1_000_000,
    ):
        with pytest.raises(ScimError):
            parse_filter(text)


@pytest.mark.parametrize(
    ("text", "path"),
    [
        ("members", PatchPath(AttrPath("members"))),
        ("name.familyName", PatchPath(AttrPath("name", "familyName"))),
        (f"{USER}:name.familyName", PatchPath(AttrPath("name", "familyName", USER))),
        (f"{ENTERPRISE}:department", PatchPath(AttrPath("department", "", ENTERPRISE))),
        ('members[value eq "x"]', PatchPath(AttrPath("members"), parse_filter('value eq "x"'))),
        ('emails[type eq "work"].value', PatchPath(AttrPath("emails"), parse_filter('type eq "work"'), "value")),
    ],
)
def test_paths(text: str, path: PatchPath) -> None:
    assert parse_path(text) == path


@pytest.mark.parametrize(
    "text", ["", "a b", "members[", "members[]", 'members[value eq "x"].a.b', "a.b[c eq 1]", "[x pr]", "1", "a eq 1"]
)
def test_what_is_no_path_is_refused(text: str) -> None:
    with pytest.raises(ScimError) as refused:
        parse_path(text)
    assert refused.value.scim_type == "invalidPath"


def test_sorting_takes_the_primary_value_and_puts_the_absent_last() -> None:
    resources: list[dict[str, Any]] = [
        {"id": "1", "emails": [{"value": "z"}, {"value": "A", "primary": True}]},
        {"id": "2"},
        {"id": "3", "emails": [{"value": "b"}]},
    ]
    key = sort_key(KIND, AttrPath("emails"))
    assert [one["id"] for one in sorted(resources, key=key)] == ["1", "3", "2"]
    with pytest.raises(ScimError):
        sort_key(KIND, AttrPath("name"))


# ------------------------------------------------------------------ properties

WORDS = st.sampled_from(
    ["userName", "active", "emails", "type", "value", "eq", "ne", "pr", "and", "or", "not", "(", ")", "[", "]", '"x"', "1", "true", "null",
     ".", ":", "urn:a:b:c", "name.givenName", " ", '"', "\\", "é", "\0"]
)  # fmt: skip


@settings(max_examples=500, deadline=None)
@given(st.one_of(st.text(max_size=200), st.lists(WORDS, max_size=40).map(" ".join), st.lists(WORDS, max_size=40).map("".join)))
@example("a" * 5000)
@example("urn:" * 500)
def test_any_text_is_read_or_refused_and_nothing_else(text: str) -> None:
    for parse in (parse_filter, parse_path):
        try:
            found = parse(text)
        except ScimError:
            continue
        if parse is parse_filter:
            try:
                check_filter(KIND, found)  # type: ignore[arg-type]
            except ScimError:
                continue
            assert matches(KIND, found, ADA) in (True, False)  # type: ignore[arg-type]


TEXTS = st.sampled_from(["ada", "Ada@Lab.example", "countess", "work", "home", "ada@work.example", "", "E-1", "e-1", "engines"])
STRING_PATHS = st.sampled_from(
    [
        "userName",
        "externalId",
        "title",
        "nickName",
        "name.familyName",
        "name.givenName",
        "emails.type",
        f"{ENTERPRISE}:department",
    ]
)
COMPARISONS = st.one_of(
    st.tuples(STRING_PATHS, st.sampled_from(["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"]), TEXTS.map(json.dumps)).map(
        " ".join
    ),
    STRING_PATHS.map(lambda path: f"{path} pr"),
    st.sampled_from(
        ["active eq true", "active ne true", "active eq false", "emails pr", "roles pr", "title eq null", "nickName ne null"]
    ),
    st.tuples(st.sampled_from(["type eq", "type co", "type sw", "value co", "value sw", "value ew"]), TEXTS.map(json.dumps)).map(
        lambda parts: f"emails[{' '.join(parts)}]"
    ),
)
FILTERS = st.recursive(
    COMPARISONS,
    lambda inner: st.one_of(
        st.tuples(inner, inner).map(" and ".join),
        st.tuples(inner, inner).map(" or ".join),
        inner.map(lambda one: f"not ({one})"),
        inner.map(lambda one: f"({one})"),
    ),
    max_leaves=6,
)
ORACLE = OracleUser[EnterpriseUser].model_validate(ADA)


@settings(max_examples=300, deadline=None)
@given(FILTERS)
def test_filters_hold_exactly_where_the_oracle_says_so(text: str) -> None:
    found = parse_filter(text)
    check_filter(KIND, found)
    assert matches(KIND, found, ADA) == ScimFilter[OracleUser[EnterpriseUser]](text).match(ORACLE), text


@settings(max_examples=300, deadline=None)
@given(st.lists(WORDS, min_size=1, max_size=12).map(" ".join))
def test_what_we_read_the_oracle_reads_too(text: str) -> None:
    try:
        parse_filter(text)
    except ScimError:
        return
    try:
        ScimFilter(text)
    except SCIMException as error:
        raise AssertionError(f"only we read {text!r}") from error


def test_the_alphabet_of_attribute_names() -> None:
    for character in string.punctuation:
        text = f"a{character}b pr"
        if character in "$_-.":
            parse_filter(text)
        else:
            with pytest.raises(ScimError):
                parse_filter(text)
