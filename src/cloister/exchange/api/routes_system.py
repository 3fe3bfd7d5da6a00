"""The exchange itself: health, version, first contact, trust, audit, access records."""

import asyncio
from typing import Annotated, Any, Literal

from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import PlainTextResponse

from cloister import _core
from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import (
    AuditAnswer,
    AuditPage,
    Authority,
    Health,
    RecordsPage,
    Rotate,
    Trust,
    Version,
    WellKnown,
)
from cloister.exchange.errors import Refusal
from cloister.model.first_contact import WELL_KNOWN_PATH
from cloister.model.messages.common import PROTOCOL_VERSION
from cloister.model.reasons import Code
from cloister.store import audit as audit_rows
from cloister.store.types import AuditRow
from cloister.telemetry.journal import CursorMalformed, Entry, Filter, query
from cloister.trust.certificates import fingerprint, to_pem

API_VERSION = 1
CallerIs = Annotated[Caller, Depends(caller)]
Limit = Annotated[int, Query(ge=1, le=1000)]
Word = Annotated[str | None, Query(max_length=128)]
Instant = Annotated[str | None, Query(pattern=r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d{1,6})?Z$")]


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "system")

    @routes.add("GET", WELL_KNOWN_PATH, guard="public")
    async def read_well_known() -> WellKnown:
        """For first contact: trusted only as far as the web certificate that served it."""
        keyring = parts.state.keyring
        return WellKnown(exchange=keyring.trust_domain, root_sha256=keyring.root_sha256, api=API_VERSION)

    @routes.add("GET", f"{WELL_KNOWN_PATH}/root.pem", guard="public")
    async def read_roots() -> PlainTextResponse:
        """The roots in force. Public and believed by nobody but who holds the fingerprint of one of them."""
        return PlainTextResponse(parts.state.keyring.roots_pem(), media_type="application/x-pem-file")

    @routes.add("GET", "/api/v1/health", guard="public")
    async def read_health() -> dict[str, Literal["ok"]]:
        """That the exchange answers; nothing else."""
        return {"status": "ok"}

    @routes.add("GET", "/api/v1/status", guard="auditor")
    async def read_status() -> Health:
        return Health(status="ok", generation=parts.state.policy.generation, links=len(parts.switchboard), sessions=len(parts.book))

    @routes.add("GET", "/api/v1/version", guard="public")
    async def read_version() -> Version:
        return Version(version=_core.__version__, api=API_VERSION, protocol=PROTOCOL_VERSION)

    @routes.add("GET", "/api/v1/openapi.json", guard="user")
    async def read_openapi(request: Request) -> dict[str, Any]:
        schema: dict[str, Any] = request.app.openapi()
        return schema

    _add_trust(routes, parts)
    _add_logs(routes, parts)
    return routes.router


def _add_trust(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/trust", guard="auditor")
    async def read_trust() -> Trust:
        keyring = parts.state.keyring
        authorities = [
            Authority(
                id=item.id,
                state=item.state,
                since=item.since,
                root_sha256=fingerprint(item.root.certificate),
                root=to_pem(item.root.certificate),
            )
            for item in keyring.authorities
        ]
        keys = [{"kid": item.kid, "state": item.state, "since": item.since} for item in keyring.ticket_keys]
        return Trust(trust_domain=keyring.trust_domain, epoch=keyring.epoch, authorities=authorities, ticket_keys=keys)

    @routes.add("POST", "/api/v1/trust/rotate-ca", guard="admin", audit="ca.rotate")
    async def rotate_ca(form: Rotate, who: CallerIs) -> Trust:
        """Planned: announced now, used in a minute, the old one dropped when nothing needs it. Compromised: at once, and everything ends."""
        if form.compromised:
            await parts.rotation.replace_compromised(who.actor)
        else:
            await parts.rotation.rotate_authority(who.actor)
        return await read_trust()

    @routes.add("POST", "/api/v1/trust/rotate-ticket-key", guard="admin", audit="ticket_key.rotate")
    async def rotate_ticket_key(who: CallerIs) -> Trust:
        await parts.rotation.rotate_ticket_key(who.actor)
        return await read_trust()


def _add_logs(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/audit", guard="auditor")
    async def list_audit(action: Word = None, before: Annotated[int | None, Query(ge=1)] = None, limit: Limit = 100) -> AuditPage:
        """Newest first; `next` is the `before` of the next page."""

        def read() -> list[AuditRow]:
            with parts.store.read() as connection:
                return audit_rows.list_audit(connection, before=before, action=action, limit=limit)

        rows = await asyncio.to_thread(read)
        entries = [
            AuditAnswer(
                n=row.n,
                at=row.at,
                actor=row.actor,
                action=row.action,
                target=row.target,
                detail=dict(row.detail),
                source=row.source,
                code=row.code,
                generation=row.generation,
            )
            for row in rows
        ]
        return AuditPage(entries=entries, next=rows[-1].n if len(rows) == limit and rows[-1].n > 1 else None)

    @routes.add("GET", "/api/v1/audit/check", guard="auditor")
    async def check_audit() -> dict[str, int | None]:
        """The number of the first row that does not follow from the one before it, or null."""

        def check() -> int | None:
            with parts.store.read() as connection:
                return audit_rows.find_tampering(connection)

        return {"tampered": await asyncio.to_thread(check)}

    @routes.add("GET", "/api/v1/records", guard="auditor")
    async def list_records(
        user: Word = None,
        segment: Word = None,
        client: Word = None,
        session: Word = None,
        connector: Word = None,
        code: Word = None,
        kind: Word = None,
        since: Instant = None,
        until: Instant = None,
        limit: Limit = 100,
        cursor: Annotated[str | None, Query(max_length=128)] = None,
    ) -> RecordsPage:
        """Access records, newest first, filtered; `next` is the `cursor` of the next page. Ids are shown with their names beside them."""
        wanted = Filter(
            principal=_id(parts, "user", user),
            device=client,
            segment=_id(parts, "segment", segment),
            session=session,
            connector=connector,
            code=code,
            kind=kind,
            since=since,
            until=until,
        )
        try:
            page = await asyncio.to_thread(query, parts.settings.journal, wanted, limit, cursor)
        except CursorMalformed as error:
            raise Refusal(Code.ARGUMENT_INVALID, str(error)) from None
        return RecordsPage(entries=[_entry(parts, entry) for entry in page.entries], next=page.cursor)

    @routes.add("GET", "/api/v1/me/records", guard="user")
    async def list_my_records(
        who: CallerIs, limit: Limit = 100, cursor: Annotated[str | None, Query(max_length=128)] = None
    ) -> RecordsPage:
        """The caller's own access records, newest first."""
        return await _page(parts, Filter(principal=who.account.user), limit, cursor)


async def _page(parts: Parts, wanted: Filter, limit: int, cursor: str | None) -> RecordsPage:
    try:
        page = await asyncio.to_thread(query, parts.settings.journal, wanted, limit, cursor)
    except CursorMalformed as error:
        raise Refusal(Code.ARGUMENT_INVALID, str(error)) from None
    return RecordsPage(entries=[_entry(parts, entry) for entry in page.entries], next=page.cursor)


def _id(parts: Parts, kind: str, name: str | None) -> str | None:
    """A name that is not known is taken as an id, so that records of what is gone can still be found."""
    if name is None:
        return None
    document = parts.state.find(kind, name)
    return name if document is None else document.id


def _entry(parts: Parts, entry: Entry) -> dict[str, Any]:
    fields: dict[str, Any] = entry.record.model_dump(by_alias=True, exclude_none=True, mode="json")
    fields["source"] = entry.source
    for key in ("principal", "segment"):
        if key in fields:
            fields[f"{key}_name"] = parts.state.name_of(fields[key])
    agent = parts.state.agents.get(entry.record.device or "")
    if agent is not None and agent.actor is not None:
        fields.setdefault("actor", agent.actor)
    if "actor" in fields:
        fields["actor_name"] = parts.state.name_of(fields["actor"])
    fields["rule_names"] = [parts.state.name_of(rule) for rule in entry.record.rules]
    return fields
