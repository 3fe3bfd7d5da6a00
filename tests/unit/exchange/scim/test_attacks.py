"""The catalogue's cases against SCIM, by their numbers."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
from tests.unit.exchange.conftest import World
from tests.unit.exchange.scim.conftest import GROUP, PATCH, USER, Corp, make_corp

from cloister.exchange.scim.directories import Directories
from cloister.model.messages.from_agent import WantSession
from cloister.model.messages.from_exchange import EndSession, Session

ERROR = "urn:ietf:params:scim:api:messages:2.0:Error"


def scim_type(answer: Any) -> tuple[int, str]:
    body = answer.json()
    assert body["schemas"] == [ERROR]
    assert body["status"] == str(answer.status_code)
    return answer.status_code, body.get("scimType", "")


def document(world: World, kind: str, name: str) -> Any:
    row = world.running.state.find(kind, name)
    assert row is not None, f"there is no {kind} {name}"
    return world.running.state.parsed[row.id]


# ------------------------------------------------------------------ 7: same mail, other person


async def test_case_7_same_mail_in_two_directories_is_two_people(world: World) -> None:
    mine, other = await make_corp(world, "corp"), await make_corp(world, "other")
    mail = [{"value": "ceo@corp.example", "type": "work"}]
    first = await mine.user("ceo@corp.example", "1", emails=mail)
    second = await other.user("ceo@corp.example", "1", emails=mail)
    assert first["id"] != second["id"]
    assert document(world, "user", "ceo@corp.example").issuer == mine.issuer
    assert document(world, "user", "ceo@corp.example+other").issuer == other.issuer


async def test_case_7_deleted_and_made_again_is_another_user_who_inherits_nothing(lab: World) -> None:
    corp = await make_corp(lab)
    old = await corp.user("eve")
    await lab.apply(
        "{kind: rule, name: named, effect: permit, who: {users: [eve]}, what: {segments: [jupyter]}}\n---\n"
        "{kind: group, name: science, users: [ada, eve]}"
    )
    await corp.ok("DELETE", f"/Users/{old['id']}")
    new = await corp.user("eve")
    assert new["id"] != old["id"]
    name = lab.running.state.documents[new["id"]].name
    assert name == "eve+corp"
    left = document(lab, "user", "eve")
    assert (left.disabled, left.issuer) == (True, "deleted")
    assert "eve" not in document(lab, "group", "science").users
    assert name not in document(lab, "group", "science").users
    explained = await lab.api.ok("GET", "/explain", params={"user": name, "host": "jupyter.lab.internal", "port": 8888})
    assert not explained["allowed"]
    assert not explained["visible"]


async def test_case_7_a_name_that_a_user_had_is_nobody_elses_even_after_a_rename(world: World) -> None:
    corp = await make_corp(world)
    maria = await corp.user("maria.meier")
    await corp.ok("PATCH", f"/Users/{maria['id']}", _patch({"op": "replace", "path": "userName", "value": "maria.huber"}))
    assert world.running.state.documents[maria["id"]].name == "maria.huber"
    other = await corp.user("maria.meier", "another")
    assert world.running.state.documents[other["id"]].name == "maria.meier+corp"
    await corp.ok("PATCH", f"/Users/{maria['id']}", _patch({"op": "replace", "path": "userName", "value": "maria"}))
    third = await corp.user("maria.huber", "a third")
    assert world.running.state.documents[third["id"]].name == "maria.huber+corp"


async def test_case_7_a_local_user_is_never_taken_over(lab: World) -> None:
    corp = await make_corp(lab)
    made = await corp.user("ada", emails=[{"value": "ada"}])
    local = document(lab, "user", "ada")
    assert (local.issuer, lab.running.state.documents[made["id"]].name) == ("local", "ada+corp")
    assert (await lab.api.ok("GET", "/users/ada"))["has_password"]
    refused = await lab.api.call("POST", "/directories", json={"name": "x", "issuer": "local"})
    assert refused.status_code == 422


@pytest.mark.parametrize("mail", ["a@b@c", "", "@", "a" * 300, "Ådne <x>", "x\n@y"])
async def test_case_7_odd_mail_is_data(corp: Corp, mail: str) -> None:
    made = await corp.user("odd", emails=[{"value": mail, "type": "work"}])
    assert (await corp.ok("GET", f"/Users/{made['id']}"))["emails"] == [{"value": mail, "type": "work"}]


async def test_case_7_a_user_of_the_issuer_that_is_there_already_becomes_the_directorys(world: World) -> None:
    """A sign-in may come before the directory: the same issuer and subject are the same person."""
    await world.apply("{kind: user, name: known, issuer: 'https://corp.example', subject: '42', labels: {desk: '7'}}")
    corp = await make_corp(world)
    id = world.running.state.find("user", "known").id  # type: ignore[union-attr]
    made = await corp.user("someone@corp.example", "42")
    assert made["id"] == id
    assert document(world, "user", "known").labels == {"desk": "7"}
    again = await corp.call("POST", "/Users", {"schemas": [USER], "userName": "other", "externalId": "42"})
    assert scim_type(again) == (409, "uniqueness")


# ------------------------------------------------------------------ 10: oversized and hostile names


@pytest.mark.parametrize(
    "name", ["a\0b", "a\u202eb", "a\u200bb", "a\ufeffb", "\ud800", " ", "", "x" * 257, "line\nline", "a\u00adb", "\u2066x\u2069"]
)
async def test_case_10_names_that_cannot_be_seen_are_refused(corp: Corp, name: str) -> None:
    for path, body in (
        ("/Groups", {"schemas": [GROUP], "displayName": name}),
        ("/Users", {"schemas": [USER], "userName": name, "externalId": "1"}),
        ("/Users", {"schemas": [USER], "userName": "plain", "externalId": name}),
    ):
        answer = await corp.call("POST", path, content=json.dumps(body).encode())
        assert scim_type(answer)[0] == 400, (path, name)
    assert (await corp.ok("GET", "/Groups"))["totalResults"] == (await corp.ok("GET", "/Users"))["totalResults"] == 0


async def test_case_10_look_alike_names_never_become_one(lab: World) -> None:
    corp = await make_corp(lab)
    real = await corp.group("admins")
    fake = await corp.group("\u0430dmins")  # a Cyrillic letter
    wide = await corp.call("POST", "/Groups", {"schemas": [GROUP], "displayName": "\uff41dmins"})  # the same letters, wide
    assert scim_type(wide) == (409, "uniqueness")
    names = {lab.running.state.documents[group["id"]].name for group in (real, fake)}
    assert "admins" in names
    assert len(names) == 2
    for same in ("ADMINS", " admins "):
        again = await corp.call("POST", "/Groups", {"schemas": [GROUP], "displayName": same})
        assert scim_type(again) == (409, "uniqueness")


async def test_case_10_oversized_bodies_lists_and_nesting_are_refused(corp: Corp) -> None:
    deep = "[" * 2000 + "]" * 2000
    assert (await corp.call("POST", "/Users", content=b'{"schemas":' + deep.encode() + b"}")).status_code == 400
    assert (await corp.call("POST", "/Users", content=b'{"userName":"a","userName":"b"}')).status_code == 400
    twice = {"schemas": [USER], "userName": "a", "externalId": "1", "active": True, "Active": "False"}
    assert scim_type(await corp.call("POST", "/Users", twice)) == (400, "invalidSyntax")
    long = {"schemas": [USER], "userName": "a", "externalId": "1", "title": "x" * 1025}
    assert scim_type(await corp.call("POST", "/Users", long)) == (400, "invalidValue")
    many = {"schemas": [USER], "userName": "a", "externalId": "1", "emails": [{"value": str(n)} for n in range(101)]}
    assert scim_type(await corp.call("POST", "/Users", many)) == (400, "tooMany")
    full = {
        "schemas": [USER],
        "userName": "a",
        "externalId": "1",
        "roles": [{"value": "x" * 1024, "display": "y" * 1024} for _ in range(40)],
    }
    assert scim_type(await corp.call("POST", "/Users", full))[0] == 413
    crowd = {"schemas": [GROUP], "displayName": "crowd", "members": [{"value": f"{n:016x}"} for n in range(10_001)]}
    assert scim_type(await corp.call("POST", "/Groups", crowd)) == (400, "tooMany")
    huge = await corp.call("POST", "/Groups", content=b'{"x":"' + b"x" * (5 << 20) + b'"}')
    assert scim_type(huge)[0] == 413
    assert (await corp.ok("GET", "/Users"))["totalResults"] == 0


# ------------------------------------------------------------------ 11: stale groups


async def test_case_11_a_member_taken_away_by_scim_loses_live_sessions(lab: World) -> None:
    corp, member, session, client, _ = await _signed_in(lab)
    group = (await corp.ok("GET", "/Groups"))["Resources"][0]
    answer = await corp.patch(f"/Groups/{group['id']}", {"op": "Remove", "path": f'members[value eq "{member}"]'})
    assert answer.status_code == 204
    end = await client.receive(EndSession)
    assert (end.sessions, end.code) == ([session], "group_changed")
    client.send(WantSession(ref=2, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    from cloister.model.messages.from_exchange import Refused

    assert (await client.receive(Refused)).code == "not_found"


@pytest.mark.parametrize("false", [False, "False", "false", "FALSE", 0, "0"])
async def test_case_11_every_spelling_of_false_ends_live_sessions(lab: World, false: Any) -> None:
    corp, member, session, client, _ = await _signed_in(lab)
    await corp.ok("PATCH", f"/Users/{member}", _patch({"op": "Replace", "path": "active", "value": false}))
    end = await client.receive(EndSession)
    assert (end.sessions, end.code) == ([session], "user_disabled")
    assert (await corp.ok("GET", f"/Users/{member}"))["active"] is False


@pytest.mark.parametrize(
    "nonsense", [None, 1, 1.0, 0.5, "", "no", "off", "n", [], [False], {}, {"value": False}, "\u0046alse ", "falsé", -1, "null"]
)
async def test_case_11_what_is_neither_true_nor_false_changes_nothing(corp: Corp, nonsense: Any) -> None:
    """Refused, so that the provider knows that nobody was disabled; and never read as true."""
    made = await corp.user("ada")
    for operation in (
        {"op": "replace", "path": "active", "value": nonsense},
        {"op": "replace", "value": {"active": nonsense}},
        {"op": "add", "path": f"{USER}:active", "value": nonsense},
    ):
        answer = await corp.patch(f"/Users/{made['id']}", operation)
        assert scim_type(answer) == (400, "invalidValue"), (operation, answer.text)
    body = {"schemas": [USER], "userName": "ada", "externalId": "ext-ada", "active": nonsense}
    assert scim_type(await corp.call("PUT", f"/Users/{made['id']}", body))[0] == 400
    assert (await corp.ok("GET", f"/Users/{made['id']}"))["active"] is True


async def test_case_11_a_put_that_says_nothing_of_active_gives_nobody_access_back(corp: Corp) -> None:
    made = await corp.user("ada", active=False)
    await corp.ok("PUT", f"/Users/{made['id']}", {"schemas": [USER], "userName": "ada", "externalId": "ext-ada"})
    assert (await corp.ok("GET", f"/Users/{made['id']}"))["active"] is False
    other = await corp.user("bob")
    await corp.ok("PATCH", f"/Users/{other['id']}", _patch({"op": "remove", "path": "active"}))
    assert document(corp.world, "user", "bob").disabled


async def test_case_11_whom_an_administrator_disabled_no_silence_of_the_directory_lets_in(world: World) -> None:
    """Neither a PUT nor the POST that makes a person the directory's says yes by saying nothing."""
    await world.apply("{kind: user, name: known, issuer: 'https://corp.example', subject: '42', disabled: true}")
    corp = await make_corp(world)
    assert (await corp.user("known", "42"))["active"] is False
    made = await corp.user("eve")
    await world.api.ok("POST", "/users/eve/disable")
    put = await corp.ok("PUT", f"/Users/{made['id']}", {"schemas": [USER], "userName": "eve", "displayName": "Eve"})
    assert put["active"] is False
    assert document(world, "user", "known").disabled
    assert document(world, "user", "eve").disabled


async def test_case_11_a_deleted_user_is_gone_with_sessions_and_link(lab: World) -> None:
    corp, member, session, client, connector = await _signed_in(lab)
    await corp.ok("DELETE", f"/Users/{member}")
    end = await client.receive(EndSession)
    assert (end.sessions, end.code) == ([session], "user_disabled")
    await client.until(lambda: client.down)
    assert lab.running.state.find("user", "person") is None
    assert (await corp.call("GET", f"/Users/{member}")).status_code == 404
    assert connector.up


async def test_case_11_a_group_that_is_deleted_or_loses_a_group_ends_what_it_allowed(lab: World) -> None:
    corp, member, session, client, _ = await _signed_in(lab, nested=True)
    inner = next(group for group in (await corp.ok("GET", "/Groups"))["Resources"] if group["displayName"] == "inner")
    outer = next(group for group in (await corp.ok("GET", "/Groups"))["Resources"] if group["displayName"] == "staff")
    assert [one["type"] for one in outer["members"]] == ["Group"]
    await corp.ok("DELETE", f"/Groups/{inner['id']}")
    end = await client.receive(EndSession)
    assert (end.sessions, end.code) == ([session], "group_changed")
    await corp.ok("DELETE", f"/Groups/{outer['id']}")  # a rule names it: the empty document stays
    assert document(lab, "group", "staff").groups == ()
    assert (await corp.call("GET", f"/Groups/{outer['id']}")).status_code == 404
    again = await corp.group("staff", member)
    assert again["id"] != outer["id"]
    assert document(lab, "group", "staff").users == ("person",)


async def test_case_13_a_group_that_an_administrator_made_under_a_name_left_behind_is_no_directorys(lab: World) -> None:
    corp = await make_corp(lab)
    eve = await corp.user("eve")
    left = await corp.group("ops")
    await corp.ok("DELETE", f"/Groups/{left['id']}")
    await lab.apply(
        "{kind: group, name: ops, users: [ada]}\n---\n"
        "{kind: rule, name: ops-use-postgres, effect: permit, who: {groups: [ops]}, what: {segments: [postgres]}}"
    )
    made = await corp.group("ops", eve["id"])
    assert document(lab, "group", "ops").users == ("ada",)
    assert lab.running.state.documents[made["id"]].name == "ops+corp"


# ------------------------------------------------------------------ 13, 80: abuse, and what is another directory's


async def test_case_13_injection_into_filters_is_read_as_text(corp: Corp) -> None:
    await corp.user("ada")
    for value in ("x' or '1'='1", 'x" or userName pr or userName eq "x', "%", "*", "ada\\", "'; drop table users; --"):
        found = await corp.ok("GET", "/Users", params={"filter": f"userName eq {json.dumps(value)}"})
        assert found["totalResults"] == 0, value
    raw = 'userName eq "x" or userName pr'
    assert (await corp.ok("GET", "/Users", params={"filter": raw}))["totalResults"] == 1  # that is what a filter is


async def test_case_13_hostile_filters_are_refused(corp: Corp) -> None:
    await corp.user("ada")
    for text in (
        "(" * 5000,
        "(" * 40 + "userName pr" + ")" * 40,
        " or ".join(["userName pr"] * 300),
        "userName eq " + '"' + "x" * 5000 + '"',
        "password pr",
        "id gt 5",
        "active gt true",
        "name eq 1",
        'emails[emails[type eq "x"]]',
        'userName eq "\\ud800"',
        'userName eq "a\\u0000b"',
        'userName regex ".*"',
        'userName eq "x" userName pr',
        "1 eq 1",
        'meta.created gt "yesterday"',
    ):
        answer = await corp.call("GET", "/Users", params={"filter": text})
        assert scim_type(answer) == (400, "invalidFilter"), text


@pytest.mark.parametrize("number", ["--5", "-", "5-", "+5", "\u0663", "1e3", " 1", "9" * 11])
async def test_case_13_what_is_no_number_of_a_page_is_refused(corp: Corp, number: str) -> None:
    for name in ("startIndex", "count"):
        assert (await corp.call("GET", "/Users", params={name: number})).status_code == 400


async def test_case_13_bulk_is_not_supported_and_many_operations_are_refused(corp: Corp) -> None:
    bulk = {"schemas": ["urn:ietf:params:scim:api:messages:2.0:BulkRequest"], "Operations": [{"method": "POST"}] * 1000}
    assert scim_type(await corp.call("POST", "/Bulk", bulk)) == (501, "")
    assert (await corp.ok("GET", "/ServiceProviderConfig"))["bulk"]["supported"] is False
    made = await corp.user("ada")
    many = await corp.patch(f"/Users/{made['id']}", *[{"op": "replace", "path": "title", "value": "x"}] * 1001)
    assert scim_type(many)[0] == 413


async def test_case_13_what_never_changes_never_changes(corp: Corp) -> None:
    made = await corp.user("ada")
    where = f"/Users/{made['id']}"
    for operation in (
        {"op": "replace", "path": "id", "value": "0123456789abcdef"},
        {"op": "replace", "value": {"id": "0123456789abcdef"}},
        {"op": "add", "path": "meta.created", "value": "2000-01-01T00:00:00Z"},
        {"op": "remove", "path": "meta"},
        {"op": "add", "path": "groups", "value": [{"value": "0123456789abcdef"}]},
        {"op": "remove", "path": "userName"},
        {"op": "replace", "path": "externalId", "value": "somebody else"},
        {"op": "remove", "path": "externalId"},
        {"op": "replace", "path": "schemas", "value": []},
    ):
        answer = await corp.patch(where, operation)
        assert scim_type(answer)[0] == 400, (operation, answer.text)
    put = {"schemas": [USER], "userName": "ada", "externalId": "somebody else", "id": "0123456789abcdef"}
    assert scim_type(await corp.call("PUT", where, put)) == (400, "mutability")
    assert await corp.ok("GET", where) == made


async def test_case_13_circular_groups_are_refused(corp: Corp) -> None:
    inner = await corp.group("inner")
    middle = await corp.group("middle", inner["id"])
    outer = await corp.group("outer", middle["id"])
    for id in (inner["id"], middle["id"], outer["id"]):
        answer = await corp.patch(f"/Groups/{inner['id']}", {"op": "add", "path": "members", "value": [{"value": id}]})
        assert scim_type(answer) == (400, "invalidValue")
    assert "members" not in await corp.ok("GET", f"/Groups/{inner['id']}")


async def test_case_80_ids_of_another_directory_are_as_unknown_as_any(lab: World) -> None:
    mine, other = await make_corp(lab, "corp"), await make_corp(lab, "other")
    user, group = await other.user("theirs"), await other.group("theirs")
    local, science = lab.running.state.find("user", "ada"), lab.running.state.find("group", "science")
    assert local is not None
    assert science is not None
    own = await mine.group("mine")
    before = {id: lab.running.state.documents[id] for id in (user["id"], group["id"], local.id, science.id)}
    for kind, ids in (("Users", (user["id"], local.id, group["id"])), ("Groups", (group["id"], science.id, user["id"]))):
        for method, body in (
            ("GET", None),
            ("DELETE", None),
            ("PUT", {"schemas": [USER if kind == "Users" else GROUP], "userName": "x", "displayName": "x", "externalId": "x"}),
            ("PATCH", {"schemas": [PATCH], "Operations": [{"op": "replace", "path": "active", "value": False}]}),
        ):
            answers = {
                (answer.status_code, answer.text)
                for id in ("0123456789abcdef", "nonsense", *ids)
                for answer in [await mine.call(method, f"/{kind}/{id}", body)]
            }
            assert len(answers) == 1, (kind, method)
            assert answers.pop()[0] == 404
    refusals = set()
    for id in ("0123456789abcdef", user["id"], group["id"], local.id, science.id):
        answer = await mine.patch(f"/Groups/{own['id']}", {"op": "add", "path": "members", "value": [{"value": id}]})
        refusals.add((answer.status_code, answer.text))
        for name, found in (("Users", f'id eq "{id}"'), ("Groups", f'members[value eq "{id}"]')):
            assert (await mine.ok("GET", f"/{name}", params={"filter": found}))["totalResults"] == 0
    assert len(refusals) == 1
    assert refusals.pop()[0] == 400
    assert (await mine.ok("POST", "/.search", {"schemas": ["urn:ietf:params:scim:api:messages:2.0:SearchRequest"]}))[
        "totalResults"
    ] == 1
    assert {id: lab.running.state.documents[id] for id in before} == before


async def test_case_80_what_an_administrator_put_into_a_group_is_neither_seen_nor_taken_away(lab: World) -> None:
    corp = await make_corp(lab)
    user = await corp.user("person")
    group = await corp.group("staff", user["id"])
    await lab.api.ok("PUT", "/groups/staff/members/ada")
    assert [member["value"] for member in (await corp.ok("GET", f"/Groups/{group['id']}"))["members"]] == [user["id"]]
    await corp.ok("PUT", f"/Groups/{group['id']}", {"schemas": [GROUP], "displayName": "staff"})
    assert document(lab, "group", "staff").users == ("ada",)


# ------------------------------------------------------------------ 16, 17: tokens


async def test_case_16_guessing_is_capped_per_source_and_never_locks_the_directory_out(corp: Corp) -> None:
    world, limits = corp.world, corp.world.running.settings.limits
    id = (await world.api.ok("GET", "/directories"))[0]["id"]
    wrong = {"authorization": f"Bearer cl-scim-{id}-{'x' * 43}"}
    codes = [(await corp.call("GET", "/Users", headers=wrong)).status_code for _ in range(limits.attempts_per_source + 5)]
    assert codes[: limits.attempts_per_account] == [401] * limits.attempts_per_account
    assert set(codes[limits.attempts_per_account :]) == {429}
    assert (await corp.call("GET", "/Users")).status_code == 429  # this source has guessed too often: its own tokens wait too
    world.clock.offset += 61
    assert (await corp.call("GET", "/Users")).status_code == 200
    audit = (await world.api.ok("GET", "/audit", params={"action": "directory.refused"}))["entries"]
    assert len(audit) == limits.attempts_per_account
    assert {entry["code"] for entry in audit} == {"not_authenticated"}


async def test_case_16_guesses_from_elsewhere_leave_the_directory_at_work(corp: Corp) -> None:
    running = corp.world.running
    directories = Directories(
        running.settings.limits, running.state, running.changes, running.store, running.changes._writer, corp.world.clock
    )
    id = next(iter(running.state.directories.directories))
    for number in range(2000):
        assert isinstance(directories.judge(f"cl-scim-{id}-{'y' * 43}", f"198.51.100.{number}"), str)
    found = directories.judge(corp.token, "203.0.113.1")
    assert not isinstance(found, str)
    assert found.name == "corp"


async def test_case_17_no_token_is_accepted_in_the_place_of_another(lab: World) -> None:
    corp = await make_corp(lab)
    key = await lab.api.ok("POST", "/keys", json={"role": "client", "user": "ada"})
    other = await make_corp(lab, "other")
    secret = other.token.rpartition("-")[2]
    mixed = corp.token[: -len(secret)] + secret
    for token in (lab.api.token, key["key"], "x", corp.token[:-1], corp.token + "a", corp.token.upper(), mixed, " " + corp.token):
        answer = await corp.call("GET", "/Users", headers={"authorization": f"Bearer {token}"})
        assert scim_type(answer)[0] == 401
    for path in ("/me", "/users", "/directories", "/documents", "/openapi.json"):
        answer = await lab.api.http.get(f"/api/v1{path}", headers={"authorization": f"Bearer {corp.token}"})
        assert answer.status_code == 401
    enrolled = await lab.agent("client").enrol_by_key(corp.token)
    assert getattr(enrolled, "code", "") == "key_invalid"


async def test_a_rotated_or_revoked_token_ends_at_once_and_only_its_hash_is_stored(corp: Corp) -> None:
    world = corp.world
    old = corp.token
    await corp.user("ada")
    corp.token = (await world.api.ok("POST", "/directories/corp/rotate"))["token"]
    assert (await corp.call("GET", "/Users", headers={"authorization": f"Bearer {old}"})).status_code == 401
    assert (await corp.ok("GET", "/Users"))["totalResults"] == 1
    await world.api.ok("POST", "/directories/corp/revoke")
    assert (await corp.call("GET", "/Users")).status_code == 401
    assert (await world.api.ok("GET", "/users/ada"))["disabled"] is False
    database = b"".join(path.read_bytes() for path in world.running.settings.data.glob("exchange.db*"))
    for token in (old, corp.token):
        assert token.rpartition("-")[2].encode() not in database
    text = json.dumps((await world.api.ok("GET", "/audit", params={"limit": 1000}))["entries"])
    assert "cl-scim-" not in text
    listed = await world.api.ok("GET", "/directories")
    assert "token" not in listed[0]
    assert (listed[0]["users"], listed[0]["revoked_at"] is not None) == (1, True)


async def test_a_restore_ends_every_directorys_token(corp: Corp, tmp_path: Path) -> None:
    from cloister.exchange.backup import restore_backup, write_backup
    from cloister.store.directories import list_directories
    from cloister.store.service import Store

    write_backup(corp.world.running.settings.data, tmp_path / "backup")
    restore_backup(tmp_path / "backup", tmp_path / "restored", 2_000_000_000)
    with Store.open(tmp_path / "restored" / "exchange.db") as store, store.read() as connection:
        assert [directory.revoked_at for directory in list_directories(connection)] == [2_000_000_000]


async def test_a_request_that_waits_while_its_token_is_revoked_changes_nothing(corp: Corp) -> None:
    world = corp.world
    lock = world.running.changes._lock
    await lock.acquire()
    waiting = asyncio.create_task(corp.call("POST", "/Users", {"schemas": [USER], "userName": "late", "externalId": "1"}))
    revoking = asyncio.create_task(world.api.ok("POST", "/directories/corp/revoke"))
    await asyncio.sleep(0.1)
    lock.release()
    answer, _ = await waiting, await revoking
    # Whoever comes first in the lock is served first; after a revocation nothing is.
    assert answer.status_code in (201, 401)
    assert (await corp.call("POST", "/Users", {"schemas": [USER], "userName": "later", "externalId": "2"})).status_code == 401


# ------------------------------------------------------------------ 90: lost updates


async def test_case_90_the_second_of_two_editors_is_refused(corp: Corp) -> None:
    made = await corp.user("ada")
    where, seen = f"/Users/{made['id']}", made["meta"]["version"]
    first = await corp.patch(where, {"op": "add", "path": "title", "value": "first"}, headers={"if-match": seen})
    assert first.status_code == 200
    assert first.headers["etag"] != seen
    for method, body in (
        ("PATCH", {"schemas": [PATCH], "Operations": [{"op": "add", "path": "title", "value": "second"}]}),
        ("PUT", {"schemas": [USER], "userName": "ada", "externalId": "ext-ada"}),
        ("DELETE", None),
    ):
        assert scim_type(await corp.call(method, where, body, headers={"if-match": seen})) == (412, "")
        assert scim_type(await corp.call(method, where, body, headers={"if-match": 'W/"1", "2"'})) == (412, "")
    assert (await corp.ok("GET", where))["title"] == "first"
    fresh = first.headers["etag"]
    assert (await corp.call("GET", where, headers={"if-none-match": fresh})).status_code == 304
    assert (await corp.call("GET", where, headers={"if-none-match": seen})).status_code == 200
    assert (await corp.call("GET", where, headers={"if-none-match": f'"x", {fresh}'})).status_code == 304
    assert (await corp.call("DELETE", where, headers={"if-match": "*"})).status_code == 204


async def test_case_90_an_administrators_change_is_seen_by_the_etag(lab: World) -> None:
    corp = await make_corp(lab)
    made = await corp.user("person")
    await lab.api.ok("POST", "/users/person/disable")
    answer = await corp.patch(
        f"/Users/{made['id']}", {"op": "add", "path": "title", "value": "x"}, headers={"if-match": made["meta"]["version"]}
    )
    assert answer.status_code == 412
    await corp.ok("PATCH", f"/Users/{made['id']}", _patch({"op": "add", "path": "title", "value": "x"}))
    assert document(lab, "user", "person").disabled  # a change of something else gives nobody access back


async def test_case_90_fifty_editors_at_once_lose_nothing(corp: Corp) -> None:
    users = [await corp.user(f"u{number}") for number in range(10)]
    group = await corp.group("crowd")

    async def add(id: str) -> None:
        answer = await corp.patch(f"/Groups/{group['id']}", {"op": "add", "path": "members", "value": [{"value": id}]})
        assert answer.status_code == 204

    await asyncio.gather(*(add(user["id"]) for user in users for _ in range(5)))
    members = (await corp.ok("GET", f"/Groups/{group['id']}"))["members"]
    assert {member["value"] for member in members} == {user["id"] for user in users}
    assert len(members) == 10


# ------------------------------------------------------------------


def _patch(*operations: dict[str, Any]) -> dict[str, Any]:
    return {"schemas": [PATCH], "Operations": list(operations)}


async def _signed_in(lab: World, *, nested: bool = False) -> tuple[Corp, str, str, Any, Any]:
    """A person of a directory with a live session that a group of the directory allows."""
    corp = await make_corp(lab)
    member = (await corp.user("person"))["id"]
    if nested:
        inner = await corp.group("inner", member)
        await corp.group("staff", inner["id"])
    else:
        await corp.group("staff", member)
    await lab.apply("{kind: rule, name: staff, effect: permit, who: {groups: [staff]}, what: {segments: [jupyter]}}")
    connector = await lab.connector()
    key = await lab.api.ok("POST", "/keys", json={"role": "client", "user": "person"})
    client = lab.agent("client")
    await client.enrol_by_key(key["key"])
    await client.connect()
    client.send(WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    session = await client.receive(Session)
    return corp, member, session.session, client, connector


async def test_a_group_that_an_administrator_writes_keeps_the_members_that_its_directory_named(corp: Corp) -> None:
    ada = await corp.user("ada")
    group = await corp.group("Engineering", ada["id"])
    await corp.world.apply("{kind: user, name: ben}\n---\n{kind: group, name: engineering, users: [ben]}")
    assert {member["value"] for member in (await corp.ok("GET", f"/Groups/{group['id']}"))["members"]} == {ada["id"]}
    await corp.world.apply("{kind: group, name: engineering}")
    membership = corp.world.running.state.membership
    assert (membership.groups_of("user", "ada"), membership.groups_of("user", "ben")) == ({"engineering"}, set())
