from collections.abc import Sequence

import pytest

from cloister.client.machine import (
    ANSWER_WAIT,
    ASK_AGAIN_AFTER,
    LINK_WAIT,
    MAX_WAITING,
    Destination,
    End,
    Grant,
    Hold,
    Refuse,
    Send,
    Sessions,
    Tell,
)
from cloister.model.messages.from_agent import Idle, WantSession
from cloister.model.messages.from_exchange import EndSession, Refused, Session
from cloister.model.reasons import PENDING_SECONDS

HERE = Destination("jupyter.lab.internal", 8888, "tcp")
SESSION = "a" * 16


def _session(ref: int | None, session: str = SESSION) -> Session:
    return Session(ref=ref, session=session, segment="b" * 16, ticket="t", expires=300, connectors=["c" * 16], relays=["d" * 16])


def _up() -> Sessions:
    sessions = Sessions()
    sessions.on_up(0.0)
    return sessions


def _ref(commands: Sequence[object]) -> int:
    match commands:
        case [Send(WantSession(ref=ref))]:
            return ref
        case other:
            pytest.fail(str(other))


def test_wanted_session_is_asked_for_and_granted() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    answer = _session(ref)
    assert sessions.on_session(answer, 1.0) == [Grant(7, answer)]
    assert sessions.held == {SESSION: HERE}


def test_case_43_answer_to_another_question_is_dropped() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    assert sessions.on_session(_session(ref + 1), 1.0) == [Send(Idle(sessions=[SESSION]))]
    assert sessions.on_refused(Refused(ref=ref + 1, code="not_found", message="m"), 1.0) == []
    sessions.on_session(_session(ref), 1.0)
    assert sessions.on_session(_session(ref), 1.0) == []
    assert sessions.held == {SESSION: HERE}


def test_session_of_an_earlier_process_is_given_back() -> None:
    assert _up().on_session(_session(None), 1.0) == [Send(Idle(sessions=[SESSION]))]


def test_renewal_of_a_held_session_is_granted_unasked() -> None:
    sessions = _up()
    sessions.on_session(_session(_ref(sessions.on_wanted(7, HERE, 0.0))), 1.0)
    assert sessions.on_session(_session(None), 2.0) == [Grant(None, _session(None))]


def test_refusal_reaches_the_flow_and_the_person() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    refuse, tell = sessions.on_refused(Refused(ref=ref, code="condition_failed", message="too late", remedy="sleep"), 1.0)
    assert refuse == Refuse(7, "condition_failed")
    assert isinstance(tell, Tell)
    assert "jupyter.lab.internal:8888" in tell.notice.text
    assert "too late" in tell.notice.text


def test_case_68_unknown_name_makes_no_notice() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    assert sessions.on_refused(Refused(ref=ref, code="not_found", message="m"), 1.0) == [Refuse(7, "not_found")]


def test_end_of_a_session_resets_its_flows_and_tells_once() -> None:
    sessions = _up()
    sessions.on_session(_session(_ref(sessions.on_wanted(7, HERE, 0.0))), 1.0)
    end, tell = sessions.on_end(EndSession(sessions=[SESSION], code="group_changed", message="m"), 2.0)
    assert end == End(SESSION, "group_changed")
    assert isinstance(tell, Tell)
    assert sessions.held == {}
    assert sessions.on_end(EndSession(sessions=[SESSION], code="group_changed", message="m"), 3.0) == [
        End(SESSION, "group_changed")
    ]


def test_questions_of_a_lost_link_are_asked_again() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    sessions.on_down(1.0)
    assert _ref(sessions.on_up(2.0)) == ref


def test_request_without_a_link_waits_and_is_then_refused() -> None:
    sessions = Sessions()
    assert sessions.on_wanted(7, HERE, 0.0) == []
    assert sessions.on_timer(LINK_WAIT - 1) == []
    assert sessions.on_timer(LINK_WAIT)[0] == Refuse(7, "exchange_unreachable")
    assert sessions.on_up(LINK_WAIT + 1) == []


def test_request_without_an_answer_is_refused_at_its_bound() -> None:
    sessions = _up()
    sessions.on_wanted(7, HERE, 0.0)
    assert sessions.on_timer(ANSWER_WAIT - 1) == []
    assert sessions.on_timer(ANSWER_WAIT)[0] == Refuse(7, "exchange_unreachable")


def test_waiting_requests_are_bounded() -> None:
    sessions = _up()
    for request in range(MAX_WAITING):
        _ref(sessions.on_wanted(request, HERE, 0.0))
    assert sessions.on_wanted(MAX_WAITING, HERE, 0.0) == [Refuse(MAX_WAITING, "limit_reached")]


def test_refused_ticket_asks_control_once_and_not_in_a_loop() -> None:
    sessions = _up()
    sessions.on_session(_session(_ref(sessions.on_wanted(7, HERE, 0.0))), 1.0)
    ref = _ref(sessions.on_ticket_refused(SESSION, 5.0))
    assert sessions.on_ticket_refused(SESSION, 5.5) == []
    answer = _session(ref)
    assert sessions.on_session(answer, 5.6) == [Grant(None, answer)]
    assert sessions.on_ticket_refused(SESSION, 5.7) == []
    _ref(sessions.on_ticket_refused(SESSION, 5.7 + ASK_AGAIN_AFTER))


def test_refused_ticket_that_control_does_not_renew_ends_the_session() -> None:
    sessions = _up()
    sessions.on_session(_session(_ref(sessions.on_wanted(7, HERE, 0.0))), 1.0)
    ref = _ref(sessions.on_ticket_refused(SESSION, 5.0))
    commands = sessions.on_refused(Refused(ref=ref, code="denied_by_default", message="m"), 5.1)
    assert commands[0] == End(SESSION, "denied_by_default")
    assert sessions.held == {}


def test_idle_sessions_are_given_back() -> None:
    sessions = _up()
    sessions.on_session(_session(_ref(sessions.on_wanted(7, HERE, 0.0))), 1.0)
    assert sessions.on_idle([SESSION, "f" * 16]) == [Send(Idle(sessions=[SESSION]))]
    assert sessions.on_idle([SESSION]) == []


@pytest.mark.parametrize("code", ["step_up_required", "approval_required"])
def test_refusal_that_a_person_can_change_keeps_the_flow_waiting_and_tells_once(code: str) -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    refused = Refused(ref=ref, code=code, message="m", remedy="do it")
    hold, tell = sessions.on_refused(refused, 1.0)
    assert hold == Hold(7, code)
    assert isinstance(tell, Tell)
    assert tell.notice.remedy == "do it"
    assert sessions.on_refused(refused, 2.0) == []
    assert sessions.on_timer(100.0) == []
    answer = _session(ref)
    assert sessions.on_session(answer, 100.0) == [Grant(7, answer)]
    assert sessions.on_timer(500.0) == []


def test_pending_question_ends_at_once_with_a_final_refusal() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    sessions.on_refused(Refused(ref=ref, code="approval_required", message="m"), 1.0)
    final = sessions.on_refused(Refused(ref=ref, code="forbidden_by_rule", message="no"), 2.0)
    assert final[0] == Refuse(7, "forbidden_by_rule")
    assert sessions.on_session(_session(ref), 3.0) == [Send(Idle(sessions=[SESSION]))]


def test_pending_question_ends_after_its_two_minutes_with_its_own_code() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    sessions.on_refused(Refused(ref=ref, code="step_up_required", message="m"), 1.0)
    assert sessions.on_timer(1.0 + PENDING_SECONDS - 0.1) == []
    assert sessions.on_timer(1.0 + PENDING_SECONDS) == [Refuse(7, "step_up_required")]


def test_pending_question_is_asked_again_on_a_new_link_and_waits_no_longer_for_it() -> None:
    sessions = _up()
    ref = _ref(sessions.on_wanted(7, HERE, 0.0))
    sessions.on_refused(Refused(ref=ref, code="step_up_required", message="m"), 1.0)
    sessions.on_down(50.0)
    assert _ref(sessions.on_up(60.0)) == ref
    assert sessions.on_timer(1.0 + PENDING_SECONDS) == [Refuse(7, "step_up_required")]


def test_refused_ticket_of_a_session_that_needs_a_person_ends_its_flows() -> None:
    """Nothing that runs waits: only what is not yet open does."""
    sessions = _up()
    sessions.on_session(_session(_ref(sessions.on_wanted(7, HERE, 0.0))), 1.0)
    ref = _ref(sessions.on_ticket_refused(SESSION, 5.0))
    assert sessions.on_refused(Refused(ref=ref, code="step_up_required", message="m"), 5.1)[0] == End(SESSION, "step_up_required")
