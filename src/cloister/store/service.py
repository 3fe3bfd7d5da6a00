"""The door to the database: one writer, many readers, and three kinds of transaction.

`read`    a consistent view
`note`    bookkeeping that decides nothing (last seen, sessions). It survives the death of the process at any instant; a power failure may
          lose the last ones, which is safe: a session the store does not know is revoked by the next snapshot.
`change`  whatever can change a decision: a new generation and an audit row in the same transaction, on the disk when it returns.
"""

import json
import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from alembic import command
from alembic.config import Config
from sqlalchemy import Connection, Engine, create_engine, event, insert, select, text, update
from sqlalchemy.pool import QueuePool, StaticPool

from cloister.store import tables
from cloister.store.audit import append_audit
from cloister.store.types import AuditEntry

BUSY_TIMEOUT_MS = 30_000
GENERATION = "generation"
EPOCH_SHIFT = 40  # generations of a later epoch are above all of an earlier one


@dataclass(frozen=True, slots=True)
class Change:
    """An open transaction that may change decisions; `generation` is the number that its state will have."""

    connection: Connection
    generation: int


class Store:
    """One database file. Every method blocks; the exchange calls writers from one thread."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._writer = _make_engine(path, writer=True)
        self._reader = _make_engine(path, writer=False)

    @classmethod
    def open(cls, path: Path) -> "Store":
        """Open or create the database and bring it to the newest schema."""
        migrate(path)
        store = cls(path)
        with store._lock, store._writer.begin() as connection:
            connection.execute(insert(tables.settings).prefix_with("OR IGNORE").values(key=GENERATION, value="1"))
        return store

    def close(self) -> None:
        self._writer.dispose()
        self._reader.dispose()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @contextmanager
    def read(self) -> Iterator[Connection]:
        with self._reader.begin() as connection:
            yield connection

    @contextmanager
    def note(self) -> Iterator[Connection]:
        with self._lock, self._begin("NORMAL") as connection:
            yield connection

    @contextmanager
    def change(self, entry: AuditEntry, generation: int | None = None) -> Iterator[Change]:
        """`generation` is a reserved number (`reserve_generations`); without one the next is taken."""
        with self._lock, self._begin("FULL") as connection:
            number = _advance_generation(connection, 1) if generation is None else generation
            yield Change(connection, number)
            append_audit(connection, entry, number)

    def record(self, entry: AuditEntry) -> None:
        """An audit row of something that changed no state: a refusal, a sign-in."""
        with self.note() as connection:
            append_audit(connection, entry, None)

    def reserve_generations(self, count: int) -> int:
        """Take `count` generations that no change will ever have; returns the last of them."""
        with self.note() as connection:
            return _advance_generation(connection, count)

    def generation(self) -> int:
        with self.read() as connection:
            return read_generation(connection)

    def checkpoint(self) -> None:
        """Move the log into the database file, beside the writer: no commit ever waits for it."""
        driver = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_MS / 1000)
        try:
            driver.execute("PRAGMA wal_checkpoint(PASSIVE)").close()
        finally:
            driver.close()

    def has_agents(self) -> bool:
        with self.read() as connection:
            return connection.execute(select(tables.agents.c.id).limit(1)).first() is not None

    @contextmanager
    def _begin(self, synchronous: str) -> Iterator[Connection]:
        with self._writer.connect() as connection:
            # SQLite ignores this inside a transaction, and SQLAlchemy begins one with the first statement.
            driver: Any = connection.connection.driver_connection
            driver.execute(f"PRAGMA synchronous={synchronous}")
            with connection.begin():
                yield connection

    def copy_to(self, path: Path) -> None:
        """A consistent copy while the exchange runs (SQLite's online backup)."""
        source, target = sqlite3.connect(self.path), sqlite3.connect(path)
        try:
            source.backup(target)
        finally:
            target.close()
            source.close()


def migrate(path: Path, revision: str = "head") -> None:
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
    os.close(descriptor)
    config = Config()
    config.set_main_option("script_location", str(Path(__file__).parent / "migrations").replace("%", "%%"))
    engine = _make_engine(path, writer=True)
    try:
        with engine.connect() as connection:
            config.attributes["connection"] = connection
            command.upgrade(config, revision)
            connection.commit()
    finally:
        engine.dispose()


def read_generation(connection: Connection) -> int:
    value = connection.execute(select(tables.settings.c.value).where(tables.settings.c.key == GENERATION)).scalar_one()
    return int(value)


def read_setting(connection: Connection, key: str) -> Any:
    value = connection.execute(select(tables.settings.c.value).where(tables.settings.c.key == key)).scalar_one_or_none()
    return None if value is None else json.loads(value)


def write_setting(connection: Connection, key: str, value: object) -> None:
    connection.execute(insert(tables.settings).prefix_with("OR REPLACE").values(key=key, value=json.dumps(value)))


def raise_generation(connection: Connection, minimum: int) -> int:
    generation = max(read_generation(connection), minimum)
    connection.execute(update(tables.settings).where(tables.settings.c.key == GENERATION).values(value=str(generation)))
    return generation


def _advance_generation(connection: Connection, count: int) -> int:
    generation = read_generation(connection) + count
    connection.execute(update(tables.settings).where(tables.settings.c.key == GENERATION).values(value=str(generation)))
    return generation


def _make_engine(path: Path, *, writer: bool) -> Engine:
    arguments = {"timeout": BUSY_TIMEOUT_MS / 1000, "check_same_thread": False}
    url = f"sqlite:///{path}"
    engine = (
        create_engine(url, poolclass=StaticPool, connect_args=arguments)
        if writer
        else create_engine(url, poolclass=QueuePool, pool_size=4, max_overflow=4, connect_args=arguments)
    )

    @event.listens_for(engine, "connect")
    def _on_connect(driver: Any, _record: object) -> None:
        driver.isolation_level = None  # transactions begin where SQLAlchemy says, not where the driver guesses
        for pragma in ("journal_mode=WAL", "foreign_keys=ON", f"busy_timeout={BUSY_TIMEOUT_MS}", "synchronous=FULL"):
            driver.execute(f"PRAGMA {pragma}").close()
        if writer:
            driver.execute("PRAGMA wal_autocheckpoint=0").close()  # `checkpoint` does it, where nobody waits

    @event.listens_for(engine, "begin")
    def _on_begin(connection: Connection) -> None:
        connection.execute(text("BEGIN IMMEDIATE" if writer else "BEGIN"))

    return engine
