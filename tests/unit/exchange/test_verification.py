"""Laws of continuous verification: every cause ends exactly the sessions that it concerns, everywhere."""

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from sqlalchemy import Connection
from tests.unit.exchange.conftest import PATIENCE, Agent, World, eventually

from cloister.model.messages.common import SegmentHealth
from cloister.model.messages.from_agent import Advertise, Draining, Explain, Health, Idle, RequestAccess, Revoked, WantSession
from cloister.model.messages.from_exchange import (
    Assignments,
    Catalogue,
    Cut,
    EndSession,
    Explained,
    Refused,
    Relays,
    Requested,
    Revoke,
    Session,
    Snapshot,
    Unblock,
)
from cloister.model.reasons import Code
from cloister.store.sessions import put_sessions
from cloister.store.types import Actor, StoredSession

WANT = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")
SCIENCE_FORBIDDEN = "{kind: rule, name: stop, effect: forbid, who: {groups: [science]}, what: {segments: [jupyter]}}"


async def _session(client: Agent, want: WantSession = WANT) -> Session:
    client.send(want)
    return await client.receive(Session)


async def _agent_of(lab: World, role: str) -> str:
    return next(agent["id"] for agent in await lab.api.ok("GET", "/agents") if agent["role"] == role)


async def test_a_session_that_ends_while_it_is_stored_leaves_nobody_without_an_answer(
    lab: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    storing, go_on = threading.Event(), threading.Event()

    def held(connection: Connection, sessions: list[StoredSession]) -> None:
        storing.set()
        assert go_on.wait(PATIENCE)
        put_sessions(connection, sessions)

    await lab.connector()
    ada = await lab.client("ada")
    monkeypatch.setattr("cloister.store.sessions.put_sessions", held)
    ada.send(WANT)
    assert await asyncio.to_thread(storing.wait, PATIENCE)
    ended = lab.running.book.of_client(ada.id)
    assert lab.running.revoker.revoke(ended, Code.SESSION_REVOKED) == 1
    go_on.set()
    answer = await ada.receive(Session)
    assert answer.ref == WANT.ref
    assert answer.session != ended[0].id


async def test_a_session_that_cannot_be_stored_is_refused(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_connection: Connection, _sessions: list[StoredSession]) -> None:
        raise OSError("no space left on device")

    await lab.connector()
    ada = await lab.client("ada")
    with monkeypatch.context() as patched:
        patched.setattr("cloister.store.sessions.put_sessions", broken)
        ada.send(WANT)
        assert (await ada.receive(Refused)).code == Code.INTERNAL
    assert (await _session(ada)).ref == WANT.ref  # negative control: the store works again


CAUSES: dict[str, tuple[str, Callable[[World], Awaitable[object]]]] = {
    "rule deleted": ("policy_changed", lambda lab: lab.api.ok("DELETE", "/rules/science-uses-jupyter")),
    "forbid added": ("policy_changed", lambda lab: lab.apply(SCIENCE_FORBIDDEN)),
    "left the group": ("group_changed", lambda lab: lab.api.ok("DELETE", "/groups/science/members/ada")),
    "user disabled": ("user_disabled", lambda lab: lab.api.ok("POST", "/users/ada/disable")),
    "user deleted": ("user_disabled", lambda lab: lab.api.ok("DELETE", "/users/ada")),
    "session revoked": ("session_revoked", lambda lab: lab.api.ok("POST", f"/sessions/{next(iter(lab.running.book)).id}/revoke")),
    "sessions of the user revoked": ("session_revoked", lambda lab: lab.api.ok("POST", "/users/ada/revoke-sessions")),
    "kill switch for all": (
        "kill_switch",
        lambda lab: lab.api.ok("POST", "/kill-switches", json={"scope": "all", "reason": "drill"}),
    ),
    "kill switch for the user": (
        "kill_switch",
        lambda lab: lab.api.ok("POST", "/kill-switches", json={"scope": "user", "target": "ada", "reason": "drill"}),
    ),
    "kill switch for the segment": (
        "kill_switch",
        lambda lab: lab.api.ok("POST", "/kill-switches", json={"scope": "segment", "target": "jupyter", "reason": "drill"}),
    ),
    "kill switch for the client": (
        "kill_switch",
        lambda lab: lab.api.ok(
            "POST", "/kill-switches", json={"scope": "agent", "target": next(iter(lab.running.book)).client, "reason": "drill"}
        ),
    ),
}


@pytest.mark.parametrize("cause", CAUSES)
async def test_each_cause_ends_the_session_at_connector_and_client_and_no_other(lab: World, cause: str) -> None:
    code, act = CAUSES[cause]
    await lab.apply("{kind: rule, name: bob, effect: permit, who: {users: [bob]}, what: {segments: [postgres]}}")
    connector, ada, bob = await lab.connector(), await lab.client("ada"), await lab.client("bob")
    session = await _session(ada)
    other = await _session(bob, WantSession(ref=1, host="db.lab.internal", port=5432, protocol="tcp"))
    await act(lab)
    ended = {id for message in [await connector.receive(Revoke)] for id in message.sessions}
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], code)
    assert session.session in ended
    survives = "for all" not in cause
    await lab.running.verifier.settled()
    assert (lab.running.book.get(other.session) is not None) == survives
    assert lab.running.book.get(session.session) is None


async def test_device_revoked_ends_link_sessions_and_carriers(lab: World) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    session = await _session(ada)
    await lab.api.ok("POST", f"/agents/{ada.id}/revoke")
    assert (await connector.receive(Revoke)).sessions == [session.session]
    assert (await ada.receive(EndSession)).code == "device_revoked"
    await ada.until(lambda: ada.down)
    ada.dial()
    await ada.until(lambda: ada.down or (True if ada.up else None))
    if ada.up:
        ada.greet()
        assert (await ada.receive(Refused)).code == "agent_revoked"


async def test_disabled_user_loses_link_and_tokens_and_gets_neither_again(lab: World) -> None:
    ada = await lab.client("ada")
    token = (await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"})).json()["token"]
    await lab.api.ok("POST", "/users/ada/disable")
    assert (await ada.receive(Refused)).code == "user_disabled"
    await ada.until(lambda: ada.down)
    me = await lab.api.http.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
    assert me.status_code == 401
    again = await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"})
    assert (again.status_code, again.json()["code"]) == (401, "sign_in_failed")
    await lab.api.ok("POST", "/users/ada/enable")
    assert (await lab.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": "correct horse"})).status_code == 200
    me = await lab.api.http.get("/api/v1/me", headers={"authorization": f"Bearer {token}"})
    assert me.status_code == 401  # whoever comes back signs in anew


async def test_kill_switch_ends_by_itself(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await lab.api.ok("POST", "/kill-switches", json={"scope": "all", "reason": "drill", "seconds": 60})
    ada.send(WANT)
    assert (await ada.receive(Refused)).code == "kill_switch"
    lab.clock.offset += 61
    await eventually(lambda: not lab.running.state.kill_switches)
    await _session(ada)


async def test_kill_switch_that_is_removed_while_another_one_ends_is_no_failure(lab: World) -> None:
    """What is done each second must not end, or the exchange does."""
    made = [
        await lab.api.ok("POST", "/kill-switches", json={"scope": "user", "target": name, "reason": "drill", "seconds": 60})
        for name in ("ada", "bob")
    ]
    administration = lab.running.administration
    lab.clock.offset += 61
    await asyncio.gather(administration.remove_kill_switch(Actor("admin"), made[1]["id"]), administration.expire_kill_switches())
    assert not lab.running.state.kill_switches


@pytest.mark.parametrize("cause", [cause for cause in CAUSES if cause.startswith("kill switch")])
async def test_person_is_told_the_administrators_reason_for_a_kill_switch(lab: World, cause: str) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await _session(ada)
    await CAUSES[cause][1](lab)
    assert (await ada.receive(EndSession)).message.endswith(": drill")
    ada.send(WANT)
    assert (await ada.receive(Refused)).message.endswith(": drill")
    ada.send(Explain(ref=2, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    assert (await ada.receive(Explained)).message.endswith(": drill")


async def test_reason_of_another_persons_kill_switch_is_not_told(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await lab.api.ok("POST", "/kill-switches", json={"scope": "user", "target": "bob", "reason": "secret about bob"})
    await lab.api.ok(
        "POST", "/kill-switches", json={"scope": "segment", "target": "postgres", "reason": "secret about the database"}
    )
    await lab.api.ok("POST", "/kill-switches", json={"scope": "segment", "target": "jupyter", "reason": "drill"})
    ada.send(WANT)
    assert (await ada.receive(Refused)).message.endswith(": drill")
    ada.send(WantSession(ref=2, host="db.lab.internal", port=5432, protocol="tcp"))
    refused = await ada.receive(Refused)
    assert (refused.code, "secret" in refused.message) == ("not_found", False)


@pytest.mark.parametrize("reason", ["two\nlines", "\x1b[2Jgone", "", "x" * 257])
async def test_reason_that_is_no_line_of_text_is_refused(lab: World, reason: str) -> None:
    response = await lab.api.call("POST", "/kill-switches", json={"scope": "all", "reason": reason})
    assert response.status_code == 422, response.text


async def test_rule_that_ends_by_the_clock_ends_its_sessions(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(time.time() + 100))
    await lab.apply(
        "{kind: rule, name: science-uses-jupyter, effect: permit, who: {groups: [science]},"
        f" what: {{segments: [jupyter]}}, when: {{before: '{before}'}}}}"
    )
    session = await _session(ada)
    assert session.expires <= time.time() + 101
    lab.clock.offset += 102
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], "condition_failed")


async def test_rule_that_gets_an_end_under_an_open_session_ends_it_then(lab: World) -> None:
    """The session was to be looked at at the half of its ticket; the new end comes earlier."""
    await lab.connector()
    ada = await lab.client("ada")
    session = await _session(ada)
    lab.clock.freeze()
    before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(lab.clock() + 20))
    await lab.apply(
        "{kind: rule, name: science-uses-jupyter, effect: permit, who: {groups: [science]},"
        f" what: {{segments: [jupyter]}}, when: {{before: '{before}'}}}}"
    )
    lab.clock.offset += 21
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], "condition_failed")


@pytest.mark.parametrize(
    ("what", "change"),
    [
        ("another port", {"hosts": ["jupyter.lab.internal"], "ports": [8889]}),
        ("another host", {"hosts": ["notebook.lab.internal"], "ports": [8888]}),
    ],
)
async def test_segment_that_loses_a_destination_ends_its_sessions(lab: World, what: str, change: dict[str, Any]) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    session = await _session(ada)
    await lab.api.ok("PUT", "/segments/jupyter", json={**change, "groups": ["lab"]})
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], "segment_changed")
    assert session.session in (await connector.receive(Revoke)).sessions


async def test_segment_that_another_one_takes_from_ends_its_sessions_and_one_that_grows_does_not(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await lab.api.ok(
        "PUT", "/segments/jupyter", json={"hosts": ["jupyter.lab.internal"], "ports": ["8888-8890"], "groups": ["lab"]}
    )
    session = await _session(ada)
    assert session.session in {one.id for one in lab.running.book}
    await lab.api.ok("PUT", "/segments/narrow", json={"hosts": ["jupyter.lab.internal"], "ports": [8888], "groups": ["lab"]})
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], "segment_changed")


SCIENCE_NEEDS_MORE = (
    "{kind: rule, name: science-uses-jupyter, effect: permit, who: {groups: [science]}, what: {segments: [jupyter]},"
    " when: {strength: mfa}}"
)
SCIENCE_NEEDS_NO_MORE = SCIENCE_NEEDS_MORE.replace("mfa", "password")


async def test_question_that_a_person_can_turn_into_access_is_answered_once_it_is(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await lab.apply(SCIENCE_NEEDS_MORE)
    ada.send(WANT)
    assert (await ada.receive(Refused)).code == "step_up_required"
    await lab.apply(SCIENCE_NEEDS_NO_MORE)
    assert (await ada.receive(Session)).ref == WANT.ref
    assert ada.take(Refused) == []


async def test_pending_question_ends_at_once_when_nothing_can_help_any_more(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await lab.apply(SCIENCE_NEEDS_MORE)
    ada.send(WANT)
    assert (await ada.receive(Refused)).code == "step_up_required"
    await lab.apply(SCIENCE_FORBIDDEN)
    final = await ada.receive(Refused)
    assert (final.ref, final.code) == (WANT.ref, "forbidden_by_rule")


# ------------------------------------------------------------------ a connector that does not answer


async def _relay(lab: World) -> Agent:
    key = await lab.api.ok("POST", "/keys", json={"role": "relay"})
    relay = lab.agent("relay")
    await relay.enrol_by_key(key["key"])
    await relay.connect()
    relay.send(Advertise(address="127.0.0.1:9"))
    return relay


async def test_silent_connector_is_cut_at_every_relay_until_it_has_reconciled(lab: World) -> None:
    connector, ada, relay = await lab.connector(), await lab.client("ada"), await _relay(lab)
    while len((await connector.receive(Relays)).relays) < 2:
        pass
    session = await _session(ada)
    started = time.monotonic()
    await lab.api.ok("POST", f"/sessions/{session.session}/revoke")
    revoke = await connector.receive(Revoke)
    cut = await relay.receive(Cut)
    assert (cut.client, cut.connector, cut.block) == (ada.id, connector.id, True)
    assert time.monotonic() - started < 1
    assert relay.take(Unblock) == []
    connector.send(Revoked(generation=revoke.generation))
    unblock = await relay.receive(Unblock)
    assert (unblock.client, unblock.connector) == (ada.id, connector.id)


async def test_connector_that_confirms_in_time_is_not_cut(lab: World) -> None:
    connector, ada, relay = await lab.connector(), await lab.client("ada"), await _relay(lab)
    session = await _session(ada)
    lab.clock.freeze()
    await lab.api.ok("POST", f"/sessions/{session.session}/revoke")
    assert lab.running.revoker.next_deadline() is not None
    connector.send(Revoked(generation=(await connector.receive(Revoke)).generation))
    await eventually(lambda: lab.running.revoker.next_deadline() is None)
    lab.clock.offset += 1
    second = await _session(ada)
    await lab.api.ok("POST", f"/sessions/{second.session}/revoke")
    await connector.receive(Revoke)
    lab.clock.offset += 1
    assert (await relay.receive(Cut)).connector == connector.id  # of the second, which nobody confirmed
    assert relay.take(Cut) == []


async def test_confirmation_of_a_number_never_issued_counts_for_nothing(lab: World) -> None:
    connector, ada, relay = await lab.connector(), await lab.client("ada"), await _relay(lab)
    session = await _session(ada)
    connector.send(Revoked(generation=1 << 60))
    await lab.api.ok("POST", f"/sessions/{session.session}/revoke")
    connector.send(Revoked(generation=1 << 60))
    assert (await relay.receive(Cut)).connector == connector.id


async def test_connector_that_is_away_is_cut_at_once_and_let_in_after_its_snapshot(lab: World) -> None:
    connector, ada, relay = await lab.connector(), await lab.client("ada"), await _relay(lab)
    session = await _session(ada)
    connector.core.close_link(connector.link, "stopped")
    await eventually(lambda: lab.running.switchboard.of_agent(connector.id) is None)
    await lab.api.ok("POST", f"/sessions/{session.session}/revoke")
    assert (await relay.receive(Cut)).block
    connector.inbox.clear()
    await connector.connect()
    snapshot = await connector.receive(Snapshot)
    assert snapshot.sessions == []
    connector.send(Revoked(generation=snapshot.generation))
    await relay.receive(Unblock)


async def test_relay_that_was_away_is_told_what_to_block_and_what_not(lab: World) -> None:
    connector, ada, relay = await lab.connector(), await lab.client("ada"), await _relay(lab)
    session = await _session(ada)
    relay.core.close_link(relay.link, "stopped")
    await eventually(lambda: lab.running.switchboard.of_agent(relay.id) is None)
    await lab.api.ok("POST", f"/sessions/{session.session}/revoke")
    revoke = await connector.receive(Revoke)
    lab.clock.offset += 1
    await relay.connect()
    relay.send(Advertise(address="127.0.0.1:9"))
    assert (await relay.receive(Cut)).client == ada.id
    relay.core.close_link(relay.link, "stopped")
    await eventually(lambda: lab.running.switchboard.of_agent(relay.id) is None)
    connector.send(Revoked(generation=revoke.generation))
    await eventually(lambda: all(block.cleared for block in lab.running.relays._blocks.values()))
    await relay.connect()
    relay.send(Advertise(address="127.0.0.1:9"))
    assert (await relay.receive(Unblock)).connector == connector.id


async def test_block_ends_when_no_ticket_can_be_accepted_any_more(lab: World) -> None:
    _connector, ada, relay = await lab.connector(), await lab.client("ada"), await _relay(lab)
    session = await _session(ada)
    await lab.api.ok("POST", f"/sessions/{session.session}/revoke")
    await relay.receive(Cut)
    lab.clock.offset += 400
    await relay.receive(Unblock)


@pytest.mark.parametrize("blocks", [[(5, 1000), (6, 300)], [(6, 300), (5, 1000)], [(5, 300), (6, 1000)]])
async def test_block_ends_with_the_last_ticket_that_it_is_about(lab: World, blocks: list[tuple[int, int]]) -> None:
    """Of two sessions of one pair the one whose ticket holds on for longer was revoked first, or last."""
    relay, relays, now = await _relay(lab), lab.running.relays, int(lab.clock())
    client, connector, other = "c" * 16, "d" * 16, "e" * 16
    for generation, seconds in blocks:
        relays.block(client, connector, generation, now + seconds)
    relays.expire(now + 500)
    relays.reconciled(connector, 5)
    relays.cut_client(other)
    while (await relay.receive(Cut)).client != other:
        pass
    assert not relay.take(Unblock)
    relays.expire(now + 1000)
    assert (await relay.receive(Unblock)).client == client


@pytest.mark.parametrize(
    "address", ["", "nowhere", "0.0.0.0:1", "a b:1", "host:0", "host:99999", "x" * 300 + ":1", "host:1#sha256-" + "0" * 64]
)
async def test_relay_that_advertises_nonsense_is_told_so_and_nobody_else_hears_it(lab: World, address: str) -> None:
    connector = await lab.connector()
    relay = await _relay(lab)
    while len((await connector.receive(Relays)).relays) < 2:
        pass
    relay.send(Advertise(address=address))
    assert (await relay.receive(Refused)).code == "message_malformed"
    await lab.running.verifier.settled()
    assert all(entry.address != address for message in connector.take(Relays) for entry in message.relays)


async def test_revocation_by_a_decision_is_recorded_with_its_session(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    session = await _session(ada)
    await lab.apply(SCIENCE_FORBIDDEN)
    await ada.receive(EndSession)
    entries = (await lab.api.ok("GET", "/records", params={"session": session.session}))["entries"]
    assert [(entry["code"], entry["rule_names"]) for entry in entries] == [("forbidden_by_rule", ["stop"])]


# ------------------------------------------------------------------ renewal, placement, sets


async def test_session_in_use_is_renewed_at_half_life_and_an_idle_one_is_not(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    first = await _session(ada)
    lab.clock.offset += 151
    renewed = await ada.receive(Session)
    assert (renewed.ref, renewed.session) == (None, first.session)
    assert renewed.expires > first.expires
    ada.send(Idle(sessions=[first.session]))
    ada.send(Explain(ref=7, host="jupyter.lab.internal"))
    explained = await ada.receive(Explained)
    assert (explained.allowed, explained.segment, explained.rules) == (True, "jupyter", ["science-uses-jupyter"])
    lab.clock.offset += 200
    await asyncio.sleep(0.2)
    assert ada.take(Session) == []
    lab.clock.offset += 200
    await eventually(lambda: len(lab.running.book) == 0)


async def test_new_flows_of_a_dead_connectors_sessions_go_to_the_other_one(lab: World) -> None:
    first, second = await lab.connector(), await lab.connector()
    ada = await lab.client("ada")
    session = await _session(ada)
    assert set(session.connectors) == {first.id, second.id}
    dead, alive = (first, second) if session.connectors[0] == first.id else (second, first)
    dead.core.close_link(dead.link, "stopped")
    renewed = await ada.receive(Session)
    assert (renewed.session, renewed.connectors) == (session.session, [alive.id])


async def test_draining_connector_is_no_first_choice(lab: World) -> None:
    first, second = await lab.connector(), await lab.connector()
    ada = await lab.client("ada")
    session = await _session(ada)
    leaving, staying = (first, second) if session.connectors[0] == first.id else (second, first)
    leaving.send(Draining())
    assert (await ada.receive(Session)).connectors[0] == staying.id


async def test_load_is_shared_by_the_connectors_of_a_group(lab: World) -> None:
    first, second = await lab.connector(), await lab.connector()
    chosen = []
    for _ in range(4):
        client = await lab.client("ada")
        chosen.append((await _session(client)).connectors[0])
    assert [chosen.count(agent.id) for agent in (first, second)] == [2, 2]


async def test_unhealthy_segment_is_refused_and_shown_as_such(lab: World) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    await ada.receive(Catalogue)
    jupyter = (await lab.api.ok("GET", "/segments/jupyter"))["id"]
    connector.send(Health(segments=[SegmentHealth(segment=jupyter, healthy=False, code="dial_refused")]))
    await ada.until(lambda: next((m for m in ada.inbox if isinstance(m, Catalogue) and not m.segments[0].healthy), None))
    ada.send(WANT)
    assert (await ada.receive(Refused)).code == "segment_unhealthy"
    connector.send(Health(segments=[SegmentHealth(segment=jupyter, healthy=True)]))
    await ada.until(lambda: next((m for m in ada.inbox if isinstance(m, Catalogue) and m.segments[0].healthy), None))
    await _session(ada)


async def test_change_of_a_segment_reaches_connectors_and_clients(lab: World) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    await connector.receive(Assignments)
    await ada.receive(Catalogue)
    await lab.api.ok(
        "PUT", "/segments/jupyter", json={"hosts": ["jupyter.lab.internal"], "ports": [8888, "9000-9010"], "groups": ["lab"]}
    )
    assert [
        len(segment.ports) for segment in (await connector.receive(Assignments)).segments if "jupyter.lab.internal" in segment.hosts
    ] == [2]
    while len((await ada.receive(Catalogue)).segments[0].ports) != 2:
        pass


async def test_explain_says_that_nothing_serves_what_is_allowed(lab: World) -> None:
    ada = await lab.client("ada")
    question = {"user": "ada", "host": "jupyter.lab.internal", "port": 8888}

    async def told_to_ada() -> Explained:
        ada.send(Explain(ref=1, host="jupyter.lab.internal", port=8888))
        return await ada.receive(Explained)

    async def told() -> tuple[bool, str, str]:
        answer = await told_to_ada()
        to_administrator = await lab.api.ok("GET", "/explain", params=question)
        assert (to_administrator["allowed"], to_administrator["code"]) == (answer.allowed, answer.code)
        return answer.allowed, answer.code, answer.message

    assert await told() == (True, "no_connector", "no connector that serves this is up")
    connector = await lab.connector()
    assert (await told())[:2] == (True, "ok")
    segments = (await connector.receive(Assignments)).segments
    connector.send(Health(segments=[SegmentHealth(segment=one.id, healthy=False, code="dial_refused") for one in segments]))
    while (await told_to_ada()).code == "ok":
        pass
    assert (await told())[:2] == (True, "segment_unhealthy")


async def test_explain_says_nothing_of_what_is_not_visible(lab: World) -> None:
    bob = await lab.client("bob")
    answers = []
    for host in ("jupyter.lab.internal", "nothing.lab.internal"):
        bob.send(Explain(ref=1, host=host, port=8888))
        answers.append(await bob.receive(Explained))
    assert answers[0] == answers[1]


async def test_case_68_a_question_without_a_port_is_about_what_may_be_known(lab: World) -> None:
    """Another application of the same host, which this person knows nothing of, changes no answer."""
    await lab.apply("""
{kind: segment, name: notes, hosts: [jupyter.lab.internal], ports: [9999], groups: [lab]}
---
{kind: rule, name: bob-uses-notes, effect: permit, who: {users: [bob]}, what: {segments: [notes]}, approval: {approvers: [science]}}
""")
    bob = await lab.client("bob")
    bob.send(Explain(ref=1, host="jupyter.lab.internal"))
    told = await bob.receive(Explained)
    assert (told.visible, told.segment) == (True, "notes")
    asked = {"user": "bob", "host": "jupyter.lab.internal"}
    assert (await lab.api.ok("GET", "/explain", params=asked))["segment"] == "notes"
    bob.send(RequestAccess(ref=2, host="jupyter.lab.internal", reason="experiment 7"))
    assert (await bob.receive(Requested)).segment == "notes"
    api = await lab.sign_in("bob")
    request = {"host": "jupyter.lab.internal", "reason": "experiment 7"}
    assert (await api.ok("POST", "/requests", json=request))["segment"] == "notes"


async def test_case_85_what_a_snapshot_does_not_list_is_gone(lab: World) -> None:
    """Revoked while the connector was away: its next snapshot omits it, and tickets made later are above the snapshot."""
    connector, ada = await lab.connector(), await lab.client("ada")
    session = await _session(ada)
    connector.core.close_link(connector.link, "stopped")
    await eventually(lambda: lab.running.switchboard.of_agent(connector.id) is None)
    await lab.api.ok("DELETE", "/groups/science/members/ada")
    connector.inbox.clear()
    await connector.connect()
    snapshot = await connector.receive(Snapshot)
    assert session.session not in snapshot.sessions
    await lab.api.ok("PUT", "/groups/science/members/ada")
    new = await _session(ada)
    assert new.session != session.session
    assert lab.running.generations.current > snapshot.generation


async def test_connector_whose_link_is_ended_for_a_fault_is_gone_like_any_other(lab: World) -> None:
    first, second = await lab.connector(), await lab.connector()
    ada = await lab.client("ada")
    session = await _session(ada)
    faulty, other = (first, second) if session.connectors[0] == first.id else (second, first)
    faulty.send(WANT)
    assert (await faulty.receive(Refused)).code == "message_unexpected"
    assert (await ada.receive(Session)).connectors == [other.id]
