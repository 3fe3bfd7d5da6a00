"""Transmitters of security events: the hashes of what they present, and the events that were taken already."""

from collections.abc import Iterable
from dataclasses import dataclass, field

from sqlalchemy import Connection, delete, select
from sqlalchemy.dialects.sqlite import insert

from cloister.store import tables
from cloister.store.service import Change


@dataclass(frozen=True, slots=True)
class TransmitterSecret:
    transmitter: str
    secret_hash: str = field(repr=False)
    changed_at: int


@dataclass(frozen=True, slots=True)
class SeenEvent:
    """An event that was taken: `id` is a hash of the token's `jti`."""

    transmitter: str
    id: str
    issued_at: int


def list_transmitter_secrets(connection: Connection) -> list[TransmitterSecret]:
    return [TransmitterSecret(**row._asdict()) for row in connection.execute(select(tables.transmitter_secrets))]


def put_transmitter_secret(change: Change, secret: TransmitterSecret) -> None:
    values = {"transmitter": secret.transmitter, "secret_hash": secret.secret_hash, "changed_at": secret.changed_at}
    change.connection.execute(insert(tables.transmitter_secrets).prefix_with("OR REPLACE").values(**values))


def list_seen_events(connection: Connection) -> list[SeenEvent]:
    return [SeenEvent(**row._asdict()) for row in connection.execute(select(tables.seen_events))]


def add_seen_event(connection: Connection, event: SeenEvent, dropped: Iterable[str]) -> None:
    """Remember one and forget those that made room for it."""
    values = {"transmitter": event.transmitter, "id": event.id, "issued_at": event.issued_at}
    connection.execute(insert(tables.seen_events).values(**values).on_conflict_do_nothing())
    for id in dropped:
        where = (tables.seen_events.c.transmitter == event.transmitter) & (tables.seen_events.c.id == id)
        connection.execute(delete(tables.seen_events).where(where))


SOURCE = "signal:"
"""What evidence of a transmitter has before the id of its document, as its source."""


def delete_transmitters_but(connection: Connection, kept: Iterable[str]) -> None:
    """Forget what belongs to documents that are gone, and what they said."""
    ids = list(kept)
    for table in (tables.transmitter_secrets, tables.seen_events):
        connection.execute(delete(table).where(table.c.transmitter.not_in(ids)))
    source = tables.evidence.c.source
    connection.execute(delete(tables.evidence).where(source.startswith(SOURCE), source.not_in([SOURCE + id for id in ids])))
