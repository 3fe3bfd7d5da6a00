"""Devices that stand at one place: whole clients of Cloister in one process, told over standard input what their people do.

Usage: devices.py EXCHANGE#sha256-… DIRECTORY. One JSON line per request, `{"n": 1, "op": …, "device": NAME, …}`, and one per answer,
`{"n": 1, "ok": true, …}` or `{"n": 1, "ok": false, "code": CODE}`.
"""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.enrol import by_password, by_sign_in, by_token, enrol
from cloister.agent.errors import AgentError
from cloister.agent.process import read_target
from cloister.agent.types import Identity
from cloister.client.errors import ClientError
from cloister.client.service import ClientService
from cloister.client.types import ClientSettings
from cloister.model.first_contact import ExchangeTarget
from cloister.model.messages.from_agent import Prove
from cloister.model.messages.from_exchange import Refused, Requested, SignedIn, SignInStarted
from cloister.model.reasons import Code

READY_WAIT = 15.0
MAX_LINE = 1 << 20


class Device:
    """One state directory, and the client that runs on it from the first door on."""

    def __init__(self, state: Path, target: ExchangeTarget) -> None:
        self._state = StateDir(state)
        self._target = target
        self._service: ClientService | None = None
        self._doors: dict[tuple[str, int], str] = {}
        self._signing_in: asyncio.Task[Identity] | None = None
        self._stepping: asyncio.Task[SignedIn] | None = None

    async def sign_in(self, *, user: str = "", password: str = "", token: str = "") -> str:
        """Enrol anew; a client that runs on the sign-in of before ends first, as `cloister login` has it."""
        await self.stop()  # the client of a program signs out as it ends, and a key that enrols again is the same agent
        self._state.open()
        proof = by_token(token) if token else by_password(user, password)
        return (await enrol(self._state, self._target, "client", proof)).agent

    async def begin(self, provider: str) -> str:
        """Begin to sign in at a provider; where the person has to go."""
        self._state.open()
        where: asyncio.Future[SignInStarted] = asyncio.get_running_loop().create_future()
        self._signing_in = asyncio.create_task(
            enrol(self._state, self._target, "client", by_sign_in(provider, "browser"), on_started=where.set_result)
        )
        await _first(where, self._signing_in)
        return where.result().url if where.done() else (await self._signing_in).agent

    async def finish(self) -> str:
        assert self._signing_in is not None
        async with asyncio.timeout(READY_WAIT):
            identity = await self._signing_in
        await self.stop()
        return identity.agent

    async def step_up(self) -> str:
        """Where the person signs in again: the client begins by itself when something needs it, else it is told to."""
        service = self._service or await self._start()
        if service.stepping.started is None:
            where: asyncio.Future[SignInStarted] = asyncio.get_running_loop().create_future()
            self._stepping = asyncio.create_task(service.stepping.step_up("browser", where.set_result))
            await _first(where, self._stepping)
            if not where.done():
                await self._stepping
            return where.result().url
        return service.stepping.started.url

    async def stepped_up(self) -> None:
        """Until the sign-in that was begun has succeeded."""
        assert self._stepping is not None
        async with asyncio.timeout(READY_WAIT):
            await self._stepping

    async def prove(self, token: str) -> None:
        """Show another token over the link."""
        service = self._service or await self._start()
        service.link.send(Prove(token=token))

    async def door(self, host: str, port: int) -> str:
        """A loopback port of this device that leads to the destination. Raises AgentError if nobody is signed in."""
        service = self._service or await self._start()
        if (host, port) not in self._doors:
            self._doors[host, port] = service.plane.forward("127.0.0.1:0", host, port)
        return self._doors[host, port]

    async def request(self, host: str, port: int, reason: str) -> str:
        """Ask for access that needs an approval, as `cloister request` does; the request's id."""
        service = self._service or await self._start()
        answer = await service.request_access(host, port, "tcp", reason, None)
        if not isinstance(answer, Requested):
            raise ClientError(answer.code if isinstance(answer, Refused) else Code.MESSAGE_UNEXPECTED, "no request was made")
        return answer.id

    async def _start(self) -> ClientService:
        service = ClientService(ClientSettings(state=self._state.path, owner=0))
        service.start()
        self._service = service
        async with asyncio.timeout(READY_WAIT):
            await service.wait_ready()
        return service

    def notices(self) -> list[str]:
        return [] if self._service is None else [notice.code for notice in self._service.sessions.notices]

    async def stop(self) -> None:
        if self._service is not None:
            service, self._service, self._doors = self._service, None, {}
            await service.stop()


async def _first(*waiting: "asyncio.Future[Any]") -> None:
    await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)


class Host:
    def __init__(self, target: ExchangeTarget, directory: Path) -> None:
        self._target = target
        self._directory = directory
        self._devices: dict[str, Device] = {}
        self._turns: dict[str, asyncio.Lock] = {}

    async def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        name = request["device"]
        device = self._devices.setdefault(name, Device(self._directory / name, self._target))
        operations: dict[str, Callable[[], Awaitable[dict[str, Any]]]] = {
            "sign_in": lambda: self._sign_in(device, request),
            "begin": lambda: self._begin(device, request),
            "finish": lambda: self._finish(device),
            "step_up": lambda: self._step_up(device),
            "stepped_up": lambda: self._stepped_up(device),
            "prove": lambda: self._prove(device, request),
            "door": lambda: self._door(device, request),
            "stop": lambda: self._stop(device),
            "request": lambda: self._request(device, request),
            "notices": lambda: self._notices(device),
        }
        async with self._turns.setdefault(name, asyncio.Lock()):
            try:
                return {"ok": True, **await operations[request["op"]]()}
            except (AgentError, ClientError, _core.CoreError) as error:
                return {"ok": False, "code": str(error.code), "message": str(error)}
            except TimeoutError:
                return {"ok": False, "code": "timeout", "message": "the client did not become ready"}

    async def _sign_in(self, device: Device, request: dict[str, Any]) -> dict[str, Any]:
        proof = {part: request[part] for part in ("user", "password", "token") if part in request}
        return {"agent": await device.sign_in(**proof)}

    async def _begin(self, device: Device, request: dict[str, Any]) -> dict[str, Any]:
        return {"url": await device.begin(request["provider"])}

    async def _finish(self, device: Device) -> dict[str, Any]:
        return {"agent": await device.finish()}

    async def _step_up(self, device: Device) -> dict[str, Any]:
        return {"url": await device.step_up()}

    async def _stepped_up(self, device: Device) -> dict[str, Any]:
        await device.stepped_up()
        return {}

    async def _prove(self, device: Device, request: dict[str, Any]) -> dict[str, Any]:
        await device.prove(request["token"])
        return {}

    async def _door(self, device: Device, request: dict[str, Any]) -> dict[str, Any]:
        return {"address": await device.door(request["host"], request["port"])}

    async def _request(self, device: Device, request: dict[str, Any]) -> dict[str, Any]:
        return {"id": await device.request(request["host"], request["port"], request["reason"])}

    async def _stop(self, device: Device) -> dict[str, Any]:
        await device.stop()
        return {}

    async def _notices(self, device: Device) -> dict[str, Any]:
        return {"codes": device.notices()}

    async def close(self) -> None:
        for device in self._devices.values():
            await device.stop()


async def serve(host: Host) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(MAX_LINE)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    tasks: set[asyncio.Task[None]] = set()

    async def answer(request: dict[str, Any]) -> None:
        print(json.dumps({"n": request["n"], **await host.perform(request)}), flush=True)

    while line := await reader.readline():
        task = asyncio.create_task(answer(json.loads(line)))
        tasks.add(task)
        task.add_done_callback(tasks.discard)
    await host.close()


def main(arguments: list[str]) -> None:
    target, directory = arguments
    asyncio.run(serve(Host(read_target(target), Path(directory))))


if __name__ == "__main__":
    main(sys.argv[1:])
