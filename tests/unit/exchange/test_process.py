"""The main line of the exchange: enrol, link, ask, be granted, be revoked."""

import json

from tests.unit.exchange.conftest import World

from cloister import _core
from cloister.model.messages.from_agent import Revoked, WantSession
from cloister.model.messages.from_exchange import (
    Assignments,
    Catalogue,
    EndSession,
    Refused,
    Relays,
    Revoke,
    Session,
    Snapshot,
    Trust,
)


async def test_client_gets_a_session_and_loses_it_with_its_group(lab: World) -> None:
    connector, ada = await lab.connector(), await lab.client("ada")
    assert [segment.id for segment in (await connector.receive(Assignments)).segments]
    snapshot = await connector.receive(Snapshot)
    assert snapshot.sessions == []
    assert len((await connector.receive(Relays)).relays) == 1
    trust = await ada.receive(Trust)
    assert [segment.name for segment in (await ada.receive(Catalogue)).segments] == ["jupyter"]

    ada.send(WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    session = await ada.receive(Session)
    keys = lab.running.state.keyring.ticket_verification_keys()
    claims = json.loads(_core.verify_ticket(session.ticket, keys, int(lab.clock())))
    assert (claims["sid"], claims["dev"], claims["con"]) == (session.session, ada.id, [connector.id])
    assert claims["gen"] > snapshot.generation
    assert trust.ticket_keys

    await lab.api.ok("DELETE", "/groups/science/members/ada")
    revoke = await connector.receive(Revoke)
    assert revoke.sessions == [session.session]
    connector.send(Revoked(generation=revoke.generation, flows=1))
    end = await ada.receive(EndSession)
    assert (end.sessions, end.code) == ([session.session], "group_changed")
    ada.send(WantSession(ref=2, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    refused = await ada.receive(Refused)
    assert (refused.ref, refused.code) == (2, "not_found")


async def test_case_68_invisible_and_unknown_answer_alike(lab: World) -> None:
    bob = await lab.client("bob")
    answers = []
    for ref, host in enumerate(("jupyter.lab.internal", "nothing.lab.internal")):
        bob.send(WantSession(ref=0, host=host, port=8888, protocol="tcp"))
        answers.append(await bob.receive(Refused))
        assert ref in (0, 1)
    assert answers[0] == answers[1]
