"""Risk scores over the API: overrides that expire, other sources, and what rules make of them."""

from typing import Any

import pytest
from tests.unit.exchange.conftest import World
from tests.unit.exchange.signalling import laptop_of, rule, want

from cloister.model.messages.from_exchange import EndSession, Session
from cloister.model.reasons import Code


async def test_an_override_counts_at_once_and_until_it_expires(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await rule(lab, "when: {risk: {user: 60}}\n")
    session = await want(ada)
    await lab.api.ok("PUT", "/users/ada/risk", json={"score": 59, "seconds": 600, "reason": "seen in a list"})
    assert lab.running.book.get(session.session) is not None
    answer = await lab.api.ok("PUT", "/users/ada/risk", json={"score": 60, "seconds": 600, "reason": "reported"})
    assert (answer["score"], answer["override"]["reason"]) == (60, "reported")
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.RISK_TOO_HIGH)
    lab.clock.offset += 601
    again = await want(ada, 2)
    assert isinstance(again, Session)


async def test_an_override_that_vouches_ends_and_the_session_with_it(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    await laptop_of(lab, ada)
    await rule(lab, "when: {risk: {device: 50}}\n")
    await lab.api.ok("PUT", "/devices/laptop/risk", json={"score": 80, "source": "edr"})
    assert (await want(ada)).code == Code.CONDITION_FAILED
    await lab.api.ok("PUT", "/devices/laptop/risk", json={"score": 0, "seconds": 100, "reason": "looked at it"})
    session = await want(ada, 2)
    assert isinstance(session, Session)
    assert session.expires <= int(lab.clock()) + 100
    lab.clock.offset += 101
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], Code.RISK_TOO_HIGH)


async def test_sources_add_up_fade_and_are_cleared(lab: World) -> None:
    lab.clock.freeze()
    for source, decay in (("edr", "linear"), ("siem", "none")):
        await lab.api.ok("PUT", "/users/ada/risk", json={"score": 40, "source": source, "decay": decay, "half_life": 3600})
    assert (await lab.api.ok("GET", "/users/ada/risk"))["score"] == 80
    lab.clock.offset += 3600
    answer = await lab.api.ok("GET", "/users/ada/risk")
    assert answer["score"] == 60
    assert {part["source"]: part["left"] for part in answer["parts"]} == {"edr": 20.0, "siem": 40.0}
    await lab.api.ok("DELETE", "/users/ada/risk", params={"source": "siem"})
    assert (await lab.api.ok("GET", "/users/ada/risk"))["score"] == 20
    assert (await lab.api.call("DELETE", "/users/ada/risk", params={"source": "siem"})).status_code == 404
    await lab.api.ok("DELETE", "/users/ada/risk")
    assert (await lab.api.ok("GET", "/users/ada/risk"))["parts"] == []


@pytest.mark.parametrize(
    "form",
    [
        {"score": 101, "seconds": 60, "reason": "x"},
        {"score": -1, "seconds": 60, "reason": "x"},
        {"score": 5, "reason": "x"},
        {"score": 5, "seconds": 60},
        {"score": 5, "seconds": 60, "reason": " "},
        {"score": 5, "seconds": 60, "reason": "a\nb"},
        {"score": 5, "source": "client"},
        {"score": 5, "source": "signal:x"},
        {"score": 5, "source": "edr", "decay": "linear", "half_life": 0},
    ],
)
async def test_a_score_that_is_not_whole_is_refused(lab: World, form: dict[str, Any]) -> None:
    assert (await lab.api.call("PUT", "/users/ada/risk", json=form)).status_code == 422
    assert (await lab.api.ok("GET", "/users/ada/risk"))["score"] == 0


async def test_a_client_cannot_speak_of_its_own_risk(lab: World) -> None:
    from cloister.exchange.facts import facts_of
    from cloister.store.types import EvidenceRow, Subject

    ada = await lab.client("ada")
    subject = Subject("agent", ada.id)
    rows = [EvidenceRow(subject, "client", name, "100", int(lab.clock())) for name in ("risk", "sign-ins-before")]
    await lab.running.evidence.put(None, subject, rows, Code.POSTURE_FAILED, whole="client")
    facts = facts_of(lab.running.state, lab.running.state.agents[ada.id], int(lab.clock()))
    assert facts is not None
    assert (facts.risk.user, facts.risk.device, facts.signed_out) == (0, 0, False)
