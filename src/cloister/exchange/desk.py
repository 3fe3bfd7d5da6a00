"""Answers to links: what is refused, what is told later, what is written down. Shared by the parts that talk with agents."""

import asyncio
import logging
from collections.abc import Callable, Coroutine

from cloister.exchange.attempts import Noting
from cloister.exchange.errors import Refusal
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.writer import Writer
from cloister.model.messages.common import Message
from cloister.model.messages.from_exchange import Refused, Renewed
from cloister.model.reasons import Code
from cloister.store.service import Store
from cloister.store.types import Actor, AuditEntry
from cloister.trust.certificates import LEAF_SECONDS

log = logging.getLogger("cloister.exchange")


class Desk:
    """`on_ended` is told of every ready link that the exchange itself ends here."""

    def __init__(self, switchboard: Switchboard, noting: Noting, store: Store, writer: Writer, clock: Callable[[], float]) -> None:
        self._switchboard = switchboard
        self._noting = noting
        self._store = store
        self._writer = writer
        self._clock = clock
        self._tasks: set[asyncio.Task[None]] = set()
        self.on_ended: Callable[[LiveLink], None] = lambda _link: None

    def refuse(self, link: LiveLink, code: Code) -> None:
        self._refuse(link, Refusal(code), None)

    def refuse_and_end(self, link: LiveLink, code: Code) -> None:
        self.refuse(link, code)
        self.end(link, code)

    def end(self, link: LiveLink, code: Code) -> None:
        was_ready = self._switchboard.is_ready(link)
        self._switchboard.close(link, code)
        if was_ready:
            self.on_ended(link)

    def answer(self, link: LiveLink, work: Coroutine[None, None, Message | None], ref: int | None = None) -> None:
        """Send what the work gives when it is done (None: it has answered itself), or why it failed; `ref` is that of the question."""
        self.start(self._answer(link, work, ref))

    def start(self, work: Coroutine[None, None, None]) -> None:
        task = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def settled(self) -> None:
        """Until everything that was started has finished."""
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)

    def audit(self, actor: str, source: str, action: str, target: str, code: Code) -> None:
        entry = self._entry(actor, source, action, target, code)
        if entry is not None:
            self._writer.start(lambda: self._store.record(entry))

    async def _answer(self, link: LiveLink, work: Coroutine[None, None, Message | None], ref: int | None) -> None:
        try:
            answer = await work
        except Refusal as refusal:
            if link.identity is None:
                entry = self._entry("", link.source, "agent.enrol", "", refusal.code)
                if entry is not None:
                    await self._writer.run(lambda: self._store.record(entry))
            self._refuse(link, refusal, ref)
            return
        except Exception:
            log.exception("link %d could not be answered", link.number)
            self.refuse_and_end(link, Code.INTERNAL)
            return
        if isinstance(answer, Renewed):
            link.not_after = int(self._clock()) + LEAF_SECONDS
        if answer is not None:
            self._switchboard.send(link, answer)

    def _refuse(self, link: LiveLink, refusal: Refusal, ref: int | None) -> None:
        told = Refused(ref=ref, code=refusal.code, message=refusal.message[:1024], remedy=refusal.remedy[:1024])
        self._switchboard.send(link, told)

    def _entry(self, actor: str, source: str, action: str, target: str, code: Code) -> AuditEntry | None:
        """None if this source, or all together, are refused too often for each to be written down."""
        detail = self._noting.detail(source, self._clock())
        return None if detail is None else AuditEntry(int(self._clock()), Actor(actor, source), action, target, detail, code)
