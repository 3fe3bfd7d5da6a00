"""What providers really send, in their order, and what each expects to come of it.

From the public documentation of Microsoft Entra ID, Okta, OneLogin, JumpCloud and of SCIM clients for Keycloak: the quirks are theirs.
"""

from typing import Any

import pytest
from tests.unit.exchange.scim.conftest import ENTERPRISE, GROUP, USER, Corp

ENTRA_GROUP = "http://schemas.microsoft.com/2006/11/ResourceManagement/ADSCIM/2.0/Group"


async def found(corp: Corp, path: str, wanted: str, **more: Any) -> list[str]:
    answer = await corp.ok("GET", path, params={"filter": wanted, **more})
    return [one["id"] for one in answer["Resources"]]


async def disabled(corp: Corp, name: str) -> bool:
    answer = await corp.world.api.ok("GET", f"/users/{name}")
    return bool(answer["disabled"])


async def members(corp: Corp, name: str) -> list[str]:
    answer = await corp.world.api.ok("GET", f"/groups/{name}")
    return sorted(answer["document"].get("users", ()))


# ------------------------------------------------------------------ Microsoft Entra ID


async def entra_user(corp: Corp) -> str:
    body = {
        "schemas": [USER, ENTERPRISE],
        "externalId": "0a21f0f2",
        "userName": "Ada@Contoso.com",
        "active": True,
        "addresses": None,
        "displayName": "Ada",
        "emails": [{"primary": True, "type": "work", "value": "ada@contoso.com"}],
        "meta": {"resourceType": "User"},
        "name": {"formatted": "Ada L", "familyName": "L", "givenName": "Ada"},
        "roles": [],
        ENTERPRISE: {"department": "Maths", "manager": None},
    }
    assert await found(corp, "/Users", 'userName eq "ada@contoso.com"') == []
    made = await corp.ok("POST", "/Users", body, headers={"content-type": "application/scim+json; charset=utf-8"})
    assert await found(corp, "/Users", 'USERNAME Eq "ada@CONTOSO.com"') == [made["id"]]
    assert await found(corp, "/Users", 'externalId eq "0a21f0f2"', startIndex=1, count=100) == [made["id"]]
    assert await found(corp, "/Users", 'emails[type eq "work"].value eq "ada@contoso.com"') == [made["id"]]
    return str(made["id"])


@pytest.mark.parametrize(
    "operation",
    [
        {"op": "Replace", "path": "active", "value": "False"},
        {"op": "Replace", "path": "active", "value": [{"$ref": None, "value": "False"}]},
        {"op": "Replace", "path": "active", "value": [{"value": False}]},
        {"op": "Add", "path": "Active", "value": False},
        {"op": "replace", "value": {"active": "False"}},
        {"op": "Replace", "value": {"Active": False}},
    ],
)
async def test_entra_deactivates_in_all_its_ways(corp: Corp, operation: dict[str, Any]) -> None:
    ada = await entra_user(corp)
    assert (await corp.patch(f"/Users/{ada}", operation)).status_code == 200
    assert await disabled(corp, "ada@contoso.com")


@pytest.mark.parametrize(
    "value", [[{"$ref": None}], [], [{"value": None}], [{"value": "False"}, {"value": "False"}], [False], "no"]
)
async def test_what_says_neither_active_nor_inactive_changes_nothing(corp: Corp, value: Any) -> None:
    ada = await entra_user(corp)
    assert (await corp.patch(f"/Users/{ada}", {"op": "Replace", "path": "active", "value": value})).status_code == 400
    assert not await disabled(corp, "ada@contoso.com")


async def test_entra_changes_attributes_by_paths_and_by_keys_that_are_paths(corp: Corp) -> None:
    ada = await entra_user(corp)
    by_path = [
        {"op": "Replace", "path": 'emails[type eq "work"].value', "value": "a@contoso.com"},
        {"op": "Replace", "path": "name.familyName", "value": "Lovelace"},
        {"op": "Add", "path": 'addresses[type eq "work"].country', "value": "GB"},
        {"op": "Add", "path": 'phoneNumbers[type eq "mobile"].value', "value": "+44 1"},
        {"op": "Add", "path": 'roles[primary eq "True"].value', "value": "admin"},
        {"op": "Replace", "path": "displayName", "value": [{"$ref": None, "value": "Ada Lovelace"}]},
        {"op": "Remove", "path": f"{ENTERPRISE}:department"},
    ]
    seen = (await corp.patch(f"/Users/{ada}", *by_path)).json()
    assert seen["emails"] == [{"primary": True, "type": "work", "value": "a@contoso.com"}]
    assert seen["name"] == {"formatted": "Ada L", "familyName": "Lovelace", "givenName": "Ada"}
    assert seen["addresses"] == [{"type": "work", "country": "GB"}]
    assert seen["phoneNumbers"] == [{"type": "mobile", "value": "+44 1"}]
    assert seen["roles"] == [{"primary": True, "value": "admin"}]
    assert seen["displayName"] == "Ada Lovelace"
    assert ENTERPRISE not in seen
    by_key = {
        "displayName": "Countess",
        "name.givenName": "Augusta",
        f"{ENTERPRISE}:department": "Engines",
        'addresses[type eq "work"].country': "FR",
        'emails[type eq "work"].value': "c@contoso.com",
        "userName": "countess@contoso.com",
    }
    seen = (await corp.patch(f"/Users/{ada}", {"op": "replace", "value": by_key})).json()
    assert (seen["displayName"], seen["name"]["givenName"], seen["userName"]) == ("Countess", "Augusta", "countess@contoso.com")
    assert (seen["addresses"][0]["country"], seen["emails"][0]["value"]) == ("FR", "c@contoso.com")
    assert seen[ENTERPRISE] == {"department": "Engines"}


@pytest.mark.parametrize("path", ["manager", f"{ENTERPRISE}:manager"])
async def test_entra_sets_asks_for_and_removes_a_manager(corp: Corp, path: str) -> None:
    ada, boss = await entra_user(corp), (await corp.user("boss"))["id"]
    for value in (boss, {"value": boss}, [{"$ref": f"http://contoso/scim/Users/{boss}", "value": boss}]):
        seen = await corp.patch(f"/Users/{ada}", {"op": "Add", "path": path, "value": value})
        assert seen.json()[ENTERPRISE]["manager"]["value"] == boss
        assert await found(corp, "/Users", f'id eq "{ada}" and {path} eq "{boss}"', attributes="id") == [ada]
        seen = await corp.patch(f"/Users/{ada}", {"op": "Remove", "path": path})
        assert "manager" not in seen.json()[ENTERPRISE]
        assert await found(corp, "/Users", f'id eq "{ada}" and {path} eq "{boss}"') == []


async def test_a_name_of_an_extension_is_none_of_a_whole_resource(corp: Corp) -> None:
    """In a POST or PUT the extension is an object of its own."""
    made = await corp.user("ada", manager="x", department="y")
    assert not {"manager", "department", ENTERPRISE} & made.keys()


async def test_entra_keeps_a_group(corp: Corp) -> None:
    ada, bob = await entra_user(corp), (await corp.user("bob"))["id"]
    assert await found(corp, "/Groups", 'displayName eq "Team A"', excludedAttributes="members") == []
    body = {"schemas": [GROUP, ENTRA_GROUP], "externalId": "8aa1", "displayName": "team", "meta": {"resourceType": "Group"}}
    team = (await corp.ok("POST", "/Groups", body))["id"]
    add = {"op": "Add", "path": "members", "value": [{"$ref": None, "value": ada}, {"$ref": None, "value": bob}]}
    assert (await corp.patch(f"/Groups/{team}", add)).status_code == 204
    assert await members(corp, "team") == ["ada@contoso.com", "bob"]
    assert "members" not in await corp.ok("GET", f"/Groups/{team}", params={"excludedAttributes": "members"})
    for asked in (f'members eq "{ada}"', f'members[value eq "{ada}"]'):
        assert await found(corp, "/Groups", f'id eq "{team}" and {asked}', excludedAttributes="members") == [team]
    remove = {"op": "Remove", "path": "members", "value": [{"$ref": None, "value": ada}]}
    assert (await corp.patch(f"/Groups/{team}", remove)).status_code == 204
    assert await members(corp, "team") == ["bob"]
    assert (await corp.patch(f"/Groups/{team}", {"op": "Remove", "path": f'members[value eq "{bob}"]'})).status_code == 204
    assert await members(corp, "team") == []
    assert (await corp.patch(f"/Groups/{team}", {"op": "Replace", "path": "displayName", "value": "crew"})).status_code == 204
    assert await members(corp, "crew") == []
    assert (await corp.call("DELETE", f"/Groups/{team}")).status_code == 204


# ------------------------------------------------------------------ Okta


async def okta_user(corp: Corp) -> dict[str, Any]:
    body = {
        "schemas": [USER],
        "userName": "bob@okta.local",
        "name": {"givenName": "Bob", "familyName": "O"},
        "emails": [{"primary": True, "value": "bob@okta.local", "type": "work"}],
        "displayName": "Bob",
        "locale": "en-US",
        "externalId": "00ujl29u0le5T6Aj10h7",
        "groups": [],
        "password": "1mz050nq",
        "active": True,
    }
    assert await found(corp, "/Users", 'userName eq "bob@okta.local"', startIndex=1, count=100) == []
    made: dict[str, Any] = await corp.ok("POST", "/Users", body)
    return made


async def test_okta_puts_the_whole_user_with_what_only_the_server_writes(corp: Corp) -> None:
    bob = await okta_user(corp)
    whole = await corp.ok("GET", f"/Users/{bob['id']}")
    whole |= {"groups": [{"value": "g1", "display": "x"}], "password": "another", "displayName": "Bobby"}
    seen = await corp.ok("PUT", f"/Users/{bob['id']}", whole)
    assert (seen["displayName"], seen["id"]) == ("Bobby", bob["id"])
    assert not {"groups", "password"} & seen.keys()
    assert (await corp.patch(f"/Users/{bob['id']}", {"op": "replace", "value": {"active": False}})).status_code == 200
    assert await disabled(corp, "bob@okta.local")
    assert (await corp.call("PUT", f"/Users/{bob['id']}", whole | {"active": True})).status_code == 200
    assert not await disabled(corp, "bob@okta.local")


async def test_okta_renames_and_puts_a_group(corp: Corp) -> None:
    bob, ada = (await okta_user(corp))["id"], (await corp.user("ada"))["id"]
    team = await corp.group("team", bob)
    rename = {"op": "replace", "value": {"id": team["id"], "displayName": "crew"}}
    assert (await corp.patch(f"/Groups/{team['id']}", rename)).status_code == 204
    assert await members(corp, "crew") == ["bob@okta.local"]
    remove = {"op": "remove", "path": f'members[value eq "{bob}"]'}
    add = {"op": "add", "path": "members", "value": [{"value": ada, "display": "ada"}]}
    assert (await corp.patch(f"/Groups/{team['id']}", remove, add)).status_code == 204
    assert await members(corp, "crew") == ["ada"]
    whole = await corp.ok("GET", f"/Groups/{team['id']}")
    await corp.ok("PUT", f"/Groups/{team['id']}", whole | {"members": [{"value": bob, "display": "bob@okta.local"}]})
    assert await members(corp, "crew") == ["bob@okta.local"]
    assert (await corp.patch(f"/Groups/{team['id']}", {"op": "replace", "path": "members", "value": []})).status_code == 204
    assert await members(corp, "crew") == []


# ------------------------------------------------------------------ OneLogin, JumpCloud, Keycloak


async def test_a_put_that_does_not_say_who_the_person_is_is_about_the_same_person(corp: Corp) -> None:
    """OneLogin and JumpCloud put what their mapping has, which need not name `externalId` again."""
    made = await corp.user("ada", "00u1")
    seen = await corp.ok("PUT", f"/Users/{made['id']}", {"schemas": [USER], "id": made["id"], "userName": "ada", "active": "false"})
    assert seen["externalId"] == "00u1"
    assert await disabled(corp, "ada")
    other = {"schemas": [USER], "userName": "ada", "externalId": "00u2"}
    assert (await corp.call("PUT", f"/Users/{made['id']}", other)).status_code == 400


async def test_groups_are_emptied_and_filled_in_every_spelling(corp: Corp) -> None:
    ada = (await corp.user("ada"))["id"]
    team = (await corp.group("team"))["id"]
    fill: list[dict[str, Any]] = [
        {"op": "add", "path": "members", "value": [{"value": ada}]},
        {"op": "add", "path": "members", "value": {"value": ada}},
        {"op": "add", "value": {"members": [{"value": ada, "display": "ada"}]}},
        {"op": "replace", "path": "members", "value": [{"value": ada, "$ref": f"https://x/scim/v2/Users/{ada}", "type": "User"}]},
    ]
    empty: list[dict[str, Any]] = [
        {"op": "remove", "path": "members"},
        {"op": "replace", "path": "members", "value": []},
        {"op": "replace", "value": {"members": []}},
        {"op": "remove", "path": f'members[value eq "{ada}"]'},
    ]
    for add, remove in zip(fill, empty, strict=True):
        assert (await corp.patch(f"/Groups/{team}", add)).status_code == 204
        assert await members(corp, "team") == ["ada"], add
        assert (await corp.patch(f"/Groups/{team}", remove)).status_code == 204
        assert await members(corp, "team") == [], remove


async def test_a_client_pages_through_everything(corp: Corp) -> None:
    ids = [(await corp.user(f"user-{number}"))["id"] for number in range(5)]
    seen: list[str] = []
    while True:
        page = await corp.ok("GET", "/Users", params={"startIndex": len(seen) + 1, "count": 2, "sortBy": "userName"})
        seen += [one["id"] for one in page["Resources"]]
        assert page["itemsPerPage"] == len(page["Resources"])
        if len(seen) >= page["totalResults"]:
            break
    assert seen == ids
