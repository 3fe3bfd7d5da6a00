"""What a person asks at the control socket, and the answers."""

import asyncio
import ipaddress
import json
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, assert_never

from cloister import _core
from cloister.client.control import Channel
from cloister.client.errors import ClientError
from cloister.client.machine import Destination, Notice
from cloister.client.types import (
    Apps,
    DelegateTo,
    Down,
    EndDelegationOf,
    ExplainName,
    OpenFlow,
    OpenForward,
    OpenProxy,
    OwnRequestsHere,
    Request,
    RequestName,
    SignOutHere,
    Status,
    StepUpSignIn,
    TellPosture,
    Watch,
    WithdrawHere,
)
from cloister.model.messages.common import SignInMethod
from cloister.model.messages.from_agent import Delegate, EndDelegation, ListRequests, WithdrawRequest
from cloister.model.messages.from_exchange import Refused, SignInStarted
from cloister.model.reasons import REASONS, Code

if TYPE_CHECKING:
    from cloister.client.service import ClientService

MAX_WATCHERS = 64
RECENT = 5.0  # seconds within which a notice explains the end of a flow


class Answers:
    def __init__(self, service: "ClientService") -> None:
        self._service = service
        self._entrances: dict[str, str] = {}  # address → what it is for

    async def perform(self, request: Request, channel: Channel) -> None:
        match request:
            case Status():
                await channel.answer(self.status())
            case Apps() | TellPosture():
                await self._service.wait_ready()
                is_apps = isinstance(request, Apps)
                await channel.answer({"apps": self._apps()} if is_apps else self._service.posture.describe())
            case ExplainName() | DelegateTo() | EndDelegationOf() | OwnRequestsHere() | WithdrawHere():
                await channel.answer(await self._ask(request))
            case RequestName():
                await channel.answer(await self._request(request))
            case OpenProxy(address=address):
                await self._service.wait_ready()
                await self._hold(channel, self._open(lambda: self._service.plane.serve_socks(_loopback(address))), "proxy")
            case OpenForward():
                await self._service.wait_ready()
                where = _loopback(request.address)
                bound = self._open(lambda: self._service.plane.forward(where, request.host, request.port, request.protocol))
                await self._hold(channel, bound, str(Destination(request.host, request.port, request.protocol)))
            case OpenFlow():
                await self._flow(request, channel)
            case Watch():
                await self._watch(channel)
            case StepUpSignIn(method=method):
                await self._step_up(method, channel)
            case SignOutHere():
                await self._service.wait_ready()
                await channel.answer({"url": await self._service.stepping.sign_out()})
                await channel.closed()  # the link ends for good now, and with it this process
            case Down():
                await channel.answer({"ok": True})
                self._service.asked_down.set()
                await channel.closed()
            case _:
                assert_never(request)

    def status(self) -> dict[str, Any]:
        identity, welcome = self._service.link.identity, self._service.link.welcome
        return {
            "link": "up" if self._service.link.is_up else "down",
            "reason": "" if self._service.link.is_up else self._service.link.last_refusal,
            "exchange": identity.address,
            "device": identity.agent,
            "principal": welcome.principal if welcome else "",
            "certificate_until": identity.not_after,
            "sign_in": self._sign_in(),
            "sessions": [
                {"session": session, "destination": str(destination)}
                for session, destination in sorted(self._service.sessions.held.items())
            ],
            "tunnels": self._service.tunnels(),
            "entrances": [{"address": address, "for": purpose} for address, purpose in sorted(self._entrances.items())],
            "notices": [
                {"at": int(notice.at), "code": notice.code, "text": notice.text, "remedy": notice.remedy}
                for notice in self._service.sessions.notices
            ],
            "core": json.loads(self._service.plane.status()),
        }

    def _sign_in(self) -> dict[str, Any] | None:
        """The sign-in that waits for the person, if one does."""
        started = self._service.stepping.started
        return None if started is None else {"url": started.url, "code": started.code, "expires": started.expires}

    def _apps(self) -> list[dict[str, Any]]:
        segments = self._service.catalogue.segments if self._service.catalogue else []
        return [
            {
                "name": segment.name,
                "hosts": segment.hosts,
                "ports": [f"{r.first}" if r.first == r.last else f"{r.first}-{r.last}" for r in segment.ports],
                "protocol": segment.protocol,
                "healthy": segment.healthy,
                "labels": segment.labels,
            }
            for segment in sorted(segments, key=lambda segment: segment.name)
        ]

    async def _ask(self, request: ExplainName | DelegateTo | EndDelegationOf | OwnRequestsHere | WithdrawHere) -> dict[str, Any]:
        match request:
            case ExplainName(host=host, port=port, protocol=protocol):
                answer = await self._service.explain(host, port, protocol)
            case DelegateTo(workload=workload, seconds=seconds):
                answer = await self._service.ask(lambda ref: Delegate(ref=ref, workload=workload, seconds=seconds))
            case EndDelegationOf(id=id):
                answer = await self._service.ask(lambda ref: EndDelegation(ref=ref, id=id))
            case OwnRequestsHere():
                answer = await self._service.ask(lambda ref: ListRequests(ref=ref))
            case WithdrawHere(id=id):
                answer = await self._service.ask(lambda ref: WithdrawRequest(ref=ref, id=id))
        if isinstance(answer, Refused):
            raise ClientError(answer.code, answer.message, answer.remedy)
        return answer.model_dump(exclude={"type", "ref"})

    async def _request(self, request: RequestName) -> dict[str, Any]:
        answer = await self._service.request_access(request.host, request.port, request.protocol, request.reason, request.seconds)
        if isinstance(answer, Refused):
            raise ClientError(answer.code, answer.message, answer.remedy)
        return answer.model_dump(exclude={"type", "ref"})

    def _open(self, listen: Callable[[], str]) -> str:
        try:
            return listen()
        except _core.CoreError as error:
            code = error.code
            raise ClientError(code, f"the entrance cannot be opened: {error}", "choose another local address") from error

    async def _hold(self, channel: Channel, address: str, purpose: str) -> None:
        """Keep an entrance open for as long as the asking side stays."""
        self._entrances[address] = purpose
        try:
            await channel.answer({"address": address})
            await channel.closed()
        finally:
            self._entrances.pop(address, None)
            self._service.plane.close_entrance(address)

    async def _flow(self, request: OpenFlow, channel: Channel) -> None:
        code = await self._service.run_flow(request.host, request.port, channel.take_descriptor())
        if code == Code.OK:
            await channel.answer({"ended": code})
            return
        notices = reversed(self._service.sessions.notices)
        told = next((notice for notice in notices if notice.code == code and time.time() - notice.at < RECENT), None)
        if told is not None:
            raise ClientError(code, told.text, told.remedy)
        reason = REASONS.get(code)
        message = f"`{request.host}:{request.port}`: {reason.message if reason else code}"
        raise ClientError(code, message, reason.remedy if reason else "")

    async def _step_up(self, method: SignInMethod, channel: Channel) -> None:
        await self._service.wait_ready()
        told: asyncio.Queue[SignInStarted] = asyncio.Queue()
        stepping = asyncio.ensure_future(self._service.stepping.step_up(method, told.put_nowait))
        coming = asyncio.ensure_future(told.get())
        gone = asyncio.ensure_future(channel.closed())
        try:
            await asyncio.wait([stepping, coming], return_when=asyncio.FIRST_COMPLETED)
            if coming.done():
                await channel.answer(coming.result().model_dump(exclude={"type", "ref"}))
            await asyncio.wait([stepping, gone], return_when=asyncio.FIRST_COMPLETED)
            if stepping.done():
                await channel.answer(stepping.result().model_dump(exclude={"type", "ref"}))
        finally:
            waiting = (stepping, coming, gone)
            for task in waiting:
                task.cancel()
            await asyncio.wait(waiting)

    async def _watch(self, channel: Channel) -> None:
        if len(self._service.watchers) >= MAX_WATCHERS:
            raise ClientError(Code.LIMIT_REACHED, "too many commands watch this client", "close some")
        queue: asyncio.Queue[Notice] = asyncio.Queue(maxsize=64)
        self._service.watchers.add(queue)
        gone = asyncio.ensure_future(channel.closed())
        try:
            await channel.answer({"watching": True})
            while not gone.done():
                coming = asyncio.ensure_future(queue.get())
                await asyncio.wait([coming, gone], return_when=asyncio.FIRST_COMPLETED)
                if not coming.done():
                    coming.cancel()
                    break
                notice = coming.result()
                await channel.answer({"at": int(notice.at), "code": notice.code, "text": notice.text, "remedy": notice.remedy})
        finally:
            self._service.watchers.discard(queue)
            gone.cancel()
            await asyncio.wait([gone])  # it lets go of the connection before the connection's number can be another's


def _loopback(address: str) -> str:
    """Entrances are for this machine: refuse any other address, and fill in `127.0.0.1` where only a port is given."""
    host, _, port = address.rpartition(":")
    host = host or "127.0.0.1"
    try:
        is_local = ipaddress.ip_address(host.strip("[]")).is_loopback
        is_port = port.isascii() and port.isdigit() and int(port) <= 65535
    except ValueError:
        is_local = is_port = False
    if not is_local or not is_port:
        raise ClientError(
            Code.ARGUMENT_INVALID, f"`{address}` is not a loopback address and port", "write for example `127.0.0.1:1080`"
        )
    return f"{host}:{port}"
