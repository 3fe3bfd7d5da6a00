"""Directories, the resources that they provision by SCIM, and names that are used up."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, delete, insert, select, update
from sqlalchemy.dialects import sqlite

from cloister.store import tables
from cloister.store.service import Change
from cloister.store.types import Directory, ScimEntry

BATCH = 500  # below SQLite's bound on variables

_COLUMNS = [column.name for column in tables.scim_resources.c if column.name != "id"]
_INSERT = sqlite.insert(tables.scim_resources)
_PUT = _INSERT.on_conflict_do_update(index_elements=["id"], set_={name: _INSERT.excluded[name] for name in _COLUMNS})
"""Made once: every change of a resource runs it. A name that is another resource's is an error, never a replacement."""


def list_directories(connection: Connection) -> list[Directory]:
    query = select(tables.directories).order_by(tables.directories.c.name)
    return [Directory(**row._asdict()) for row in connection.execute(query)]


def put_directory(change: Change, directory: Directory) -> None:
    change.connection.execute(insert(tables.directories).prefix_with("OR REPLACE").values(**dataclasses.asdict(directory)))


def revoke_all_directories(connection: Connection, now: int) -> None:
    """No token of before is worth anything; what they have provisioned stays."""
    connection.execute(update(tables.directories).where(tables.directories.c.revoked_at.is_(None)).values(revoked_at=now))


def list_entries(connection: Connection) -> list[ScimEntry]:
    columns = [column for column in tables.scim_resources.c if column.name != "body"]
    query = select(*columns).order_by(tables.scim_resources.c.created_at, tables.scim_resources.c.id)
    return [ScimEntry(**row._asdict()) for row in connection.execute(query)]


def put_resource(change: Change, entry: ScimEntry, body: Mapping[str, object]) -> None:
    """Insert or replace; the generation is that of the change."""
    values = dataclasses.asdict(entry) | {"body": json.dumps(body, ensure_ascii=False), "generation": change.generation}
    change.connection.execute(_PUT, values)


def read_bodies(connection: Connection, ids: Sequence[str]) -> dict[str, dict[str, Any]]:
    """Bodies by id; what does not exist is left out."""
    resources, found = tables.scim_resources, {}
    for start in range(0, len(ids), BATCH):
        query = select(resources.c.id, resources.c.body).where(resources.c.id.in_(ids[start : start + BATCH]))
        found.update({row.id: json.loads(row.body) for row in connection.execute(query)})
    return found


def scan_bodies(connection: Connection, directory: str, kind: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every body of one directory and kind."""
    resources = tables.scim_resources
    query = select(resources.c.id, resources.c.body).where(resources.c.directory == directory, resources.c.kind == kind)
    for row in connection.execute(query):
        yield row.id, json.loads(row.body)


def list_retired(connection: Connection) -> dict[tuple[str, str], str]:
    """Kind and name, and the directory that had it."""
    return {(row.kind, row.name): row.directory for row in connection.execute(select(tables.retired_names))}


def retire_names(change: Change, names: Sequence[tuple[str, str, str]], now: int) -> None:
    """Kind, name and directory of each."""
    rows = [{"kind": kind, "name": name, "directory": directory, "retired_at": now} for kind, name, directory in names]
    if rows:
        change.connection.execute(insert(tables.retired_names).prefix_with("OR REPLACE"), rows)


def delete_resource(change: Change, id: str) -> None:
    change.connection.execute(delete(tables.scim_resources).where(tables.scim_resources.c.id == id))
