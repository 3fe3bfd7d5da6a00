"""Laws of programs that act for people: both are proved, both are recorded, and the person's word can be taken back."""

import dataclasses
import json

import pytest
from tests.unit.exchange.conftest import Agent, eventually
from tests.unit.exchange.programs.conftest import CLUSTER, PEOPLE, Issuers
from tests.unit.exchange.signalling import ADA, Transmitter, laptop_of

from cloister.model.messages.from_agent import Delegate, EndDelegation, Prove, WantSession
from cloister.model.messages.from_exchange import Catalogue, Delegated, DelegationEnded, EndSession, Enrolled, Proved, Refused
from cloister.model.messages.from_exchange import Session as Ticket
from cloister.model.records import read_record
from cloister.store.programs import list_delegations


async def _lend(person: Agent, workload: str = "trainer", seconds: int = 3600) -> Delegated:
    person.send(Delegate(ref=7, workload=workload, seconds=seconds))
    return await person.receive(Delegated)


async def _open(agent: Agent) -> Ticket:
    agent.send(WantSession(ref=1, host="db.lab.internal", port=5432, protocol="tcp"))
    return await agent.receive(Ticket)


async def test_program_with_a_delegation_reaches_what_the_rule_says_of_both(issuers: Issuers) -> None:
    lab = issuers.world
    await lab.connector()
    ada = await lab.client("ada")
    lent = await _lend(ada)
    agent = await issuers.enrol(issuers.pod(), subject=lent.delegation)
    row = await lab.api.ok("GET", f"/agents/{agent.id}")
    assert (row["principal"], row["actor"], row["delegation"]) == ("ada", "trainer", lent.id)
    assert [segment.name for segment in (await agent.receive(Catalogue)).segments] == ["postgres"]
    await _open(agent)
    session = (await lab.api.ok("GET", "/sessions"))[0]
    assert (session["principal"], session["actor"]) == ("ada", "trainer")


async def test_records_of_decisions_name_both(issuers: Issuers) -> None:
    lab = issuers.world
    await lab.connector()
    ada = await lab.client("ada")
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada)).delegation)
    await _open(agent)
    entries = (await lab.api.ok("GET", f"/records?kind=decision&client={agent.id}"))["entries"]
    assert [(entry["principal_name"], entry["actor_name"]) for entry in entries] == [("ada", "trainer")]
    files = sorted((lab.running.settings.journal / "exchange").glob("*.jsonl"))
    last = read_record(files[-1].read_bytes().splitlines()[-1])
    state = lab.running.state
    assert (state.name_of(last.principal), state.name_of(last.actor)) == ("ada", "trainer")


async def test_persons_token_that_names_the_program_is_their_word(issuers: Issuers) -> None:
    agent = await issuers.enrol(issuers.pod(), subject=issuers.person())
    row = await issuers.world.api.ok("GET", f"/agents/{agent.id}")
    assert (row["principal"], row["actor"]) == ("eve", "trainer")
    assert issuers.world.running.state.agents[agent.id].sign_in_issuer == "token/people"


async def test_case_23_persons_token_for_another_program_or_for_nobody(issuers: Issuers) -> None:
    for actor in (
        {"iss": CLUSTER, "sub": "system:serviceaccount:ml:other"},
        {"sub": "system:serviceaccount:ml:trainer"},  # without `iss`: one of the person's own issuer
        {"iss": "https://elsewhere.example", "sub": "system:serviceaccount:ml:trainer"},
        "system:serviceaccount:ml:trainer",
        {},
    ):
        token = issuers.person(may_act=actor)
        assert await issuers.refused(issuers.pod(), token) == "delegation_invalid"
    assert await issuers.refused(issuers.pod(), issuers.person(may_act=...)) == "delegation_invalid"
    both = issuers.person(act={"iss": CLUSTER, "sub": "system:serviceaccount:ml:other"})
    assert await issuers.refused(issuers.pod(), both) == "delegation_invalid"
    assert await issuers.refused(issuers.pod(), issuers.person(sub="e-2")) == "delegation_invalid"


async def test_case_17_only_an_issuer_of_people_vouches_for_people(issuers: Issuers) -> None:
    """A CI system's token is no person's word, even if it names the program."""
    actor = {"iss": CLUSTER, "sub": "system:serviceaccount:ml:trainer"}
    assert await issuers.refused(issuers.pod(), issuers.github(may_act=actor)) == "token_issuer"
    ada = await issuers.world.client("ada")
    assert await issuers.refused((await _lend(ada)).delegation) == "token_malformed"


async def test_case_18_delegation_used_by_another_program(issuers: Issuers) -> None:
    ada = await issuers.world.client("ada")
    lent = await _lend(ada, "builder")
    assert await issuers.refused(issuers.pod(), lent.delegation) == "delegation_invalid"
    assert await issuers.refused(issuers.pod("cloister", "connector"), lent.delegation) == "delegation_invalid"
    wrong = lent.delegation[:-4] + "AAAA"
    assert await issuers.refused(issuers.github(), wrong) == "delegation_invalid"
    await issuers.enrol(issuers.github(), subject=lent.delegation)


async def test_case_96_revoked_delegation_ends_sessions(issuers: Issuers) -> None:
    lab = issuers.world
    await lab.connector()
    ada = await lab.client("ada")
    lent = await _lend(ada)
    agent = await issuers.enrol(issuers.pod(), subject=lent.delegation)
    await _open(agent)
    ada.send(EndDelegation(ref=9, id=lent.id))
    await ada.receive(DelegationEnded)
    assert (await agent.receive(Refused)).code == "proof_ended"
    assert lab.running.book.of_client(agent.id) == []
    assert await issuers.refused(issuers.pod(jti="n"), lent.delegation) == "delegation_invalid"


async def test_case_96_delegation_ends_with_the_device_over_which_it_was_made(issuers: Issuers) -> None:
    lab = issuers.world
    ada = await lab.client("ada")
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada)).delegation)
    await lab.api.ok("POST", f"/agents/{ada.id}/revoke")
    assert (await agent.receive(Refused)).code == "proof_ended"


async def _borrowed(issuers: Issuers) -> tuple[Agent, Agent]:
    """Ada's client on her laptop, and a program with an open session on the word that she gave over it."""
    lab = issuers.world
    await lab.connector()
    ada = await lab.client("ada")
    await laptop_of(lab, ada)
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada)).delegation)
    await _open(agent)
    return ada, agent


async def test_case_96_delegation_says_nothing_once_the_client_that_gave_it_is_signed_out(issuers: Issuers) -> None:
    """The event names one device: nothing was said of the program's own, and ada's other clients go on."""
    lab = issuers.world
    transmitter = await Transmitter(lab).set_up()
    _, agent = await _borrowed(issuers)
    other = await issuers.enrol(issuers.pod(jti="o"), subject=(await _lend(await lab.client("ada"))).delegation)
    await _open(other)
    laptop = {"format": "complex", "user": ADA, "device": {"format": "opaque", "id": "S-1"}}
    await transmitter.say("session-revoked", subject=laptop)
    assert (await agent.receive(EndSession)).code == "signal_received"
    assert lab.running.book.of_client(agent.id) == []
    agent.send(WantSession(ref=2, host="db.lab.internal", port=5432, protocol="tcp"))
    assert (await agent.receive(Refused)).ref == 2
    assert len(lab.running.book.of_client(other.id)) == 1


@pytest.mark.parametrize("scope", ["agent", "device"])
async def test_case_96_kill_switch_on_the_client_that_gave_a_delegation_stops_the_program(issuers: Issuers, scope: str) -> None:
    lab = issuers.world
    ada, agent = await _borrowed(issuers)
    target = {"agent": ada.id, "device": "laptop"}[scope]
    switch = await lab.api.ok("POST", "/kill-switches", json={"scope": scope, "target": target, "reason": "stolen"})
    assert (await agent.receive(EndSession)).code == "kill_switch"
    agent.send(WantSession(ref=2, host="db.lab.internal", port=5432, protocol="tcp"))
    assert (await agent.receive(Refused)).code == "kill_switch"
    await lab.api.ok("DELETE", f"/kill-switches/{switch['id']}")
    await _open(agent)  # a switch ends nothing for good


async def test_case_96_disabled_device_that_gave_a_delegation_stops_the_program(issuers: Issuers) -> None:
    lab = issuers.world
    _, agent = await _borrowed(issuers)
    await lab.apply("{kind: device, name: laptop, labels: {serial: S-1}, disabled: true}")
    assert (await agent.receive(EndSession)).sessions
    agent.send(WantSession(ref=2, host="db.lab.internal", port=5432, protocol="tcp"))
    assert (await agent.receive(Refused)).code == "device_revoked"


async def test_case_12_a_new_delegation_brings_its_own_sign_in_and_leaves_nothing_of_the_old_one(issuers: Issuers) -> None:
    lab = issuers.world
    strong, weak = await lab.client("ada"), await lab.client("ada")
    agents = lab.running.state.agents
    now = int(lab.clock())
    agents[strong.id] = dataclasses.replace(agents[strong.id], signed_in_at=now - 9, sign_in_strength="hardware")
    agents[weak.id] = dataclasses.replace(agents[weak.id], signed_in_at=now - 5000, sign_in_strength="password")
    first, second = (await _lend(strong)).delegation, (await _lend(weak)).delegation

    def sign_in(id: str) -> tuple[int | None, str]:
        return agents[id].signed_in_at, agents[id].sign_in_strength

    agent, _ = await issuers.ask(issuers.pod(), subject=first)
    assert sign_in(agent.id) == (now - 9, "hardware")
    _, again = await issuers.ask(issuers.pod(jti="q"), subject=second, agent=agent)
    assert isinstance(again, Enrolled)
    assert (again.agent, sign_in(again.agent)) == (agent.id, (now - 5000, "password"))
    await agent.connect()
    for number, (word, expected) in enumerate([(first, (now - 9, "hardware")), (second, (now - 5000, "password"))]):
        agent.send(Prove(token=issuers.pod(jti=f"p-{number}"), subject_token=word))
        await agent.receive(Proved)
        assert sign_in(agent.id) == expected


async def test_case_96_persons_token_of_before_their_sign_ins_were_ended_is_no_word(issuers: Issuers) -> None:
    lab = issuers.world
    transmitter = await Transmitter(lab).set_up(users={"issuer": PEOPLE})
    stolen = issuers.person(auth_time=...)
    await transmitter.say("session-revoked", subject={"format": "iss_sub", "iss": PEOPLE, "sub": "e-1"})
    assert await issuers.refused(issuers.pod(), stolen) == "delegation_invalid"
    lab.clock.offset += 2
    await issuers.enrol(issuers.pod(jti="n"), subject=issuers.person(auth_time=...))  # of a sign-in since


async def test_case_96_program_is_let_in_by_a_persons_token_of_after_the_event_and_by_none_of_before(issuers: Issuers) -> None:
    """No token says when the person signed in. The event is told late: at first nobody here knows of it."""
    lab = issuers.world
    transmitter = await Transmitter(lab).set_up(users={"issuer": PEOPLE})
    await lab.connector()
    now = int(lab.clock())
    agent = await issuers.enrol(issuers.pod(), subject=issuers.person(auth_time=..., iat=now - 60))
    await _open(agent)
    subject = {"format": "iss_sub", "iss": PEOPLE, "sub": "e-1"}
    await transmitter.say("session-revoked", {"event_timestamp": now - 30}, subject=subject)
    assert (await agent.receive(EndSession)).sessions
    agent.send(Prove(token=issuers.pod(jti="p-1"), subject_token=issuers.person(auth_time=...)))
    await agent.receive(Proved)
    await _open(agent)


async def test_case_12_program_is_as_old_as_the_word_that_it_acts_on(issuers: Issuers) -> None:
    lab = issuers.world
    ada = await lab.client("ada")
    agents = lab.running.state.agents
    vouched = int(lab.clock()) - 60
    agents[ada.id] = dataclasses.replace(agents[ada.id], signed_in_at=0, sign_in_vouched_at=vouched)
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada)).delegation)
    assert (agents[agent.id].signed_in_at, agents[agent.id].sign_in_vouched_at) == (0, vouched)


async def test_case_96_program_ends_with_the_person(issuers: Issuers) -> None:
    lab = issuers.world
    ada = await lab.client("ada")
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada)).delegation)
    await lab.api.ok("POST", "/users/ada/disable")
    assert (await agent.receive(Refused)).code == "user_disabled"


async def test_case_96_program_for_a_person_ends_with_the_program(issuers: Issuers) -> None:
    lab = issuers.world
    ada = await lab.client("ada")
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada)).delegation)
    fields = "{kind: workload, name: trainer, issuer: east, claims: {namespace: ml, serviceaccount: trainer}, disabled: true}"
    await lab.apply(fields)
    assert (await agent.receive(Refused)).code == "user_disabled"


async def test_case_96_delegation_and_persons_token_end_by_time(issuers: Issuers) -> None:
    lab = issuers.world
    ada = await lab.client("ada")
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada, seconds=60)).delegation)
    other = await issuers.enrol(issuers.pod(jti="2"), subject=issuers.person())
    lab.clock.offset += 61
    assert (await agent.receive(Refused)).code == "proof_ended"
    assert lab.running.state.agents[other.id].revoked_at is None
    lab.clock.offset += 600
    assert (await other.receive(Refused)).code == "proof_ended"


async def test_new_proof_stands_on_the_same_delegation(issuers: Issuers) -> None:
    lab = issuers.world
    ada = await lab.client("ada")
    agent = await issuers.enrol(issuers.pod(), subject=(await _lend(ada, seconds=7200)).delegation)
    lab.clock.offset += 1800
    agent.send(Prove(token=issuers.pod()))
    await agent.receive(Proved)
    row = await lab.api.ok("GET", f"/agents/{agent.id}")
    assert (row["principal"], row["actor"]) == ("ada", "trainer")


async def test_program_lends_nothing_and_others_delegations_do_not_exist(issuers: Issuers) -> None:
    lab = issuers.world
    ada, bob = await lab.client("ada"), await lab.client("bob")
    lent = await _lend(ada)
    agent = await issuers.enrol(issuers.pod(), subject=lent.delegation)
    agent.send(Delegate(ref=1, workload="builder", seconds=600))
    assert (await agent.receive(Refused)).code == "not_authorised"
    for stranger in (agent, bob):
        stranger.send(EndDelegation(ref=2, id=lent.id))
        assert (await stranger.receive(Refused)).code == "not_found"
    for ref, workload, seconds in ((3, "nobody", 600), (4, "builder", 59), (5, "builder", 31 * 86400)):
        bob.send(Delegate(ref=ref, workload=workload, seconds=seconds))
        assert (await bob.receive(Refused)).ref == ref


async def test_delegations_are_bounded_listed_without_secrets_and_stored_hashed(issuers: Issuers) -> None:
    lab = issuers.world
    ada = await lab.client("ada")
    made = [await _lend(ada) for _ in range(lab.running.settings.limits.delegations_per_user)]
    ada.send(Delegate(ref=1, workload="trainer", seconds=600))
    assert (await ada.receive(Refused)).code == "limit_reached"
    listed = await lab.api.ok("GET", "/delegations")
    assert {row["id"] for row in listed} == {each.id for each in made}
    secret = made[0].delegation.rpartition(".")[2]
    assert secret not in json.dumps(listed)
    await lab.running.administration.forget_the_past()
    assert secret.encode() not in (lab.running.settings.data / "exchange.db").read_bytes()
    await lab.api.ok("DELETE", f"/delegations/{made[0].id}")
    await eventually(lambda: lab.running.state.delegations[made[0].id].revoked_at is not None)
    await _lend(ada)


async def test_case_33_delegations_made_at_once_and_again_and_again_are_bounded(issuers: Issuers) -> None:
    lab = issuers.world
    state, most = lab.running.state, lab.running.settings.limits.delegations_per_user
    ada = await lab.client("ada")
    for ref in range(most + 3):
        ada.send(Delegate(ref=ref, workload="trainer", seconds=3600))
    refs = {(await ada.receive(Delegated)).ref for _ in range(most)} | {(await ada.receive(Refused)).ref for _ in range(3)}
    assert len(refs) == most + 3
    for id in list(state.delegations):
        ada.send(EndDelegation(ref=7, id=id))
        await ada.receive(DelegationEnded)
        last = await _lend(ada)
    for _ in range(3):
        ada.send(EndDelegation(ref=7, id=last.id))
        await ada.receive(DelegationEnded)
        last = await _lend(ada)
    with lab.running.store.read() as connection:
        stored = list_delegations(connection)
    assert len(stored) == len(state.delegations) == 2 * most
    assert last.id in state.delegations
