"""Keys, agents, sessions, explanations, kill switches."""

import heapq
from typing import Annotated, Literal

from fastapi import APIRouter, Depends, Query

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import (
    AgentAnswer,
    CertificateAnswer,
    Empty,
    ExplainAsk,
    Explained,
    KeyAnswer,
    KeyCreate,
    KeyCreated,
    KillSwitchAnswer,
    KillSwitchCreate,
    Revoked,
    SessionAnswer,
)
from cloister.exchange.api.schemas_evidence import DeviceSet
from cloister.exchange.book import LiveSession
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.facts import facts_anywhere, facts_of
from cloister.model.facts import Destination, Facts
from cloister.model.hosts import HostError, parse_host
from cloister.model.ids import SegmentId
from cloister.model.reasons import REASONS, Code
from cloister.policy.explain import Explanation, explain
from cloister.store import agents as agent_rows
from cloister.store.types import Agent, KillSwitch, ProvisioningKeyRow

CallerIs = Annotated[Caller, Depends(caller)]
Limit = Annotated[int, Query(ge=1, le=1000)]
After = Annotated[str, Query(max_length=16)]


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "access")
    _add_keys(routes, parts)
    _add_agents(routes, parts)
    _add_sessions(routes, parts)
    _add_kill_switches(routes, parts)
    return routes.router


# ------------------------------------------------------------------ provisioning keys


def _add_keys(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/keys", guard="auditor")
    async def list_keys(limit: Limit = 1000, after: After = "") -> list[KeyAnswer]:
        with parts.store.read() as connection:
            rows = agent_rows.list_provisioning_keys(connection)
        rows.sort(key=lambda row: row.id)
        return [KeyAnswer(**_key(parts, row)) for row in rows if row.id > after][:limit]

    @routes.add("POST", "/api/v1/keys", guard="admin", audit="key.create", status=201)
    async def create_key(form: KeyCreate, who: CallerIs) -> KeyCreated:
        """`key` is shown in this answer and never again."""
        row, text = await parts.administration.create_key(
            who.actor,
            form.role,
            uses=form.uses,
            seconds=form.seconds,
            group=form.group,
            principal=_principal(form),
            address=form.address,
            note=form.note,
        )
        contact = f"{parts.state.address}#sha256-{parts.state.keyring.root_sha256}"
        return KeyCreated(**_key(parts, row), key=text, contact=contact)

    @routes.add("DELETE", "/api/v1/keys/{id}", guard="admin", audit="key.revoke")
    async def revoke_key(id: str, who: CallerIs) -> Empty:
        await parts.administration.revoke_key(who.actor, id)
        return Empty()


def _principal(form: KeyCreate) -> tuple[Literal["user", "workload"], str] | None:
    if form.user is not None:
        return "user", form.user
    return None if form.workload is None else ("workload", form.workload)


def _key(parts: Parts, row: ProvisioningKeyRow) -> dict[str, object]:
    return {
        "id": row.id,
        "role": row.role,
        "group": parts.state.name_of(row.connector_group),
        "principal": parts.state.name_of(row.principal),
        "address": row.address,
        "note": row.note,
        "max_uses": row.max_uses,
        "uses": row.uses,
        "created_at": row.created_at,
        "created_by": row.created_by,
        "expires_at": row.expires_at,
        "revoked_at": row.revoked_at,
    }


# ------------------------------------------------------------------ agents


def _add_agents(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/agents", guard="auditor")
    async def list_agents(
        role: Annotated[str | None, Query(max_length=16)] = None, limit: Limit = 1000, after: After = ""
    ) -> list[AgentAnswer]:
        agents = sorted(parts.state.agents.values(), key=lambda agent: agent.id)
        return [_agent(parts, agent) for agent in agents if agent.id > after and role in (None, agent.role)][:limit]

    @routes.add("GET", "/api/v1/agents/{id}", guard="auditor")
    async def read_agent(id: str) -> AgentAnswer:
        return _agent(parts, _known(parts, id))

    @routes.add("GET", "/api/v1/agents/{id}/certificates", guard="auditor")
    async def list_certificates(id: str) -> list[CertificateAnswer]:
        """The issuer's log of this agent: what connectors report of leaves is compared with it."""
        with parts.store.read() as connection:
            rows = agent_rows.list_certificates(connection, _known(parts, id).id)
        return [
            CertificateAnswer(
                fingerprint=row.fingerprint,
                serial=row.serial,
                authority=row.authority,
                not_before=row.not_before,
                not_after=row.not_after,
            )
            for row in rows
        ]

    @routes.add("POST", "/api/v1/agents/{id}/revoke", guard="admin", audit="agent.revoke")
    async def revoke_agent(id: str, who: CallerIs) -> AgentAnswer:
        """Final: the agent must enrol again."""
        await parts.administration.revoke_agent(who.actor, id)
        return _agent(parts, _known(parts, id))

    @routes.add("POST", "/api/v1/agents/{id}/confirm", guard="admin", audit="agent.confirm")
    async def confirm_agent(id: str, who: CallerIs) -> AgentAnswer:
        """Serve an agent again after a restore or a twin."""
        await parts.administration.confirm_agent(who.actor, id, confirmed=True)
        return _agent(parts, _known(parts, id))

    @routes.add("POST", "/api/v1/agents/{id}/unconfirm", guard="admin", audit="agent.unconfirm")
    async def unconfirm_agent(id: str, who: CallerIs) -> AgentAnswer:
        """Stop serving an agent until it is confirmed."""
        await parts.administration.confirm_agent(who.actor, id, confirmed=False)
        return _agent(parts, _known(parts, id))

    @routes.add("POST", "/api/v1/agents/confirm", guard="admin", audit="agent.confirm")
    async def confirm_all_agents(who: CallerIs) -> Empty:
        """After a restore: every agent that is not revoked."""
        for agent in list(parts.state.agents.values()):
            if not agent.confirmed and agent.revoked_at is None:
                await parts.administration.confirm_agent(who.actor, agent.id, confirmed=True)
        return Empty()

    @routes.add("PUT", "/api/v1/agents/{id}/device", guard="admin", audit="agent.set_device")
    async def set_device(id: str, form: DeviceSet, who: CallerIs) -> AgentAnswer:
        """Which device document this client belongs to; its labels count in rules."""
        await parts.administration.set_device(who.actor, id, form.device)
        return _agent(parts, _known(parts, id))


def _known(parts: Parts, id: str) -> Agent:
    agent = parts.state.agents.get(id)
    if agent is None:
        raise not_found("agent", id)
    return agent


def _agent(parts: Parts, agent: Agent) -> AgentAnswer:
    link = parts.switchboard.of_agent(agent.id)
    return AgentAnswer(
        id=agent.id,
        role=agent.role,
        hostname=agent.hostname,
        principal=parts.state.name_of(agent.principal),
        actor=parts.state.name_of(agent.actor),
        device=parts.state.name_of(agent.device),
        group=parts.state.name_of(agent.connector_group),
        address=agent.address or (link.advertised if link is not None else None),
        enrolled_at=agent.enrolled_at,
        enrolled_by=agent.enrolled_by,
        vouched_until=agent.vouched_until,
        delegation=agent.delegation,
        revoked_at=agent.revoked_at,
        confirmed=agent.confirmed,
        last_seen_at=agent.last_seen_at,
        last_address=agent.last_address,
        twin_seen_at=agent.twin_seen_at,
        up=link is not None,
        draining=link is not None and link.draining,
        sessions=parts.book.count_of_client(agent.id) if agent.role == "client" else parts.book.load(agent.id),
    )


# ------------------------------------------------------------------ sessions


def _add_sessions(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/sessions", guard="auditor")
    async def list_sessions(
        user: Annotated[str | None, Query(max_length=128)] = None,
        segment: Annotated[str | None, Query(max_length=64)] = None,
        limit: Limit = 1000,
        after: After = "",
    ) -> list[SessionAnswer]:
        name = parts.state.name_of
        chosen = [
            session
            for session in parts.book
            if session.id > after and user in (None, name(session.principal)) and segment in (None, name(session.segment))
        ]
        return [_session(parts, session) for session in heapq.nsmallest(limit, chosen, key=lambda session: session.id)]

    @routes.add("GET", "/api/v1/me/sessions", guard="user")
    async def list_my_sessions(who: CallerIs) -> list[SessionAnswer]:
        """The caller's own sessions, on every device."""
        return [_session(parts, session) for session in parts.book.of_principal(who.account.user)]

    @routes.add("GET", "/api/v1/sessions/{id}", guard="auditor")
    async def read_session(id: str) -> SessionAnswer:
        return _session(parts, _live(parts, id))

    @routes.add("GET", "/api/v1/sessions/{id}/explain", guard="auditor")
    async def explain_session(id: str) -> Explained:
        """Why it is allowed: the decision made again now."""
        session = _live(parts, id)
        agent = parts.state.agents.get(session.client)
        facts = None if agent is None else facts_of(parts.state, agent, int(parts.clock()))
        if facts is None:
            raise not_found("live session", id)
        return _explained(explain(parts.state.policy, facts, SegmentId(session.segment), int(parts.clock())))

    @routes.add("POST", "/api/v1/sessions/{id}/revoke", guard="admin", audit="session.revoke")
    async def revoke_session(id: str, who: CallerIs) -> Revoked:
        """End one session now. While a rule permits it, the client may get a new one."""
        return Revoked(sessions=await parts.administration.revoke_session(who.actor, id))

    @routes.add("POST", "/api/v1/users/{name}/revoke-sessions", guard="admin", audit="session.revoke")
    async def revoke_sessions_of_user(name: str, who: CallerIs) -> Revoked:
        document = parts.state.find("user", name)
        if document is None:
            raise not_found("user", name)
        return Revoked(sessions=await parts.administration.revoke_sessions_of(who.actor, document.id))

    @routes.add("GET", "/api/v1/explain", guard="auditor")
    async def explain_access(form: Annotated[ExplainAsk, Query()]) -> Explained:
        """Whether somebody may reach a destination now, with every rule that was looked at."""
        try:
            host = parse_host(form.host)
        except HostError as error:
            raise Refusal(Code.HOST_MALFORMED, str(error)) from None
        facts = _asked(parts, form)
        port = form.port or parts.sessions.first_port(host, form.protocol, facts.principal, facts.actor)
        explanation = explain(parts.state.policy, facts, Destination(host, port, form.protocol), int(parts.clock()))
        unserved = parts.sessions.why_unserved(explanation.decision)
        if unserved is None:
            return _explained(explanation)
        told = {"code": unserved, "cause": unserved, "message": REASONS[unserved].message, "remedy": REASONS[unserved].remedy}
        return _explained(explanation).model_copy(update=told)


def _asked(parts: Parts, form: ExplainAsk) -> Facts:
    """Whose access is asked about: a client's, or a user's on no device in particular."""
    if form.client is not None:
        facts = facts_of(parts.state, _known(parts, form.client), int(parts.clock()))
    else:
        kind, name = ("user", form.user) if form.user else ("workload", form.workload or "")
        row = parts.state.find(kind, name)
        if row is None:
            raise not_found(kind, name)
        facts = facts_anywhere(parts.state, row.id, int(parts.clock()))
    if facts is None:
        raise Refusal(Code.NOT_FOUND, "nobody is signed in there any more")
    return facts


def _live(parts: Parts, id: str) -> LiveSession:
    session = parts.book.get(id)
    if session is None:
        raise not_found("live session", id)
    return session


def _session(parts: Parts, session: LiveSession) -> SessionAnswer:
    agent = parts.state.agents.get(session.client)
    return SessionAnswer(
        id=session.id,
        principal=parts.state.name_of(session.principal),
        actor=parts.state.name_of(None if agent is None else agent.actor),
        client=session.client,
        segment=parts.state.name_of(session.segment),
        rules=[parts.state.name_of(rule) for rule in session.rules],
        connectors=list(session.connectors),
        opened_at=session.opened_at,
        ticket_expires=session.ticket_expires,
        idle=session.idle,
    )


def _explained(explanation: Explanation) -> Explained:
    decision = explanation.decision
    return Explained(
        allowed=decision.allowed,
        visible=decision.visible,
        code=decision.code,
        message=explanation.message,
        remedy=explanation.remedy,
        cause=explanation.cause,
        segment=explanation.segment,
        rules=[
            {
                "name": rule.name,
                "effect": rule.effect,
                "applies": rule.applies,
                "conditions": [
                    {"field": item.field, "expression": item.expression, "outcome": item.outcome, "detail": item.detail}
                    for item in rule.conditions
                ],
            }
            for rule in explanation.rules
        ],
    )


# ------------------------------------------------------------------ kill switches


def _add_kill_switches(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/kill-switches", guard="auditor")
    async def list_kill_switches() -> list[KillSwitchAnswer]:
        return [_switch(parts, switch) for switch in parts.state.kill_switches.values()]

    @routes.add("POST", "/api/v1/kill-switches", guard="admin", audit="kill_switch.add", status=201)
    async def add_kill_switch(form: KillSwitchCreate, who: CallerIs) -> KillSwitchAnswer:
        """Ends every session in its scope now and refuses new ones until it is removed or expires."""
        switch = await parts.administration.add_kill_switch(who.actor, form.scope, form.target, form.reason, form.seconds)
        return _switch(parts, switch)

    @routes.add("DELETE", "/api/v1/kill-switches/{id}", guard="admin", audit="kill_switch.remove")
    async def remove_kill_switch(id: str, who: CallerIs) -> Empty:
        await parts.administration.remove_kill_switch(who.actor, id)
        return Empty()


def _switch(parts: Parts, switch: KillSwitch) -> KillSwitchAnswer:
    return KillSwitchAnswer(
        id=switch.id,
        scope=switch.scope,
        target=parts.state.name_of(switch.target) or switch.target,
        reason=switch.reason,
        created_at=switch.created_at,
        created_by=switch.created_by,
        expires_at=switch.expires_at,
    )
