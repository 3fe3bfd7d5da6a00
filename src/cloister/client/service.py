"""The client, run: link, data plane, sessions and control socket of one operating-system user."""

import asyncio
import logging
import os
import time
from collections.abc import Callable
from typing import Any, assert_never

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.enrol import link_error
from cloister.agent.errors import AgentError
from cloister.agent.link import Link
from cloister.agent.proving import Proving
from cloister.agent.pump import EventPump
from cloister.agent.rules import read_proxy
from cloister.client.answers import Answers
from cloister.client.control import ControlServer
from cloister.client.errors import ClientError
from cloister.client.machine import Command, Destination, End, Grant, Hold, Notice, Refuse, Send, Sessions, Tell
from cloister.client.posture.service import PostureService
from cloister.client.stepping import Stepping
from cloister.client.types import ClientSettings
from cloister.model.messages.common import Message, Protocol
from cloister.model.messages.from_agent import Bye, Explain, RequestAccess
from cloister.model.messages.from_exchange import (
    Catalogue,
    Delegated,
    DelegationEnded,
    Drain,
    EndSession,
    Explained,
    FromExchange,
    OwnRequests,
    PostureAsk,
    Proved,
    Refused,
    Relays,
    Requested,
    Session,
    Trust,
)
from cloister.model.reasons import REASONS, Code

log = logging.getLogger("cloister.client")

Reply = Explained | Requested | OwnRequests | Delegated | DelegationEnded | Refused
"""What answers a question of a person."""

READY_WAIT = 10.0  # seconds that a request waits for the link and the catalogue
ANSWER_WAIT = 10.0
TICK = 1.0
MAX_FLOWS = 1024  # flows over the control socket; each holds two descriptors


class ClientService:
    """Made by `start`, ended by `stop`. Holds the lock of the state directory while it lives."""

    def __init__(self, settings: ClientSettings) -> None:
        self._settings = settings
        self._disk = StateDir(settings.state)
        self.sessions = Sessions()
        self.catalogue: Catalogue | None = None
        self._ready = asyncio.Event()
        self._asking: dict[int, asyncio.Future[Reply]] = {}
        self._flows: dict[int, asyncio.Future[str]] = {}
        self.watchers: set[asyncio.Queue[Notice]] = set()
        self._tunnels: dict[str, dict[str, str]] = {}
        self._tick: asyncio.TimerHandle | None = None
        self.on_catalogue: Callable[[Catalogue], None] | None = None
        self.asked_down = asyncio.Event()
        self._proving: Proving | None = None
        self.answers = Answers(self)
        self.stepping = Stepping(
            lambda message: self.link.send(message), self.sessions.new_ref, self.tell, browser=settings.browser
        )
        self.core: _core.Core
        self.plane: _core.Client
        self.link: Link
        self.pump: EventPump
        self.posture: PostureService
        self._held_catalogue: Catalogue | None = None  # until the exchange knows what it asked of this device
        self._control: ControlServer

    def start(self) -> None:
        """Raises AgentError if nobody is signed in, or if another process holds the identity."""
        self._disk.open()
        identity = self._disk.load_identity("client")
        if identity is None:
            raise AgentError(Code.NOT_AUTHENTICATED, "nobody is signed in on this machine", "run `cloister login HOST`")
        self._disk.lock()
        proxy = read_proxy(os.environ)
        self.core = _core.Core()
        self.core.set_proxy(proxy.url, proxy.exemptions)
        self.plane = self.core.client(settings={"owner": self._settings.owner})
        self.link = Link(self.core, self._disk, identity, on_message=self._on_message, on_up=self._on_up, on_down=self._on_down)
        self.pump = EventPump(self.core, self._on_event)
        if self._settings.source is not None:
            self._proving = Proving(self.link, self._settings.source, self._settings.subject)
        self.posture = PostureService(self._settings.owner, lambda message: self.link.send(message), self._show_catalogue)
        self._control = ControlServer(self._settings.state, self._settings.owner, self.answers.perform)
        self._control.open()
        self.posture.start()
        self._on_tick()

    async def run_until_over(self) -> None:
        """Return when somebody asked for the end; raise AgentError when the exchange refuses for good, and whatever broke a handler."""
        down = asyncio.ensure_future(self.asked_down.wait())
        waiting: list[asyncio.Future[Any]] = [down, self.link.stopped, self.pump.failed]
        try:
            await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        finally:
            down.cancel()
        if self.pump.failed.done():
            self.pump.failed.result()
        if self.link.stopped.done():
            refusal = self.link.stopped.result()
            raise AgentError(refusal.code, refusal.message, refusal.remedy)

    async def stop(self) -> None:
        if self._tick is not None:
            self._tick.cancel()
        self._control.stop_listening()
        self.stepping.close()
        if self._proving is not None:
            await self._proving.stop()
        await self.posture.stop()
        self.link.send(Bye())
        self.pump.close()
        self.link.close()
        await asyncio.to_thread(self.core.shutdown)
        self._disk.unlock()
        await self._control.close()  # last: whoever asked for the end learns of it when all is released

    # ------------------------------------------------------------ events

    def _on_event(self, event: "_core.Event") -> None:
        if self.link.handle(event):
            return
        now = time.time()
        match event:
            case _core.SessionWanted():
                destination = Destination(event.host, event.port, event.protocol)
                self._run(self.sessions.on_wanted(event.request, destination, now))
            case _core.TicketRefused():
                self._run(self.sessions.on_ticket_refused(event.session, now))
            case _core.SessionsIdle():
                self._run(self.sessions.on_idle(event.sessions))
            case _core.FlowEnded():
                self._flow_ended(event)
            case _core.TunnelChanged():
                self._tunnel_changed(event)
            case _:
                pass  # of no concern here: the core already acted

    def _flow_ended(self, event: _core.FlowEnded) -> None:
        waiting = self._flows.pop(event.flow, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(event.code)

    def _tunnel_changed(self, event: _core.TunnelChanged) -> None:
        if event.state == "down":
            self._tunnels.pop(event.connector, None)
        else:
            self._tunnels[event.connector] = {"connector": event.connector, "relay": event.relay, "state": event.state}

    def _on_up(self) -> None:
        if self._proving is not None:
            self._proving.on_up()
        if self.link.welcome is not None:
            self.posture.on_up(self.link.welcome.now)
        self._run(self.sessions.on_up(time.time()))

    def _on_down(self) -> None:
        self._ready.clear()
        self._held_catalogue = None
        self.posture.on_down()
        self._run(self.sessions.on_down(time.time()))
        self.stepping.on_link_down()
        for answer in self._asking.values():
            if not answer.done():
                answer.cancel()

    def _on_message(self, message: FromExchange) -> None:
        if self.stepping.take(message):
            return
        try:
            self._take(message)
        except _core.CoreError as error:
            log.error("a message of the exchange cannot be acted on: %s", error)
            self.core.redial(self.link.number, Code.MESSAGE_MALFORMED)

    def _take(self, message: FromExchange) -> None:
        now = time.time()
        match message:
            case Session():
                self._run(self.sessions.on_session(message, now))
            case EndSession():
                self._run(self.sessions.on_end(message, now))
                self.stepping.on_code(message.code)
            case Refused(ref=int(ref)) if ref in self._asking:
                self._answer(ref, message)
            case Refused():
                self._run(self.sessions.on_refused(message, now))
                self.stepping.on_code(message.code)
            case Explained() | Requested() | OwnRequests() | Delegated() | DelegationEnded():
                self._answer(message.ref, message)
            case Proved():
                if self._proving is not None:
                    self._proving.on_proved(message)
            case PostureAsk():
                self.posture.on_ask(message)
            case Catalogue():
                self._take_catalogue(message)
            case Relays(relays=relays):
                self.plane.set_relays([(relay.id, relay.address) for relay in relays])
            case Trust() | Drain():
                pass  # trust is in force already; a link that goes away comes back by itself
            case _:
                pass  # for other roles; the link's machine lets none of them through

    def _take_catalogue(self, message: Catalogue) -> None:
        self._held_catalogue = message
        if self.catalogue is not None or not self.posture.is_first_report_due:
            self._show_catalogue()

    def _show_catalogue(self) -> None:
        """Names work from now on. A new client waits with it until it has said what is asked of its device: the first flow is judged by that."""
        message, self._held_catalogue = self._held_catalogue, None
        if message is None:
            return
        body = "[" + ",".join(segment.model_dump_json() for segment in message.segments) + "]"
        self.plane.set_catalogue(body.encode())
        self.catalogue = message
        self._ready.set()
        if self.on_catalogue is not None:
            self.on_catalogue(message)

    def _answer(self, ref: int, message: Reply) -> None:
        waiting = self._asking.pop(ref, None)
        if waiting is not None and not waiting.done():
            waiting.set_result(message)

    def _run(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(message):
                    self.link.send(message)
                case Grant(request, session):
                    self.plane.grant(
                        request,
                        session.session,
                        session.segment,
                        session.ticket,
                        session.connectors,
                        session.relays,
                        session.expires,
                    )
                case Refuse(request, code):
                    self.plane.refuse(request, _known(code))
                case Hold(request, code):
                    self.plane.hold(request, _known(code))
                case End(session, code):
                    self.plane.end_session(session, _known(code))
                case Tell(notice):
                    self._tell(notice)
                case _:
                    assert_never(command)

    def tell(self, code: str, text: str, remedy: str = "") -> None:
        """One sentence for the person, as if a session had ended."""
        notice = Notice(time.time(), code, text, remedy)
        self.sessions.notices.append(notice)
        self._tell(notice)

    def _tell(self, notice: Notice) -> None:
        level = logging.INFO if self.watchers else logging.WARNING  # a watcher says it to the person
        log.log(level, "%s%s", notice.text, f"; {notice.remedy}" if notice.remedy else "")
        for watcher in self.watchers:
            if not watcher.full():
                watcher.put_nowait(notice)

    def _on_tick(self) -> None:
        self._run(self.sessions.on_timer(time.time()))
        self._tick = asyncio.get_running_loop().call_later(TICK, self._on_tick)

    # ------------------------------------------------------------ for whoever answers a person

    async def wait_ready(self) -> None:
        ready = asyncio.ensure_future(self._ready.wait())
        waiting: list[asyncio.Future[Any]] = [ready, self.link.stopped]
        try:
            await asyncio.wait(waiting, timeout=READY_WAIT, return_when=asyncio.FIRST_COMPLETED)
        finally:
            ready.cancel()
        if self.link.stopped.done():
            refusal = self.link.stopped.result()
            raise ClientError(refusal.code, refusal.message, refusal.remedy)
        if not self._ready.is_set():
            error = link_error(self.link.identity.address, self.link.last_refusal or Code.EXCHANGE_UNREACHABLE, "")
            raise ClientError(Code.EXCHANGE_UNREACHABLE, error.message, error.remedy)

    async def explain(self, host: str, port: int | None, protocol: Protocol) -> Reply:
        """The exchange's answer. Raises ClientError if there is none."""
        return await self.ask(lambda ref: Explain(ref=ref, host=host, port=port, protocol=protocol))

    async def request_access(self, host: str, port: int | None, protocol: Protocol, reason: str, seconds: int | None) -> Reply:
        """The request as it stands at the exchange. Raises ClientError if there is no answer."""
        return await self.ask(
            lambda ref: RequestAccess(ref=ref, host=host, port=port, protocol=protocol, reason=reason, seconds=seconds)
        )

    async def ask(self, question: Callable[[int], Message]) -> Reply:
        """One question to the exchange, and its answer. Raises ClientError if there is none."""
        await self.wait_ready()
        ref = self.sessions.new_ref()
        waiting: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self._asking[ref] = waiting
        try:
            self.link.send(question(ref))
            await asyncio.wait([waiting], timeout=ANSWER_WAIT)
        finally:
            self._asking.pop(ref, None)
        if not waiting.done() or waiting.cancelled():
            reason = REASONS[Code.EXCHANGE_UNREACHABLE]
            raise ClientError(reason.code, reason.message, reason.remedy)
        return waiting.result()

    async def run_flow(self, host: str, port: int, descriptor: int) -> str:
        """One flow over a stream socket, which is the core's from now on; the code that it ended with. Raises ClientError if it cannot begin."""
        try:
            await self.wait_ready()
            if len(self._flows) >= MAX_FLOWS:
                raise ClientError(Code.TOO_MANY_FLOWS, "too many flows are open", "close some")
        except BaseException:
            os.close(descriptor)
            raise
        try:
            flow = self.plane.connect(host, port, descriptor)
        except _core.CoreError as error:
            raise ClientError(error.code, str(error)) from error
        ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        self._flows[flow] = ended
        try:
            return await ended
        finally:
            self._flows.pop(flow, None)

    def tunnels(self) -> list[dict[str, str]]:
        return sorted(self._tunnels.values(), key=lambda tunnel: tunnel["connector"])


def _known(code: str) -> str:
    """A newer exchange may name a reason that this core does not know."""
    return code if code in REASONS else Code.INTERNAL.value
