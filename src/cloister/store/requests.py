"""Requests for access: who asked for what and why, and who answered."""

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, select, update

from cloister.store import tables
from cloister.store.service import Change
from cloister.store.types import AccessRequest

_TABLE = tables.access_requests


def list_requests(connection: Connection) -> list[AccessRequest]:
    return [AccessRequest(**row._asdict()) for row in connection.execute(select(_TABLE))]


def put_request(change: Change, request: AccessRequest, forget: Sequence[str] = ()) -> None:
    """In place of what was stored under its id, and of those that are forgotten for it."""
    change.connection.execute(delete(_TABLE).where(_TABLE.c.id.in_(forget)))
    change.connection.execute(insert(_TABLE).prefix_with("OR REPLACE").values(**dataclasses.asdict(request)))


def end_approved_requests(connection: Connection, now: int, note: str) -> None:
    """Nothing is approved any more."""
    ended = {"state": "denied", "decided_by": None, "decided_at": now, "note": note}
    connection.execute(update(_TABLE).where(_TABLE.c.state == "approved").values(**ended))


def drop_requests(connection: Connection, ended_before: int) -> list[str]:
    """Forget those that ended before this instant; their ids. The audit keeps what was asked and answered."""
    ids = list(connection.execute(select(_TABLE.c.id).where(_TABLE.c.until < ended_before)).scalars())
    connection.execute(delete(_TABLE).where(_TABLE.c.until < ended_before))
    return ids
