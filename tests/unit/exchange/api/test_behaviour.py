"""Laws of the API's answers: bounds, errors with positions, optimistic locking, secrets, sources."""

import asyncio
import json
import ssl
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.exchange.conftest import BUNDLE, World, end_world, furnish, start_world

from cloister import _core
from cloister.exchange.api.limits import SMALL_BODY_BYTES
from cloister.exchange.settings import Limits, Settings
from cloister.model.messages.from_agent import WantSession
from cloister.model.messages.from_exchange import Session
from cloister.store import documents, sessions
from cloister.telemetry.journal import SCAN_BYTES
from cloister.trust.passwords import hash_secret
from cloister.trust.types import TicketClaims

WANT = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")
Stack = list[Callable[[], Awaitable[object]]]


@pytest.fixture
async def small(tmp_path: Path) -> AsyncIterator[World]:
    """An exchange with small bounds."""
    limits = Limits(
        body_bytes=2000, requests_per_minute=30, documents=12, provisioning_keys=2, kill_switches=1, api_tokens_per_user=2
    )
    stack: Stack = []
    opened = await furnish(
        await start_world(Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0, limits=limits), stack)
    )
    yield opened
    await end_world(opened, stack)


def _problem(answer: httpx.Response) -> dict[str, Any]:
    body: dict[str, Any] = answer.json()
    assert set(body) == {"code", "message", "remedy", "errors"}
    return body


# ------------------------------------------------------------------ documents


async def test_apply_is_all_or_nothing_and_names_every_error_with_its_place(lab: World) -> None:
    bundle = """
kind: segment
name: fresh
hosts: [fresh.lab.internal]
ports: [1]
groups: [lab]
---
kind: segment
name: broken
hosts: [broken.lab.internal]
ports: [70000]
groups: [lab]
---
kind: rule
name: Nobody
effect: permit
who: {users: [ada]}
what: {segments: [jupyter]}
"""
    answer = await lab.api.call("POST", "/documents", content=bundle)
    problem = _problem(answer)
    assert (answer.status_code, problem["code"]) == (422, "document_malformed")
    assert [(error["line"], error["document"]) for error in problem["errors"]] == [(11, "segment broken"), (15, "rule Nobody")]
    assert (await lab.api.call("GET", "/segments/fresh")).status_code == 404


async def test_tie_and_unknown_reference_are_refused_with_their_codes(lab: World) -> None:
    tie = "{kind: segment, name: twin, hosts: [jupyter.lab.internal], ports: [8888], groups: [lab]}"
    assert _problem(await lab.api.call("POST", "/documents", content=tie))["code"] == "document_tie"
    unknown = "{kind: rule, name: r, effect: permit, who: {users: [nobody]}, what: {any: true}}"
    assert _problem(await lab.api.call("POST", "/documents", content=unknown))["code"] == "reference_unknown"


async def test_what_is_used_is_deleted_only_when_nothing_names_it(lab: World) -> None:
    await lab.api.ok(
        "POST", "/documents", content="{kind: rule, name: second, effect: permit, who: {users: [ada]}, what: {segments: [jupyter]}}"
    )
    answer = await lab.api.call("DELETE", "/connector-groups/lab")
    assert answer.status_code == 409
    assert _problem(answer)["message"] == "the connector-group `lab` is used by segment jupyter, segment postgres"
    problem = _problem(await lab.api.call("DELETE", "/segments/jupyter"))
    assert problem["message"].startswith("the segment `jupyter` is used by ")
    assert "rule second" in problem["message"]
    assert problem["remedy"] == "take it out there first"


async def test_dry_run_changes_nothing(lab: World) -> None:
    before = await lab.api.ok("GET", "/documents")
    answer = await lab.api.ok("POST", "/documents", params={"dry_run": "true"}, content="{kind: device, name: laptop}")
    assert (answer["created"], answer["dry_run"]) == (["device laptop"], True)
    assert await lab.api.ok("GET", "/documents") == before


async def test_what_is_exported_applies_as_no_change(lab: World) -> None:
    exported = await lab.api.ok("GET", "/documents")
    answer = await lab.api.ok("POST", "/documents", content=exported)
    assert (answer["created"], answer["changed"], answer["deleted"]) == ([], [], [])


async def test_case_90_second_of_two_editors_is_refused(lab: World) -> None:
    seen = (await lab.api.call("GET", "/segments/jupyter")).headers["etag"]
    body = {"hosts": ["jupyter.lab.internal"], "groups": ["lab"]}
    first = await lab.api.call("PUT", "/segments/jupyter", json=body | {"ports": [1]}, headers={"if-match": seen})
    assert first.status_code == 200
    second = await lab.api.call("PUT", "/segments/jupyter", json=body | {"ports": [2]}, headers={"if-match": seen})
    assert (second.status_code, _problem(second)["code"]) == (409, "conflict")
    assert first.headers["etag"] != seen
    created = await lab.api.call("PUT", "/segments/other", json=body | {"ports": [3]}, headers={"if-match": '"0"'})
    again = await lab.api.call("PUT", "/segments/other", json=body | {"ports": [3]}, headers={"if-match": '"0"'})
    assert (created.status_code, again.status_code) == (200, 409)


async def test_document_of_another_name_or_kind_is_refused(lab: World) -> None:
    body = {"kind": "segment", "name": "other", "hosts": ["x.lab.internal"], "ports": [1], "groups": ["lab"]}
    assert _problem(await lab.api.call("PUT", "/segments/jupyter", json=body))["code"] == "argument_invalid"
    assert _problem(await lab.api.call("PUT", "/rules/other", json=body))["code"] == "argument_invalid"


POISONED = [
    b"",
    b"[",
    b"{}",
    b"\xff\xfe",
    b"a: &a [*a, *a]",
    b"!!python/object:os.system x",
    b"{" * 5000,
    b"kind: segment\nkind: rule",
]


async def test_case_83_poisoned_bundle_is_refused_and_nothing_changes(lab: World) -> None:
    before = await lab.api.ok("GET", "/documents")
    for content in POISONED:
        answer = await lab.api.call("POST", "/documents", content=content)
        assert answer.status_code in (200, 413, 422)
        assert await lab.api.ok("GET", "/documents") == before


async def test_case_33_strangers_bodies_are_small_wherever_they_are_read_before_the_guard(lab: World) -> None:
    big = b'{"user": "ada", "password": "' + b"x" * SMALL_BODY_BYTES + b'"}'

    async def parts() -> AsyncIterator[bytes]:
        yield big

    for path in ("sign-in", "sign-in/provider", "keys", "identity-providers/acme/secret", "devices/laptop/facts/mdm"):
        answer = await lab.api.http.post(f"/api/v1/{path}", content=big, headers={"content-type": "application/json"})
        assert (answer.status_code, _problem(answer)["code"]) == (413, "too_large"), path
    chunked = await lab.api.http.post("/api/v1/sign-in", content=parts(), headers={"content-type": "application/json"})
    assert chunked.status_code in (400, 413)  # nothing of it is kept
    # negative control: a bundle may be as large as the setting says
    bundle = "".join(f"# {'x' * 1000}\n" for _ in range(600)) + "{kind: device, name: laptop}"
    assert len(bundle) > SMALL_BODY_BYTES
    await lab.api.ok("POST", "/documents", content=bundle)
    await lab.api.ok("PUT", "/devices/laptop", content=bundle)


async def _raw(lab: World, *parts: bytes) -> bytes:
    """What the exchange says until it ends the connection, to a browser that never does: it sends each part but the first after an answer."""
    context = ssl.create_default_context(cadata=lab.running.state.keyring.roots_pem())
    host, _, port = lab.running.address.rpartition(":")
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context)
    answer = b""
    for part in parts[:-1]:
        writer.write(part)
        answer += await reader.readuntil(b"}")
    writer.write(parts[-1])
    answer += await asyncio.wait_for(reader.read(), 10)
    writer.transport.abort()
    return answer


async def test_case_33_a_request_that_never_becomes_whole_is_ended(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.exchange.api.server.WHOLE_DEADLINE", 0.3)
    head = b"POST /api/v1/sign-in HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 40\r\n\r\n"
    whole = b"GET /api/v1/me HTTP/1.1\r\nhost: x\r\n\r\n"
    assert await _raw(lab, head + b'{"user": "a"') == b""
    assert await _raw(lab, b"G") == b""
    answered = await _raw(lab, whole, b"G")
    assert answered.startswith(b"HTTP/1.1 401")
    assert answered.count(b"HTTP/1.1") == 1


async def test_case_82_last_administrator_stays(lab: World) -> None:
    for method, path in (("POST", "/users/admin/disable"), ("DELETE", "/users/admin")):
        assert _problem(await lab.api.call(method, path))["code"] == "conflict"
    assert (
        _problem(await lab.api.call("POST", "/documents", content="{kind: user, name: admin, disabled: true}"))["code"]
        == "conflict"
    )
    own = await lab.api.call("PUT", "/users/admin/role", json={"role": "user"})
    assert _problem(own)["code"] == "not_authorised"
    await lab.add_user("second", role="admin")
    assert (await lab.api.call("POST", "/users/admin/disable")).status_code == 200
    assert (await lab.api.call("GET", "/me")).status_code == 401


async def test_case_07_user_made_again_under_an_old_name_inherits_nothing(lab: World) -> None:
    ada = await lab.client("ada")
    token = (await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"})).json()["token"]
    old = (await lab.api.ok("GET", "/users/ada"))["id"]
    await lab.api.ok("DELETE", "/users/ada")
    await lab.add_user("ada", "another horse")
    fresh = await lab.api.ok("GET", "/users/ada")
    assert (fresh["id"] != old, fresh["groups"]) == (True, [])
    assert (await lab.api.http.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})).status_code == 401
    assert (await lab.api.ok("GET", f"/agents/{ada.id}"))["principal"] == ""


# ------------------------------------------------------------------ bounds


async def test_body_at_the_bound_passes_and_one_more_does_not(small: World) -> None:
    document = b"{kind: device, name: laptop}"
    assert (await small.api.call("POST", "/documents", content=document.ljust(2000))).status_code == 200
    over = await small.api.call("POST", "/documents", content=document.ljust(2001))
    assert (over.status_code, _problem(over)["code"]) == (413, "too_large")

    async def stream() -> AsyncIterator[bytes]:
        for _ in range(3):
            yield b" " * 1000

    chunked = await small.api.call("POST", "/documents", content=stream())
    assert (chunked.status_code, _problem(chunked)["code"]) == (413, "too_large")


async def test_requests_per_minute_are_bounded_and_come_back(small: World) -> None:
    codes = [(await small.api.http.get("/api/v1/health")).status_code for _ in range(31)]
    assert codes[-1] == 429
    small.clock.offset += 61
    assert (await small.api.http.get("/api/v1/health")).status_code == 200


async def test_counts_are_bounded(small: World) -> None:
    statuses = [(await small.api.call("POST", "/keys", json={"role": "connector", "group": "lab"})).status_code for _ in range(3)]
    assert statuses == [201, 201, 409]
    statuses = [
        (await small.api.call("POST", "/kill-switches", json={"scope": "user", "target": "ada", "reason": "x"})).status_code
        for _ in range(2)
    ]
    assert statuses == [201, 409]
    have = len(small.running.state.documents)
    devices = [f"{{kind: device, name: d{number}}}" for number in range(13 - have)]
    assert _problem(await small.api.call("POST", "/documents", content="\n---\n".join(devices)))["code"] == "limit_reached"
    assert (await small.api.call("POST", "/documents", content="\n---\n".join(devices[1:]))).status_code == 200


async def test_beyond_its_bound_a_users_oldest_token_ends(small: World) -> None:
    tokens = []
    for _ in range(3):
        answer = await small.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"})
        tokens.append(answer.json()["token"])
        small.clock.offset += 1
    statuses = [
        (await small.api.http.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})).status_code for token in tokens
    ]
    assert statuses == [401, 200, 200]


WRONG: list[tuple[str, Any]] = [
    ("/keys", {"role": "connector", "group": "lab", "uses": 0}),
    ("/keys", {"role": "connector", "group": "lab", "uses": 100_001}),
    ("/keys", {"role": "connector", "group": "lab", "seconds": 59}),
    ("/keys", {"role": "connector", "group": "lab", "seconds": 10**9}),
    ("/keys", {"role": "control"}),
    ("/keys", {"role": "connector"}),
    ("/keys", {"role": "client"}),
    ("/keys", {"role": "connector", "group": "lab", "evil": 1}),
    ("/users", {"name": "Ada"}),
    ("/users", {"name": "a" * 200}),
    ("/users", {"name": "x", "password": "short"}),
    ("/users", {"name": "x", "password": "x" * 1025}),
    ("/users", {"name": "x", "labels": {"A": "b"}}),
    ("/users", {"name": "x", "role": "root"}),
    ("/users", []),
    ("/kill-switches", {"scope": "all", "target": "x", "reason": "r"}),
    ("/kill-switches", {"scope": "user", "target": "nobody", "reason": "r"}),
    ("/kill-switches", {"scope": "all"}),
]


async def test_field_that_is_wrong_is_named_and_nothing_is_made(lab: World) -> None:
    for path, body in WRONG:
        before = [await lab.api.ok("GET", path)]
        answer = await lab.api.call("POST", path, json=body)
        assert answer.status_code == 422
        assert _problem(answer)["code"] in ("argument_invalid", "reference_unknown")
        assert [await lab.api.ok("GET", path)] == before


# ------------------------------------------------------------------ who asks


async def test_case_48_source_is_what_the_port_saw(lab: World) -> None:
    forged = {"x-forwarded-for": "203.0.113.9", "forwarded": "for=203.0.113.9", "x-real-ip": "203.0.113.9"}
    await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "wrong"}, headers=forged)
    entries = (await lab.api.ok("GET", "/audit", params={"action": "sign_in"}))["entries"]
    assert entries[0]["code"] == "sign_in_failed"
    assert {entry["source"] for entry in entries} == {"127.0.0.1"}


@pytest.mark.parametrize(
    "doubled", ["authorization: Bearer x", "host: b", "content-length: 0\r\ncontent-length: 1", "if-match: a\r\nif-match: b"]
)
async def test_case_20_header_given_twice_is_refused(lab: World, doubled: str) -> None:
    host, _, port = lab.running.address.rpartition(":")
    context = ssl.create_default_context(cadata=lab.running.state.keyring.roots_pem())
    reader, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=host)
    good = f"GET /api/v1/me HTTP/1.1\r\nhost: a\r\nauthorization: Bearer {lab.api.token}\r\nconnection: close\r\n"
    writer.write(f"{good}{doubled}\r\n\r\n".encode())
    assert (await reader.readline()).split()[1] == b"400"
    writer.close()


MADE_UP = ["", "Bearer", "Basic YWRtaW46eA==", "Bearer cl-api-", "Bearer cl-api-" + "A" * 43, "Bearer " + "A" * 20_000]


async def test_case_06_made_up_token_is_nobody(lab: World) -> None:
    for header in MADE_UP:
        answer = await lab.api.http.get("/api/v1/me", headers={"authorization": header})
        assert (answer.status_code, _problem(answer)["code"]) == (401, "not_authenticated")


async def test_token_ends_by_time_and_by_sign_out(lab: World) -> None:
    assert (await lab.api.call("POST", "/sign-out")).status_code == 200
    assert (await lab.api.call("GET", "/me")).status_code == 401
    admin = lab.running.first_administrator
    assert admin is not None
    await lab.api.sign_in(admin.name, admin.password)
    lab.clock.offset += lab.running.settings.token_seconds + 1
    assert (await lab.api.call("GET", "/me")).status_code == 401


async def test_case_17_every_secret_is_good_in_its_own_place_only(lab: World) -> None:
    """Ticket, API token, provisioning key, password and resume secret, each shown wherever one of them is accepted."""
    await lab.connector()
    ada = await lab.client("ada")
    ada.send(WANT)
    ticket = (await ada.receive(Session)).ticket
    key = (await lab.api.ok("POST", "/keys", json={"role": "connector", "group": "lab"}))["key"]
    secrets = {"ticket": ticket, "token": lab.api.token, "key": key, "password": "correct horse", "resume": ada.resume or ""}
    keys = lab.running.state.keyring.ticket_verification_keys()
    for name, secret in secrets.items():
        accepted = {
            "token": (await lab.api.http.get("/api/v1/me", headers={"authorization": f"Bearer {secret}"})).status_code == 200,
            "password": (await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": secret})).status_code == 200,
            "key": not hasattr(await lab.agent("connector").enrol_by_key(secret[:256]), "code"),
        }
        try:
            _core.verify_ticket(secret, keys, int(lab.clock()))
            accepted["ticket"] = True
        except _core.CoreError:
            accepted["ticket"] = False
        assert {place for place, yes in accepted.items() if yes} == ({name} - {"resume"}), name


async def test_case_17_other_signatures_of_the_ticket_key_are_no_ticket(lab: World) -> None:
    keyring = lab.running.state.keyring
    claims = TicketClaims("x", "j", "0" * 16, "1" * 16, "2" * 16, "3" * 16, (), "t" * 43, 1, 2, 1, 0, ())
    body = json.dumps(dict(claims.payload())).encode()
    from cloister.trust.certificates import base64url

    for header in (
        {"alg": "EdDSA", "typ": "JWT"},
        {"alg": "none", "typ": "cloister-ticket+jwt"},
        {"alg": "EdDSA", "typ": "logout+jwt"},
    ):
        signing = f"{base64url(json.dumps(header | {'kid': keyring.ticket_key.kid}).encode())}.{base64url(body)}"
        token = f"{signing}.{base64url(keyring.ticket_key.key.sign(signing.encode()))}"
        with pytest.raises(_core.CoreError):
            _core.verify_ticket(token, keyring.ticket_verification_keys(), 1)


async def test_sessions_are_listed_in_pages_by_user_and_by_segment(lab: World) -> None:
    await lab.connector()
    for _ in range(3):
        ada = await lab.client("ada")
        ada.send(WANT)
        segment = (await ada.receive(Session)).segment
    name = lab.running.state.name_of(segment)
    ids = sorted(session.id for session in lab.running.book)
    assert len(ids) == 3

    async def listed(query: str) -> list[str]:
        return [session["id"] for session in await lab.api.ok("GET", f"/sessions?{query}")]

    assert await listed(f"user=ada&segment={name}") == ids
    assert await listed("limit=2") == ids[:2]
    assert await listed(f"limit=2&after={ids[1]}") == ids[2:]
    assert await listed("user=bob") == await listed("segment=nothing") == []


async def test_case_18_ticket_is_in_no_answer(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    ada.send(WANT)
    ticket = (await ada.receive(Session)).ticket
    for path in (
        "/sessions",
        "/audit",
        "/records",
        "/agents",
        "/documents",
        "/trust",
        f"/sessions/{next(iter(lab.running.book)).id}",
    ):
        assert ticket.split(".")[2] not in str(await lab.api.ok("GET", path))


# ------------------------------------------------------------------ records


async def test_decisions_are_recorded_with_their_reason_and_found_by_who_and_what(lab: World) -> None:
    await lab.connector()
    ada, bob = await lab.client("ada"), await lab.client("bob")
    ada.send(WANT)
    session = await ada.receive(Session)
    bob.send(WANT)
    await bob.until(lambda: next((m for m in bob.inbox if m.type == "refused"), None))
    page = await lab.api.ok("GET", "/records", params={"user": "ada"})
    assert [(e["kind"], e["code"], e["segment_name"], e["rule_names"]) for e in page["entries"]] == [
        ("decision", "ok", "jupyter", ["science-uses-jupyter"])
    ]
    assert session.session
    page = await lab.api.ok("GET", "/records", params={"code": "not_found"})
    assert [e["principal_name"] for e in page["entries"]] == ["bob"]
    pages = []
    cursor = None
    while True:
        page = await lab.api.ok("GET", "/records", params={"limit": 1} | ({"cursor": cursor} if cursor else {}))
        pages += [entry["n"] for entry in page["entries"]]
        cursor = page["next"]
        if cursor is None:
            break
    assert sorted(pages) == sorted(set(pages))
    assert len(pages) == 2
    assert _problem(await lab.api.call("GET", "/records", params={"cursor": "x"}))["code"] == "argument_invalid"
    assert SCAN_BYTES > 0


async def test_explain_tells_administrators_the_true_reason(lab: World) -> None:
    answer = await lab.api.ok("GET", "/explain", params={"user": "bob", "host": "jupyter.lab.internal", "port": 8888})
    assert (answer["allowed"], answer["code"], answer["cause"]) == (False, "not_found", "denied_by_default")
    answer = await lab.api.ok("GET", "/explain", params={"user": "ada", "host": "jupyter.lab.internal"})
    assert (answer["allowed"], [rule["name"] for rule in answer["rules"]]) == (True, ["science-uses-jupyter"])
    assert BUNDLE


async def test_explain_for_a_user_counts_kill_switches(lab: World) -> None:
    question = {"user": "ada", "host": "jupyter.lab.internal", "port": 8888}
    for scope, target in (("all", None), ("user", "ada"), ("segment", "jupyter")):
        aim = {} if target is None else {"target": target}
        switch = await lab.api.ok("POST", "/kill-switches", json={"scope": scope, "reason": "r"} | aim)
        answer = await lab.api.ok("GET", "/explain", params=question)
        assert (answer["allowed"], answer["code"]) == (False, "kill_switch")
        await lab.api.ok("DELETE", f"/kill-switches/{switch['id']}")
        assert (await lab.api.ok("GET", "/explain", params=question))["allowed"] is True
    await lab.api.ok("POST", "/kill-switches", json={"scope": "segment", "target": "postgres", "reason": "r"})
    assert (await lab.api.ok("GET", "/explain", params=question))["allowed"] is True


@pytest.mark.parametrize("change", ["password", "disable"])
async def test_case_16_a_token_that_is_written_down_while_all_tokens_end_is_no_token(
    lab: World, monkeypatch: pytest.MonkeyPatch, change: str
) -> None:
    """Whoever knows the old password may be signing in at the very moment when it is changed, or the person disabled."""
    begun, disk, made = threading.Event(), threading.Event(), asyncio.Event()
    module, name = (documents, "put_account") if change == "password" else (sessions, "delete_api_tokens_of")
    end = getattr(module, name)

    def end_slowly(*arguments: Any) -> None:
        end(*arguments)
        begun.set()
        disk.wait()

    def make_secret() -> str:
        made.set()
        return "made-while-the-other-one-is-written"

    monkeypatch.setattr(module, name, end_slowly)
    monkeypatch.setattr("cloister.exchange.api_tokens.make_secret", make_secret)
    form = {"json": {"password": "another horse"}} if change == "password" else {}
    ending = asyncio.create_task(lab.api.ok("PUT" if form else "POST", f"/users/ada/{change}", **form))
    try:
        await asyncio.to_thread(begun.wait)
        signing_in = asyncio.create_task(lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"}))
        await made.wait()
    finally:
        disk.set()
    await ending
    assert (await signing_in).status_code == 401
    with lab.running.store.read() as connection:
        assert sessions.find_api_token(connection, hash_secret("cl-api-made-while-the-other-one-is-written"), 0) is None
