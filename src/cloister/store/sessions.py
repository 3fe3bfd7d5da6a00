"""Sessions, what relays still block, kill switches and API tokens."""

import dataclasses
import json
from collections.abc import Sequence
from typing import Any

from sqlalchemy import Connection, Row, delete, insert, select

from cloister.store import tables
from cloister.store.service import Change
from cloister.store.types import ApiToken, KillSwitch, RelayBlock, StoredSession


def list_sessions(connection: Connection) -> list[StoredSession]:
    return [_session(row) for row in connection.execute(select(tables.sessions))]


def put_sessions(connection: Connection, sessions: Sequence[StoredSession]) -> None:
    if sessions:
        statement = insert(tables.sessions).prefix_with("OR REPLACE")
        connection.execute(statement, [_session_values(session) for session in sessions])


def delete_sessions(connection: Connection, ids: Sequence[str]) -> None:
    for start in range(0, len(ids), 500):  # below SQLite's bound on variables
        connection.execute(delete(tables.sessions).where(tables.sessions.c.id.in_(ids[start : start + 500])))


def delete_all_sessions(connection: Connection) -> None:
    connection.execute(delete(tables.sessions))
    connection.execute(delete(tables.relay_blocks))
    connection.execute(delete(tables.api_tokens))


def list_blocks(connection: Connection) -> list[RelayBlock]:
    return [
        RelayBlock(**{**row._asdict(), "owed": tuple(json.loads(row.owed))})
        for row in connection.execute(select(tables.relay_blocks))
    ]


def put_block(connection: Connection, block: RelayBlock) -> None:
    values = dataclasses.asdict(block) | {"owed": json.dumps(block.owed)}
    connection.execute(insert(tables.relay_blocks).prefix_with("OR REPLACE").values(**values))


def delete_block(connection: Connection, client: str, connector: str) -> None:
    blocks = tables.relay_blocks
    connection.execute(delete(blocks).where(blocks.c.client == client, blocks.c.connector == connector))


def list_kill_switches(connection: Connection) -> list[KillSwitch]:
    return [KillSwitch(**row._asdict()) for row in connection.execute(select(tables.kill_switches))]


def add_kill_switch(change: Change, switch: KillSwitch) -> None:
    change.connection.execute(insert(tables.kill_switches).values(**dataclasses.asdict(switch)))


def delete_kill_switch(change: Change, id: str) -> None:
    change.connection.execute(delete(tables.kill_switches).where(tables.kill_switches.c.id == id))


def add_api_token(connection: Connection, token: ApiToken, token_hash: str, limit: int, now: int) -> None:
    """Add one; ended tokens go, and beyond `limit` the user's oldest."""
    tokens = tables.api_tokens
    connection.execute(delete(tokens).where(tokens.c.expires_at <= now))
    connection.execute(insert(tokens).values(**dataclasses.asdict(token), token_hash=token_hash))
    newest = select(tokens.c.id).where(tokens.c.user == token.user).order_by(tokens.c.created_at.desc(), tokens.c.id).limit(limit)
    connection.execute(delete(tokens).where(tokens.c.user == token.user, tokens.c.id.not_in(newest)))


def find_api_token(connection: Connection, token_hash: str, now: int) -> ApiToken | None:
    tokens = tables.api_tokens
    query = select(tokens.c.id, tokens.c.user, tokens.c.created_at, tokens.c.expires_at, tokens.c.fact_source).where(
        tokens.c.token_hash == token_hash, tokens.c.expires_at > now
    )
    row = connection.execute(query).one_or_none()
    return None if row is None else ApiToken(**row._asdict())


def delete_api_token(connection: Connection, id: str) -> None:
    connection.execute(delete(tables.api_tokens).where(tables.api_tokens.c.id == id))


def delete_api_tokens_of(connection: Connection, user: str) -> None:
    connection.execute(delete(tables.api_tokens).where(tables.api_tokens.c.user == user))


def _session_values(session: StoredSession) -> dict[str, Any]:
    return {
        "id": session.id,
        "principal": session.principal,
        "client": session.client,
        "segment": session.segment,
        "rules": json.dumps(session.rules),
        "connectors": json.dumps(session.connectors),
        "audience": json.dumps(dict(session.audience)),
        "opened_at": session.opened_at,
        "ticket_expires": session.ticket_expires,
        "ends_at": session.ends_at,
        "idle": session.idle,
    }


def _session(row: Row[Any]) -> StoredSession:
    values = row._asdict()
    return StoredSession(
        **{
            **values,
            "rules": tuple(json.loads(values["rules"])),
            "connectors": tuple(json.loads(values["connectors"])),
            "audience": json.loads(values["audience"]),
        }
    )
