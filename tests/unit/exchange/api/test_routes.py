"""The fence around the API: every route with its guard, every mutation with its audit, as golden files and as behaviour.

`BLESS=1` writes the golden files anew.
"""

import json
import os
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from tests.unit.exchange.conftest import Agent, World
from tests.unit.exchange.signalling import BOB, Transmitter, document

from cloister.exchange.api.routing import ALLOWED
from cloister.model.messages.from_agent import Delegate
from cloister.model.messages.from_exchange import Delegated
from cloister.store.types import ACCOUNT_ROLES

GOLDEN = Path(__file__).parent / "golden"
SIGNING_IN = {
    "POST /api/v1/sign-in/provider",
    "POST /api/v1/sign-in/wait",
    "POST /sign-in/{id}",
    "POST /sign-in/logout/{name}",
    "POST /sign-in/acs/{name}",
}
"""Mutations that take a provider and a person: tests/unit/exchange/signin makes them and looks at the audit."""
METHODS = ("get", "post", "put", "patch", "delete")
MISSING = {"name": "nobody", "id": "0123456789abcdef", "user": "nobody", "source": "mdm"}
BODIES: dict[str, Any] = {
    "POST /api/v1/sign-in": {"user": "nobody", "password": "x"},
    "PUT /api/v1/me/password": {"old": "x", "new": "x"},
    "POST /api/v1/users": {"name": "-"},
    "PUT /api/v1/users/{name}/password": {"password": "long enough, surely"},
    "PUT /api/v1/users/{name}/role": {"role": "user"},
    "POST /api/v1/keys": {"role": "connector", "group": "nothing"},
    "PUT /api/v1/agents/{id}/device": {"device": None},
    "PUT /api/v1/devices/{name}/facts/{source}": {"facts": []},
    "PUT /api/v1/agents/{id}/facts/{source}": {"facts": []},
    "POST /api/v1/fact-sources/{source}/tokens": {"account": "nobody"},
    "POST /api/v1/kill-switches": {"scope": "user", "target": "nobody", "reason": "x"},
    "POST /api/v1/requests": {"segment": "nothing", "reason": "x"},
    "POST /api/v1/requests/{id}/approve": {},
    "POST /api/v1/requests/{id}/deny": {},
    "POST /api/v1/trust/rotate-ca": {"compromised": "perhaps"},
    "PUT /api/v1/signal-transmitters/{name}/secret": {"secret": "x"},
    "PUT /api/v1/users/{name}/risk": {"score": 1, "seconds": 60, "reason": "x"},
    "PUT /api/v1/devices/{name}/risk": {"score": 1, "seconds": 60, "reason": "x"},
    "PUT /api/v1/identity-providers/{name}/secret": {"secret": "x"},
    "POST /api/v1/sign-in/provider": {"provider": "-"},
    "POST /api/v1/sign-in/wait": {"secret": "x"},
}


def _operations(schema: dict[str, Any]) -> list[tuple[str, str, dict[str, Any]]]:
    return [
        (method.upper(), path, operation)
        for path, operations in sorted(schema["paths"].items())
        for method, operation in sorted(operations.items())
        if method in METHODS
    ]


def _compare(name: str, text: str) -> None:
    path = GOLDEN / name
    if os.environ.get("BLESS"):
        path.write_text(text)
    assert path.read_text() == text, f"{name} changed: review it, then run with BLESS=1"


async def _schema(world: World) -> dict[str, Any]:
    schema: dict[str, Any] = await world.api.ok("GET", "/openapi.json")
    return schema


async def test_case_89_every_route_is_on_the_list_with_its_guard(world: World) -> None:
    schema = await _schema(world)
    lines = [
        f"{method:<6} {path:<45} {operation['x-guard']:<8} {operation.get('x-audit', '')}".rstrip()
        for method, path, operation in _operations(schema)
    ]
    _compare("routes.txt", "\n".join(lines) + "\n")


async def test_case_89_nothing_is_routed_that_is_not_in_the_schema(world: World) -> None:
    """Debug, documentation, other spellings and method overrides lead nowhere."""
    for path in (
        "/", "/docs", "/redoc", "/openapi.json", "/metrics", "/debug", "/debug/pprof", "/api", "/api/v1", "/api/v2/users",
        "/api/v1/users/", "/api/v1/Users", "/API/v1/users", "//api/v1/users", "/api/v1/./users", "/api/v1/%75sers/../users/x/y",
        "/static/x", "/.env",
    ):  # fmt: skip
        answer = await world.api.http.get(path)
        assert answer.status_code in (401, 404), path
        assert answer.status_code == 404 or "sers" in path
    overridden = await world.api.call("POST", "/me", headers={"x-http-method-override": "GET"})
    assert overridden.status_code == 405


async def test_openapi_is_as_reviewed(world: World) -> None:
    _compare("openapi.json", json.dumps(await _schema(world), indent=1, sort_keys=True) + "\n")


async def test_mutations_without_authorisation_or_audit_are_none(world: World) -> None:
    operations = _operations(await _schema(world))
    without_guard = [f"{m} {p}" for m, p, o in operations if m != "GET" and o["x-guard"] == "public"]
    without_audit = [f"{m} {p}" for m, p, o in operations if m != "GET" and not o.get("x-audit") and not o.get("x-reads")]
    reading = [f"{m} {p}" for m, p, o in operations if o.get("x-reads")]
    assert without_guard == [  # each is, or leads to, an authorisation of its own; tests/unit/exchange/signin attacks them
        "POST /api/v1/sign-in",
        "POST /api/v1/sign-in/provider",
        "POST /api/v1/sign-in/wait",
        "POST /sign-in/acs/{name}",
        "POST /sign-in/logout/{name}",
        "POST /sign-in/{id}",
    ]
    assert without_audit == []
    assert reading == [
        "POST /scim/v2/.search",
        "POST /scim/v2/Bulk",
        "POST /scim/v2/Groups/.search",
        "POST /scim/v2/Users/.search",
    ]


async def _call(world: World, method: str, path: str, token: str | None) -> int:
    body = BODIES.get(f"{method} {path}")
    for key, value in MISSING.items():
        path = path.replace(f"{{{key}}}", value)
    headers = {"authorization": f"Bearer {token}"} if token else {}
    answer = await world.api.http.request(method, path, headers=headers, json=body)
    return answer.status_code


async def _tokens(world: World) -> dict[str, str]:
    tokens = {}
    for role in ACCOUNT_ROLES:
        await world.add_user(f"a-{role}", role=role)
        answer = await world.api.http.post("/api/v1/sign-in", json={"user": f"a-{role}", "password": "correct horse"})
        tokens[role] = answer.json()["token"]
    return tokens


async def test_case_82_role_by_action_matrix(world: World) -> None:
    """What each role gets past the guard, tried; and the same as the guards promise."""
    tokens = await _tokens(world)
    lines = []
    for method, path, operation in _operations(await _schema(world)):
        if operation["operationId"] in ("post_sign_out", "post_confirm_all_agents", "post_rotate_ticket_key", "post_sign_in") or (
            operation["tags"] == ["sign-in"] and operation["x-guard"] == "public"
        ):
            continue
        cells = []
        if operation["x-guard"] == "directory":
            world.clock.offset += 61  # these refusals are counted
        for role in ("", *ACCOUNT_ROLES):
            status = await _call(world, method, path, tokens.get(role))
            assert status < 500, (method, path, role)
            passed = status not in (401, 403)
            assert passed == (operation["x-guard"] == "public" or role in ALLOWED[operation["x-guard"]]), (
                method,
                path,
                role,
                status,
            )
            cells.append("yes" if passed else "-")
        lines.append(f"{method:<6} {path:<45} " + " ".join(f"{cell:<8}" for cell in cells).rstrip())
    head = f"{'':<6} {'':<45} {'nobody':<8} " + " ".join(f"{role:<8}" for role in ACCOUNT_ROLES)
    _compare("matrix.txt", "\n".join([head.rstrip(), *lines]) + "\n")


async def test_case_80_foreign_and_unknown_ids_answer_alike(lab: World) -> None:
    """An id that exists elsewhere (as another kind of thing) is as unknown as one that never existed."""
    connector = await lab.connector()
    key = (await lab.api.ok("GET", "/keys"))[0]["id"]
    segment = (await lab.api.ok("GET", "/segments/jupyter"))["id"]
    for method, path, operation in _operations(await _schema(lab)):
        if "{id}" not in path or operation["x-guard"] in ("public", "directory"):
            continue  # what directories see of each other: scim/test_attacks.py
        own = {"keys": key, "agents": connector.id}.get(path.split("/")[3])
        answers = []
        for id in (MISSING["id"], *(other for other in (key, connector.id, segment) if other != own)):
            answer = await lab.api.http.request(
                method,
                path.replace("{id}", id).replace("{source}", "mdm"),
                headers={"authorization": f"Bearer {lab.api.token}"},
                json=BODIES.get(f"{method} {path}"),
            )
            answers.append((answer.status_code, answer.text.replace(id, "ID")))  # each names what was asked for
        assert set(answers) == {answers[0]}, path
        assert answers[0][0] == 404, path


async def test_every_mutation_writes_the_audit_row_it_names(lab: World) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    done = await _run_every_mutation(lab, connector, ada)
    named = {f"{m} {p}": o["x-audit"] for m, p, o in _operations(await _schema(lab)) if m != "GET" and not o.get("x-reads")}
    assert set(done) | SIGNING_IN == set(named)
    entries = (await lab.api.ok("GET", "/audit", params={"limit": 1000}))["entries"]
    actions = {entry["action"] for entry in entries}
    assert set(named.values()) <= actions
    assert (await lab.api.ok("GET", "/audit/check"))["tampered"] is None
    text = json.dumps(entries)
    assert not re.search(r"correct horse|cl-api-|cl-scim-|cl-signal-|cloister-key-1", text)


async def _run_every_mutation(lab: World, connector: Agent, ada: Agent) -> list[str]:
    from cloister.model.messages.from_agent import RequestAccess, WantSession
    from cloister.model.messages.from_exchange import Requested, Session

    done: list[str] = []

    async def run(method: str, path: str, body: Any = None, content: str | None = None, **values: str) -> Any:
        done.append(f"{method} /api/v1{path}")
        for key, value in values.items():
            path = path.replace(f"{{{key}}}", value)
        return await lab.api.ok(method, path, **({"content": content} if content is not None else {"json": body}))

    await run("POST", "/documents", content="{kind: device, name: laptop}")
    for path, body in {
        "segments": {"hosts": ["x.lab.internal"], "ports": [1], "groups": ["lab"]},
        "connector-groups": {"suffixes": ["y.internal"]},
        "rules": {"effect": "permit", "who": {"any": True}, "what": {"segments": ["postgres"]}},
        "groups": {"users": []},
        "devices": {},
        "workloads": {"issuer": "https://i.example", "subject": "s"},
        "token-issuers": {"issuer": "https://i.example"},
        "webhooks": {"url": "https://hooks.example/x"},
        "identity-providers": {"issuer": "https://idp.invalid", "client_id": "x"},
        "posture-profiles": {"require": {"disk.encrypted": True}},
        "networks": {"networks": ["192.0.2.0/24"]},
        "signal-transmitters": json.loads(document(name="new")),
    }.items():
        await run("PUT", f"/{path}/{{name}}", body, name="new")
        await run("DELETE", f"/{path}/{{name}}", name="new")
    await lab.apply("{kind: identity-provider, name: idp, issuer: 'https://idp.invalid', client_id: x}")
    await run("PUT", "/identity-providers/{name}/secret", {"secret": "correct horse 0"}, name="idp")
    await _run_delegations(lab, ada, run)
    await lab.apply(document() + "\n---\n" + document(name="polled", delivery="poll", poll={"url": "https://x.invalid/"}))
    await run("PUT", "/signal-transmitters/{name}/secret", {"secret": "correct horse 1"}, name="polled")
    secret = await run("POST", "/signal-transmitters/{name}/secret", name="corp")
    await Transmitter(lab, secret["secret"]).say("session-revoked", subject=BOB)
    done.append("POST /api/v1/signals/{name}")
    for path in ("/users/{name}/risk", "/devices/{name}/risk"):
        name = "bob" if path.startswith("/users") else "laptop"
        await run("PUT", path, {"score": 1, "seconds": 60, "reason": "drill"}, name=name)
        await run("DELETE", path, name=name)
    await run("POST", "/users", {"name": "cid", "password": "correct horse"})
    await run("PUT", "/groups/{name}/members/{user}", name="science", user="cid")
    await run("DELETE", "/groups/{name}/members/{user}", name="science", user="cid")
    await run("POST", "/users/{name}/disable", name="cid")
    await run("POST", "/users/{name}/enable", name="cid")
    await run("PUT", "/users/{name}/password", {"password": "correct horse 2"}, name="cid")
    await run("PUT", "/users/{name}/role", {"role": "auditor"}, name="cid")
    await run("DELETE", "/users/{name}", name="cid")
    await lab.apply(
        "{kind: group, name: approvers, users: [admin]}\n---\n"
        "{kind: rule, name: asked, effect: permit, who: {any: true}, what: {segments: [postgres]}, approval: {approvers: [approvers]}}"
    )
    mine = await run("POST", "/requests", {"segment": "postgres", "reason": "drill"})
    await run("POST", "/requests/{id}/withdraw", id=mine["id"])
    ada.send(RequestAccess(ref=9, host="db.lab.internal", port=5432, reason="drill"))
    asked = await ada.receive(Requested)
    await run("POST", "/requests/{id}/approve", {}, id=asked.id)
    await run("POST", "/requests/{id}/deny", {}, id=asked.id)
    key = await run("POST", "/keys", {"role": "client", "user": "ada"})
    await run("DELETE", "/keys/{id}", id=key["id"])
    switch = await run("POST", "/kill-switches", {"scope": "all", "reason": "drill"})
    await run("DELETE", "/kill-switches/{id}", id=switch["id"])
    want = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")
    ada.send(want)
    await run("POST", "/sessions/{id}/revoke", id=(await ada.receive(Session)).session)
    await run("POST", "/users/{name}/revoke-sessions", name="ada")
    await run("PUT", "/agents/{id}/device", {"device": "laptop"}, id=ada.id)
    await run("PUT", "/devices/{name}/facts/{source}", {"facts": [{"name": "a", "value": "b"}]}, name="laptop", source="mdm")
    await run("PUT", "/agents/{id}/facts/{source}", {"facts": []}, id=ada.id, source="mdm")
    await run("POST", "/fact-sources/{source}/tokens", {"account": "ada"}, source="mdm")
    await run("POST", "/agents/{id}/unconfirm", id=ada.id)
    await run("POST", "/agents/{id}/confirm", id=ada.id)
    await run("POST", "/agents/confirm")
    await run("POST", "/agents/{id}/revoke", id=connector.id)
    await run("POST", "/trust/rotate-ticket-key")
    await run("POST", "/trust/rotate-ca", {})
    await _run_directories(lab, run, done)
    admin = lab.running.first_administrator
    assert admin is not None
    await run("PUT", "/me/password", {"old": admin.password, "new": "correct horse 3"})
    done.append("POST /api/v1/sign-in")
    await lab.api.sign_in(admin.name, "correct horse 3")
    await run("POST", "/sign-out")
    await lab.api.sign_in(admin.name, "correct horse 3")
    return done


async def _run_directories(lab: World, run: Any, done: list[str]) -> None:
    await run("POST", "/directories", {"name": "corp", "issuer": "https://corp.example"})
    token = (await run("POST", "/directories/{name}/rotate", name="corp"))["token"]
    message = "urn:ietf:params:scim:api:messages:2.0:PatchOp"
    for kind, body, field in (
        ("User", {"userName": "dora", "externalId": "2"}, "title"),
        ("Group", {"displayName": "a"}, "displayName"),
    ):
        resource = {"schemas": [f"urn:ietf:params:scim:schemas:core:2.0:{kind}"], **body}
        patch = {"schemas": [message], "Operations": [{"op": "replace", "path": field, "value": "c"}]}
        path, id = f"/scim/v2/{kind}s", ""
        for method, content in (("POST", resource), ("PUT", {**resource, field: "b"}), ("PATCH", patch), ("DELETE", None)):
            answer = await lab.api.http.request(
                method, f"{path}/{id}" if id else path, json=content, headers={"authorization": f"Bearer {token}"}
            )
            assert answer.is_success, (method, path, answer.text)
            done.append(f"{method} {path}" + ("/{id}" if id else ""))
            id = id or answer.json()["id"]
    await run("POST", "/directories/{name}/revoke", name="corp")


async def _run_delegations(lab: World, ada: Agent, run: Callable[..., Awaitable[Any]]) -> None:
    await lab.apply("{kind: workload, name: helper, issuer: 'https://i.example', subject: s}")
    admin = lab.running.first_administrator
    assert admin is not None
    for person, path in (
        (ada, "/delegations/{id}"),
        (await lab.client(admin.name, admin.password), "/me/delegations/{id}"),
    ):
        person.send(Delegate(ref=5, workload="helper", seconds=600))
        await run("DELETE", path, id=(await person.receive(Delegated)).id)


@pytest.mark.parametrize("role", ["auditor", "user"])
async def test_negative_control_a_guard_that_lets_everybody_pass_fails_the_matrix(
    world: World, role: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = await _tokens(world)
    assert await _call(world, "POST", "/api/v1/users/{name}/disable", tokens[role]) == 403
    monkeypatch.setitem(ALLOWED, "admin", frozenset(ACCOUNT_ROLES))
    assert await _call(world, "POST", "/api/v1/users/{name}/disable", tokens[role]) == 404
