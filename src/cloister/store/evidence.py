"""Evidence: facts about agents, devices and users, by source and name."""

from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, and_, delete, select
from sqlalchemy.dialects.sqlite import insert

from cloister.store import tables
from cloister.store.types import EvidenceRow, Subject

_TABLE = tables.evidence


def list_evidence(connection: Connection) -> list[EvidenceRow]:
    return [
        EvidenceRow(Subject(row.kind, row.subject), row.source, row.name, row.value, row.observed_at, row.expires_at)
        for row in connection.execute(select(_TABLE))
    ]


def put_evidence(connection: Connection, rows: Iterable[EvidenceRow]) -> None:
    """Each replaces what the same source said of the same thing."""
    for row in rows:
        values = {
            "kind": row.subject.kind,
            "subject": row.subject.id,
            "source": row.source,
            "name": row.name,
            "value": row.value,
            "observed_at": row.observed_at,
            "expires_at": row.expires_at,
        }
        keys = ("kind", "subject", "source", "name")
        changed = {key: value for key, value in values.items() if key not in keys}
        connection.execute(insert(_TABLE).values(**values).on_conflict_do_update(index_elements=keys, set_=changed))


def delete_evidence(connection: Connection, subject: Subject, source: str, names: Sequence[str] | None = None) -> None:
    """Withdraw what a source said of a subject: these names, or everything."""
    if names is not None and not names:
        return  # most reports withdraw nothing
    where = and_(_TABLE.c.kind == subject.kind, _TABLE.c.subject == subject.id, _TABLE.c.source == source)
    if names is not None:
        where = and_(where, _TABLE.c.name.in_(names))
    connection.execute(delete(_TABLE).where(where))


def delete_subject(connection: Connection, subject: Subject) -> None:
    connection.execute(delete(_TABLE).where(and_(_TABLE.c.kind == subject.kind, _TABLE.c.subject == subject.id)))


def delete_expired(connection: Connection, before: int) -> None:
    """Forget what expired before this instant."""
    connection.execute(delete(_TABLE).where(_TABLE.c.expires_at < before))
