"""Signing in again while the client runs: asked by a person, or by itself when the exchange wants a stronger or more recent sign-in."""

import asyncio
import logging
import time
from collections.abc import Callable

from cloister.client.browser import open_browser
from cloister.client.errors import ClientError
from cloister.model.messages.common import Message, SignInMethod
from cloister.model.messages.from_agent import SignOut, StepUp
from cloister.model.messages.from_exchange import FromExchange, Refused, SignedIn, SignedOut, SignInStarted
from cloister.model.reasons import REASONS, Code

log = logging.getLogger("cloister.client")

ANSWER_WAIT = 15.0
SIGN_IN_WAIT = 620.0
AGAIN_AFTER = 60.0  # between two sign-ins that the client begins by itself

Answer = SignInStarted | SignedIn | SignedOut | Refused


class Stepping:
    """`send` puts a message on the link, `new_ref` numbers it, `tell` says one sentence to the person."""

    def __init__(
        self, send: Callable[[Message], object], new_ref: Callable[[], int], tell: Callable[[str, str, str], None], *, browser: bool
    ) -> None:
        self._send = send
        self._new_ref = new_ref
        self._tell = tell
        self._browser = browser
        self._answers: dict[int, asyncio.Queue[Answer]] = {}
        self._own: asyncio.Task[None] | None = None
        self._going_on: asyncio.Task[SignedIn] | None = None
        self._listeners: list[Callable[[SignInStarted], object]] = []
        self._last = float("-inf")
        self.started: SignInStarted | None = None  # the one that waits for the person now

    def take(self, message: FromExchange) -> bool:
        """Whether this was an answer to one of ours."""
        if isinstance(message, SignInStarted | SignedIn | SignedOut | Refused) and message.ref in self._answers:
            self._answers[message.ref].put_nowait(message)
            return True
        return isinstance(message, SignInStarted | SignedIn | SignedOut)

    def on_link_down(self) -> None:
        reason = REASONS[Code.EXCHANGE_UNREACHABLE]
        for ref, queue in self._answers.items():
            queue.put_nowait(Refused(ref=ref, code=reason.code, message=reason.message, remedy=reason.remedy))

    def on_code(self, code: str) -> None:
        """Something was refused or ended with this code. If a better sign-in would help: begin one, once, and say where."""
        is_going_on = any(task is not None and not task.done() for task in (self._own, self._going_on))
        if code != Code.STEP_UP_REQUIRED or is_going_on or time.monotonic() < self._last + AGAIN_AFTER:
            return
        self._last = time.monotonic()
        self._own = asyncio.get_running_loop().create_task(self._by_itself())

    def close(self) -> None:
        for task in (self._own, self._going_on):
            if task is not None:
                task.cancel()

    async def step_up(self, method: SignInMethod, on_started: Callable[[SignInStarted], object]) -> SignedIn:
        """Begin a sign-in, or join the one that waits for the person already; it goes on if the caller does not wait for it. Raises ClientError if
        it does not succeed."""
        if self._going_on is None or self._going_on.done():
            self._going_on = asyncio.get_running_loop().create_task(self._sign_in(method))
            self._going_on.add_done_callback(lambda task: task.cancelled() or task.exception())
        elif self.started is not None:
            on_started(self.started)
        self._listeners.append(on_started)
        try:
            return await asyncio.shield(self._going_on)
        finally:
            self._listeners.remove(on_started)

    async def _sign_in(self, method: SignInMethod) -> SignedIn:
        ref = self._new_ref()
        queue = self._answers[ref] = asyncio.Queue()
        try:
            self._send(StepUp(ref=ref, method=method))
            wait = ANSWER_WAIT
            while True:
                answer = await self._next(queue, wait)
                if isinstance(answer, SignInStarted):
                    self.started, wait = answer, SIGN_IN_WAIT
                    for on_started in self._listeners:
                        on_started(answer)
                elif isinstance(answer, SignedIn):
                    return answer
        finally:
            self._answers.pop(ref, None)
            self.started = None

    async def sign_out(self) -> str:
        """Where the session at the provider ends, if it offers that. Raises ClientError."""
        ref = self._new_ref()
        queue = self._answers[ref] = asyncio.Queue()
        try:
            self._send(SignOut(ref=ref))
            answer = await self._next(queue, ANSWER_WAIT)
        finally:
            self._answers.pop(ref, None)
        return answer.url if isinstance(answer, SignedOut) else ""

    async def _next(self, queue: "asyncio.Queue[Answer]", wait: float) -> Answer:
        try:
            async with asyncio.timeout(wait):
                answer = await queue.get()
        except TimeoutError:
            reason = REASONS[Code.EXCHANGE_UNREACHABLE]
            raise ClientError(reason.code, reason.message, reason.remedy) from None
        if isinstance(answer, Refused):
            raise ClientError(answer.code, answer.message, answer.remedy)
        return answer

    async def _by_itself(self) -> None:
        def on_started(started: SignInStarted) -> None:
            opened = self._browser and open_browser(started.url)
            where = "your browser asks you to sign in" if opened else f"sign in at {started.url}"
            self._tell(
                Code.STEP_UP_REQUIRED,
                f"a stronger or more recent sign-in is needed: {where}, code {started.code}",
                "it goes on by itself afterwards",
            )

        try:
            signed_in = await self.step_up("browser", on_started)
        except ClientError as error:
            self._tell(error.code, f"the sign-in did not succeed: {error.message}", error.remedy)
        else:
            self._tell(Code.OK, f"you are signed in again, with strength {signed_in.strength}", "")
