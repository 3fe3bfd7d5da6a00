"""Laws of rotation: planned cuts nothing, compromised cuts everything."""

import json

import pytest
from cryptography import x509
from tests.unit.exchange.conftest import Agent, World, eventually

from cloister import _core
from cloister.exchange.rotation import ANNOUNCE_SECONDS
from cloister.model.messages.from_agent import WantSession
from cloister.model.messages.from_exchange import EndSession, Enrolled, Refused, Renewed, Revoke, Session, Trust
from cloister.trust.certificates import key_to_pem

WANT = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")


def _count(pem: str) -> int:
    return len(x509.load_pem_x509_certificates(pem.encode()))


async def _session(client: Agent) -> Session:
    client.send(WANT)
    return await client.receive(Session)


async def test_planned_rotation_tells_renews_and_removes_without_ending_a_link(lab: World) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    session = await _session(ada)
    for agent in (connector, ada):
        assert _count((await agent.receive(Trust)).roots) == 1
    old = lab.running.state.keyring.root_sha256
    await lab.api.ok("POST", "/trust/rotate-ca", json={})
    for agent in (connector, ada):
        trust = await agent.receive(Trust)
        assert _count(trust.roots) == 2
        agent.core.set_trust(trust.roots)
    lab.clock.offset += ANNOUNCE_SECONDS + 1
    renewed = [await agent.receive(Renewed) for agent in (connector, ada)]
    keyring = lab.running.state.keyring
    assert keyring.root_sha256 != old
    for agent, message in zip((connector, ada), renewed, strict=True):
        agent.core.set_identity(agent.role, message.chain, key_to_pem(agent.key))
        assert agent.down is None
        assert agent.link == 2  # the one after enrolment: never dialled again
    assert lab.running.book.get(session.session) is not None
    lab.clock.offset += 40 * 86400
    await eventually(lambda: _count(lab.running.state.keyring.roots_pem()) == 1)


async def test_agent_that_slept_through_the_announcement_gets_in_and_learns(lab: World) -> None:
    """It knows only the old root; the exchange's chain leads there too while the rotation lasts."""
    ada = await lab.client("ada")
    ada.core.close_link(ada.link, "stopped")
    await eventually(lambda: lab.running.switchboard.of_agent(ada.id) is None)
    old = lab.running.state.keyring.root_sha256
    await lab.api.ok("POST", "/trust/rotate-ca", json={})
    lab.clock.offset += ANNOUNCE_SECONDS + 1
    await eventually(lambda: lab.running.state.keyring.root_sha256 != old)
    ada.inbox.clear()
    await ada.connect()
    assert _count((await ada.receive(Trust)).roots) == 2


async def test_key_made_before_a_rotation_still_enrols_during_it(lab: World) -> None:
    key = (await lab.api.ok("POST", "/keys", json={"role": "connector", "group": "lab"}))["key"]
    old = lab.running.state.keyring.root_sha256
    await lab.api.ok("POST", "/trust/rotate-ca", json={})
    lab.clock.offset += ANNOUNCE_SECONDS + 1
    await eventually(lambda: lab.running.state.keyring.root_sha256 != old)
    agent = lab.agent("connector")
    assert agent.root_sha256 == old
    assert isinstance(await agent.enrol_by_key(key), Enrolled)


async def test_ticket_keys_overlap_and_the_old_one_goes(lab: World) -> None:
    await lab.connector()
    ada = await lab.client("ada")
    first = await _session(ada)
    old = lab.running.state.keyring.ticket_key.kid
    await ada.receive(Trust)
    await lab.api.ok("POST", "/trust/rotate-ticket-key")
    assert len((await ada.receive(Trust)).ticket_keys) == 2
    assert lab.running.state.keyring.ticket_key.kid == old
    lab.clock.offset += ANNOUNCE_SECONDS + 1
    await eventually(lambda: lab.running.state.keyring.ticket_key.kid != old)
    second = await _session(ada)
    keys = lab.running.state.keyring.ticket_verification_keys()
    for session in (first, second):
        assert json.loads(_core.verify_ticket(session.ticket, keys, int(lab.clock())))
    lab.clock.offset += 2 * 86400
    await eventually(lambda: old not in lab.running.state.keyring.ticket_verification_keys())
    with pytest.raises(_core.CoreError):
        _core.verify_ticket(first.ticket, lab.running.state.keyring.ticket_verification_keys(), int(lab.clock()))


async def test_compromise_ends_sessions_links_and_agents(lab: World) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    session = await _session(ada)
    await lab.api.ok("POST", "/trust/rotate-ca", json={"compromised": True})
    assert (await connector.receive(Revoke)).sessions == [session.session]
    assert (await ada.receive(EndSession)).sessions == [session.session]
    for agent in (connector, ada):
        await agent.until(lambda agent=agent: agent.down)
    trust = await lab_trust(lab)
    with pytest.raises(_core.CoreError):
        _core.verify_ticket(session.ticket, lab.running.state.keyring.ticket_verification_keys(), int(lab.clock()))
    assert trust["authorities"][0]["root_sha256"] == lab.running.state.keyring.root_sha256
    again = Agent(lab.running.address, lab.running.state.keyring.root_sha256, "client")
    lab.agents.append(again)
    assert isinstance(await again.enrol_by_password("ada", "correct horse"), Enrolled)
    await again.connect()
    again.send(WANT)
    assert (await again.receive(Refused)).code == "no_connector"


async def lab_trust(lab: World) -> dict[str, list[dict[str, str]]]:
    from tests.unit.exchange.conftest import Api

    api = Api(lab.running)
    api.token = lab.api.token
    try:
        answer: dict[str, list[dict[str, str]]] = await api.ok("GET", "/trust")
    finally:
        await api.http.aclose()
    return answer


async def test_rotations_are_in_the_audit(lab: World) -> None:
    await lab.api.ok("POST", "/trust/rotate-ca", json={})
    await lab.api.ok("POST", "/trust/rotate-ticket-key")
    actions = [entry["action"] for entry in (await lab.api.ok("GET", "/audit"))["entries"]]
    assert actions[:2] == ["ticket_key.rotate", "ca.rotate"]
