"""The exchange at work: every event of the core is taken here, once, and handed to the part that it concerns."""

import logging
from collections.abc import Callable, Sequence
from typing import assert_never

from pydantic import ValidationError

from cloister import _core
from cloister.exchange.approvals import Approvals
from cloister.exchange.desk import Desk
from cloister.exchange.devices.service import Devices
from cloister.exchange.directory import Directory
from cloister.exchange.enrol import Enrolment
from cloister.exchange.errors import Refusal
from cloister.exchange.facts import principal_of
from cloister.exchange.greeting import may_send
from cloister.exchange.idle import IdleLimits
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.programs.clusters import Clusters
from cloister.exchange.programs.service import Programs
from cloister.exchange.reception import Reception
from cloister.exchange.relays import RelaySet
from cloister.exchange.revoke import Revoker
from cloister.exchange.sessions import Sessions
from cloister.exchange.settings import Settings, is_address
from cloister.exchange.signin.departures import Departures
from cloister.exchange.signin.service import SignIns
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.model.facts import Destination
from cloister.model.hosts import HostError, parse_host
from cloister.model.messages.common import MAX_OWN_REQUESTS
from cloister.model.messages.from_agent import (
    Advertise,
    Bye,
    ClusterKeys,
    CutDone,
    Delegate,
    Draining,
    EndDelegation,
    EnrolByKey,
    EnrolByPassword,
    EnrolBySignIn,
    EnrolByToken,
    Explain,
    FromAgent,
    Health,
    Hello,
    Idle,
    ListRequests,
    Posture,
    Prove,
    Quiet,
    Renew,
    RequestAccess,
    Revoked,
    SignOut,
    StepUp,
    WantCarrier,
    WantSession,
    WithdrawRequest,
    read_from_agent,
)
from cloister.model.messages.from_exchange import OwnRequest, OwnRequests, Requested
from cloister.model.reasons import Code
from cloister.store.types import AccessRequest, Actor, Agent

log = logging.getLogger("cloister.exchange")

SNAPSHOT_SECONDS = 60.0  # every connector is sent its whole set at least this often
MAX_HEALTH_ENTRIES = 10_000


class Exchange:
    def __init__(
        self,
        settings: Settings,
        state: State,
        switchboard: Switchboard,
        reception: Reception,
        desk: Desk,
        enrolment: Enrolment,
        sessions: Sessions,
        revoker: Revoker,
        relays: RelaySet,
        directory: Directory,
        verifier: Verifier,
        devices: Devices,
        approvals: Approvals,
        idle_limits: IdleLimits,
        sign_ins: SignIns,
        departures: Departures,
        programs: Programs,
        clusters: Clusters,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._state = state
        self._switchboard = switchboard
        self._reception = reception
        self._desk = desk
        self._enrolment = enrolment
        self._sessions = sessions
        self._revoker = revoker
        self._relays = relays
        self._directory = directory
        self._verifier = verifier
        self._devices = devices
        self._approvals = approvals
        self._idle_limits = idle_limits
        self._sign_ins = sign_ins
        self._departures = departures
        self._programs = programs
        self._clusters = clusters
        self._clock = clock
        self._next_snapshot = 0.0
        desk.on_ended = self._agent_gone
        reception.on_welcomed = self._welcomed
        switchboard.on_unready = devices.link_is_gone

    # ------------------------------------------------------------ the core's events

    def on_event(self, event: "_core.Event") -> None:
        match event:
            case _core.LinkUp():
                self._reception.on_up(event)
            case _core.LinkMessage():
                self._message_safely(event)
            case _core.LinkDown():
                self._link_down(event)
            case _core.CarrierWanted(connector=connector):
                if self._relays.embedded_id is not None:
                    self._relays.want_carrier(connector, self._relays.embedded_id)
            case _:
                pass  # records are written by the core; the rest is of other roles

    def on_tick(self, now: float) -> float:
        """Whatever is due by the clock. Called at least ten times a second, and at the moment that it returns; early calls are harmless."""
        self._revoker.on_tick(now)
        next_due = self._sessions.on_tick(now)
        self._idle_limits.on_tick()
        self._relays.expire(now)
        self._devices.on_tick(now)
        self._reception.on_tick(now)
        if now >= self._next_snapshot:
            self._next_snapshot = now + SNAPSHOT_SECONDS
            for link in self._switchboard.of_role("connector"):
                self._revoker.send_snapshot(link.agent)
            self._close_expired(now)
        return next_due

    def _close_expired(self, now: float) -> None:
        """A link does not outlive its leaf: an agent that did not renew comes back and is told to."""
        for link in self._switchboard:
            if link.stage == "ready" and link.not_after < now:
                self._desk.refuse_and_end(link, Code.CERTIFICATE_EXPIRED)

    # ------------------------------------------------------------ links come and go

    def _welcomed(self, link: LiveLink, came_from: str | None) -> None:
        """Whole sets first; what changes later follows."""
        self._switchboard.send_whole(link, self._verifier.trust(link.role))
        match link.role:
            case "connector":
                self._switchboard.send_whole(link, self._relays.message())
                self._verifier.send_assignments(link)
                self._revoker.send_snapshot(link.agent)
                self._idle_limits.connector_is_back(link.agent)
                self._sessions.connector_is_up(link.agent)
                self._verifier.set_stale()
            case "client":
                self._switchboard.send_whole(link, self._relays.message())
                self._devices.client_is_up(link, came_from)
                self._verifier.send_catalogue(link)
                self._sessions.client_is_back(link.agent)
            case "relay":
                pass  # it is told what to block when it says where it is

    def _link_down(self, event: _core.LinkDown) -> None:
        known = self._switchboard.get(event.link)
        was_ready = known is not None and self._switchboard.is_ready(known)
        link = self._switchboard.remove(event.link)
        if link is not None and was_ready:
            self._agent_gone(link)

    def _agent_gone(self, link: LiveLink) -> None:
        level = logging.DEBUG if link.role == "client" else logging.INFO
        log.log(level, "%s `%s` is gone", link.role, link.agent)
        match link.role:
            case "connector":
                self._revoker.connector_lost(link.agent)
                self._verifier.replace_connector(link.agent)
            case "relay":
                self._verifier.publish_relays()
            case "client":
                pass
        self._reception.on_ready_link_ended(link)

    # ------------------------------------------------------------ messages

    def _message_safely(self, event: _core.LinkMessage) -> None:
        """A defect that one peer's message finds ends that peer's link and nobody else's."""
        link = self._switchboard.get(event.link)
        if link is None:
            return
        try:
            self._message(link, event.body)
        except Exception:
            log.exception("a message of link %d could not be handled", event.link)
            self._desk.end(link, Code.INTERNAL)

    def _message(self, link: LiveLink, body: bytes) -> None:
        if link.count_message(self._clock()) > self._settings.limits.messages_per_link:
            self._desk.refuse_and_end(link, Code.LIMIT_REACHED)
            return
        try:
            message = read_from_agent(body)
        except ValidationError:
            self._desk.refuse_and_end(link, Code.MESSAGE_MALFORMED)
            return
        if link.stage == "ready":
            self._serve(link, message)
        else:
            self._reception.on_message(link, message)

    def _serve(self, link: LiveLink, message: FromAgent) -> None:
        agent = self._state.agents[link.agent]
        if not may_send(agent.role, message):
            self._desk.audit(f"agent:{agent.id}", link.source, "agent.message", message.type, Code.MESSAGE_UNEXPECTED)
            self._desk.refuse_and_end(link, Code.MESSAGE_UNEXPECTED)
            return
        if agent.actor is not None and isinstance(message, StepUp | SignOut):
            self._desk.refuse(link, Code.NOT_AUTHORISED)  # a program that acts for somebody neither signs them in nor out
            return
        match message:
            case RequestAccess() | ListRequests() | WithdrawRequest():
                self._desk.answer(link, self._request(link, agent, message), ref=message.ref)
            case WantSession() | Explain() | Idle() | Posture() | StepUp() | SignOut() | Delegate() | EndDelegation():
                self._serve_client(link, message)
            case Health() | Revoked() | Quiet() | ClusterKeys():
                self._serve_connector(link, message)
            case WantCarrier() | Advertise() | CutDone():
                self._serve_relay(link, agent, message)
            case Draining():
                link.draining = True
                self._on_draining(agent)
            case Renew():
                self._desk.answer(link, self._enrolment.renew(agent))
            case Prove():
                self._desk.answer(link, self._programs.prove(link, message))
            case Bye():
                self._desk.end(link, Code.STOPPED)
                self._programs.left(agent)
            case Hello() | EnrolByKey() | EnrolByPassword() | EnrolBySignIn() | EnrolByToken():
                self._desk.refuse_and_end(link, Code.MESSAGE_UNEXPECTED)
            case _:
                assert_never(message)

    def _serve_client(
        self, link: LiveLink, message: WantSession | Explain | Idle | Posture | StepUp | SignOut | Delegate | EndDelegation
    ) -> None:
        match message:
            case WantSession():
                self._sessions.want(link, message)
            case Explain():
                self._sessions.explain(link, message)
            case Idle():
                self._sessions.idle(link, message)
            case StepUp():
                agent = self._state.agents[link.agent]
                self._desk.answer(
                    link,
                    self._sign_ins.step_up(
                        agent,
                        message,
                        link.source,
                        lambda started: self._switchboard.send(link, started),
                        lambda: self._switchboard.is_ready(link),
                    ),
                )
            case SignOut(ref=ref):
                self._desk.answer(link, self._departures.of_client(link, ref), ref=ref)
            case Delegate():
                self._desk.answer(link, self._programs.delegate(link, message), ref=message.ref)
            case EndDelegation():
                self._desk.answer(link, self._programs.end_delegation(link, message), ref=message.ref)
            case Posture():
                self._devices.report(link.agent, message)

    async def _request(
        self, link: LiveLink, agent: Agent, message: RequestAccess | ListRequests | WithdrawRequest
    ) -> Requested | OwnRequests:
        if agent.actor is not None:
            raise Refusal(
                Code.NOT_AUTHORISED, "a program that acts for somebody asks for nothing in their name", "let the person ask"
            )
        actor = Actor(f"user:{self._state.name_of(agent.principal)}", link.source)
        match message:
            case ListRequests():
                return self._own_requests(message.ref, self._approvals.of_principal(agent.principal or ""))
            case WithdrawRequest(id=id):
                return self._own_requests(message.ref, [await self._approvals.withdraw(actor, agent.principal or "", id)])
            case RequestAccess():
                return await self._ask_for(actor, agent, message)

    def _own_requests(self, ref: int, requests: Sequence[AccessRequest]) -> OwnRequests:
        name_of = self._state.name_of
        listed = [
            OwnRequest(
                id=request.id,
                user=name_of(request.principal),
                segment=name_of(request.segment),
                reason=request.reason,
                seconds=request.seconds,
                state=request.state,
                created_at=request.created_at,
                until=request.until,
                note=request.note,
            )
            for request in requests[:MAX_OWN_REQUESTS]
        ]
        return OwnRequests(ref=ref, requests=listed)

    async def _ask_for(self, actor: Actor, agent: Agent, message: RequestAccess) -> Requested:
        try:
            host = parse_host(message.host)
        except HostError as error:
            raise Refusal(Code.HOST_MALFORMED, str(error)) from None
        principal = principal_of(self._state.library, agent.principal)
        port = message.port or self._sessions.first_port(host, message.protocol, principal)
        target = Destination(host, port, message.protocol)
        request = await self._approvals.ask(actor, agent.principal or "", target, message.reason, message.seconds)
        return Requested(
            ref=message.ref,
            id=request.id,
            segment=self._state.name_of(request.segment),
            state="approved" if request.state == "approved" else "pending",
            seconds=request.seconds,
            until=request.until,
        )

    def _serve_connector(self, link: LiveLink, message: Health | Revoked | Quiet | ClusterKeys) -> None:
        match message:
            case ClusterKeys():
                self._desk.answer(link, self._clusters.take(link, message))
            case Health():
                self._health(link, message)
            case Revoked(generation=generation):
                self._revoker.confirmed(link.agent, generation)
            case Quiet():
                self._idle_limits.on_quiet(link, message)

    def _serve_relay(self, link: LiveLink, agent: Agent, message: WantCarrier | Advertise | CutDone) -> None:
        match message:
            case WantCarrier(connector=connector):
                self._relays.want_carrier(connector, link.agent)
            case Advertise(address=address):
                if not is_address(address):
                    self._desk.refuse_and_end(link, Code.MESSAGE_MALFORMED)
                    return
                self._relays.advertise(link, agent.address or address)
                self._verifier.publish_relays()
            case CutDone():
                pass

    def _health(self, link: LiveLink, message: Health) -> None:
        """A connector speaks of the segments of its own group; what it says of others is not kept (case 38)."""
        if len(message.segments) > MAX_HEALTH_ENTRIES:
            self._desk.refuse_and_end(link, Code.TOO_LARGE)
            return
        served = {report.segment: report for report in message.segments if self._directory.serves(link.agent, report.segment)}
        if len(served) < len(message.segments):
            known = self._state.parsed.keys()
            if any(report.segment in known and report.segment not in served for report in message.segments):
                self._desk.audit(
                    f"agent:{link.agent}", link.source, "agent.health", "segment of another group", Code.NOT_AUTHORISED
                )
        before = {segment: report.healthy for segment, report in link.health.items()}
        link.health = served
        if before != {segment: report.healthy for segment, report in served.items()}:
            self._verifier.set_stale()

    def _on_draining(self, agent: Agent) -> None:
        log.info("%s `%s` is draining", agent.role, agent.id)
        if agent.role == "connector":
            self._verifier.replace_connector(agent.id)
        else:
            self._verifier.publish_relays()
