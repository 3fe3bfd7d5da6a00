"""Clients that are back before the connectors after a restart: what they ask for waits for a moment, and is decided when it is answered."""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

from tests.unit.exchange.conftest import BUNDLE, Agent, World, end_world, start_world

from cloister.exchange.arrivals import GRACE_SECONDS, MAX_OF_CLIENT
from cloister.exchange.settings import Settings
from cloister.model.messages.from_agent import Explain, WantSession
from cloister.model.messages.from_exchange import Explained, Refused, Session
from cloister.model.reasons import Code

Stack = list[Callable[[], Awaitable[object]]]


@asynccontextmanager
async def restarted(path: Path, *, revoked: bool = False) -> AsyncIterator[tuple[World, Agent, Agent]]:
    """An exchange that has just started again, a connector that is not back yet, and a client that is."""
    stack: Stack = []
    settings = Settings(path / "data", listen="127.0.0.1:0", drain_grace=0)
    before = await start_world(settings, stack)
    await before.add_user("ada")
    await before.apply(BUNDLE)
    connector, client = await before.connector(), await before.client("ada")
    if revoked:
        await before.api.ok("POST", f"/agents/{connector.id}/revoke")
    token = before.api.token
    for close in reversed(stack):
        await close()
    stack = []
    world = await start_world(settings, stack)
    world.api.token = token
    world.agents = [connector, client]
    for agent in world.agents:
        agent.address = world.running.address
        agent.inbox.clear()
    await client.connect()
    try:
        yield world, connector, client
    finally:
        await end_world(world, stack)


def ask(client: Agent, ref: int) -> None:
    client.send(WantSession(ref=ref, host="jupyter.lab.internal", port=8888, protocol="tcp"))


async def answers(client: Agent) -> list[Session | Refused]:
    """What is answered by now: answers come in the order of the questions, so what was asked before this one and has none waits."""
    client.send(Explain(ref=999, host="jupyter.lab.internal", port=8888))
    await client.receive(Explained)
    return [*client.take(Session), *client.take(Refused)]


async def unanswered(client: Agent) -> None:
    assert await answers(client) == []


async def refused_at_once(client: Agent) -> None:
    ask(client, 2)
    assert [answer.code for answer in await answers(client) if isinstance(answer, Refused)] == [Code.NO_CONNECTOR]


async def test_what_is_asked_before_the_connector_is_back_waits_for_it(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (_, connector, client):
        ask(client, 1)
        await unanswered(client)
        await connector.connect()
        session = await client.receive(Session)
        assert (session.ref, session.connectors) == (1, [connector.id])


async def test_a_connector_that_does_not_come_back_is_waited_for_once_and_not_for_long(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (world, _, client):
        ask(client, 1)
        await unanswered(client)
        world.clock.offset += GRACE_SECONDS
        assert (await client.receive(Refused)).code == Code.NO_CONNECTOR
        await refused_at_once(client)


async def test_a_connector_that_was_back_is_not_waited_for_again(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (world, connector, client):
        await connector.connect()
        await world.api.ok("POST", f"/agents/{connector.id}/revoke")
        await refused_at_once(client)


async def test_nobody_waits_for_a_connector_that_is_revoked(tmp_path: Path) -> None:
    async with restarted(tmp_path, revoked=True) as (_, _, client):
        await refused_at_once(client)


async def test_what_waited_is_decided_anew_when_it_is_answered(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (world, connector, client):
        ask(client, 1)
        await unanswered(client)
        await world.api.ok("POST", "/kill-switches", json={"scope": "user", "target": "ada", "reason": "drill"})
        await connector.connect()
        assert (await client.receive(Refused)).code == Code.KILL_SWITCH
        assert len(world.running.book) == 0


async def test_a_client_that_is_revoked_while_it_waits_gets_nothing(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (world, connector, client):
        ask(client, 1)
        await unanswered(client)
        await world.api.ok("POST", f"/agents/{client.id}/revoke")
        await connector.connect()
        assert len(world.running.book) == 0
        assert client.take(Session) == []


async def test_one_client_waits_for_a_few_answers_only(tmp_path: Path) -> None:
    async with restarted(tmp_path) as (_, connector, client):
        for ref in range(1, MAX_OF_CLIENT + 2):
            ask(client, ref)
        ask(client, 1)  # asked again it is one question still
        refused = await client.receive(Refused)
        assert (refused.ref, refused.code) == (MAX_OF_CLIENT + 1, Code.NO_CONNECTOR)
        await unanswered(client)
        await connector.connect()
        answered = {(await client.receive(Session)).ref for _ in range(MAX_OF_CLIENT)}
        assert answered == set(range(1, MAX_OF_CLIENT + 1))
