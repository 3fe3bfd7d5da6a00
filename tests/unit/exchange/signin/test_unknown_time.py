"""A provider that never says when the person signed in (no `auth_time`), and an event that ends all sign-ins (attack case 12)."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
from tests.unit.exchange.conftest import Agent, World
from tests.unit.exchange.outside import respond
from tests.unit.exchange.signalling import Transmitter, want
from tests.unit.exchange.signin.conftest import SignInLab
from tests.unit.exchange.signin.scripted import Scripted, scripted_provider

from cloister.exchange.signin.rules import merged
from cloister.identity.people import Person
from cloister.model.messages.from_exchange import Enrolled, Session
from cloister.model.reasons import Code
from cloister.store import agents as agent_rows
from cloister.store.types import Actor, AuditEntry

EVERYBODY = "kind: rule\nname: everybody-uses-jupyter\neffect: permit\nwho: {any: true}\nwhat: {segments: [jupyter]}\n"


async def client(lab: SignInLab, provider: Scripted, **claims: Any) -> Agent:
    provider.claims = claims
    browser, terminal = lab.browser(), await lab.offer()
    page = await browser.open(await provider.go(browser, terminal))
    assert page.status_code == 200, page.text
    assert isinstance(await terminal.outcome(), Enrolled)
    await terminal.agent.connect()
    return terminal.agent


async def revoke_sessions(transmitter: Transmitter, provider: Scripted) -> None:
    subject = {"format": "iss_sub", "iss": provider.service.url, "sub": "u-1"}
    await transmitter.say("session-revoked", subject=subject)


async def transmitter_of(lab: World, provider: Scripted) -> Transmitter:
    return await Transmitter(lab).set_up(users={"issuer": provider.service.url})


async def test_case_12_whoever_signs_in_again_is_let_in_again(lab: World, tmp_path: Path) -> None:
    async with scripted_provider(lab, tmp_path) as (signing, provider):
        await lab.connector()
        await lab.apply(EVERYBODY)
        transmitter = await transmitter_of(lab, provider)
        before = await client(signing, provider)
        assert isinstance(await want(before), Session)
        await revoke_sessions(transmitter, provider)
        assert (await want(before, 2)).code == Code.STEP_UP_REQUIRED
        lab.clock.offset += 2
        assert isinstance(await want(await client(signing, provider)), Session)
        assert (await want(before, 3)).code == Code.STEP_UP_REQUIRED  # the old one stays void
        await lab.apply(EVERYBODY + "when: {signed_in_within: 1h}\n")
        assert (await want(await client(signing, provider))).code == Code.STEP_UP_REQUIRED  # and nobody knows its age


async def test_case_12_token_of_before_the_event_signs_in_nobody_who_is_let_in(lab: World, tmp_path: Path) -> None:
    async with scripted_provider(lab, tmp_path) as (signing, provider):
        await lab.connector()
        await lab.apply(EVERYBODY)
        await client(signing, provider)
        await revoke_sessions(await transmitter_of(lab, provider), provider)
        event = int(lab.clock())
        lab.clock.offset += 60
        old = await client(signing, provider, iat=event - 5)
        assert (await want(old)).code == Code.STEP_UP_REQUIRED
        known = await client(signing, provider, auth_time=event - 5)  # a new token, and it says that the sign-in is old
        assert (await want(known)).code == Code.STEP_UP_REQUIRED
        ahead = await client(signing, provider, iat=int(lab.clock()) + 20)
        now = int(lab.clock())
        assert (
            lab.running.state.agents[ahead.id].sign_in_vouched_at or 0
        ) <= now  # a clock that is ahead vouches for nothing to come


async def test_it_is_written_down_when_a_provider_vouched(lab: World, tmp_path: Path) -> None:
    async with scripted_provider(lab, tmp_path) as (signing, provider):
        agent = await client(signing, provider)
        kept = lab.running.state.agents[agent.id]
        assert (kept.signed_in_at, abs((kept.sign_in_vouched_at or 0) - int(lab.clock())) < 60) == (0, True)
        with lab.running.store.read() as connection:
            stored = next(row for row in agent_rows.list_agents(connection) if row.id == agent.id)
        assert (stored.signed_in_at, stored.sign_in_vouched_at) == (0, kept.sign_in_vouched_at)


@pytest.mark.parametrize("age", [0, 100])
async def test_case_12_device_code_is_as_old_as_its_token(lab: World, tmp_path: Path, age: int) -> None:
    async with scripted_provider(lab, tmp_path) as (signing, provider):
        url = provider.service.url
        provider.describe(device_authorization_endpoint=f"{url}/device")
        await lab.apply(provider.document(display="nickname"))  # which has the exchange ask for the description again
        answer = {"device_code": "d-1", "user_code": "AB", "verification_uri": f"{url}/go", "expires_in": 60, "interval": 1}
        provider.service.answers["/device"] = respond(answer)
        issued = int(lab.clock()) - age
        provider.token = provider.mint(iat=issued)
        terminal = await signing.offer(method="device")
        assert isinstance(await terminal.outcome(), Enrolled)
        row = lab.running.state.agents[terminal.agent.id]
        assert (row.signed_in_at, row.sign_in_vouched_at) == (0, issued)


async def test_case_12_step_up_brings_its_own_time_or_leaves_the_one_of_before(lab: World) -> None:
    row = lab.running.state.agents[(await lab.client("ada")).id]
    held = dataclasses.replace(row, signed_in_at=900, sign_in_strength="mfa", sign_in_vouched_at=950)
    weaker = Person("corp", "https://idp.example", "u-1", 0, "password", vouched_at=1_000)
    assert merged(held, weaker, 3600, 1_000) == held
    for taken in (merged(held, weaker, 10, 1_000), merged(dataclasses.replace(held, signed_in_at=0), weaker, 3600, 10_000)):
        assert (taken.signed_in_at, taken.sign_in_vouched_at) == (0, 1_000)
    of_saml = merged(taken, dataclasses.replace(weaker, at=1_100, vouched_at=None), 3600, 1_100)
    assert (of_saml.signed_in_at, of_saml.sign_in_vouched_at) == (1_100, None)
    with lab.running.store.change(AuditEntry(1_000, Actor("exchange"), "agent.step_up", row.id)) as change:
        agent_rows.set_sign_in(change, taken)
        stored = next(each for each in agent_rows.list_agents(change.connection) if each.id == row.id)
    assert (stored.signed_in_at, stored.sign_in_vouched_at) == (0, 1_000)
