"""Signing in again while the client runs: one sign-in at a time, whoever asks for it."""

import asyncio
from collections.abc import AsyncIterator

import pytest

from cloister.client.errors import ClientError
from cloister.client.stepping import Stepping
from cloister.model.messages.common import Message
from cloister.model.messages.from_agent import StepUp
from cloister.model.messages.from_exchange import Refused, SignedIn, SignInStarted
from cloister.model.reasons import Code

URL = "https://exchange.example/sign-in/x"


class Exchange:
    """What a client sent, and what it told the person."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[Message] = asyncio.Queue()
        self.told: list[str] = []
        self.stepping = Stepping(
            self.asked.put_nowait, lambda: 7, lambda _code, text, _remedy: self.told.append(text), browser=False
        )

    async def start(self) -> None:
        """Take the question and say where to sign in."""
        async with asyncio.timeout(5):
            assert isinstance(await self.asked.get(), StepUp)
        assert self.stepping.take(SignInStarted(ref=7, method="browser", url=URL, code="ABCD-EFGH", expires=1))

    async def join(self) -> "asyncio.Task[SignedIn]":
        """Somebody asks for a sign-in, and is shown where."""
        shown: asyncio.Queue[SignInStarted] = asyncio.Queue()
        joined = asyncio.get_running_loop().create_task(self.stepping.step_up("browser", shown.put_nowait))
        async with asyncio.timeout(5):
            assert (await shown.get()).url == URL
        return joined


@pytest.fixture
async def exchange() -> AsyncIterator[Exchange]:
    made = Exchange()
    yield made
    made.stepping.close()


async def test_a_person_is_shown_the_sign_in_that_the_client_began_by_itself(exchange: Exchange) -> None:
    exchange.stepping.on_code(Code.STEP_UP_REQUIRED)
    await exchange.start()
    joined = await exchange.join()
    assert exchange.asked.empty()
    assert exchange.stepping.started is not None
    exchange.stepping.take(SignedIn(ref=7, at=1, strength="mfa"))
    assert (await joined).strength == "mfa"
    assert exchange.stepping.started is None


async def test_a_sign_in_that_somebody_stopped_waiting_for_is_shown_to_the_next_who_asks(exchange: Exchange) -> None:
    first = asyncio.get_running_loop().create_task(exchange.stepping.step_up("browser", lambda _started: None))
    await exchange.start()
    first.cancel()
    await asyncio.wait([first])
    second, third = await exchange.join(), await exchange.join()
    exchange.stepping.take(Refused(ref=7, code=Code.SIGN_IN_MISMATCH, message="another person", remedy=""))
    for joined in (second, third):
        with pytest.raises(ClientError, match="another person"):
            await joined
    fourth = asyncio.get_running_loop().create_task(exchange.stepping.step_up("browser", lambda _started: None))
    await exchange.start()
    exchange.stepping.take(SignedIn(ref=7, at=1, strength="mfa"))
    assert (await fourth).strength == "mfa"
