"""Agents, the log of their certificates, and provisioning keys."""

import dataclasses
from collections.abc import Sequence

from sqlalchemy import Connection, delete, insert, or_, select, update

from cloister.store import tables
from cloister.store.service import Change
from cloister.store.types import Agent, IssuedCertificate, ProvisioningKeyRow


def list_agents(connection: Connection) -> list[Agent]:
    return [Agent(**row._asdict()) for row in connection.execute(select(tables.agents))]


def add_agent(change: Change, agent: Agent) -> None:
    change.connection.execute(insert(tables.agents).values(**dataclasses.asdict(agent)))


def revoke_agents(change: Change, ids: Sequence[str], now: int) -> None:
    """Final: a revoked agent must enrol again under a new id."""
    for id in ids:
        change.connection.execute(
            update(tables.agents).where(tables.agents.c.id == id, tables.agents.c.revoked_at.is_(None)).values(revoked_at=now)
        )


def set_confirmed(change: Change, id: str, *, confirmed: bool) -> None:
    change.connection.execute(update(tables.agents).where(tables.agents.c.id == id).values(confirmed=confirmed))


def set_device(change: Change, id: str, device: str | None) -> None:
    change.connection.execute(update(tables.agents).where(tables.agents.c.id == id).values(device=device))


def set_sign_in(change: Change, agent: Agent) -> None:
    """When, how strongly and where the person last signed in for this agent."""
    values = {
        "signed_in_at": agent.signed_in_at,
        "sign_in_strength": agent.sign_in_strength,
        "sign_in_issuer": agent.sign_in_issuer,
        "sign_in_session": agent.sign_in_session,
        "sign_in_vouched_at": agent.sign_in_vouched_at,
    }
    change.connection.execute(update(tables.agents).where(tables.agents.c.id == agent.id).values(**values))


def set_vouched(connection: Connection, agent: Agent) -> None:
    """What vouches for a program that has proved itself anew."""
    vouched = ("vouched_by", "vouched_for_by", "vouched_mark", "vouched_until", "delegation")
    names = (*vouched, "signed_in_at", "sign_in_strength", "sign_in_issuer", "sign_in_vouched_at")
    values = {name: getattr(agent, name) for name in names}
    connection.execute(update(tables.agents).where(tables.agents.c.id == agent.id).values(**values))


def unconfirm_all(connection: Connection) -> None:
    connection.execute(update(tables.agents).values(confirmed=False, resume_hash=None))


def note_seen(connection: Connection, id: str, now: int, address: str, resume_hash: str | None) -> None:
    values: dict[str, object] = {"last_seen_at": now, "last_address": address}
    if resume_hash is not None:
        values["resume_hash"] = resume_hash
    connection.execute(update(tables.agents).where(tables.agents.c.id == id).values(**values))


def drop_agents(connection: Connection, gone_since: int, ended_before: int) -> list[str]:
    """Forget agents whose last leaf cannot even be renewed any more, and programs that ended so long ago that nobody accepts their leaf; their ids."""
    agents, certificates = tables.agents, tables.certificates
    living = select(certificates.c.agent).where(certificates.c.not_after >= gone_since)
    ended = agents.c.vouched_by.is_not(None) & (agents.c.revoked_at < ended_before)
    ids = list(connection.execute(select(agents.c.id).where(or_(agents.c.id.not_in(living), ended))).scalars())
    for start in range(0, len(ids), 500):
        connection.execute(delete(agents).where(agents.c.id.in_(ids[start : start + 500])))
    connection.execute(delete(certificates).where(certificates.c.not_after < gone_since))
    return ids


def note_twin(connection: Connection, id: str, now: int) -> None:
    connection.execute(update(tables.agents).where(tables.agents.c.id == id).values(twin_seen_at=now))


def add_certificate(connection: Connection, certificate: IssuedCertificate) -> None:
    connection.execute(insert(tables.certificates).values(**dataclasses.asdict(certificate)))


def has_certificate(connection: Connection, fingerprint: str) -> bool:
    return (
        connection.execute(
            select(tables.certificates.c.agent).where(tables.certificates.c.fingerprint == fingerprint)
        ).scalar_one_or_none()
        is not None
    )


def list_certificates(connection: Connection, agent: str) -> list[IssuedCertificate]:
    query = select(tables.certificates).where(tables.certificates.c.agent == agent).order_by(tables.certificates.c.not_before)
    return [IssuedCertificate(**row._asdict()) for row in connection.execute(query)]


def list_provisioning_keys(connection: Connection) -> list[ProvisioningKeyRow]:
    query = select(tables.provisioning_keys).order_by(tables.provisioning_keys.c.created_at, tables.provisioning_keys.c.id)
    return [ProvisioningKeyRow(**row._asdict()) for row in connection.execute(query)]


def find_provisioning_key(connection: Connection, id: str) -> ProvisioningKeyRow | None:
    row = connection.execute(select(tables.provisioning_keys).where(tables.provisioning_keys.c.id == id)).one_or_none()
    return None if row is None else ProvisioningKeyRow(**row._asdict())


def add_provisioning_key(change: Change, key: ProvisioningKeyRow) -> None:
    change.connection.execute(insert(tables.provisioning_keys).values(**dataclasses.asdict(key)))


def use_provisioning_key(change: Change, id: str, now: int) -> bool:
    """Take one use. One statement decides, so that of any number who race for the last use exactly one wins (case 22)."""
    keys = tables.provisioning_keys
    statement = (
        update(keys)
        .where(keys.c.id == id, keys.c.uses < keys.c.max_uses, keys.c.expires_at > now, keys.c.revoked_at.is_(None))
        .values(uses=keys.c.uses + 1)
    )
    return change.connection.execute(statement).rowcount == 1


def revoke_provisioning_key(change: Change, id: str, now: int) -> None:
    keys = tables.provisioning_keys
    change.connection.execute(update(keys).where(keys.c.id == id, keys.c.revoked_at.is_(None)).values(revoked_at=now))


def revoke_all_provisioning_keys(connection: Connection, now: int) -> None:
    connection.execute(
        update(tables.provisioning_keys).where(tables.provisioning_keys.c.revoked_at.is_(None)).values(revoked_at=now)
    )


def drop_provisioning_keys(connection: Connection, ended_before: int) -> int:
    keys = tables.provisioning_keys
    return connection.execute(delete(keys).where(or_(keys.c.expires_at < ended_before, keys.c.revoked_at < ended_before))).rowcount
