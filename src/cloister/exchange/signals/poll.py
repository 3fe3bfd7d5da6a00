"""Polls the transmitters whose documents say so (RFC 8936): one task each, made and ended by looking at the documents every second.

An event is acknowledged after it was taken, so what a crash or an outage cuts short is delivered again. What fails is tried again, ever more seldom.
"""

import asyncio
import logging
import random
from collections.abc import Callable
from dataclasses import dataclass, field

from cloister.exchange.errors import Refusal
from cloister.exchange.outgoing import Outgoing
from cloister.exchange.signals.keys import reach_of
from cloister.exchange.signals.receiver import Receiver
from cloister.exchange.signals.secrets import TransmitterSecrets
from cloister.exchange.signals.types import Transmitter
from cloister.identity.signals.polling import MAX_ANSWER_BYTES, PollAnswer, poll_request, read_answer
from cloister.identity.signals.types import EventRefused, PushError
from cloister.model.reasons import Code

log = logging.getLogger("cloister.signals")

LOOK_SECONDS = 1.0
FIRST_PAUSE = 1.0
LONGEST_PAUSE = 300.0


@dataclass(slots=True)
class _Owed:
    """What the next request tells the transmitter."""

    taken: list[str] = field(default_factory=list)
    refused: dict[str, tuple[PushError, str]] = field(default_factory=dict)


class Poller:
    def __init__(self, receiver: Receiver, secrets: TransmitterSecrets, outgoing: Outgoing, clock: Callable[[], float]) -> None:
        self._receiver = receiver
        self._secrets = secrets
        self._outgoing = outgoing
        self._clock = clock
        self._tasks: dict[str, tuple[Transmitter, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        try:
            while True:
                await self._reconcile()
                await asyncio.sleep(LOOK_SECONDS)
        finally:
            await self._end(list(self._tasks))

    def polled(self) -> list[str]:
        """The ids of those that are polled now."""
        return list(self._tasks)

    async def _reconcile(self) -> None:
        """Exactly the transmitters that are to be polled are polled, as their documents say now."""
        transmitters = self._receiver.transmitters()
        wanted = {one.id: one for one in transmitters if one.document.poll is not None}
        await self._end([id for id, (known, _) in self._tasks.items() if wanted.get(id) != known])
        for id, one in wanted.items():
            if id not in self._tasks:
                task = asyncio.get_running_loop().create_task(self._poll(one), name=f"poll {one.name}")
                self._tasks[id] = (one, task)
        for id, (one, task) in list(self._tasks.items()):
            if task.done():  # it ends by being cancelled alone: whatever else it was, the exchange goes on and polls again
                log.error("polling `%s` failed", one.name, exc_info=task.exception())
                del self._tasks[id]
        ids = {one.id for one in transmitters}
        if self._receiver.remembered() - ids:
            await self._receiver.forget(ids)

    async def _end(self, ids: list[str]) -> None:
        tasks = [self._tasks.pop(id)[1] for id in ids]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _poll(self, transmitter: Transmitter) -> None:
        owed, pause = _Owed(), 0.0
        poll = transmitter.document.poll
        while poll is not None:
            stream = self._receiver.stream(transmitter)
            try:
                answer = await self._ask(transmitter, poll.url, owed)
                owed = _Owed()
                is_behind = await self._take(transmitter, answer, owed)
            except (Refusal, EventRefused) as error:
                stream.poll_error = error.message
                pause = min(LONGEST_PAUSE, max(FIRST_PAUSE, pause * 2))
                await asyncio.sleep(pause * random.uniform(0.5, 1.0))  # noqa: S311 (so that not everybody comes back at once)
                continue
            stream.poll_error, stream.polled_at, pause = "", int(self._clock()), 0.0
            if not is_behind:
                await asyncio.sleep(poll.interval)

    async def _ask(self, transmitter: Transmitter, url: str, owed: _Owed) -> PollAnswer:
        secret = await self._secrets.read(transmitter)
        headers = {"accept": "application/json", "content-type": "application/json"}
        if secret is not None:
            headers["authorization"] = f"Bearer {secret}"
        answer = await self._outgoing.send(
            "POST",
            url,
            reach_of(transmitter.document),
            headers=headers,
            content=poll_request(owed.taken, owed.refused),
            max_bytes=MAX_ANSWER_BYTES,
        )
        if answer.status != 200:
            raise Refusal(Code.OUTGOING_FAILED, f"the transmitter `{transmitter.name}` answers with status `{answer.status}`")
        return read_answer(answer.body)

    async def _take(self, transmitter: Transmitter, answer: PollAnswer, owed: _Owed) -> bool:
        """Take all of them, in their order. Whether there is more to fetch or to tell at once."""
        for id, token in answer.tokens.items():
            try:
                await self._receiver.receive(transmitter, token, "poll", id=id)
                owed.taken.append(id)
            except EventRefused as refused:
                owed.refused[id] = (refused.error, refused.message)
        return bool(answer.tokens) or answer.has_more
