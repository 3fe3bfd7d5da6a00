"""Clients and connectors in one process, told over standard input what to do; for benchmarks that need some of either, and new ones often.

Usage: agents.py EXCHANGE#sha256-… DIRECTORY. One JSON line per request, `{"number": N, "op": …, "name": NAME, …}`, and one per answer, in any order,
`{"number": N, "ok": true, …}` or `{"number": N, "ok": false, "code": CODE, "message": TEXT}`: `client` and `connector` enrol with a key, a token or a
password (and end one of that name), `door` opens a local port, `request` asks for access.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.enrol import Proof, by_key, by_password, by_token, enrol
from cloister.agent.errors import AgentError
from cloister.agent.link import Link
from cloister.agent.process import AgentSettings, read_target
from cloister.agent.pump import EventPump
from cloister.agent.types import Identity
from cloister.client.errors import ClientError
from cloister.client.service import ClientService
from cloister.client.types import ClientSettings
from cloister.connector.service import ConnectorService, ConnectorSettings
from cloister.model.first_contact import ExchangeTarget
from cloister.model.messages.from_exchange import Refused, Requested

UP_WAIT = 15.0
SPOOL = 16 << 20


class Connector:
    def __init__(self, exchange: str, state: StateDir, identity: Identity) -> None:
        self._core = _core.Core()
        self._service = ConnectorService(self._core, ConnectorSettings(AgentSettings(exchange, state.path), spool_max_bytes=SPOOL))
        self.is_up = asyncio.Event()
        self._link = Link(
            self._core, state, identity, on_message=self._service.on_message, on_up=self._on_up, on_down=self._service.on_down
        )
        self._service.link = self._link
        self._service.start(state)
        self._pump = EventPump(self._core, self._service.on_event)
        self._refused = asyncio.create_task(self._end_when_refused())
        self._is_over = False

    async def _end_when_refused(self) -> None:
        """As the process ends: what was enrolled is revoked."""
        await self._link.stopped
        await self.stop()

    def _on_up(self) -> None:
        self._service.on_up()
        self.is_up.set()

    async def stop(self) -> None:
        if self._is_over:
            return
        self._is_over = True
        self._service.close()
        self._pump.close()
        self._link.close()
        await asyncio.to_thread(self._core.shutdown)


class Agents:
    def __init__(self, exchange: str, directory: Path) -> None:
        self._exchange = exchange
        self._target: ExchangeTarget = read_target(exchange)
        self._directory = directory
        self._clients: dict[str, ClientService] = {}
        self._connectors: dict[str, Connector] = {}
        self._made = 0

    async def perform(self, request: dict[str, Any]) -> dict[str, Any]:
        try:
            match request["op"]:
                case "client":
                    return {"ok": True, "agent": await self._start_client(request["name"], _proof(request))}
                case "connector":
                    return {"ok": True, "agent": await self._start_connector(request["name"], by_key(request["key"]))}
                case "door":
                    plane = self._clients[request["name"]].plane
                    address = plane.forward("127.0.0.1:0", request["host"], request["port"], request["protocol"])
                    return {"ok": True, "address": address}
                case "request":
                    return await self._request(**{key: request[key] for key in ("name", "host", "port", "protocol")})
                case _:
                    return {"ok": False, "code": "op_unknown"}
        except (AgentError, ClientError) as error:
            return {"ok": False, "code": str(error.code), "message": error.message}

    async def _enrolled(self, role: Any, name: str, proof: Proof) -> tuple[StateDir, Identity]:
        self._made += 1
        state = StateDir(self._directory / f"{name}-{self._made}")
        state.open()
        return state, await enrol(state, self._target, role, proof)

    async def _start_client(self, name: str, proof: Proof) -> str:
        if former := self._clients.pop(name, None):
            await former.stop()
        state, identity = await self._enrolled("client", name, proof)
        service = self._clients[name] = ClientService(ClientSettings(state=state.path, owner=0))
        service.start()
        await service.wait_ready()
        return identity.agent

    async def _start_connector(self, name: str, proof: Proof) -> str:
        if former := self._connectors.pop(name, None):
            await former.stop()
        state, identity = await self._enrolled("connector", name, proof)
        connector = self._connectors[name] = Connector(self._exchange, state, identity)
        async with asyncio.timeout(UP_WAIT):
            await connector.is_up.wait()
        return identity.agent

    async def _request(self, name: str, host: str, port: int, protocol: Any) -> dict[str, Any]:
        answer = await self._clients[name].request_access(host, port, protocol, "the benchmark", None)
        if isinstance(answer, Requested):
            return {"ok": True, "id": answer.id}
        return {"ok": False, "code": answer.code if isinstance(answer, Refused) else "message_unexpected"}

    async def close(self) -> None:
        for client in self._clients.values():
            await client.stop()
        for connector in self._connectors.values():
            await connector.stop()


def _proof(request: dict[str, Any]) -> Proof:
    if "token" in request:
        return by_token(request["token"])
    return by_password(request["user"], request["password"]) if "user" in request else by_key(request["key"])


async def serve(agents: Agents) -> None:
    reader = asyncio.StreamReader(1 << 20)
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)

    async def answer(request: dict[str, Any]) -> None:
        print(json.dumps({**await agents.perform(request), "number": request["number"]}), flush=True)

    async with asyncio.TaskGroup() as answers:
        while line := await reader.readline():
            answers.create_task(answer(json.loads(line)))
    await agents.close()


def main(arguments: Sequence[str]) -> None:
    exchange, directory = arguments
    asyncio.run(serve(Agents(exchange, Path(directory))))


if __name__ == "__main__":
    main(sys.argv[1:])
