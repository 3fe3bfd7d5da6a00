"""A program proves itself anew while it runs: on each link, and long before the last proof ends."""

import asyncio
import logging
import time

from cloister.agent.errors import AgentError
from cloister.agent.link import Link
from cloister.agent.tokens import TokenSource
from cloister.agent.waking import woken
from cloister.model.messages.from_agent import Prove
from cloister.model.messages.from_exchange import Proved

log = logging.getLogger("cloister.agent")

SOON = 30.0  # seconds between attempts, at least
OFTEN = 600.0  # and at most: files are renewed when they are renewed


class Proving:
    """`subject` is the person's token, if the program acts for somebody on a token that can be renewed."""

    def __init__(self, link: Link, source: TokenSource, subject: TokenSource | None = None) -> None:
        self._link = link
        self._source = source
        self._subject = subject
        self._until = 0
        self._sent = ""
        self._proved = ""  # the last token that was accepted; one that was refused is shown again
        self._wake = asyncio.Event()
        self._task = asyncio.get_running_loop().create_task(self._run(), name="prove")

    def on_up(self) -> None:
        self._wake.set()

    def on_proved(self, message: Proved) -> None:
        self._until = message.until
        self._proved = self._sent

    async def stop(self) -> None:
        self._task.cancel()
        await asyncio.wait([self._task])

    async def _run(self) -> None:
        while True:
            await woken(self._wake, pause(self._until, time.time()))
            if not self._link.is_up:
                continue
            try:
                token = await asyncio.to_thread(self._source.read)
                subject = None if self._subject is None else await asyncio.to_thread(self._subject.read)
            except AgentError as error:
                log.warning("%s", error.message)
                continue
            if token != self._proved and self._link.send(Prove(token=token, subject_token=subject)):
                self._sent = token


def pause(until: int, now: float) -> float:
    """How long to wait before the next look: half of what is left, within bounds."""
    return min(OFTEN, max(SOON, (until - now) / 2))
