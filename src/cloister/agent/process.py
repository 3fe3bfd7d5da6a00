"""How the process of an agent starts and ends: enrol once, run until a signal or a final refusal, never half-alive."""

import asyncio
import logging
import os
import random
import signal
import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.enrol import Proof, by_key, by_token, enrol
from cloister.agent.errors import AgentError
from cloister.agent.link import Link
from cloister.agent.proving import Proving
from cloister.agent.pump import EventPump
from cloister.agent.rules import OutboundProxy, read_proxy
from cloister.agent.tokens import TokenFile
from cloister.agent.types import Identity, Role
from cloister.model.first_contact import ExchangeTarget, Unreadable, read_exchange_target, read_provisioning_key
from cloister.model.messages.from_agent import Bye
from cloister.model.messages.from_exchange import FromExchange
from cloister.model.reasons import Code

Result = TypeVar("Result")
_CHANCE = random.SystemRandom()
log = logging.getLogger("cloister.agent")

FIRST_RETRY = 0.5  # seconds; doubles
LAST_RETRY = 15.0
IDLE_POLL = 0.1  # seconds between looks at what is still open, while draining
MAX_KEY_BYTES = 4096
# Refusals of an enrolment that may pass by themselves; any other needs a person.
PASSING = frozenset(
    {
        Code.EXCHANGE_UNREACHABLE,
        Code.DIAL_REFUSED,
        Code.DIAL_TIMEOUT,
        Code.DIAL_UNREACHABLE,
        Code.NAME_UNRESOLVED,
        Code.PEER_SILENT,
        Code.HANDSHAKE_TIMEOUT,
        Code.HANDSHAKE_FAILED,
        Code.TOO_MANY_ATTEMPTS,
        Code.DRAINING,
        Code.STATE_TOO_OLD,
    }
)


@dataclass(frozen=True, slots=True)
class AgentSettings:
    """What every agent process is told: where the exchange is, where its state lives, where its key can be read once."""

    exchange: str  # `HOST[:PORT][#sha256-…]`
    state: Path
    key_file: Path | None = None  # `-` for standard input
    token_file: Path | None = None  # a projected token, renewed there
    grace: float = 30.0  # seconds that open flows get when the process is asked to stop


def read_target(text: str) -> ExchangeTarget:
    try:
        return read_exchange_target(text)
    except Unreadable as error:
        raise AgentError(error.code, str(error)) from error


def read_key_file(path: Path) -> str:
    """The provisioning key from a file, or from standard input for `-`; never from the command line, where others could read it."""
    try:
        if str(path) == "-":
            text = sys.stdin.read(MAX_KEY_BYTES)
        else:
            with open(path, encoding="utf-8") as file:
                text = file.read(MAX_KEY_BYTES)
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "not text"
        raise AgentError(
            Code.ARGUMENT_INVALID, f"the key file `{path}` cannot be read: {reason}", "check the path and its mode"
        ) from error
    return text.strip()


async def load_or_enrol(settings: AgentSettings, state: StateDir, role: Role, environment: Mapping[str, str]) -> Identity:
    """The identity in the state directory, else a new one by provisioning key; keeps trying while the exchange cannot be reached."""
    target = read_target(settings.exchange)
    identity = state.load_identity(role)
    if identity is not None:
        if identity.address != target.address:
            identity = replace(identity, address=target.address)
            state.save_identity(identity)
        return identity
    if settings.token_file is not None:
        return await _enrol_by_token(settings.token_file, state, target, role, environment)
    if settings.key_file is None:
        raise AgentError(
            Code.ARGUMENT_INVALID,
            f"this {role} has no identity in `{settings.state}` and no provisioning key",
            "pass --key-file FILE or set CLOISTER_KEY_FILE",
        )
    proof, fingerprint = _read_proof(settings.key_file)
    if target.root_sha256 not in (None, fingerprint):
        raise AgentError(
            Code.ROOT_MISMATCH, "the provisioning key and --exchange name different roots", "use a key of this exchange"
        )
    pinned = ExchangeTarget(target.host, target.port, fingerprint)
    return await _enrol_patiently(state, pinned, role, proof, read_proxy(environment))


async def _enrol_by_token(
    path: Path, state: StateDir, target: ExchangeTarget, role: Role, environment: Mapping[str, str]
) -> Identity:
    if target.root_sha256 is None:
        raise AgentError(
            Code.ROOT_MISMATCH,
            f"nothing vouches for `{target.address}`: a token says who this {role} is, not which exchange is the true one",
            "add `#sha256-…` of its root to --exchange",
        )
    source = TokenFile(path)
    proof: Proof = lambda csr, hostname: by_token(source.read())(csr, hostname)  # noqa: E731 (each attempt takes the file as it is then)
    return await _enrol_patiently(state, target, role, proof, read_proxy(environment))


def needs_new_enrolment(code: str) -> bool:
    """Refusals after which a program that can prove itself by a token is not served under its old id, but may be under a new one."""
    return code in (Code.PROOF_ENDED, Code.AGENT_REVOKED, Code.AGENT_UNKNOWN)


def _read_proof(path: Path) -> tuple[Proof, str]:
    try:
        key = read_provisioning_key(read_key_file(path))
    except Unreadable as error:
        raise AgentError(Code.KEY_INVALID, str(error)) from error
    return by_key(key.text), key.root_sha256


async def _enrol_patiently(state: StateDir, target: ExchangeTarget, role: Role, proof: Proof, proxy: OutboundProxy) -> Identity:
    delay = FIRST_RETRY
    while True:
        try:
            identity = await enrol(state, target, role, proof, proxy=proxy)
        except AgentError as error:
            if error.code not in PASSING:
                raise
            wait = delay * _CHANCE.random()
            log.warning("%s; next attempt in %.1f s", error.message, wait)
            await asyncio.sleep(wait)
            delay = min(delay * 2, LAST_RETRY)
        else:
            log.info("enrolled as %s `%s`", role, identity.agent)
            return identity


class Daemon(ABC):
    """The work of an agent that runs until a signal has drained it. `run` starts and ends it; what differs between roles is abstract."""

    def __init__(self, core: _core.Core, settings: AgentSettings) -> None:
        self.core = core
        self.grace = settings.grace
        self.link: Link
        self.proving: Proving | None = None  # of an agent that proves itself by a token

    @abstractmethod
    def start(self, state: StateDir) -> None:
        """The link is being dialled and nothing has arrived yet: open the data plane."""

    @abstractmethod
    def take(self, event: "_core.Event") -> None:
        """An event of the core that is not about the link."""

    @abstractmethod
    def obey(self, message: FromExchange) -> None:
        """An order of the exchange. Raises CoreError if it cannot be carried out."""

    @abstractmethod
    def on_up(self) -> None: ...

    @abstractmethod
    def on_down(self) -> None: ...

    @abstractmethod
    async def drain(self, signals: "Signals") -> None:
        """Take nothing new, say so, and give what is open its grace."""

    @abstractmethod
    def close(self) -> None: ...

    def on_event(self, event: "_core.Event") -> None:
        if not self.link.handle(event):
            self.take(event)

    def on_message(self, message: FromExchange) -> None:
        try:
            self.obey(message)
        except _core.CoreError as error:
            # Nothing is acknowledged: the exchange sends the whole set again on the next link.
            log.error("an order of the exchange cannot be carried out: %s", error)
            self.core.redial(self.link.number, Code.MESSAGE_MALFORMED)


async def run(settings: AgentSettings, role: Role, make: Callable[[_core.Core], Daemon]) -> None:
    """Run until a signal has drained it. Raises AgentError when the exchange refuses this agent for good."""
    state = StateDir(settings.state)
    state.open()
    state.lock()
    signals = Signals()
    identity = await finish_or_stop(load_or_enrol(settings, state, role, os.environ), signals)
    if identity is None:
        return
    proxy = read_proxy(os.environ)
    core = _core.Core()
    core.set_proxy(proxy.url, proxy.exemptions)
    daemon = make(core)
    daemon.link = Link(core, state, identity, on_message=daemon.on_message, on_up=daemon.on_up, on_down=daemon.on_down)
    daemon.start(state)
    pump = EventPump(core, daemon.on_event)
    if settings.token_file is not None:
        daemon.proving = Proving(daemon.link, TokenFile(settings.token_file))
    try:
        await wait_for_end(signals, daemon.link, pump)
        await daemon.drain(signals)
        daemon.link.send(Bye())
    except AgentError as error:
        if settings.token_file is not None and needs_new_enrolment(error.code):
            state.forget_identity()  # whoever starts it again gets an agent of a new name
        raise
    finally:
        if daemon.proving is not None:
            await daemon.proving.stop()
        daemon.close()
        pump.close()
        daemon.link.close()
        await asyncio.to_thread(core.shutdown)
        state.unlock()


class Signals:
    """SIGTERM and SIGINT as futures: the first asks to stop in peace, the second to stop now."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self.stop = asyncio.Event()
        self.stop_now = asyncio.Event()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._arrived)

    def _arrived(self) -> None:
        (self.stop_now if self.stop.is_set() else self.stop).set()


async def finish_or_stop(work: Coroutine[None, None, Result], signals: Signals) -> Result | None:
    """The result, or None if a signal came first."""
    task = asyncio.ensure_future(work)
    stop = asyncio.ensure_future(signals.stop.wait())
    waiting: list[asyncio.Future[Any]] = [task, stop]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.cancel()
    if task.done():
        return task.result()
    task.cancel()
    await asyncio.wait([task])
    return None


async def wait_for_end(signals: Signals, link: Link, pump: EventPump) -> None:
    """Return on a signal; raise AgentError on a refusal that trying again cannot help, and whatever broke the event handler."""
    stop = asyncio.ensure_future(signals.stop.wait())
    waiting: list[asyncio.Future[Any]] = [stop, link.stopped, pump.failed]
    try:
        await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
        if pump.failed.done():
            pump.failed.result()
        if link.stopped.done():
            refusal = link.stopped.result()
            raise AgentError(refusal.code, refusal.message, refusal.remedy)
    finally:
        stop.cancel()


async def wait_until_idle(count_open: Callable[[], int], grace: float, signals: Signals) -> None:
    """Wait until nothing is open, for at most the grace, or until a second signal."""
    loop = asyncio.get_running_loop()
    deadline = loop.time() + grace
    while count_open() > 0 and loop.time() < deadline and not signals.stop_now.is_set():
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_POLL):
                await signals.stop_now.wait()


def notify_ready() -> None:
    """Tell systemd (Type=notify) that the link is up; nothing where there is no systemd (sd_notify(3))."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        channel.sendto(b"READY=1", "\0" + path[1:] if path.startswith("@") else path)
