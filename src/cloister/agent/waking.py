"""Waiting for an event, but not for ever."""

import asyncio
import contextlib


async def woken(event: asyncio.Event, seconds: float) -> None:
    """Return when it is set, or after so long; either way it is clear again."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await event.wait()
    event.clear()
