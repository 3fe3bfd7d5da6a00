"""Tokens that were presented, and what people delegated to programs."""

import dataclasses
import json
from collections.abc import Iterable, Sequence

from sqlalchemy import Connection, delete, func, insert, or_, select, update

from cloister.store import tables
from cloister.store.service import Change
from cloister.store.types import ClusterKeyRow, Delegation, Presented


def present(change: Change, presented: Presented) -> bool:
    """Whether the token is this key's: the first key for which it is presented has it until it expires. One statement decides a race."""
    tokens = tables.presented_tokens
    change.connection.execute(insert(tokens).prefix_with("OR IGNORE").values(**dataclasses.asdict(presented)))
    owner = change.connection.execute(select(tokens.c.key_thumbprint).where(tokens.c.id == presented.id)).scalar_one()
    return bool(owner == presented.key_thumbprint)


def spend(change: Change, id: str, expires_at: int) -> bool:
    """Whether this is the first use of a token that has no second one."""
    values = {"id": id, "key_thumbprint": "", "expires_at": expires_at}
    return change.connection.execute(insert(tables.presented_tokens).prefix_with("OR IGNORE").values(**values)).rowcount == 1


def count_presented(connection: Connection) -> int:
    return connection.execute(select(func.count()).select_from(tables.presented_tokens)).scalar_one()


def drop_presented(connection: Connection, expired_before: int) -> None:
    connection.execute(delete(tables.presented_tokens).where(tables.presented_tokens.c.expires_at < expired_before))


def list_cluster_keys(connection: Connection) -> list[ClusterKeyRow]:
    query = select(tables.cluster_keys).order_by(tables.cluster_keys.c.issuer, tables.cluster_keys.c.thumbprint)
    return [ClusterKeyRow(**{**row._asdict(), "jwk": json.loads(row.jwk)}) for row in connection.execute(query)]


def replace_cluster_keys(change: Change, issuer: str, rows: Iterable[ClusterKeyRow]) -> None:
    """These are all that is known of the issuer's keys besides its document."""
    keys = tables.cluster_keys
    change.connection.execute(delete(keys).where(keys.c.issuer == issuer))
    change.connection.execute(insert(keys), [{**dataclasses.asdict(row), "jwk": json.dumps(row.jwk)} for row in rows])


def drop_cluster_keys_but(connection: Connection, kept: Iterable[str]) -> None:
    """Forget the keys of issuers whose documents are gone."""
    connection.execute(delete(tables.cluster_keys).where(tables.cluster_keys.c.issuer.not_in(list(kept))))


def list_delegations(connection: Connection) -> list[Delegation]:
    query = select(tables.delegations).order_by(tables.delegations.c.created_at, tables.delegations.c.id)
    return [Delegation(**row._asdict()) for row in connection.execute(query)]


def add_delegation(change: Change, delegation: Delegation, forget: Sequence[str] = ()) -> None:
    """Add one; those that are forgotten for it go."""
    change.connection.execute(delete(tables.delegations).where(tables.delegations.c.id.in_(forget)))
    change.connection.execute(insert(tables.delegations).values(**dataclasses.asdict(delegation)))


def revoke_delegation(change: Change, id: str, now: int) -> None:
    delegations = tables.delegations
    change.connection.execute(
        update(delegations).where(delegations.c.id == id, delegations.c.revoked_at.is_(None)).values(revoked_at=now)
    )


def revoke_all_delegations(connection: Connection, now: int) -> None:
    connection.execute(update(tables.delegations).where(tables.delegations.c.revoked_at.is_(None)).values(revoked_at=now))


def drop_delegations(connection: Connection, ended_before: int) -> list[str]:
    """Forget what ended so long ago; their ids."""
    delegations = tables.delegations
    ended = or_(delegations.c.expires_at < ended_before, delegations.c.revoked_at < ended_before)
    ids = list(connection.execute(select(delegations.c.id).where(ended)).scalars())
    connection.execute(delete(delegations).where(ended))
    return ids
