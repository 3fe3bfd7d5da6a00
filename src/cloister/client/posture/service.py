"""Reports of this device, run: collects in threads what is due, and sends what the machine says."""

import asyncio
import json
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from cloister.client.posture.collect import Collector
from cloister.client.posture.machine import Reporter
from cloister.client.posture.types import Collected, Group
from cloister.model.messages.common import Message
from cloister.model.messages.from_exchange import PostureAsk
from cloister.model.posture import PostureProfile, asked_by

log = logging.getLogger("cloister.posture")

TICK = 0.5
FIRST_REPORT_SECONDS = 5.0  # how long the catalogue may wait for the first report


class PostureService:
    """`send` hands a message to the link. `on_first_report` is called once after each ask at which something had to be looked at first."""

    def __init__(self, owner: int, send: Callable[[Message], bool], on_first_report: Callable[[], None]) -> None:
        self._send = send
        self._on_first_report = on_first_report
        self._collector = Collector(owner)
        self._offset = 0.0  # the exchange's clock minus ours
        self._machine = Reporter(time.time())
        self._tasks: set[asyncio.Task[None]] = set()
        self._timer: asyncio.TimerHandle | None = None
        self._give_up_at: float | None = None
        self.profiles: Sequence[Mapping[str, Any]] = ()

    def start(self) -> None:
        self._tick()

    async def stop(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._collector.stop()
        if self._tasks:
            await asyncio.wait(self._tasks)

    # ------------------------------------------------------------ events

    def on_up(self, exchange_time: int) -> None:
        offset = exchange_time - time.time()
        self._offset = offset if abs(offset) > 1 else 0.0
        self._machine.on_up()

    def on_down(self) -> None:
        self._machine.on_down()

    def on_ask(self, ask: PostureAsk) -> None:
        self.profiles = ask.profiles
        self._machine.on_asked(asked_by(_readable(ask.profiles), ask.facts), self._now())
        self._give_up_at = time.monotonic() + FIRST_REPORT_SECONDS
        self._advance()

    @property
    def is_first_report_due(self) -> bool:
        """Whether something was asked for that the exchange was not told yet."""
        return self._give_up_at is not None

    # ------------------------------------------------------------

    def _now(self) -> float:
        return time.time() + self._offset

    def _tick(self) -> None:
        self._advance()
        self._timer = asyncio.get_running_loop().call_later(TICK, self._tick)

    def _advance(self) -> None:
        for group in self._machine.due(self._now()):
            task = asyncio.get_running_loop().create_task(self._collect(group))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        report = self._machine.report(self._now())
        if report is not None and not self._send(report):
            self._machine.on_down()  # the link is going: the next one is told everything
        if self._give_up_at is not None and (report is not None or time.monotonic() >= self._give_up_at):
            self._give_up_at = None
            self._on_first_report()

    async def _collect(self, group: Group) -> None:
        asked = self._machine.asked
        try:
            collected = await asyncio.to_thread(self._collector.collect, group, asked)
        except Exception:
            log.exception("facts of the group `%s` cannot be collected", group)
            collected = Collected()
        self._machine.on_collected(group, asked, collected, self._now())
        if not self._collector.commands.stopping.is_set():
            self._advance()

    def describe(self) -> dict[str, Any]:
        """For `cloister posture`."""
        return {
            "facts": [fact.model_dump() for fact in self._machine.facts()],
            "unreadable": self._machine.unreadable,
            "profiles": list(self.profiles),
            "now": int(self._now()),
        }


def collect_once(owner: int) -> dict[str, Any]:
    """What can be said without being asked, right now, in the form of `describe`. Waits for what it reads."""
    collector = Collector(owner)
    found = [collector.collect(group, asked_by(())) for group in ("plain", "updates")]
    now = int(time.time())
    facts = [{"name": name, "value": value, "observed_at": now} for part in found for name, value in part.facts.items()]
    return {
        "facts": facts,
        "unreadable": {name: why for part in found for name, why in part.unreadable.items()},
        "profiles": [],
        "now": now,
    }


def _readable(profiles: Sequence[Mapping[str, Any]]) -> list[PostureProfile]:
    """Those that this version understands; what another one asks is not reported, and fails."""
    found = []
    for fields in profiles:
        try:
            found.append(PostureProfile.model_validate_json(json.dumps(fields)))
        except ValidationError:
            log.warning("a posture profile of the exchange asks what this version does not know: `%s`", fields.get("name"))
    return found
