import pytest

from cloister.agent.machine import FINAL, Believe, Deliver, LinkMachine, Ready, Redial, Send, State, Stop, Swap
from cloister.agent.rules import RENEW_RETRY
from cloister.agent.types import Role
from cloister.model.messages.from_agent import Hello, Renew
from cloister.model.messages.from_exchange import (
    Assignments,
    Catalogue,
    Cut,
    Enrolled,
    FromExchange,
    Refused,
    Relays,
    Renewed,
    Revoke,
    Trust,
    Welcome,
)

LIFE = 86400
ID = "0123456789abcdef"
WELCOME = Welcome(agent=ID, exchange="x", now=0, resume="secret-2", generation=1)
CUT = Cut(ref=1, client=ID)
CATALOGUE = Catalogue(generation=1, segments=[])
REVOKE = Revoke(generation=1, sessions=[])


def _machine(role: Role = "connector") -> LinkMachine:
    return LinkMachine(role=role, software="s", boot=ID, hostname="h", resume="secret-1", not_before=0, not_after=LIFE, jitter=0.0)


def _ready(role: Role = "connector") -> LinkMachine:
    machine = _machine(role)
    machine.on_up(1.0)
    machine.on_message(WELCOME, 1.0)
    return machine


def test_link_starts_with_hello_and_the_last_secret() -> None:
    match _machine().on_up(1.0):
        case [Send(Hello(resume="secret-1"))]:
            pass
        case other:
            pytest.fail(str(other))


def test_welcome_makes_ready_and_its_secret_is_shown_next_time() -> None:
    machine = _machine()
    machine.on_up(1.0)
    assert machine.on_message(WELCOME, 1.0) == [Ready(WELCOME)]
    machine.on_down()
    match machine.on_up(2.0):
        case [Send(Hello(resume="secret-2"))]:
            pass
        case other:
            pytest.fail(str(other))


def test_second_welcome_breaks_the_link() -> None:
    machine = _ready()
    assert isinstance(machine.on_message(WELCOME, 2.0)[0], Redial)


@pytest.mark.parametrize(
    ("role", "own", "foreign"), [("connector", REVOKE, CATALOGUE), ("client", CATALOGUE, REVOKE), ("relay", CUT, CATALOGUE)]
)
def test_case_37_messages_of_another_role_break_the_link(role: Role, own: FromExchange, foreign: FromExchange) -> None:
    machine = _ready(role)
    assert machine.on_message(own, 2.0) == [Deliver(own)]
    assert isinstance(machine.on_message(foreign, 2.0)[0], Redial)


def test_nothing_is_believed_before_the_welcome() -> None:
    trust = Trust(roots="", ticket_keys={})
    machine = _machine()
    machine.on_up(1.0)
    assert isinstance(machine.on_message(trust, 1.0)[0], Redial)
    assert _ready().on_message(trust, 1.0) == [Believe(trust)]


def test_enrolment_answer_has_no_place_on_a_link() -> None:
    enrolled = Enrolled(agent=ID, exchange="x", chain="", roots="")
    assert isinstance(_ready().on_message(enrolled, 1.0)[0], Redial)


def test_messages_of_a_dead_connection_are_dropped() -> None:
    machine = _ready()
    machine.on_down()
    assert machine.on_message(Relays(relays=[]), 2.0) == []
    assert machine.on_message(Assignments(generation=1, segments=[]), 2.0) == []


def test_renewal_is_asked_at_two_thirds_and_again_until_answered() -> None:
    machine = _ready()
    due = LIFE * 2 / 3
    assert machine.wake_at == pytest.approx(due)
    assert machine.on_timer(due - 1) == []
    assert machine.on_timer(due) == [Send(Renew())]
    assert machine.on_timer(due + 1) == []
    assert machine.on_timer(due + RENEW_RETRY) == [Send(Renew())]
    assert machine.on_message(Renewed(chain="new"), due) == [Swap("new")]
    machine.renewed(int(due), int(due) + LIFE, due)
    assert machine.wake_at == pytest.approx(int(due) + LIFE * 2 / 3)


def test_wrong_clock_never_renews_in_a_loop() -> None:
    machine = _ready()
    now = 100.0 * LIFE
    machine.renewed(0, LIFE, now)  # as seen from here, the new certificate is long over
    assert machine.wake_at == now + RENEW_RETRY


def test_expired_leaf_says_nothing_but_renew_then_comes_back() -> None:
    machine = _machine()
    assert machine.on_up(LIFE + 1.0) == [Send(Renew())]
    assert machine.state is State.RENEWING
    swap, redial = machine.on_message(Renewed(chain="new"), LIFE + 1.0)
    assert swap == Swap("new")
    assert isinstance(redial, Redial)


def test_exchange_judges_expiry_when_the_clocks_differ() -> None:
    machine = _machine()
    machine.on_up(1.0)
    assert machine.on_message(Refused(code="certificate_expired", message="m"), 1.0) == [Send(Renew())]


@pytest.mark.parametrize("code", sorted(FINAL))
def test_final_refusal_stops(code: str) -> None:
    assert _ready().on_message(Refused(code=code, message="m", remedy="r"), 1.0) == [Stop(code, "m", "r")]


@pytest.mark.parametrize("code", ["draining", "agent_unconfirmed", "too_many_attempts", "internal"])
def test_passing_refusal_does_not_stop(code: str) -> None:
    assert _ready().on_message(Refused(code=code, message="m"), 1.0) == []


@pytest.mark.parametrize("code", sorted(FINAL))
def test_final_end_of_a_link_stops(code: str) -> None:
    assert isinstance(_ready().on_down(code)[0], Stop)


@pytest.mark.parametrize("code", ["peer_silent", "handshake_failed", "certificate_expired", "replaced", ""])
def test_other_ends_of_a_link_wait_for_the_next(code: str) -> None:
    assert _ready().on_down(code) == []
