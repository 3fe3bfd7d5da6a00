"""The composition root of `cloister exchange`: builds the parts, hands them to each other, runs until it is told to stop."""

import asyncio
import gc
import logging
import os
import signal
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from cloister import _core
from cloister.exchange.administration import Administration
from cloister.exchange.api.app import make_app
from cloister.exchange.api.parts import Parts
from cloister.exchange.api.server import ApiServer
from cloister.exchange.api_tokens import ApiTokens
from cloister.exchange.approvals import Approvals
from cloister.exchange.attempts import Noting
from cloister.exchange.book import SessionBook, session_from
from cloister.exchange.changes import Changes
from cloister.exchange.desk import Desk
from cloister.exchange.devices.service import Devices
from cloister.exchange.directory import Directory
from cloister.exchange.enrol import Enrolment
from cloister.exchange.errors import Refusal
from cloister.exchange.evidence import Evidence
from cloister.exchange.first_start import FirstAdministrator, load_or_create_keyring, make_first_administrator
from cloister.exchange.idle import IdleLimits
from cloister.exchange.issuers import IssuerKeys
from cloister.exchange.links import Switchboard
from cloister.exchange.outgoing import Outgoing
from cloister.exchange.persist import SessionWriter
from cloister.exchange.programs.making import make_programs
from cloister.exchange.reception import Reception
from cloister.exchange.relays import RelaySet
from cloister.exchange.revoke import Revoker
from cloister.exchange.rotation import Rotation
from cloister.exchange.rounds import Rounds
from cloister.exchange.scim.directories import Directories
from cloister.exchange.scim.query import Searches
from cloister.exchange.scim.service import Scim
from cloister.exchange.service import Exchange
from cloister.exchange.sessions import Sessions
from cloister.exchange.settings import Settings, is_address
from cloister.exchange.signals.making import SignalParts, make_signals
from cloister.exchange.signin.making import make_sign_ins
from cloister.exchange.state import Generations, State, load_state
from cloister.exchange.verify import Verifier
from cloister.exchange.webhooks import Webhooks
from cloister.exchange.writer import Writer
from cloister.model.messages.common import RelayAddress
from cloister.model.messages.from_exchange import Drain
from cloister.model.reasons import Code
from cloister.store import sessions as session_rows
from cloister.store.service import Store
from cloister.telemetry.decisions import DecisionLog
from cloister.trust.files import lock_directory, make_private_directory

log = logging.getLogger("cloister.exchange")

EVENTS_PER_TURN = 256
MAX_SOCKET_PATH = 100


@dataclass(slots=True)
class Running:
    """A started exchange, for whoever composes it: the CLI and tests."""

    settings: Settings
    state: State
    book: SessionBook
    core: _core.Core
    server: _core.Server
    exchange: Exchange
    switchboard: Switchboard
    generations: Generations
    relays: RelaySet
    revoker: Revoker
    verifier: Verifier
    changes: Changes
    evidence: Evidence
    devices: Devices
    signals: SignalParts
    administration: Administration
    rotation: Rotation
    store: Store
    address: str
    root_sha256: str
    first_administrator: FirstAdministrator | None


async def run(settings: Settings, on_ready: Callable[[Running], None]) -> None:
    """Run until SIGTERM or SIGINT. `on_ready` is called once the public port is open."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    try:
        process = ExchangeProcess(settings)
        async with process as running:
            gc.collect()
            gc.freeze()  # what is loaded stays: a full collection would hold up the loop for it
            on_ready(running)
            await process.wait(stop)
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.remove_signal_handler(number)


class ExchangeProcess:
    """Everything that one exchange process holds. Entering starts it; leaving drains and stops it."""

    def __init__(self, settings: Settings, clock: Callable[[], float] = time.time) -> None:
        self._settings = settings
        self._clock = clock
        self._tasks: list[asyncio.Task[None]] = []
        self._directory: tempfile.TemporaryDirectory[str] | None = None

    async def __aenter__(self) -> Running:
        settings, clock = self._settings, self._clock
        _check_address(settings)
        make_private_directory(settings.data)
        lock = lock_directory(settings.data)
        if lock is None:
            raise Refusal(Code.CONFLICT, f"another process runs on `{settings.data}`", "stop it, or name another directory")
        self._lock = lock
        self._store = store = Store.open(settings.database)
        keyring = load_or_create_keyring(settings, store, int(clock()))
        self._writer = writer = Writer()
        self._hashing = ThreadPoolExecutor(2, thread_name_prefix="hash")
        self._core = core = _core.Core(threads=settings.threads)
        state = await asyncio.to_thread(load_state, store, keyring)
        generations = Generations(store.reserve_generations)
        book = SessionBook()
        self._switchboard = switchboard = Switchboard(core)
        relays = RelaySet(switchboard, store, writer, clock)
        directory = Directory(settings, state, book, switchboard)
        revoker = Revoker(book, switchboard, relays, generations, store, writer, clock, settings.acknowledgement_seconds)
        self._session_writer = session_writer = SessionWriter(store, writer)
        self._log = decisions = DecisionLog(settings.journal)
        sessions = Sessions(
            settings, state, book, switchboard, directory, relays, revoker, generations, session_writer, decisions, clock
        )
        verifier = Verifier(state, book, sessions, switchboard, directory, relays, generations, clock)
        changes = Changes(settings, state, book, verifier, generations, store, writer, clock)
        idle_limits = IdleLimits(book, switchboard, revoker)
        sessions.on_limit = idle_limits.changed
        approvals = Approvals(state, book, verifier, changes, clock)
        outgoing = Outgoing()
        self._webhooks = Webhooks(state, outgoing, clock)
        approvals.on_event = self._webhooks.tell
        evidence = Evidence(state, book, verifier, changes, store, writer, clock)
        devices = Devices(state, book, verifier, evidence, clock)
        self._signals = signals = make_signals(settings, outgoing, state, evidence, changes, store, writer, clock)
        enrolment = Enrolment(settings, state, generations, store, writer, self._hashing, clock)
        enrolment.on_signed_in = devices.signed_in
        administration = Administration(
            settings, core, state, book, switchboard, relays, revoker, verifier, changes, store, writer, clock
        )
        rotation = Rotation(
            settings, core, state, book, switchboard, enrolment, revoker, verifier, changes, administration, writer, clock
        )
        noting = Noting(settings.limits.refusals_noted_per_source, settings.limits.refusals_noted)
        self._desk = desk = Desk(switchboard, noting, store, writer, clock)
        issuers = IssuerKeys(outgoing, clock)
        self._sign_ins = sign_ins = make_sign_ins(
            settings,
            outgoing,
            issuers,
            state,
            book,
            switchboard,
            sessions,
            verifier,
            changes,
            enrolment,
            administration,
            store,
            writer,
            clock,
        )
        programs = make_programs(
            settings, state, book, verifier, changes, enrolment, administration, issuers, noting, store, writer, clock
        )
        reception = Reception(
            settings,
            core,
            state,
            switchboard,
            enrolment,
            sign_ins.service,
            programs.service,
            administration,
            desk,
            generations,
            store,
            writer,
            clock,
        )
        self._exchange = exchange = Exchange(
            settings,
            state,
            switchboard,
            reception,
            desk,
            enrolment,
            sessions,
            revoker,
            relays,
            directory,
            verifier,
            devices,
            approvals,
            idle_limits,
            sign_ins.service,
            sign_ins.departures,
            programs.service,
            programs.clusters,
            clock,
        )
        self._load_sessions(book, sessions)
        core.open_journal(str(settings.journal), max_bytes=settings.journal_max_bytes)
        rotation.set_own_identity()
        administration.trust_changed()
        programs.service.end_unvouched()
        app = make_app(
            Parts(
                settings,
                state,
                book,
                switchboard,
                directory,
                sessions,
                enrolment,
                changes,
                evidence,
                signals,
                approvals,
                devices,
                administration,
                ApiTokens(settings, state, changes, store, writer, clock),
                sign_ins,
                programs,
                rotation,
                Directories(settings.limits, state, changes, store, writer, clock),
                Scim(settings.limits, state, changes, store, clock),
                Searches(state, store),
                store,
                self._hashing,
                clock,
            )
        )
        self._api = ApiServer(app, self._socket_path(), settings)
        await self._api.start()
        chain, key = rotation.web_certificate()
        server = core.serve(
            settings.listen,
            links=True,
            carriers=settings.relay,
            web_socket=str(self._api.path),
            web_chain_pem=chain,
            web_key_pem=key,
            renewal_grace=settings.renewal_grace,
            limits={"links": settings.limits.links},
        )
        address = state.address = settings.advertise or server.address
        embedded = RelayAddress(id=keyring.relay_id, address=address) if settings.relay else None
        relays.attach(server, embedded)
        administration.attach(server)
        rotation.attach(server)
        # The port is open: nothing keeps the password from being shown.
        first = await make_first_administrator(state, changes)
        rounds = Rounds(state, book, exchange, administration, rotation, programs.service, store, clock)
        loop = asyncio.get_running_loop()
        loop.add_reader(core.fileno(), self._drain_events)
        self._tasks = [
            loop.create_task(rounds.tick(), name="tick"),
            loop.create_task(rounds.step(), name="step"),
            loop.create_task(verifier.run(), name="publish"),
            loop.create_task(rounds.tidy(), name="tidy"),
            loop.create_task(signals.poller.run(), name="poll"),
        ]
        log.info("the exchange listens at `%s` and is reached at `%s`", server.address, address)
        return Running(
            settings,
            state,
            book,
            core,
            server,
            exchange,
            switchboard,
            generations,
            relays,
            revoker,
            verifier,
            changes,
            evidence,
            devices,
            signals,
            administration,
            rotation,
            store,
            address,
            keyring.root_sha256,
            first,
        )

    async def __aexit__(self, *_: object) -> None:
        for link in self._switchboard:
            if link.stage == "ready":
                self._switchboard.send(link, Drain(grace=int(self._settings.drain_grace)))
        loop = asyncio.get_running_loop()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        loop.remove_reader(self._core.fileno())
        self._webhooks.close()
        self._sign_ins.service.stop()
        await self._desk.settled()
        await self._api.stop()
        await asyncio.to_thread(self._core.shutdown, self._settings.drain_grace)
        self._signals.receiver.close()
        await self._session_writer.flush()
        await self._writer.flush()
        self._writer.close()
        self._hashing.shutdown()
        self._log.close()
        self._store.close()
        os.close(self._lock)
        if self._directory is not None:
            self._directory.cleanup()

    async def wait(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; raises what ended a part that must not end."""
        stopped = asyncio.get_running_loop().create_task(stop.wait())
        done, _ = await asyncio.wait([stopped, *self._tasks], return_when=asyncio.FIRST_COMPLETED)
        for task in done - {stopped}:
            await task
        stopped.cancel()

    # ------------------------------------------------------------

    def _drain_events(self) -> None:
        # One batch per wake-up: the descriptor stays readable while events wait, and other tasks get their turn in between.
        for event in self._core.take_events(EVENTS_PER_TURN):
            self._exchange.on_event(event)

    def _load_sessions(self, book: SessionBook, sessions: Sessions) -> None:
        """Sessions of before the start, each decided again: a change may have been committed whose revocations were not sent."""
        now = self._clock()
        with self._store.read() as connection:
            stored = session_rows.list_sessions(connection)
        for row in stored:
            if row.ends_at > now:
                session = session_from(row)
                book.add(session)
                book.schedule(session, now)
        sessions.recheck_all(book, Code.POLICY_CHANGED)
        sessions.arrivals.begin()

    def _socket_path(self) -> Path:
        """In the data directory, unless its path is too long for a UNIX socket."""
        path = self._settings.data / "run" / "web.sock"
        if len(str(path)) > MAX_SOCKET_PATH:
            self._directory = tempfile.TemporaryDirectory(prefix="cloister-")
            path = Path(self._directory.name) / "web.sock"
        make_private_directory(path.parent)
        return path


def _check_address(settings: Settings) -> None:
    """Agents are told where to dial, so it must be somewhere. Port 0 is for tests: the bound one is told."""
    told = settings.address
    if not is_address(told.removesuffix(":0") + ":1" if told.endswith(":0") else told):
        message = f"agents cannot dial `{told}`"
        raise Refusal(Code.ARGUMENT_INVALID, message, "say with `--advertise HOST:PORT` where they reach this exchange")
