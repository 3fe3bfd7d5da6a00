"""The audit: who did what, chained so that a row that is changed, removed or moved is noticed and located."""

import hashlib
import json
from typing import Any

from sqlalchemy import Connection, Row, delete, desc, func, insert, select

from cloister.store import tables
from cloister.store.types import AuditEntry, AuditRow

FIRST_CHAIN = "0" * 64
START = "audit_start"
MAX_DETAIL_CHARS = 4096

# Made once: every change runs these.
_LAST = select(tables.audit.c.chain).order_by(desc(tables.audit.c.n)).limit(1)
_APPEND = insert(tables.audit)


def append_audit(connection: Connection, entry: AuditEntry, generation: int | None) -> None:
    last = connection.execute(_LAST).scalar_one_or_none()
    if last is None:
        last = _read_start(connection)[1]
    detail = json.dumps(entry.detail, sort_keys=True)
    if len(detail) > MAX_DETAIL_CHARS:
        detail = json.dumps({"truncated": len(detail)})
    values = {
        "at": entry.at,
        "actor": entry.actor.name,
        "action": entry.action,
        "target": entry.target[:256],
        "detail": detail,
        "source": entry.actor.source,
        "code": entry.code,
        "generation": generation,
    }
    connection.execute(_APPEND, values | {"chain": _chain(last, values)})


def list_audit(
    connection: Connection, *, after: int = 0, before: int | None = None, action: str | None = None, limit: int = 100
) -> list[AuditRow]:
    """Newest first, `after < n < before`."""
    query = select(tables.audit).where(tables.audit.c.n > after).order_by(desc(tables.audit.c.n)).limit(limit)
    if before is not None:
        query = query.where(tables.audit.c.n < before)
    if action is not None:
        query = query.where(tables.audit.c.action == action)
    return [_row(row) for row in connection.execute(query)]


def find_tampering(connection: Connection) -> int | None:
    """The number of the first row that does not follow from the one before it; None if all do. A cut tail needs an outside checkpoint."""
    before, last = _read_start(connection)
    expected = before + 1
    for row in connection.execute(select(tables.audit).order_by(tables.audit.c.n)):
        values = {key: value for key, value in row._asdict().items() if key not in ("n", "chain")}
        if row.n != expected or row.chain != _chain(last, values):
            return expected
        last, expected = row.chain, expected + 1
    return None


def trim_audit(connection: Connection, keep: int) -> int:
    """Forget all but the newest rows; how many. Where the chain goes on is remembered, so that a trim does not look like a theft."""
    newest = connection.execute(select(func.max(tables.audit.c.n))).scalar_one()
    cut = (newest or 0) - keep
    row = connection.execute(select(tables.audit.c.chain).where(tables.audit.c.n == cut)).scalar_one_or_none()
    if row is None:
        return 0
    start = json.dumps([cut, row])
    connection.execute(insert(tables.settings).prefix_with("OR REPLACE").values(key=START, value=start))
    return connection.execute(delete(tables.audit).where(tables.audit.c.n <= cut)).rowcount


def _read_start(connection: Connection) -> tuple[int, str]:
    value = connection.execute(select(tables.settings.c.value).where(tables.settings.c.key == START)).scalar_one_or_none()
    if value is None:
        return 0, FIRST_CHAIN
    number, chain = json.loads(value)
    return int(number), str(chain)


def _chain(last: str, values: dict[str, Any]) -> str:
    return hashlib.sha256((last + json.dumps(values, sort_keys=True)).encode()).hexdigest()


def _row(row: Row[Any]) -> AuditRow:
    values = row._asdict()
    return AuditRow(**{**values, "detail": json.loads(values["detail"])})
