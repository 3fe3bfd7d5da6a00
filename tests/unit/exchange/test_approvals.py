"""Just-in-time access: asked for, approved by somebody else, over by itself."""

import asyncio
import threading
from pathlib import Path
from typing import Any

import pytest
from tests.unit.exchange.conftest import Agent, Api, World, eventually
from tests.unit.exchange.test_evidence import want

from cloister.exchange import approvals, sessions
from cloister.exchange.backup import DATABASE, restore_backup, write_backup
from cloister.exchange.state import load_state
from cloister.model.messages.from_agent import ListRequests, RequestAccess, WantSession, WithdrawRequest
from cloister.model.messages.from_exchange import EndSession, OwnRequests, Refused, Requested, Session
from cloister.model.reasons import Code
from cloister.policy.decide import decide as policy_decide
from cloister.store import sessions as session_rows
from cloister.store.requests import list_requests
from cloister.store.service import Change, Store
from cloister.store.types import KillSwitch

RULES = """
kind: group
name: approvers
users: [bea]
---
kind: rule
name: science-uses-jupyter
effect: permit
who: {groups: [science]}
what: {segments: [jupyter]}
approval: {approvers: [approvers], longest: 1h}
"""


async def _world(lab: World) -> tuple[Agent, Api]:
    """A connector, ada's client, and bea, who approves, signed in to the API."""
    await lab.connector()
    ada = await lab.client("ada")
    await lab.add_user("bea")
    await lab.apply(RULES)
    return ada, await lab.sign_in("bea")


async def _ask(client: Agent, ref: int = 50, **fields: Any) -> Requested | Refused:
    question = {"host": "jupyter.lab.internal", "port": 8888, "reason": "experiment 7"} | fields
    client.send(RequestAccess(ref=ref, **question))
    kinds = (Requested, Refused)
    answer = await client.until(lambda: next((m for m in client.inbox if isinstance(m, kinds) and m.ref == ref), None))
    client.inbox.remove(answer)
    assert isinstance(answer, kinds)
    return answer


async def test_a_flow_that_waits_goes_on_when_it_is_approved_and_ends_with_the_approval(lab: World) -> None:
    ada, bea = await _world(lab)
    refused = await want(ada, 1)
    assert (refused.code, lab.running.book.find(ada.id, refused.code)) == (Code.APPROVAL_REQUIRED, None)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    assert request.state == "pending"
    await bea.ok("POST", f"/requests/{request.id}/approve", json={"seconds": 120})
    session = await ada.receive(Session)
    assert session.ref == 1
    assert session.expires <= lab.clock() + 121
    lab.clock.offset += 121
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.APPROVAL_EXPIRED)


async def test_whoever_asked_lists_and_withdraws_over_the_same_link(lab: World) -> None:
    ada, bea = await _world(lab)
    bob, request = await lab.client("bob"), await _ask(ada)
    assert isinstance(request, Requested)
    ada.send(ListRequests(ref=51))
    (mine,) = (await ada.receive(OwnRequests)).requests
    assert (mine.id, mine.user, mine.segment, mine.state) == (request.id, "ada", "jupyter", "pending")
    bob.send(ListRequests(ref=51))
    assert (await bob.receive(OwnRequests)).requests == []
    bob.send(WithdrawRequest(ref=52, id=request.id))
    others = await bob.receive(Refused)
    assert others.message == f"there is no request `{request.id}`"
    bob.send(WithdrawRequest(ref=52, id="0" * 16))
    assert (await bob.receive(Refused)).message == others.message.replace(request.id, "0" * 16)
    await bea.ok("POST", f"/requests/{request.id}/approve", json={})
    assert isinstance(await want(ada, 1), Session)
    ada.send(WithdrawRequest(ref=53, id=request.id))
    assert [one.state for one in (await ada.receive(OwnRequests)).requests] == ["withdrawn"]
    assert (await ada.receive(EndSession)).code == Code.APPROVAL_EXPIRED


async def test_nobody_approves_for_themselves_or_without_being_asked_to(lab: World) -> None:
    ada, bea = await _world(lab)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    await lab.apply("kind: group\nname: approvers\nusers: [ada, bea]\n")
    ada_api = await lab.sign_in("ada")
    path = f"/requests/{request.id}/approve"
    assert (await ada_api.call("POST", path, json={})).status_code == 404
    await lab.add_user("eve")
    assert (await (await lab.sign_in("eve")).call("POST", path, json={})).status_code == 404
    assert (await lab.api.call("POST", path, json={})).status_code == 404  # an administrator is no approver either
    assert isinstance(await want(ada, 2), Refused)
    assert (await bea.call("POST", path, json={})).status_code == 200  # negative control


async def test_the_rule_bounds_how_long(lab: World) -> None:
    ada, bea = await _world(lab)
    too_long = await _ask(ada, seconds=3601)
    assert isinstance(too_long, Refused)
    assert too_long.code == Code.ARGUMENT_INVALID
    request = await _ask(ada, 51, seconds=600)
    assert isinstance(request, Requested)
    path = f"/requests/{request.id}/approve"
    assert (await bea.call("POST", path, json={"seconds": 3601})).status_code == 422
    approved = await bea.ok("POST", path, json={})
    assert approved["seconds"] == 600
    assert approved["until"] <= lab.clock() + 600


async def test_case_96_an_approval_ends_with_the_right_of_whoever_gave_it(lab: World) -> None:
    ada, bea = await _world(lab)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    await bea.ok("POST", f"/requests/{request.id}/approve", json={})
    session = await want(ada, 1)
    assert isinstance(session, Session)
    await lab.apply("kind: group\nname: approvers\nusers: [ada]\n")
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.APPROVAL_EXPIRED)


async def test_what_was_approved_can_be_taken_back_at_once(lab: World) -> None:
    ada, bea = await _world(lab)
    for ref, end_it in enumerate(("deny", "withdraw")):
        request = await _ask(ada, 50 + ref)
        assert isinstance(request, Requested)
        await bea.ok("POST", f"/requests/{request.id}/approve", json={})
        session = await want(ada, ref)
        assert isinstance(session, Session)
        who = bea if end_it == "deny" else await lab.sign_in("ada")
        await who.ok("POST", f"/requests/{request.id}/{end_it}", json={} if end_it == "deny" else None)
        assert (await ada.receive(EndSession)).sessions == [session.session]
        again = await who.call("POST", f"/requests/{request.id}/{end_it}", json={} if end_it == "deny" else None)
        assert again.status_code == 409


async def test_an_approval_is_for_one_segment_and_for_one_person(lab: World) -> None:
    ada, bea = await _world(lab)
    await lab.apply(RULES.replace("segments: [jupyter]", "segments: [jupyter, postgres]"))
    bob = await lab.client("bob")
    await lab.apply("kind: group\nname: science\nusers: [ada, bob]\n")
    request = await _ask(ada)
    assert isinstance(request, Requested)
    await bea.ok("POST", f"/requests/{request.id}/approve", json={})
    assert isinstance(await want(ada, 1), Session)
    assert (await want(ada, 2, host="db.lab.internal", port=5432)).code == Code.APPROVAL_REQUIRED
    assert (await want(bob, 3)).code == Code.APPROVAL_REQUIRED


async def test_a_rule_made_again_under_the_same_name_inherits_no_approval(lab: World) -> None:
    ada, bea = await _world(lab)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    await bea.ok("POST", f"/requests/{request.id}/approve", json={})
    session = await want(ada, 1)
    await lab.api.ok("DELETE", "/rules/science-uses-jupyter")
    assert (await ada.receive(EndSession)).sessions == [session.session]
    await lab.apply(RULES)
    assert (await want(ada, 2)).code == Code.APPROVAL_REQUIRED


async def test_case_68_what_nobody_could_be_given_cannot_be_asked_for(lab: World) -> None:
    ada, _ = await _world(lab)
    answers = [
        await _ask(ada, 60, host="db.lab.internal", port=5432),  # exists, but no rule would grant it to her
        await _ask(ada, 61, host="no.such.name", port=5432),
    ]
    assert {(answer.code, answer.message) for answer in answers if isinstance(answer, Refused)} == {
        (Code.NOT_FOUND, "there is no such name that you could ask for")
    }
    assert isinstance(await _ask(ada, 62), Requested)  # negative control


async def test_what_needs_no_approval_is_not_asked_for(lab: World) -> None:
    ada, _ = await _world(lab)
    await lab.apply(
        "{kind: rule, name: science-uses-jupyter, effect: permit, who: {groups: [science]}, what: {segments: [jupyter]}}"
    )
    refused = await _ask(ada)
    assert isinstance(refused, Refused)
    assert (refused.code, refused.message) == (Code.CONFLICT, "`jupyter` needs no approval from anybody")


async def test_two_approvers_at_once_answer_once_and_for_all(lab: World) -> None:
    ada, bea = await _world(lab)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    path = f"/requests/{request.id}"
    answers = await asyncio.gather(*(bea.call("POST", f"{path}/{verb}", json={}) for verb in ("deny", "approve", "deny")))
    assert sorted(answer.status_code for answer in answers) in ([200, 409, 409], [200, 200, 409])
    answered = lab.running.state.requests.get(request.id)
    assert answered is not None
    assert answered.state == "denied"


async def test_a_request_survives_a_restart(lab: World) -> None:
    ada, bea = await _world(lab)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    await bea.ok("POST", f"/requests/{request.id}/approve", json={"note": "ok"})
    state = await asyncio.to_thread(load_state, lab.running.store, lab.running.state.keyring)
    assert list(state.requests) == list(lab.running.state.requests)


async def test_case_96_what_was_approved_before_a_restore_is_approved_no_more(lab: World, tmp_path: Path) -> None:
    """It may have been taken back since: the backup does not know."""
    ada, bea = await _world(lab)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    await bea.ok("POST", f"/requests/{request.id}/approve", json={})
    write_backup(lab.running.settings.data, tmp_path / "backup")
    await bea.ok("POST", f"/requests/{request.id}/deny", json={})
    restore_backup(tmp_path / "backup", tmp_path / "again", int(lab.clock()))
    with Store.open(tmp_path / "again" / DATABASE) as store, store.read() as connection:
        assert [known.state for known in list_requests(connection)] == ["denied"]


async def test_what_was_asked_long_ago_is_forgotten_so_that_others_may_ask(lab: World) -> None:
    ada, _ = await _world(lab)
    old = await _ask(ada)
    assert isinstance(old, Requested)
    ada.close()
    lab.agents.remove(ada)
    await lab.running.administration.forget_the_past()
    assert [request.id for request in lab.running.state.requests] == [old.id]  # negative control: it is not over
    lab.clock.offset += 32 * 86400
    await lab.running.administration.forget_the_past()
    state = await asyncio.to_thread(load_state, lab.running.store, lab.running.state.keyring)
    assert (list(lab.running.state.requests), list(state.requests)) == ([], [])


async def test_whoever_asks_again_and_again_takes_no_place_of_others(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "MAX_OF_PRINCIPAL", 3)
    ada, bea = await _world(lab)
    for number in range(5):
        request = await _ask(ada, number)
        assert isinstance(request, Requested)
        ada.send(WithdrawRequest(ref=100 + number, id=request.id))
        await ada.receive(OwnRequests)
    last = await _ask(ada)
    assert isinstance(last, Requested)
    state = await asyncio.to_thread(load_state, lab.running.store, lab.running.state.keyring)
    kept = lab.running.state.requests
    assert (len(kept), len(state.requests)) == (3, 3)
    assert {item.state for item in kept} == {"withdrawn", "pending"}
    assert await bea.ok("POST", f"/requests/{last.id}/approve", json={})


async def test_what_is_over_makes_room_and_what_waits_does_not(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(approvals, "MAX_REQUESTS", 1)
    ada, bea = await _world(lab)
    await lab.add_user("dan")
    await lab.api.ok("PUT", "/groups/science/members/dan")
    first = await _ask(ada)
    assert isinstance(first, Requested)
    refused = await _ask(await lab.client("dan"))
    assert isinstance(refused, Refused)
    assert refused.code == Code.LIMIT_REACHED
    await bea.ok("POST", f"/requests/{first.id}/deny", json={})
    assert isinstance(await _ask(ada), Requested)
    assert len(lab.running.state.requests) == 1


async def test_case_33_many_questions_are_not_decided_again_at_every_change(lab: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A few clients that ask much and report much would take the whole loop."""
    monkeypatch.setattr(sessions, "QUESTIONS_AT_ONCE", 0)
    monkeypatch.setattr(sessions, "QUESTION_SECONDS", 60.0)
    decided: list[float] = []

    def decide(*arguments: Any) -> Any:
        decided.append(arguments[-1])
        return policy_decide(*arguments)

    ada, bea = await _world(lab)
    request = await _ask(ada)
    assert isinstance(request, Requested)
    assert (await want(ada, 1)).code == Code.APPROVAL_REQUIRED
    lab.clock.freeze()
    lab.running.verifier.check((), Code.POLICY_CHANGED)
    monkeypatch.setattr(sessions, "decide", decide)
    for _ in range(10):
        lab.running.verifier.check((), Code.POLICY_CHANGED)
    assert decided == []
    await bea.ok("POST", f"/requests/{request.id}/approve", json={})
    lab.clock.offset += 60
    assert (await ada.receive(Session)).ref == 1
    assert len(decided) == 1


# ------------------------------------------------------------------ kill switches on more than people


async def test_a_kill_switch_on_a_session_keeps_that_device_from_that_segment(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    session = await want(ada, 1)
    switch = await lab.api.ok(
        "POST", "/kill-switches", json={"scope": "session", "target": session.session, "reason": "odd traffic"}
    )
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.KILL_SWITCH)
    assert (await want(ada, 2)).code == Code.KILL_SWITCH
    await lab.api.ok("DELETE", f"/kill-switches/{switch['id']}")
    assert isinstance(await want(ada, 3), Session)


async def test_a_kill_switch_on_a_connector_or_its_group_takes_it_out_of_service(lab: World) -> None:
    connector = await lab.connector()
    ada = await lab.client("ada")
    for ref, (scope, target) in enumerate((("agent", connector.id), ("connector-group", "lab"))):
        session = await want(ada, 10 * ref + 1)
        assert isinstance(session, Session)
        switch = await lab.api.ok("POST", "/kill-switches", json={"scope": scope, "target": target, "reason": "drill"})
        assert (await ada.receive(EndSession)).sessions == [session.session]
        assert (await want(ada, 10 * ref + 2)).code == Code.NO_CONNECTOR
        await lab.api.ok("DELETE", f"/kill-switches/{switch['id']}")
        assert isinstance(await want(ada, 10 * ref + 3), Session)


@pytest.mark.parametrize(("scope", "target"), [("all", ""), ("user", "ada"), ("connector-group", "lab")])
async def test_no_session_slips_through_while_a_kill_switch_is_written(
    lab: World, monkeypatch: pytest.MonkeyPatch, scope: str, target: str
) -> None:
    """What is granted before it is in force ends when it is, and its ticket is not given out any more."""
    await lab.connector()
    ada = await lab.client("ada")
    begun, disk = threading.Event(), threading.Event()
    add = session_rows.add_kill_switch

    def add_slowly(change: Change, switch: KillSwitch) -> None:
        begun.set()
        disk.wait()
        add(change, switch)

    monkeypatch.setattr(session_rows, "add_kill_switch", add_slowly)
    form = {"scope": scope, "target": target, "reason": "drill"}
    switching = asyncio.create_task(lab.api.ok("POST", "/kill-switches", json=form))
    try:
        await asyncio.to_thread(begun.wait)
        ada.send(WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp"))
        await eventually(lambda: len(lab.running.book) == 1)  # negative control: it is granted, for nothing is in force yet
    finally:
        disk.set()
    await switching
    assert len(lab.running.book) == 0
    assert (await ada.receive(EndSession)).code == Code.KILL_SWITCH
    assert isinstance(await want(ada, 2), Refused)
    assert ada.take(Session) == []


async def test_explain_for_a_user_counts_approvals(lab: World) -> None:
    ada, bea = await _world(lab)
    question = {"user": "ada", "host": "jupyter.lab.internal", "port": 8888}
    assert (await lab.api.ok("GET", "/explain", params=question))["code"] == Code.APPROVAL_REQUIRED
    request = await _ask(ada)
    assert isinstance(request, Requested)
    await bea.ok("POST", f"/requests/{request.id}/approve", json={})
    assert (await lab.api.ok("GET", "/explain", params=question))["allowed"] is True
