"""Laws of links: who may link, who may say what, and what happens when two hold one key."""

from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.exchange.conftest import Agent, World, end_world, eventually, furnish, start_world

from cloister import _core
from cloister.exchange.greeting import TWIN_SECONDS
from cloister.exchange.reception import MAX_UNREADY_OF_AGENT
from cloister.exchange.settings import Settings
from cloister.model.messages.common import PROTOCOL_VERSION, Message, SegmentHealth
from cloister.model.messages.from_agent import (
    Advertise,
    CutDone,
    Draining,
    EnrolByKey,
    EnrolByPassword,
    Explain,
    Health,
    Hello,
    Idle,
    Revoked,
    WantCarrier,
    WantSession,
)
from cloister.model.messages.from_exchange import Assignments, Enrolled, Refused, Session, Welcome
from cloister.trust.certificates import key_to_pem

ID = "0123456789abcdef"
WANT = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")
OF_ROLE: dict[str, list[Message]] = {
    "client": [WANT, Explain(ref=1, host="a.b"), Idle(sessions=[])],
    "connector": [Health(segments=[]), Revoked(generation=1)],
    "relay": [WantCarrier(connector=ID), Advertise(address="a:1"), CutDone(ref=1, carriers=0)],
}
FOREIGN = [(role, message) for role in OF_ROLE for other, messages in OF_ROLE.items() if other != role for message in messages]
FOREIGN += [
    (role, message)
    for role in OF_ROLE
    for message in (EnrolByKey(key="a", csr="b"), EnrolByPassword(user="a", password="b", csr="c"))
]
FOREIGN += [("client", Draining())]


async def _agent(lab: World, role: str) -> Agent:
    if role == "connector":
        return await lab.connector()
    if role == "client":
        return await lab.client("ada")
    key = await lab.api.ok("POST", "/keys", json={"role": "relay", "address": "127.0.0.1:1"})
    agent = lab.agent("relay")
    await agent.enrol_by_key(key["key"])
    await agent.connect()
    return agent


async def _reconnect(agent: Agent) -> None:
    await agent.until(lambda: agent.down)
    agent.inbox.clear()
    await agent.connect()


@pytest.mark.parametrize("role", OF_ROLE)
async def test_case_25_message_of_another_role_ends_the_link(lab: World, role: str) -> None:
    agent = await _agent(lab, role)
    for message in [message for other, message in FOREIGN if other == role]:
        agent.send(message)
        assert (await agent.receive(Refused)).code == "message_unexpected", message
        await _reconnect(agent)


async def test_case_37_malformed_or_widened_message_ends_the_link(lab: World) -> None:
    client = await lab.client("ada")
    for body in (
        b"{}",
        b'{"type":"hello"}',
        b'{"type":"want_session","ref":1}',
        b"[" * 10_000,
        b'{"type":"idle","sessions":[],"user":"root"}',
    ):
        assert client.core.send(client.link, body)
        assert (await client.receive(Refused)).code == "message_malformed", body
        await _reconnect(client)


async def test_silent_link_is_closed(lab: World) -> None:
    client = await lab.client("ada")
    client.core.close_link(client.link, "stopped")
    client.dial()
    await client.until(lambda: client.up or None)
    await eventually(lab.running.switchboard.unready)
    lab.clock.offset += 11
    await client.until(lambda: client.down)


async def test_unknown_version_is_refused(lab: World) -> None:
    client = await lab.client("ada")
    client.core.close_link(client.link, "stopped")
    client.dial()
    await client.until(lambda: client.up or None)
    client.send(Hello(version=PROTOCOL_VERSION + 1, software="x", boot=client.boot))
    assert (await client.receive(Refused)).code == "version_unsupported"


async def test_roaming_process_takes_its_link_with_it(lab: World) -> None:
    client = await lab.client("ada")
    old = client.link
    client.dial()
    await client.until(lambda: client.up or None)
    client.greet()
    assert (await client.receive(Welcome)).agent == client.id
    assert client.link != old
    assert lab.running.state.agents[client.id].twin_seen_at is None


def _copy(lab: World, original: Agent) -> Agent:
    """The same key in another process, with everything the original had on its disk."""
    twin = lab.agent(original.role)
    twin.boot, twin.resume, twin.key = "00000000000000b1", original.resume, original.key
    assert original.enrolled is not None
    twin.use(original.enrolled)
    assert key_to_pem(twin.key) == key_to_pem(original.key)
    return twin


async def test_case_27_copy_of_a_key_is_held_then_reported_and_gets_nothing(lab: World) -> None:
    connector = await lab.connector()
    twin = _copy(lab, connector)
    twin.dial()
    await twin.until(lambda: twin.up or None)
    twin.greet()
    await eventually(lambda: any(link.stage == "held" for link in lab.running.switchboard.unready()))
    lab.clock.offset += TWIN_SECONDS + 1
    assert (await twin.receive(Refused)).code == "agent_twin"
    assert twin.take(Assignments) == []
    agents = await lab.api.ok("GET", "/agents")
    assert [agent["twin_seen_at"] is not None for agent in agents if agent["id"] == connector.id] == [True]
    assert (await lab.api.ok("GET", "/audit", params={"action": "agent.twin"}))["entries"]
    assert connector.up


async def test_restarted_process_is_welcome_as_soon_as_its_old_link_is_dead(lab: World) -> None:
    connector = await lab.connector()
    again = _copy(lab, connector)
    again.dial()
    await again.until(lambda: again.up or None)
    again.greet()
    await eventually(lambda: any(link.stage == "held" for link in lab.running.switchboard.unready()))
    connector.core.close_link(connector.link, "stopped")
    assert (await again.receive(Welcome)).agent == connector.id
    assert lab.running.state.agents[connector.id].twin_seen_at is None


async def test_case_27_somebody_elses_resume_secret_is_reported(lab: World) -> None:
    client = await lab.client("ada")
    client.core.close_link(client.link, "stopped")
    await eventually(lambda: not lab.running.switchboard.of_agent(client.id))
    client.resume = "of-another-link"
    await client.connect()
    assert lab.running.state.agents[client.id].twin_seen_at is not None


async def test_case_38_health_of_another_groups_segment_is_not_kept_and_recorded(lab: World) -> None:
    await lab.apply("kind: connector-group\nname: far\nsuffixes: [far.internal]")
    far = await lab.connector("far")
    assert (await far.receive(Assignments)).segments == []
    jupyter = (await lab.api.ok("GET", "/segments/jupyter"))["id"]
    far.send(Health(segments=[SegmentHealth(segment=jupyter, healthy=True)]))
    ada = await lab.client("ada")
    ada.send(WANT)
    assert (await ada.receive(Refused)).code == "no_connector"
    assert (await lab.api.ok("GET", "/audit", params={"action": "agent.health"}))["entries"][0]["code"] == "not_authorised"


async def test_case_40_idle_of_somebody_elses_session_changes_nothing(lab: World) -> None:
    await lab.connector()
    ada, other = await lab.client("ada"), await lab.client("ada")
    ada.send(WANT)
    session = await ada.receive(Session)
    other.send(Idle(sessions=[session.session, ID]))
    other.send(Explain(ref=9, host="jupyter.lab.internal", port=8888))
    await other.until(lambda: next((m for m in other.inbox if m.type == "explained"), None))
    assert not lab.running.book.get(session.session).idle  # type: ignore[union-attr]


async def test_case_25_enrolment_link_takes_nothing_but_a_proof(lab: World) -> None:
    agent = lab.agent("client")
    assert not isinstance(await agent.ask_enrolment(WANT), Enrolled)


async def test_case_25_certificate_of_one_role_is_no_other(lab: World) -> None:
    client = await lab.client("ada")
    as_connector = lab.agent("connector")
    as_connector.key = client.key
    assert client.enrolled is not None
    with pytest.raises(_core.CoreError, match="no identity of role `connector`"):
        as_connector.use(client.enrolled)


async def test_case_27_by_setting_both_are_cut_and_the_agent_must_be_confirmed(tmp_path: Path) -> None:
    stack: list[Callable[[], Awaitable[object]]] = []
    settings = Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0, twins="cut_both")
    lab = await furnish(await start_world(settings, stack))
    client = await lab.client("ada")
    twin = _copy(lab, client)
    twin.dial()
    await twin.until(lambda: twin.up or None)
    twin.greet()
    await eventually(lambda: any(link.stage == "held" for link in lab.running.switchboard.unready()))
    lab.clock.offset += TWIN_SECONDS + 1
    assert (await twin.receive(Refused)).code == "agent_twin"
    assert (await client.receive(Refused)).code == "agent_twin"
    await eventually(lambda: not lab.running.state.agents[client.id].confirmed)
    await end_world(lab, stack)


async def test_case_33_an_agent_that_says_nothing_takes_few_places(lab: World) -> None:
    ada = await lab.client("ada")
    switchboard = lab.running.switchboard
    for _ in range(MAX_UNREADY_OF_AGENT):
        ada.core.dial_link(ada.address, role="client")
    await eventually(lambda: switchboard.unready_of(ada.id) == MAX_UNREADY_OF_AGENT)
    ada.dial()
    assert (await ada.until(lambda: ada.down)).reason == "limit_reached"
    assert switchboard.unready_of(ada.id) == MAX_UNREADY_OF_AGENT
    assert switchboard.of_agent(ada.id) is not None  # the link that was welcomed is not among them
    await lab.connector()
