"""What people lent to programs."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import DelegationAnswer, Empty
from cloister.exchange.errors import not_found
from cloister.store.types import Delegation

CallerIs = Annotated[Caller, Depends(caller)]


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "programs")

    @routes.add("GET", "/api/v1/delegations", guard="auditor")
    async def list_delegations(
        limit: Annotated[int, Query(ge=1, le=1000)] = 1000, after: Annotated[str, Query(max_length=16)] = ""
    ) -> list[DelegationAnswer]:
        rows = sorted(parts.state.delegations.values(), key=lambda row: row.id)
        return [_delegation(parts, row) for row in rows if row.id > after][: min(limit, parts.settings.limits.page)]

    @routes.add("DELETE", "/api/v1/delegations/{id}", guard="admin", audit="delegation.revoke")
    async def revoke_delegation(id: str, who: CallerIs) -> Empty:
        """The program acts for that person no more; its sessions end now."""
        await parts.programs.delegations.revoke(who.actor, id)
        return Empty()

    @routes.add("GET", "/api/v1/me/delegations", guard="user")
    async def list_my_delegations(who: CallerIs) -> list[DelegationAnswer]:
        return [_delegation(parts, row) for row in parts.state.delegations.values() if row.user == who.account.user]

    @routes.add("DELETE", "/api/v1/me/delegations/{id}", guard="user", audit="delegation.revoke")
    async def revoke_my_delegation(id: str, who: CallerIs) -> Empty:
        """The caller's own. Those of others do not exist here."""
        row = parts.state.delegations.get(id)
        if row is None or row.user != who.account.user:
            raise not_found("delegation", id)
        await parts.programs.delegations.revoke(who.actor, id)
        return Empty()

    return routes.router


def _delegation(parts: Parts, row: Delegation) -> DelegationAnswer:
    return DelegationAnswer(
        id=row.id,
        user=parts.state.name_of(row.user),
        workload=parts.state.name_of(row.workload),
        agent=row.agent,
        created_at=row.created_at,
        expires_at=row.expires_at,
        revoked_at=row.revoked_at,
    )
