"""The connector, run: one link, one data plane in the core, and the exchange's orders carried from one to the other."""

import asyncio
import json
import logging
import random
import time
from dataclasses import dataclass

from cloister import _core
from cloister.agent import process
from cloister.agent.disk import StateDir
from cloister.connector.cluster import ApiServer, KeyReports
from cloister.connector.health import HealthSchedule
from cloister.connector.quiet import QuietWatch
from cloister.model.messages.common import SegmentHealth
from cloister.model.messages.from_agent import Draining, Health, Quiet, Revoked
from cloister.model.messages.from_exchange import (
    Assignments,
    Drain,
    FromExchange,
    KeysTaken,
    OpenCarrier,
    Proved,
    Relays,
    Revoke,
    Snapshot,
    Watch,
)

log = logging.getLogger("cloister.connector")

REPORT_EVERY = 15.0  # seconds between whole health reports


@dataclass(frozen=True, slots=True)
class ConnectorSettings:
    agent: process.AgentSettings
    spool_max_bytes: int = 256 << 20
    spare_carriers: int = 2
    cluster: ApiServer | None = None  # whose keys it reports


async def run(settings: ConnectorSettings) -> None:
    """Run until a signal has drained it. Raises AgentError when the exchange refuses this connector for good."""
    await process.run(settings.agent, "connector", lambda core: ConnectorService(core, settings))


class ConnectorService(process.Daemon):
    def __init__(self, core: _core.Core, settings: ConnectorSettings) -> None:
        super().__init__(core, settings.agent)
        self._settings = settings
        self._health = HealthSchedule(random.SystemRandom())
        self._loop = asyncio.get_running_loop()
        self._quiet = QuietWatch()
        self._quiet_timer: asyncio.TimerHandle | None = None
        self._probe_timer: asyncio.TimerHandle | None = None
        self._report_timer: asyncio.TimerHandle | None = None
        self._plane: _core.Connector
        self._keys: KeyReports | None = None

    def start(self, state: StateDir) -> None:
        state.spool.mkdir(mode=0o700, exist_ok=True)
        self._plane = self.core.connector(
            spool=str(state.spool), spool_max_bytes=self._settings.spool_max_bytes, link=self.link.number
        )
        if self._settings.cluster is not None:
            self._keys = KeyReports(self.link, self._settings.cluster)

    # ------------------------------------------------------------ from the core

    def take(self, event: "_core.Event") -> None:
        match event:
            case _core.ProbeDone():
                result = SegmentHealth(segment=event.segment, healthy=event.healthy, rtt_us=event.rtt_us, code=event.code)
                if self._health.finish(event.segment, result, time.monotonic()):
                    self._report()
                self._set_probe_timer()
            case _:
                pass  # of no concern here: the core already acted

    # ------------------------------------------------------------ from the exchange

    def on_up(self) -> None:
        process.notify_ready()
        self._quiet.forget_what_was_told()
        self._report()
        if self.proving is not None:
            self.proving.on_up()
        if self._keys is not None:
            self._keys.on_up()

    def on_down(self) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()
            self._report_timer = None

    def obey(self, message: FromExchange) -> None:
        match message:
            case Revoke(generation=generation, sessions=sessions):
                flows = self._plane.revoke(generation, sessions)
                self.link.send(Revoked(generation=generation, flows=flows))
                log.info("%d sessions revoked, %d flows reset (generation %d)", len(sessions), flows, generation)
            case Snapshot(generation=generation, sessions=sessions):
                flows = self._plane.snapshot(generation, sessions)
                self.link.send(Revoked(generation=generation, flows=flows))
                log.info("snapshot of generation %d: %d sessions, %d flows reset", generation, len(sessions), flows)
            case Assignments():
                self._assign(message)
            case Relays(relays=relays):
                self._plane.set_relays([(relay.id, relay.address) for relay in relays], self._settings.spare_carriers)
            case Watch(sessions=limits):
                self._quiet.watch(limits, time.monotonic())
                self._set_quiet_timer()
            case OpenCarrier(relay=relay):
                self._plane.open_carrier(relay)
            case Proved():
                if self.proving is not None:
                    self.proving.on_proved(message)
            case KeysTaken():
                if self._keys is not None:
                    self._keys.on_taken(message)
            case Drain():
                log.info("the exchange is about to stop; this connector stays and reconnects")
            case _:
                pass  # trust is in force already

    def _assign(self, message: Assignments) -> None:
        body = "[" + ",".join(segment.model_dump_json() for segment in message.segments) + "]"
        self._plane.assign(body.encode())
        self._health.assign(message.segments, time.monotonic())
        self._set_probe_timer()
        log.info("serving %d segments (generation %d)", len(message.segments), message.generation)

    # ------------------------------------------------------------ health

    def _set_probe_timer(self) -> None:
        if self._probe_timer is not None:
            self._probe_timer.cancel()
        due = self._health.next_due()
        self._probe_timer = None if due is None else self._loop.call_later(max(0.0, due - time.monotonic()), self._probe)

    def _probe(self) -> None:
        for segment in self._health.start_due(time.monotonic()):
            self._plane.probe(segment)
        self._set_probe_timer()

    def _report(self) -> None:
        if self._report_timer is not None:
            self._report_timer.cancel()
        stats = self.core.stats()
        report = Health(segments=self._health.report(), flows=stats.get("flows", 0), tunnels=stats.get("tunnels", 0))
        self.link.send(report)
        self._report_timer = self._loop.call_later(REPORT_EVERY, self._report)

    # ------------------------------------------------------------ idle limits

    def _set_quiet_timer(self) -> None:
        interval = self._quiet.interval
        if self._quiet_timer is not None:
            self._quiet_timer.cancel()
        self._quiet_timer = None if interval is None else self._loop.call_later(interval, self._look_for_quiet)

    def _look_for_quiet(self) -> None:
        sessions = json.loads(self._plane.status())["sessions"]
        quiet = self._quiet.look({entry["session"]: entry["in"] + entry["out"] for entry in sessions}, time.monotonic())
        if quiet is not None:
            self.link.send(Quiet(sessions=sorted(quiet)))
        self._set_quiet_timer()

    # ------------------------------------------------------------ the end

    async def drain(self, signals: process.Signals) -> None:
        """Take no new tunnel, say so, and give open flows their grace."""
        self._plane.drain()
        self.link.send(Draining())
        log.info("draining: open flows get up to %.0f s", self.grace)
        await process.wait_until_idle(lambda: self.core.stats().get("flows", 0), self.grace, signals)

    def close(self) -> None:
        if self._keys is not None:
            self._keys.close()
        for timer in (self._probe_timer, self._report_timer, self._quiet_timer):
            if timer is not None:
                timer.cancel()
