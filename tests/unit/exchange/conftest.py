"""A whole exchange in process on a real core, its API over the public port, and agents that speak the link protocol on cores of their own."""

import asyncio
import base64
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, TypeVar

import httpx
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.hashes import SHA256

from cloister import _core
from cloister.exchange.main import ExchangeProcess, Running
from cloister.exchange.settings import Settings
from cloister.model.messages.common import PROTOCOL_VERSION, Message, write
from cloister.model.messages.from_agent import EnrolByKey, EnrolByPassword, Hello
from cloister.model.messages.from_exchange import Enrolled, FromExchange, Refused, Welcome, read_from_exchange
from cloister.trust.certificates import key_to_pem, make_key
from cloister.trust.keyring import create_keyring
from cloister.trust.keystore import save_keyring

PATIENCE = 10.0
T = TypeVar("T", bound=Message)

BUNDLE = """
kind: connector-group
name: lab
suffixes: [lab.internal]
---
kind: segment
name: jupyter
hosts: [jupyter.lab.internal]
ports: [8888]
groups: [lab]
---
kind: segment
name: postgres
hosts: [db.lab.internal]
ports: [5432]
groups: [lab]
---
kind: group
name: science
users: [ada]
---
kind: rule
name: science-uses-jupyter
effect: permit
who: {groups: [science]}
what: {segments: [jupyter]}
"""


async def eventually(condition: Callable[[], object]) -> None:
    """Wait for what the exchange does by itself and tells nobody."""
    async with asyncio.timeout(PATIENCE):
        while not condition():
            await asyncio.sleep(0.001)


class ShiftedClock:
    """The machine's clock plus an offset that tests move. While it is frozen only the offset moves: a busy machine is never late."""

    def __init__(self) -> None:
        self.offset = 0.0
        self._frozen: float | None = None

    def __call__(self) -> float:
        return (time.time() if self._frozen is None else self._frozen) + self.offset

    def freeze(self) -> None:
        self._frozen = time.time()


@dataclass
class Agent:
    """One agent process: a core, a key, and what it has received."""

    address: str
    root_sha256: str
    role: Literal["connector", "client", "relay"]
    core: _core.Core = field(default_factory=_core.Core)
    boot: str = "00000000000000b0"
    resume: str | None = None
    inbox: list[FromExchange] = field(default_factory=list)
    up: bool = False
    down: _core.LinkDown | None = None
    link: int = -1
    enrolled: Enrolled | None = None

    def __post_init__(self) -> None:
        self.key = make_key()
        self.changed = asyncio.Event()
        asyncio.get_running_loop().add_reader(self.core.fileno(), self._drain)

    @property
    def id(self) -> str:
        assert self.enrolled is not None
        return self.enrolled.agent

    def close(self) -> None:
        asyncio.get_running_loop().remove_reader(self.core.fileno())
        self.core.shutdown()

    def csr(self) -> str:
        request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(self.key, SHA256())
        return base64.b64encode(request.public_bytes(serialization.Encoding.DER)).decode()

    async def ask_enrolment(self, message: Message) -> Enrolled | Refused:
        self.link = self.core.dial_link(self.address, role=None, root_sha256=self.root_sha256)
        await self.until(lambda: self.up or None)
        self.send(message)
        answer = await self.until(lambda: next((m for m in self.inbox if isinstance(m, Enrolled | Refused)), None))
        self.inbox.remove(answer)
        self.core.close_link(self.link, "stopped")
        self.up = False
        if isinstance(answer, Enrolled):
            self.use(answer)
        return answer

    def use(self, enrolled: Enrolled) -> None:
        self.enrolled = enrolled
        self.core.set_trust(enrolled.roots)
        self.core.set_identity(self.role, enrolled.chain, key_to_pem(self.key))

    async def enrol_by_key(self, key: str) -> Enrolled | Refused:
        return await self.ask_enrolment(EnrolByKey(key=key, csr=self.csr(), hostname="test"))

    async def enrol_by_password(self, user: str, password: str) -> Enrolled | Refused:
        return await self.ask_enrolment(EnrolByPassword(user=user, password=password, csr=self.csr(), hostname="test"))

    def dial(self) -> None:
        self.up = False
        self.link = self.core.dial_link(self.address, role=self.role)

    async def connect(self) -> Welcome:
        """Dial, greet, and wait for the welcome."""
        self.dial()
        await self.until(lambda: self.up or None)
        self.greet()
        welcome = await self.receive(Welcome)
        self.resume = welcome.resume
        return welcome

    def greet(self) -> None:
        self.send(Hello(version=PROTOCOL_VERSION, software="test", resume=self.resume, boot=self.boot))

    def send(self, message: Message) -> None:
        assert self.core.send(self.link, write(message))

    async def receive(self, kind: type[T]) -> T:
        """The oldest message of this kind that was not received yet."""
        found = await self.until(lambda: next((m for m in self.inbox if isinstance(m, kind)), None))
        self.inbox.remove(found)
        return found

    def take(self, kind: type[T]) -> list[T]:
        taken = [message for message in self.inbox if isinstance(message, kind)]
        self.inbox = [message for message in self.inbox if not isinstance(message, kind)]
        return taken

    async def until(self, condition: Callable[[], Any]) -> Any:
        async with asyncio.timeout(PATIENCE):
            while (value := condition()) is None:
                self.changed.clear()
                await self.changed.wait()
        return value

    def _drain(self) -> None:
        for event in self.core.take_events(512):
            match event:
                case _core.LinkUp(link=self.link):
                    self.up, self.down = True, None
                case _core.LinkDown(link=self.link):
                    self.up, self.down = False, event
                case _core.LinkMessage(link=self.link):
                    self.inbox.append(read_from_exchange(event.body))
                case _:
                    pass
        self.changed.set()


class Api:
    """The REST API over the public port, as an administrator."""

    def __init__(self, running: Running) -> None:
        self.running = running
        self.token = ""
        context = ssl.create_default_context(cadata=running.state.keyring.roots_pem())
        self.http = httpx.AsyncClient(base_url=f"https://{running.address}", verify=context, timeout=PATIENCE)

    async def sign_in(self, user: str, password: str) -> httpx.Response:
        answer = await self.http.post("/api/v1/sign-in", json={"user": user, "password": password})
        if answer.status_code == 200:
            self.token = answer.json()["token"]
        return answer

    async def call(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = arguments.pop("headers", {}) | ({"authorization": f"Bearer {self.token}"} if self.token else {})
        return await self.http.request(method, f"/api/v1{path}", headers=headers, **arguments)

    async def ok(self, method: str, path: str, **arguments: Any) -> Any:
        answer = await self.call(method, path, **arguments)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.headers["content-type"].startswith("application/json") else answer.text


@dataclass
class World:
    """An exchange with an administrator signed in, and a way to make agents."""

    running: Running
    clock: ShiftedClock
    api: Api
    agents: list[Agent] = field(default_factory=list)
    apis: list[Api] = field(default_factory=list)

    def agent(self, role: Literal["connector", "client", "relay"]) -> Agent:
        agent = Agent(self.running.address, self.running.root_sha256, role)
        self.agents.append(agent)
        return agent

    async def apply(self, bundle: str) -> Any:
        return await self.api.ok("POST", "/documents", content=bundle)

    async def add_user(self, name: str, password: str = "correct horse", role: str = "user") -> None:
        await self.api.ok("POST", "/users", json={"name": name, "password": password, "role": role})

    async def sign_in(self, user: str, password: str = "correct horse") -> Api:
        """The API as somebody else."""
        api = Api(self.running)
        self.apis.append(api)
        assert (await api.sign_in(user, password)).status_code == 200
        return api

    async def connector(self, group: str = "lab") -> Agent:
        key = await self.api.ok("POST", "/keys", json={"role": "connector", "group": group})
        agent = self.agent("connector")
        assert isinstance(await agent.enrol_by_key(key["key"]), Enrolled)
        await agent.connect()
        return agent

    async def client(self, user: str, password: str = "correct horse") -> Agent:
        agent = self.agent("client")
        assert isinstance(await agent.enrol_by_password(user, password), Enrolled)
        await agent.connect()
        return agent


async def start_world(settings: Settings, stack: list[Callable[[], Awaitable[object]]], clock: ShiftedClock | None = None) -> World:
    clock = clock or ShiftedClock()
    process = ExchangeProcess(settings, clock)
    running = await process.__aenter__()
    stack.append(lambda: process.__aexit__(None, None, None))
    api = Api(running)
    stack.append(api.http.aclose)
    world = World(running, clock, api)
    if running.first_administrator is not None:
        answer = await api.sign_in(running.first_administrator.name, running.first_administrator.password)
        assert answer.status_code == 200, answer.text
    return world


async def end_world(world: World, stack: list[Callable[[], Awaitable[object]]]) -> None:
    for agent in world.agents:
        agent.close()
    for api in world.apis:
        await api.http.aclose()
    for close in reversed(stack):
        await close()


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    stack: list[Callable[[], Awaitable[object]]] = []
    opened = await start_world(Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0), stack)
    yield opened
    await end_world(opened, stack)


@pytest.fixture
async def lab(world: World) -> World:
    """The world with two users, two segments and one rule."""
    return await furnish(world)


@pytest.fixture
async def old_lab(tmp_path: Path) -> AsyncIterator[World]:
    """The same with a CA that is two months old, so that leaves of long ago are below it."""
    settings = Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0)
    settings.data.mkdir(mode=0o700)
    save_keyring(settings.keys, create_keyring(int(time.time()) - 60 * 86400))
    stack: list[Callable[[], Awaitable[object]]] = []
    opened = await furnish(await start_world(settings, stack))
    yield opened
    await end_world(opened, stack)


async def furnish(world: World) -> World:
    await world.add_user("ada")
    await world.add_user("bob")
    await world.apply(BUNDLE)
    return world
