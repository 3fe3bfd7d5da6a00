"""The one thread that writes to the store, so that the event loop never waits for a disk and changes have one order."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

T = TypeVar("T")


class Writer:
    """Runs closures one after the other, in the order in which they were given."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="store")
        self._pending: set[asyncio.Future[object]] = set()

    async def run(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._pool, work)

    def start(self, work: Callable[[], object]) -> None:
        """Queue work whose failure ends the exchange: `failed` says so."""
        future: asyncio.Future[object] = asyncio.get_running_loop().run_in_executor(self._pool, work)
        self._pending.add(future)
        future.add_done_callback(self._finished)

    async def flush(self) -> None:
        """Wait until everything queued before is written."""
        await self.run(lambda: None)

    def close(self) -> None:
        self._pool.shutdown(wait=True)

    def _finished(self, future: asyncio.Future[object]) -> None:
        self._pending.discard(future)
        if not future.cancelled() and future.exception() is not None:
            asyncio.get_running_loop().call_exception_handler(
                {"message": "the store cannot be written", "exception": future.exception()}
            )
