"""What the exchange does by the clock, for as long as it runs."""

import asyncio
import gc
from collections.abc import Callable

from cloister.exchange.administration import Administration
from cloister.exchange.book import SessionBook
from cloister.exchange.programs.service import Programs
from cloister.exchange.rotation import Rotation
from cloister.exchange.service import Exchange
from cloister.exchange.state import State
from cloister.store.service import Store

TICK_SECONDS = 0.05
STEP_SECONDS = 1.0
CHECKPOINT_SECONDS = 10.0
CLEANING_SECONDS = 3600.0
MANY = 1000  # documents, agents and sessions that have come or gone


class Rounds:
    def __init__(
        self,
        state: State,
        book: SessionBook,
        exchange: Exchange,
        administration: Administration,
        rotation: Rotation,
        programs: Programs,
        store: Store,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._book = book
        self._exchange = exchange
        self._administration = administration
        self._rotation = rotation
        self._programs = programs
        self._store = store
        self._clock = clock
        self._settled = 0

    async def tick(self) -> None:
        """What is due to the moment: sessions, waits, links."""
        while True:
            next_due = self._exchange.on_tick(self._clock())
            await asyncio.sleep(min(max(next_due - self._clock(), 0.0), TICK_SECONDS))

    async def step(self) -> None:
        """What may come a second late."""
        while True:
            await self._rotation.on_tick()
            await self._administration.expire_kill_switches()
            self._programs.end_stale()
            self._settle()
            await asyncio.sleep(STEP_SECONDS)

    async def tidy(self) -> None:
        """Housekeeping that nothing waits for."""
        next_cleaning = 0.0
        while True:
            await asyncio.to_thread(self._store.checkpoint)
            if self._clock() >= next_cleaning:
                next_cleaning = self._clock() + CLEANING_SECONDS
                await self._administration.forget_the_past()
            await asyncio.sleep(CHECKPOINT_SECONDS)

    def _settle(self) -> None:
        """While a directory is synchronised or clients come by the thousand: what stays is not looked through by the collector again and again, which
        would hold up the loop (400 ms with 10,000 documents)."""
        held = len(self._state.documents) + len(self._state.agents) + len(self._book)
        if abs(held - self._settled) >= MANY:
            self._settled = held
            gc.collect(1)
            gc.freeze()
