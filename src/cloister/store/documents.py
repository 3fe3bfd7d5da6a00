"""Documents and accounts."""

import json
from collections.abc import Mapping
from typing import Any

from sqlalchemy import Connection, Row, bindparam, delete, insert, select, update

from cloister.store import tables
from cloister.store.service import Change
from cloister.store.types import Account, AccountRole, StoredDocument

# Made once: every change of a document runs these.
_REPLACE = (
    update(tables.documents)
    .where(tables.documents.c.id == bindparam("of"))
    .values({column: bindparam(column) for column in ("kind", "name", "body", "generation", "changed_at")})
)
_INSERT = insert(tables.documents)


def list_documents(connection: Connection) -> list[StoredDocument]:
    query = select(tables.documents).order_by(tables.documents.c.kind, tables.documents.c.name)
    return [_document(row) for row in connection.execute(query)]


def put_document(change: Change, id: str, kind: str, name: str, fields: Mapping[str, object], now: int) -> StoredDocument:
    """Insert under this id, or replace the document that has it."""
    values = {
        "kind": kind,
        "name": name,
        "body": json.dumps(fields, sort_keys=True),
        "generation": change.generation,
        "changed_at": now,
    }
    if change.connection.execute(_REPLACE, values | {"of": id}).rowcount == 0:
        change.connection.execute(_INSERT, values | {"id": id})
    return StoredDocument(id, kind, name, fields, change.generation, now)


def delete_document(change: Change, id: str) -> None:
    """Remove a document; an account and its tokens go with their user, and what a directory says of it goes too."""
    change.connection.execute(delete(tables.documents).where(tables.documents.c.id == id))
    change.connection.execute(delete(tables.scim_resources).where(tables.scim_resources.c.id == id))
    change.connection.execute(delete(tables.accounts).where(tables.accounts.c.user == id))
    change.connection.execute(delete(tables.api_tokens).where(tables.api_tokens.c.user == id))


def list_accounts(connection: Connection) -> list[Account]:
    return [Account(**row._asdict()) for row in connection.execute(select(tables.accounts))]


def put_account(change: Change, user: str, role: AccountRole, password_hash: str | None, now: int) -> Account:
    """Insert or replace; tokens made with the old password are worth nothing afterwards."""
    row = {"user": user, "role": role, "password_hash": password_hash, "changed_at": now}
    change.connection.execute(insert(tables.accounts).prefix_with("OR REPLACE").values(**row))
    change.connection.execute(delete(tables.api_tokens).where(tables.api_tokens.c.user == user))
    return Account(user, password_hash, role, now)


def _document(row: Row[Any]) -> StoredDocument:
    return StoredDocument(row.id, row.kind, row.name, json.loads(row.body), row.generation, row.changed_at)
