"""One cause that ends many sessions: what the exchange then does is bounded, and the work of a session does not grow with their number."""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from bench.bare import Bare, id_of, library_of, rule

from cloister.exchange.book import LiveSession
from cloister.exchange.devices.places import Places
from cloister.exchange.sessions import DUE_PER_TURN, EXPLAINED
from cloister.exchange.signals.standing import OVERRIDE, RISK
from cloister.exchange.verify import SLICE
from cloister.exchange.writer import Writer
from cloister.identity.posture.places import NetworkIndex
from cloister.model.messages.from_exchange import EndSession, FromExchange, Revoke, read_from_exchange
from cloister.model.reasons import REASONS, Code
from cloister.store.service import Store
from cloister.store.sessions import list_sessions, put_sessions
from cloister.store.types import EvidenceRow, Subject
from cloister.telemetry.decisions import DecisionLog
from cloister.trust.keyring import create_keyring

NOW = 1_800_000_000
CLIENTS, SEGMENTS = 60, 5
ADA = id_of("user", "ada")
DOCUMENTS: list[dict[str, Any]] = [
    *({"kind": "segment", "name": f"s{n}", "hosts": ["10.0.0.1"], "ports": [7000 + n], "groups": ["g"]} for n in range(SEGMENTS)),
    {"kind": "connector-group", "name": "g"},
    {"kind": "user", "name": "ada"},
    {"kind": "group", "name": "staff", "users": ["ada"]},
    rule("calm", "staff", [f"s{n}" for n in range(SEGMENTS)], when={"risk": {"user": 50}}),
]


class Crowd:
    """One person with many clients, each with a session to every segment."""

    def __init__(self, directory: Path) -> None:
        self.told: list[FromExchange] = []
        self.store, self.writer = Store.open(directory / "exchange.db"), Writer()
        keyring = create_keyring(NOW)
        log = DecisionLog(directory / "journal")
        bare = self.bare = Bare(
            directory,
            keyring,
            library_of(DOCUMENTS),
            lambda: NOW,
            self._send,
            store=self.store,
            writer=self.writer,
            reserve=self.store.reserve_generations,
            log=log,
        )
        connector = bare.add_agent("connector", "c", group=id_of("connector-group", "g"))
        bare.link_up(connector)
        for number in range(CLIENTS):
            client = bare.add_agent("client", f"k{number:03}", principal=ADA)
            bare.link_up(client)
            for segment in range(SEGMENTS):
                id, where = f"{number:08}{segment:08}", id_of("segment", f"s{segment}")
                session = LiveSession(
                    id, ADA, client.id, where, NOW, connectors=(connector.id,), audience={connector.id: NOW + 900}
                )
                session.issued_at, session.ticket_expires, session.ends_at = NOW, NOW + 300, NOW + 900
                bare.book.add(session)
        with self.store.note() as connection:
            put_sessions(connection, [session.to_stored() for session in bare.book])

    def _send(self, _link: int, body: bytes) -> bool:
        self.told.append(read_from_exchange(body))
        return True

    def raise_risk(self) -> None:
        subject = Subject("user", ADA)
        row = EvidenceRow(subject, OVERRIDE, RISK, "90 because", NOW, NOW + 600)
        self.bare.state.evidence.replace(subject, [row], ())

    def ends(self) -> list[EndSession]:
        return [message for message in self.told if isinstance(message, EndSession)]


@pytest.fixture
async def crowd(tmp_path: Path) -> AsyncIterator[Crowd]:
    (tmp_path / "journal").mkdir()
    made = Crowd(tmp_path)
    try:
        yield made
    finally:
        await made.writer.flush()
        made.writer.close()
        made.store.close()


async def test_a_client_is_told_once_of_all_its_sessions(crowd: Crowd) -> None:
    in_turns = [session for segment in range(SEGMENTS) for session in crowd.bare.book.of_segment(id_of("segment", f"s{segment}"))]
    crowd.raise_risk()
    crowd.bare.verifier.check(in_turns, Code.RISK_TOO_HIGH)
    await crowd.bare.verifier.settled()
    assert len(crowd.bare.book) == 0
    between_slices = CLIENTS * SEGMENTS // SLICE  # a client on the edge of two is told twice
    assert CLIENTS <= len(crowd.ends()) <= CLIENTS + 2 * between_slices


async def test_only_so_many_ends_within_a_second_are_explained(crowd: Crowd) -> None:
    crowd.raise_risk()
    crowd.bare.verifier.check(crowd.bare.book, Code.RISK_TOO_HIGH)
    await crowd.bare.verifier.settled()
    plain = REASONS[Code.RISK_TOO_HIGH].message
    explained = [id for message in crowd.ends() if message.message != plain for id in message.sessions]
    assert len(explained) == EXPLAINED < CLIENTS * SEGMENTS


async def test_what_is_due_in_one_second_is_decided_in_turns_without_a_pause(crowd: Crowd) -> None:
    crowd.raise_risk()
    for session in crowd.bare.book:
        session.decided_until = NOW
        crowd.bare.book.schedule(session, NOW)
    turns = [crowd.bare.sessions.on_tick(NOW) for _ in range(CLIENTS * SEGMENTS // DUE_PER_TURN)]
    assert [next_due <= NOW for next_due in turns] == [True] * (len(turns) - 1) + [False]
    assert len(crowd.bare.book) == 0
    assert sum(isinstance(message, Revoke) for message in crowd.told) <= len(turns) * 2  # not one for each session


async def test_ended_sessions_leave_the_store_however_many_transactions_it_takes(crowd: Crowd) -> None:
    sessions = list(crowd.bare.book)
    for session in sessions:
        crowd.bare.revoker.revoke([session], Code.POLICY_CHANGED)
        crowd.bare.revoker.on_tick(NOW)
        await asyncio.sleep(0)
    await crowd.writer.flush()
    with crowd.store.read() as connection:
        assert list_sessions(connection) == []


def test_places_follow_every_client_that_comes_moves_and_goes() -> None:
    places, nowhere = Places(), NetworkIndex(())

    def count() -> int:
        return places.count(ADA, nowhere, NOW)[0]

    for client in ("a", "b"):
        places.up(ADA, client, "192.0.2.1")
    assert count() == 1
    places.up(ADA, "a", "198.51.100.1")
    assert count() == 2
    places.up(ADA, "a", "198.51.100.1")
    places.down(ADA, "a")
    assert count() == 1
    places.up(ADA, "a", "192.0.2.1")
    places.down(ADA, "b")
    places.down(ADA, "b")
    assert count() == 1
    places.up(ADA, "b", "198.51.100.1")
    assert count() == 2
