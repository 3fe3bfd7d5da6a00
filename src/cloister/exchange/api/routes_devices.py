"""Facts about devices: what is known of them, and what sources from outside (device management, endpoint security) say."""

from typing import Annotated

from fastapi import APIRouter, Depends, Path

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import Empty
from cloister.exchange.api.schemas_evidence import (
    ClientFacts,
    FactAnswer,
    FactsOfDevice,
    FactSourceToken,
    FactSourceTokenCreate,
    FactsSet,
    ProfileAnswer,
)
from cloister.exchange.devices.service import Pushed
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.facts import evidence_of
from cloister.identity.posture.report import REFUSED
from cloister.identity.posture.rules import evaluate
from cloister.model.documents import Device
from cloister.model.fields import NAME
from cloister.model.reasons import Code
from cloister.store.types import Agent, EvidenceRow, Subject

CallerIs = Annotated[Caller, Depends(caller)]
Source = Annotated[str, Path(pattern=NAME)]


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "devices")
    _add_reading(routes, parts)
    _add_pushing(routes, parts)
    return routes.router


def _add_reading(routes: Routes, parts: Parts) -> None:
    @routes.add("GET", "/api/v1/devices/{name}/facts", guard="auditor")
    async def read_device_facts(name: str) -> FactsOfDevice:
        """What is known of a device: what others say of it, and of each of its clients who is on it, where it is and which profiles hold."""
        id, device = _device(parts, name)
        clients = [agent for agent in parts.state.agents.values() if agent.device == id and agent.revoked_at is None]
        return FactsOfDevice(
            device=name,
            owner=device.owner,
            facts=_facts(parts, Subject("device", id)),
            clients=[_client(parts, agent) for agent in sorted(clients, key=lambda agent: agent.id)[: parts.settings.limits.page]],
        )

    @routes.add("GET", "/api/v1/agents/{id}/facts", guard="auditor")
    async def read_agent_facts(id: str) -> ClientFacts:
        return _client(parts, _known_client(parts, id))


def _add_pushing(routes: Routes, parts: Parts) -> None:
    @routes.add("PUT", "/api/v1/devices/{name}/facts/{source}", guard="source", audit="device.set_facts")
    async def set_device_facts(name: str, source: Source, form: FactsSet, who: CallerIs) -> Empty:
        """Everything that this source says of the device from now on; what it said before and does not say now is withdrawn."""
        await parts.devices.push(who.actor, Subject("device", _device(parts, name)[0]), source, _pushed(form))
        return Empty()

    @routes.add("PUT", "/api/v1/agents/{id}/facts/{source}", guard="source", audit="agent.set_facts")
    async def set_agent_facts(id: str, source: Source, form: FactsSet, who: CallerIs) -> Empty:
        """The same of one client. What is said of a client outranks what is said of its device."""
        await parts.devices.push(who.actor, Subject("agent", _known_client(parts, id).id), source, _pushed(form))
        return Empty()

    @routes.add("POST", "/api/v1/fact-sources/{source}/tokens", guard="admin", audit="fact_source.create_token", status=201)
    async def create_fact_source_token(source: Source, form: FactSourceTokenCreate, who: CallerIs) -> FactSourceToken:
        """A token for a service account that may push facts of this source and nothing else. It is shown in this answer and never again."""
        parts.devices.check_source(source)
        row = parts.state.find("user", form.account)
        account = None if row is None else parts.state.accounts.get(row.id)
        if account is None or account.role != "user":
            message = f"`{form.account}` is no account with the role `user`"
            raise Refusal(Code.REFERENCE_UNKNOWN, message, "make one: `cloister create user NAME --no-password`")
        token, secret = await parts.api_tokens.create_for_source(who.actor, account.user, source, form.seconds)
        return FactSourceToken(token=secret, source=source, account=form.account, expires_at=token.expires_at)


def _pushed(form: FactsSet) -> list[Pushed]:
    texts = {True: "true", False: "false"}
    return [
        Pushed(fact.name, fact.value if isinstance(fact.value, str) else texts[fact.value], fact.observed_at, fact.seconds)
        for fact in form.facts
    ]


def _device(parts: Parts, name: str) -> tuple[str, Device]:
    row = parts.state.find("device", name)
    document = None if row is None else parts.state.parsed[row.id]
    if row is None or not isinstance(document, Device):
        raise not_found("device", name)
    return row.id, document


def _known_client(parts: Parts, id: str) -> Agent:
    agent = parts.state.agents.get(id)
    if agent is None or agent.role != "client":
        raise not_found("client", id)
    return agent


def _facts(parts: Parts, subject: Subject) -> list[FactAnswer]:
    rows = parts.state.evidence.of(subject).values()
    return [_fact(row) for row in sorted(rows, key=lambda row: (row.source, row.name.removeprefix(REFUSED)))]


def _fact(row: EvidenceRow) -> FactAnswer:
    refused = row.name.startswith(REFUSED)
    return FactAnswer(
        source=row.source,
        name=row.name.removeprefix(REFUSED),
        value=None if refused else row.value,
        refused=row.value if refused else None,
        observed_at=row.observed_at,
        expires_at=row.expires_at,
    )


def _client(parts: Parts, agent: Agent) -> ClientFacts:
    now = int(parts.clock())
    evidence = evidence_of(parts.state, agent, now)
    outcomes = {profile.name: evaluate(profile, evidence, now) for profile in parts.state.library.profiles}
    return ClientFacts(
        id=agent.id,
        hostname=agent.hostname,
        principal=parts.state.name_of(agent.principal),
        device=parts.state.name_of(agent.device),
        up=parts.switchboard.of_agent(agent.id) is not None,
        address=agent.last_address,
        networks=sorted(parts.state.library.networks.names_of(agent.last_address)),
        facts=_facts(parts, Subject("agent", agent.id)),
        profiles=[
            ProfileAnswer(name=name, holds=outcome.holds, failed=dict(outcome.failed), until=outcome.until)
            for name, outcome in outcomes.items()
        ],
    )
