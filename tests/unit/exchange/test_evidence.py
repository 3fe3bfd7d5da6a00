"""Facts about devices and people change live sessions, and answer questions that wait."""

import asyncio
from typing import Any

from tests.unit.exchange.conftest import Agent, World, eventually

from cloister.exchange.state import load_state
from cloister.model.messages.from_agent import Quiet, WantSession
from cloister.model.messages.from_exchange import EndSession, Refused, Session, Watch
from cloister.model.reasons import Code
from cloister.store.types import Actor, EvidenceRow, Subject

ADMIN = Actor("user:admin")


async def want(client: Agent, ref: int = 1, host: str = "jupyter.lab.internal", port: int = 8888) -> Any:
    client.send(WantSession(ref=ref, host=host, port=port, protocol="tcp"))
    answer = await client.until(lambda: next((m for m in client.inbox if isinstance(m, Session | Refused) and m.ref == ref), None))
    client.inbox.remove(answer)
    return answer


async def _rule(lab: World, rest: str) -> None:
    text = "kind: rule\nname: science-uses-jupyter\neffect: permit\nwho: {groups: [science]}\nwhat: {segments: [jupyter]}\n"
    await lab.apply(text + rest)


def _fact(client: Agent, name: str, value: str, lab: World, seconds: int | None = 600, source: str = "client") -> EvidenceRow:
    now = int(lab.clock())
    return EvidenceRow(Subject("agent", client.id), source, name, value, now, None if seconds is None else now + seconds)


async def _say_quiet(lab: World, connector: Agent, *sessions: str) -> None:
    """Links overtake one another: this waits until the exchange has heard it."""
    connector.send(Quiet(sessions=list(sessions)))
    link = lab.running.switchboard.of_agent(connector.id)
    assert link is not None
    await eventually(lambda: link.quiet == frozenset(sessions))


async def _put(lab: World, client: Agent, *rows: EvidenceRow, whole: str | None = "client") -> None:
    await lab.running.evidence.put(None, Subject("agent", client.id), rows, Code.POSTURE_FAILED, whole=whole)


async def test_a_fact_that_changes_ends_the_session_that_needed_it(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await _rule(lab, "when: {posture: {disk: encrypted}}\n")
    assert (await want(ada)).code == Code.CONDITION_FAILED
    await _put(lab, ada, _fact(ada, "disk", "encrypted", lab))
    session = await want(ada, 2)
    assert isinstance(session, Session)
    await _put(lab, ada, _fact(ada, "disk", "encrypted", lab), _fact(ada, "os", "linux", lab))
    assert lab.running.book.get(session.session) is not None  # negative control: nothing that the rule reads
    await _put(lab, ada, _fact(ada, "os", "linux", lab))
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.POSTURE_FAILED)
    assert "`disk`" in end.message


async def test_a_fact_that_is_not_renewed_ends_the_session_by_the_clock(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await _rule(lab, "when: {posture: {disk: encrypted}}\n")
    await _put(lab, ada, _fact(ada, "disk", "encrypted", lab, seconds=100))
    session = await want(ada)
    lab.clock.offset += 60
    await _put(lab, ada, _fact(ada, "disk", "encrypted", lab, seconds=100))
    while (renewed := await ada.receive(Session)).expires <= session.expires + 50:
        pass  # a ticket that was renewed before the fact was
    lab.clock.offset += 45
    assert lab.running.book.get(session.session) is not None  # past the end of the first report: it goes on
    assert renewed.session == session.session
    lab.clock.offset += 60
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.POSTURE_FAILED)
    assert "`disk`" in end.message


async def test_what_a_client_says_of_itself_cannot_speak_for_another_source(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await _rule(lab, 'when: {posture: {"mdm/compliant": "yes"}}\n')
    await _put(lab, ada, _fact(ada, "compliant", "yes", lab))
    assert isinstance(await want(ada, 1), Refused)
    await lab.running.evidence.put(
        ADMIN, Subject("agent", ada.id), [_fact(ada, "compliant", "yes", lab, source="mdm")], Code.POSTURE_FAILED
    )
    assert isinstance(await want(ada, 2), Session)


async def test_evidence_survives_a_restart_of_state(lab: World) -> None:
    ada = await lab.client("ada")
    await _put(lab, ada, _fact(ada, "disk", "encrypted", lab))
    await _put(lab, ada, _fact(ada, "os", "linux", lab))
    state = await asyncio.to_thread(load_state, lab.running.store, lab.running.state.keyring)
    assert [row.name for row in state.evidence.of(Subject("agent", ada.id)).values()] == ["os"]


async def test_a_question_that_a_stronger_sign_in_would_answer_stays_open(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await _rule(lab, "when: {strength: mfa}\n")
    refused = await want(ada, 7)
    assert (refused.ref, refused.code) == (7, Code.STEP_UP_REQUIRED)
    await _rule(lab, "when: {strength: mfa, after: 2020-01-01T00:00:00Z}\n")  # another rule, the same answer: it is not told twice
    await _rule(lab, "")
    session = await ada.receive(Session)
    assert session.ref == 7
    assert ada.take(Refused) == []


async def test_a_question_is_forgotten_after_two_minutes(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await _rule(lab, "when: {strength: mfa}\n")
    await want(ada, 7)
    lab.clock.offset += 121
    await _rule(lab, "")
    session = await want(ada, 8)
    assert isinstance(session, Session)
    assert [answer.ref for answer in ada.take(Session)] == []


async def test_a_session_ends_at_the_limit_of_the_rule(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await _rule(lab, "limits: {session: 10m}\n")
    session = await want(ada)
    for _ in range(4):
        lab.clock.offset += 149  # half of a ticket's life
        assert (await ada.receive(Session)).session == session.session
    lab.clock.offset += 5
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.SESSION_LIMIT)
    assert isinstance(await want(ada, 2), Session)


async def test_a_session_that_is_quiet_at_every_connector_ends(lab: World) -> None:
    first, second = await lab.connector(), await lab.connector()
    ada = await lab.client("ada")
    await _rule(lab, "limits: {idle: 5m}\n")
    session = await want(ada)
    for connector in (first, second):
        while (await connector.receive(Watch)).sessions != {session.session: 300}:
            pass
    await _say_quiet(lab, first, session.session)
    await _say_quiet(lab, first)  # it moved again
    await _say_quiet(lab, second, session.session)
    await _say_quiet(lab, first, "0" * 16)
    assert isinstance(await want(ada, 2), Session)  # negative control: it is there still
    first.send(Quiet(sessions=[session.session]))
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.IDLE_LIMIT)


async def test_case_38_a_connector_cannot_call_a_session_idle_that_has_no_limit(lab: World) -> None:
    connector = await lab.connector()
    ada = await lab.client("ada")
    session = await want(ada)
    connector.send(Quiet(sessions=[session.session]))
    await _rule(lab, "limits: {session: 1h}\n")
    assert lab.running.book.get(session.session) is not None
