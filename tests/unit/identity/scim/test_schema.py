"""The tables agree with scim2-models, and what comes in is read strictly."""

from typing import Any

import pytest
from scim2_models import EnterpriseUser, Group, Schema, User

from cloister.identity.scim.errors import ScimError
from cloister.identity.scim.names import document_name, key_of, with_suffix
from cloister.identity.scim.project import make_projection, project
from cloister.identity.scim.schema import ENTERPRISE, SCHEMAS, TYPES, USER, describe_schema
from cloister.identity.scim.values import read_resource
from cloister.model.documents import User as UserDocument

NOT_SERVED = {"password", "display"}  # no password comes in; the name of a member would have to follow that of the user


def _by_name(attributes: Any) -> dict[str, Any]:
    return {attribute.name: attribute for attribute in attributes or []}


def _compare(mine: Any, oracle: Any, where: str) -> None:
    for name in set(mine) | set(oracle):
        if name in NOT_SERVED and name not in mine:
            continue
        assert name in oracle, f"{where}.{name} is no attribute of RFC 7643"
        assert name in mine, f"{where}.{name} is missing"
        left, right = mine[name], oracle[name]
        assert left.multi_valued == right.multi_valued, f"{where}.{name}"
        if (where, name) != ("emails", "value"):
            assert left.type == right.type, f"{where}.{name}"
        _compare(_by_name(left.sub_attributes), _by_name(right.sub_attributes), name)


@pytest.mark.parametrize(("model", "urn"), [(User, USER), (EnterpriseUser, ENTERPRISE), (Group, list(SCHEMAS)[1])])
def test_tables_agree_with_the_oracle(model: Any, urn: str) -> None:
    described = Schema.model_validate(describe_schema(SCHEMAS[urn], "https://x"))
    oracle = model.to_schema()
    common = {"id", "externalId", "schemas", "meta"}
    wanted = {name: one for name, one in _by_name(oracle.attributes).items() if name not in common}
    _compare(_by_name(described.attributes), wanted, "")


def test_a_resource_is_read_in_its_canonical_spelling() -> None:
    raw = {
        "SCHEMAS": [USER],
        "username": "ada",
        "ACTIVE": "True",
        "Name": {"GIVENNAME": "Ada", "x": 1},
        "emails": "ada@x.org",
        "id": "mine",
        "meta": {},
        "password": "secret",
        "shoeSize": 42,
        ENTERPRISE.upper(): {"Department": "d", "manager": "m"},
        "title": None,
        "roles": [],
    }
    assert read_resource(TYPES["User"], raw) == {
        "userName": "ada",
        "active": True,
        "name": {"givenName": "Ada"},
        "emails": [{"value": "ada@x.org"}],
        ENTERPRISE: {"department": "d", "manager": {"value": "m"}},
    }


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("ada", "ada"),
        ("Ada@Lab.example", "ada@lab.example"),
        ("Data Science", "data-science-"),
        ("Team (EU)", "team-eu-"),
        ("Équipe", "quipe-"),
        ("研究", "x-"),
        ("-", "x-"),
        ("a" * 256, "a" * 117 + "-"),
    ],
)
def test_document_names_are_canonical_and_fit_documents(title: str, name: str) -> None:
    made = document_name(title)
    assert made == name or (name.endswith("-") and made.startswith(name) and len(made) == len(name) + 10)
    assert UserDocument(name=made).name == made
    assert UserDocument(name=with_suffix(made, "corp-01234567")).name.endswith("+corp-01234567")
    assert document_name(title.upper()) == document_name(title.lower()) == document_name(f" {title} ") == made


def test_names_that_look_alike_stay_apart() -> None:
    names = ["admins", "\u0430dmins", "adm\u0456ns", "admins.", "admin s", "adm-ins", "àdmins"]
    assert len({document_name(name) for name in names}) == len(names)
    assert key_of("\uff41dmins") == "admins"


def test_projection() -> None:
    user = {
        "schemas": [USER],
        "id": "1",
        "userName": "a",
        "title": "t",
        "emails": [{"value": "v", "type": "work"}],
        ENTERPRISE: {"department": "d"},
    }
    kind = TYPES["User"]
    shown = project(kind, user, make_projection(["userName,emails.value", f"{ENTERPRISE}:department"], []))
    assert shown == {"schemas": [USER], "id": "1", "userName": "a", "emails": [{"value": "v"}], ENTERPRISE: {"department": "d"}}
    hidden = project(kind, user, make_projection([], ["id", "TITLE", "emails.type", ENTERPRISE]))
    assert hidden == {"schemas": [USER], "id": "1", "userName": "a", "emails": [{"value": "v"}]}
    assert project(kind, user, make_projection([], ["nothing", "]["])) == user
    with pytest.raises(ScimError):
        make_projection(["a"], ["b"])
