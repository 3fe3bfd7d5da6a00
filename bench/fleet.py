"""Many devices in one process: links with sessions, some of them with a whole client and a live flow's door.

Usage: fleet.py EXCHANGE#sha256-… DIRECTORY DEVICES LIVE HOST:PORT…, the provisioning key as the first line of standard input. Prints one JSON line when
all sessions stand, `{"doors": [[ADDRESS, DEVICE], …], "sessions": N}`, and the like for each further line, on which it asks for all of them again; ends
with its input. Every device has a session to every destination; a live one has a door (a forward) to the first.
"""

import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.enrol import by_key, enrol
from cloister.agent.link import Link
from cloister.agent.process import read_target
from cloister.agent.pump import EventPump
from cloister.agent.types import Identity
from cloister.client.service import ClientService
from cloister.client.types import ClientSettings
from cloister.model.first_contact import ExchangeTarget
from cloister.model.messages.from_agent import WantSession
from cloister.model.messages.from_exchange import FromExchange, Session

AT_ONCE = 8
PATIENCE = 300.0
Destination = tuple[str, int]


class Device:
    """A link and its sessions, without a data plane."""

    def __init__(self, state: StateDir, identity: Identity, destinations: Sequence[Destination]) -> None:
        self._destinations = destinations
        self._core = _core.Core()
        self._missing: set[int] = set()
        self.complete = asyncio.Event()
        self.link = Link(self._core, state, identity, on_message=self._on_message, on_up=self.ask, on_down=lambda: None)
        self._pump = EventPump(self._core, self._on_event)

    def _on_event(self, event: _core.Event) -> None:
        self.link.handle(event)

    def ask(self) -> None:
        self.complete.clear()
        self._missing = set(range(len(self._destinations)))
        for ref in sorted(self._missing):
            host, port = self._destinations[ref]
            self.link.send(WantSession(ref=ref, host=host, port=port, protocol="tcp"))

    def _on_message(self, message: FromExchange) -> None:
        if isinstance(message, Session) and message.ref is not None:
            self._missing.discard(message.ref)
            if not self._missing:
                self.complete.set()


class LiveDevice:
    """A whole client with a door, and the further sessions asked for over its link."""

    def __init__(self, state: Path, destinations: Sequence[Destination]) -> None:
        self._destinations = destinations
        self._service = ClientService(ClientSettings(state=state, owner=0))

    async def start(self) -> str:
        self._service.start()
        await self._service.wait_ready()
        host, port = self._destinations[0]
        door = self._service.plane.forward("127.0.0.1:0", host, port)
        self.ask()
        return door

    def ask(self) -> None:
        for ref, (host, port) in enumerate(self._destinations[1:]):
            self._service.link.send(WantSession(ref=1_000_000 + ref, host=host, port=port, protocol="tcp"))


async def run(target: ExchangeTarget, directory: Path, devices: int, live: int, destinations: Sequence[Destination]) -> None:
    orders = asyncio.StreamReader()
    await asyncio.get_running_loop().connect_read_pipe(lambda: asyncio.StreamReaderProtocol(orders), sys.stdin)
    key = (await orders.readline()).decode().strip()
    turn = asyncio.Semaphore(AT_ONCE)
    held: list[LiveDevice] = []
    quiet: list[Device] = []
    doors: list[tuple[str, str]] = []

    async def enter(number: int) -> None:
        state = StateDir(directory / f"device-{number}")
        async with turn:
            state.open()
            identity = await enrol(state, target, "client", by_key(key))
            if number < live:
                device = LiveDevice(state.path, destinations)
                held.append(device)
                doors.append((await device.start(), identity.agent))
                return
            quiet.append(Device(state, identity, destinations))
            await quiet[-1].complete.wait()

    async with asyncio.timeout(PATIENCE), asyncio.TaskGroup() as group:
        for number in range(devices):
            group.create_task(enter(number))
    print(json.dumps({"doors": doors, "sessions": devices * len(destinations)}), flush=True)
    while await orders.readline():
        everybody: list[Device | LiveDevice] = [*held, *quiet]
        for device in everybody:
            device.ask()
        async with asyncio.timeout(PATIENCE):
            for one in quiet:
                await one.complete.wait()
        print(json.dumps({"sessions": devices * len(destinations)}), flush=True)


def main(arguments: Sequence[str]) -> None:
    target, directory, devices, live, *destinations = arguments
    places = [(host, int(port)) for host, _, port in (text.rpartition(":") for text in destinations)]
    asyncio.run(run(read_target(target), Path(directory), int(devices), int(live), places))


if __name__ == "__main__":
    main(sys.argv[1:])
