"""No session that policy does not allow is honoured by any connector once its revocation was acknowledged, whatever raced with it; and whoever asked has
an answer.

Programs are random and repeat themselves by their number; FULL=1 runs 10,000 of them. What guards against a survivor is taken away once, and the
same programs find one.
"""

import os
import random
from collections.abc import Callable, Iterable
from typing import Any

import pytest
from tests.unit.exchange.survivors import Libraries, Race

from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.links import LiveLink
from cloister.exchange.revoke import Revoker
from cloister.exchange.sessions import Sessions
from cloister.exchange.verify import Verifier
from cloister.trust.keyring import Keyring, create_keyring

PROGRAMS = 10_000 if os.environ.get("FULL") else 400
STEPS = 60


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return create_keyring(1_800_000_000)


@pytest.fixture(scope="module")
def libraries() -> Libraries:
    return Libraries()


async def run(number: int, keyring: Keyring, libraries: Libraries) -> tuple[str, int]:
    """What survived or was not answered, in words; and how many tickets there were."""
    dice, race = random.Random(number), Race(keyring, libraries)
    for step in range(STEPS):
        race.step(dice)
        if found := race.survivors():
            return f"program {number}, step {step}: {found}", len(race.tickets)
    unanswered = race.settle()
    return f"program {number}: {unanswered} have no answer" if unanswered else "", len(race.tickets)


async def first_survivor(programs: Iterable[int], keyring: Keyring, libraries: Libraries) -> str:
    for number in programs:
        found, _ = await run(number, keyring, libraries)
        if found:
            return found
    return ""


async def test_no_session_survives_its_revocation(keyring: Keyring, libraries: Libraries) -> None:
    tickets = 0
    for number in range(PROGRAMS):
        found, count = await run(number, keyring, libraries)
        assert not found
        tickets += count
    assert tickets > 3 * PROGRAMS  # the programs are about something


def _only_the_newest_ticket_counts(self: SessionBook, session: LiveSession, *arguments: Any) -> None:
    TICKET_MADE(self, session, *arguments)
    session.audience = {connector: session.audience[connector] for connector in session.connectors}


def _only_live_sessions_answer(self: Sessions, link: LiveLink, asked: object, session: LiveSession, *rest: Any, **how: Any) -> None:
    if not session.ended:
        DELIVER(self, link, asked, session, *rest, **how)


DELIVER: Callable[..., None] = Sessions._deliver
TICKET_MADE = SessionBook.ticket_made
WITHOUT: dict[str, tuple[type, str, Callable[..., None]]] = {
    "a silent connector is blocked at the relays": (Revoker, "_block", lambda self, item: None),
    "connectors of earlier tickets are told too": (SessionBook, "ticket_made", _only_the_newest_ticket_counts),
    "sessions are decided again when something changes": (Verifier, "check", lambda self, sessions, cause: None),
    "a connector is told what it must not honour": (Revoker, "_tell_connector", lambda self, connector, sessions, now: None),
    "a session that ended while it was stored is asked for again": (Sessions, "_deliver", _only_live_sessions_answer),
}


@pytest.mark.parametrize("guard", WITHOUT)
async def test_without_a_guard_the_same_programs_find_a_survivor(
    guard: str, keyring: Keyring, libraries: Libraries, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind, name, instead = WITHOUT[guard]
    monkeypatch.setattr(kind, name, instead)
    assert await first_survivor(range(PROGRAMS), keyring, libraries)
