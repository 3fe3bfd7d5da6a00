"""Brings the core's events onto the event loop: one reader on one file descriptor, batches, in order."""

import asyncio
from collections.abc import Callable

from cloister import _core

BATCH = 512


class EventPump:
    """Calls `handle` for every event. A handler that raises ends the pump: the process must not go on half-informed."""

    def __init__(self, core: _core.Core, handle: Callable[["_core.Event"], None]) -> None:
        self._core = core
        self._handle = handle
        self._loop = asyncio.get_running_loop()
        self.failed: asyncio.Future[None] = self._loop.create_future()
        self._loop.add_reader(core.fileno(), self._drain)

    def close(self) -> None:
        self._loop.remove_reader(self._core.fileno())
        if not self.failed.done():
            self.failed.cancel()

    def _drain(self) -> None:
        # One batch per wake-up: the descriptor stays readable while events wait, and other tasks get their turn in between.
        for event in self._core.take_events(BATCH):
            try:
                self._handle(event)
            except Exception as error:  # noqa: BLE001 (kept for whoever awaits `failed`)
                self._loop.remove_reader(self._core.fileno())
                if not self.failed.done():
                    self.failed.set_exception(error)
                return
