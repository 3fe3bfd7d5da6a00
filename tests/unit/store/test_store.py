"""Laws of the store."""

import multiprocessing
import os
import signal
import sqlite3
import stat
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext

from cloister.store import agents, audit, documents, sessions
from cloister.store.service import Store, migrate
from cloister.store.tables import metadata
from cloister.store.types import Actor, AuditEntry, ProvisioningKeyRow, StoredSession

NOW = 1_800_000_000


def _entry(action: str = "test") -> AuditEntry:
    return AuditEntry(NOW, Actor("exchange"), action, "x")


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Store]:
    with Store.open(tmp_path / "exchange.db") as opened:
        yield opened


def _key(id: str, uses: int) -> ProvisioningKeyRow:
    return ProvisioningKeyRow(id, "0" * 64, "connector", uses, 0, NOW, "exchange", NOW + 60)


def test_migrations_from_empty_give_exactly_the_tables(store: Store) -> None:
    with store.read() as connection:
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_agents_of_before_it_was_kept_when_they_were_vouched_for_are_of_unknown_age(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    migrate(path, "0008")
    names = "id, role, hostname, public_key, key_thumbprint, enrolled_at, enrolled_by, signed_in_at, confirmed"
    with closing(sqlite3.connect(path)) as old, old:
        old.execute(f"INSERT INTO agents ({names}) VALUES ('a', 'client', 'h', 'k', 't', {NOW}, 'user:ada', 0, 1)")
    with Store.open(path) as store, store.read() as connection:
        (agent,) = agents.list_agents(connection)
        assert (agent.id, agent.signed_in_at, agent.sign_in_vouched_at) == ("a", 0, None)
        assert compare_metadata(MigrationContext.configure(connection), metadata) == []


def test_opening_twice_keeps_everything(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Store.open(path) as first, first.change(_entry()) as change:
        documents.put_document(change, "0" * 16, "segment", "a", {"kind": "segment"}, NOW)
    with Store.open(path) as second, second.read() as connection:
        assert [document.name for document in documents.list_documents(connection)] == ["a"]
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_every_change_has_a_new_generation_and_an_audit_row(store: Store) -> None:
    seen = []
    for _ in range(3):
        with store.change(_entry()) as change:
            seen.append(change.generation)
    assert seen == sorted(set(seen))
    with store.read() as connection:
        assert [row.generation for row in audit.list_audit(connection)] == seen[::-1]
    assert store.generation() == seen[-1]


def test_failed_change_leaves_neither_state_nor_generation_nor_audit(store: Store) -> None:
    before = store.generation()
    with pytest.raises(RuntimeError), store.change(_entry()) as change:
        documents.put_document(change, "0" * 16, "segment", "a", {}, NOW)
        raise RuntimeError
    with store.read() as connection:
        assert documents.list_documents(connection) == []
        assert audit.list_audit(connection) == []
    assert store.generation() == before


def test_reserved_generations_are_never_given_to_a_change(store: Store) -> None:
    last = store.reserve_generations(100)
    with store.change(_entry()) as change:
        assert change.generation == last + 1


def test_case_22_of_1000_racing_threads_exactly_one_takes_the_last_use(store: Store) -> None:
    with store.change(_entry()) as change:
        agents.add_provisioning_key(change, _key("a" * 16, 1))
    start = threading.Barrier(16)

    def race(number: int) -> bool:
        if number < 16:
            start.wait()
        with store.change(_entry("enrol")) as change:
            return agents.use_provisioning_key(change, "a" * 16, NOW)

    with ThreadPoolExecutor(16) as pool:
        assert sum(pool.map(race, range(1000))) == 1
    with store.read() as connection:
        key = agents.find_provisioning_key(connection, "a" * 16)
    assert key is not None
    assert key.uses == 1


def _race_in_process(path: Path, start: "multiprocessing.synchronize.Event", wins: "multiprocessing.Queue[int]") -> None:
    with Store(path) as store:
        start.wait()
        won = 0
        for _ in range(20):
            with store.change(_entry("enrol")) as change:
                won += agents.use_provisioning_key(change, "b" * 16, NOW)
        wins.put(won)


def test_case_22_racing_processes_take_exactly_the_uses_there_are(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    with Store.open(path) as store, store.change(_entry()) as change:
        agents.add_provisioning_key(change, _key("b" * 16, 7))
    context = multiprocessing.get_context("spawn")
    start, wins = context.Event(), context.Queue()
    racers = [context.Process(target=_race_in_process, args=(path, start, wins)) for _ in range(4)]
    for racer in racers:
        racer.start()
    start.set()
    assert sum(wins.get(timeout=60) for _ in racers) == 7
    for racer in racers:
        racer.join()
    wins.close()
    wins.join_thread()


@pytest.mark.parametrize(("now", "revoked"), [(NOW + 60, False), (NOW, True)])
def test_ended_key_has_no_use(store: Store, now: int, revoked: bool) -> None:
    with store.change(_entry()) as change:
        agents.add_provisioning_key(change, _key("c" * 16, 5))
        if revoked:
            agents.revoke_provisioning_key(change, "c" * 16, NOW)
        assert not agents.use_provisioning_key(change, "c" * 16, now)


def _commit_and_die(path: Path) -> None:
    with Store(path) as store:
        with store.change(_entry()) as change:
            documents.put_document(change, "0" * 16, "segment", "committed", {}, NOW)
        with store.note() as connection:
            sessions.put_sessions(connection, [_session("1" * 16)])
        with store.change(_entry()) as change:
            documents.put_document(change, "2" * 16, "segment", "open", {}, NOW)
            os.kill(os.getpid(), signal.SIGKILL)


def test_killed_process_loses_nothing_committed_and_keeps_nothing_half_done(tmp_path: Path) -> None:
    path = tmp_path / "exchange.db"
    Store.open(path).close()
    process = multiprocessing.get_context("spawn").Process(target=_commit_and_die, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    with Store.open(path) as store, store.read() as connection:
        assert [document.name for document in documents.list_documents(connection)] == ["committed"]
        assert sessions.list_sessions(connection) == [_session("1" * 16)]


def _session(id: str) -> StoredSession:
    return StoredSession(id, "3" * 16, "4" * 16, "5" * 16, ("r",), ("6" * 16,), {"6" * 16: NOW}, NOW, NOW + 300, NOW + 330)


def test_sessions_come_back_as_they_were_put(store: Store) -> None:
    with store.note() as connection:
        sessions.put_sessions(connection, [_session("1" * 16)])
    with store.read() as connection:
        assert sessions.list_sessions(connection) == [_session("1" * 16)]
    with store.note() as connection:
        sessions.delete_sessions(connection, ["1" * 16])
    with store.read() as connection:
        assert sessions.list_sessions(connection) == []


@pytest.mark.parametrize(
    "tamper",
    ["UPDATE audit SET actor='nobody' WHERE n=3", "DELETE FROM audit WHERE n=3", "UPDATE audit SET n=100 WHERE n=3"],
)
def test_case_98_tampered_audit_row_is_located(store: Store, tamper: str) -> None:
    for _ in range(5):
        store.record(_entry())
    with store.read() as connection:
        assert audit.find_tampering(connection) is None
    raw = sqlite3.connect(store.path)
    raw.execute(tamper)
    raw.commit()
    raw.close()
    with store.read() as connection:
        assert audit.find_tampering(connection) == 3
