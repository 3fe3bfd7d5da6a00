"""Attacks on the sign-in (catalogue: 1, 3, 4, 6, 9, 12, 15, 17, 94). Nothing is created, and the attempt is in the audit."""

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from tests.unit.exchange.conftest import World, eventually
from tests.unit.exchange.signin.conftest import SignInLab, Terminal
from tests.unit.exchange.signin.scripted import Scripted, scripted_provider
from tests.unit.identity.tokens.minting import rsa

from cloister.exchange.errors import Refusal
from cloister.exchange.signin.browsers import COOKIE, Browsers
from cloister.exchange.signin.machine import LIFE_SECONDS
from cloister.exchange.signin.stepup import StepUps
from cloister.exchange.signin.types import Provider
from cloister.identity.oidc.request import challenge
from cloister.identity.people import Person
from cloister.model.messages.from_agent import StepUp, WantSession
from cloister.model.messages.from_exchange import EndSession, Enrolled, Refused, Session, SignInStarted
from cloister.model.providers import IdentityProvider
from cloister.store import sessions
from cloister.store.programs import count_presented
from cloister.store.types import Actor, Agent
from cloister.trust.passwords import hash_secret


@pytest.fixture
async def lying(lab: World, tmp_path: Path) -> AsyncIterator[tuple[SignInLab, Scripted]]:
    async with scripted_provider(lab, tmp_path) as made:
        yield made


def clients(lab: SignInLab) -> int:
    return sum(agent.role == "client" for agent in lab.world.running.state.agents.values())


async def refused(lab: SignInLab, provider: Scripted, code: str, **claims: Any) -> None:
    """A sign-in with these claims is refused, in the terminal, on the page and in the audit; no user and no agent comes of it."""
    users, agents, rows = len(lab.world.running.state.documents), clients(lab), len(await lab.audit("sign_in"))
    provider.claims = claims
    browser, terminal = lab.browser(), await lab.offer()
    page = await browser.open(await provider.go(browser, terminal))
    assert page.status_code == 403
    assert "did not work" in page.text
    answer = await terminal.outcome()
    assert isinstance(answer, Refused)
    assert answer.code == code
    assert (len(lab.world.running.state.documents), clients(lab)) == (users, agents)
    seen = await lab.audit("sign_in")
    assert len(seen) == rows + 1
    assert seen[0]["code"] == code or seen[-1]["code"] == code
    provider.claims = {}


async def accepted(lab: SignInLab, provider: Scripted, **claims: Any) -> Enrolled:
    provider.claims = claims
    browser, terminal = lab.browser(), await lab.offer()
    page = await browser.open(await provider.go(browser, terminal))
    assert page.status_code == 200, page.text
    answer = await terminal.outcome()
    assert isinstance(answer, Enrolled)
    return answer


async def test_the_scripted_provider_is_believed_when_it_does_not_lie(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    await accepted(lab, provider)
    assert provider.asked["code_challenge_method"] == ["S256"]
    assert provider.asked["code_challenge"] == [challenge(provider.posted[0]["code_verifier"][0])]
    assert provider.posted[0]["redirect_uri"] == provider.asked["redirect_uri"]


async def test_case_01_tokens_without_a_good_signature_sign_nobody_in(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    provider.header = {"alg": "none"}
    await refused(lab, provider, "token_algorithm")
    provider.header = {"kid": "unknown"}
    await refused(lab, provider, "token_key_unknown")
    provider.header = {}
    header, payload, _ = provider.mint().split(".")
    for token, code in ((f"{header}.{payload}.", "token_malformed"), (f"{header}.{payload}.AAAA", "token_signature")):
        provider.token = token
        await refused(lab, provider, code)


@pytest.mark.parametrize(
    ("claims", "code"),
    [
        ({"iss": "https://other.example"}, "token_issuer"),
        ({"aud": "another"}, "token_audience"),
        ({"aud": ["cloister", "another"]}, "token_audience"),  # several audiences, and no `azp` that says it is for us
        ({"aud": ["cloister", "another"], "azp": "another"}, "token_audience"),
        ({"azp": "another"}, "token_audience"),
        ({"azp": 1}, "token_audience"),
        ({"exp": 1}, "token_expired"),
        ({"iat": 1}, "token_expired"),
        ({"sub": ""}, "token_claim"),
        ({"sid": "x" * 300}, "token_claim"),
        ({"amr": "mfa"}, "token_claim"),
        ({"events": {}}, "token_type"),
        ({"nonce": "of another sign-in"}, "token_claim"),
        ({"nonce": None}, "token_claim"),
        ({"nonce": ["x"]}, "token_claim"),
    ],
)
async def test_case_03_a_right_signature_is_not_enough(
    lying: tuple[SignInLab, Scripted], claims: dict[str, Any], code: str
) -> None:
    lab, provider = lying
    await refused(lab, provider, code, **claims)


async def test_case_04_a_token_of_an_earlier_sign_in_is_refused(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    await accepted(lab, provider)
    provider.token = provider.given[0]
    await refused(lab, provider, "token_claim")


async def test_case_04_a_callback_works_once(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    browser, terminal = lab.browser(), await lab.offer()
    callback = await provider.go(browser, terminal)
    assert (await browser.open(callback)).status_code == 200
    assert isinstance(await terminal.outcome(), Enrolled)
    for who in (browser, lab.browser()):
        assert (await who.open(callback)).status_code == 403
    assert len(provider.posted) == 1  # the code was not even tried again
    assert [row["code"] for row in await lab.audit("sign_in")].count("sign_in_mismatch") == 2


@pytest.mark.parametrize(
    "answer",
    [
        {"state": "-"},
        {"state": ""},
        {"state": "x"},
        {"state": "a&state=b"},
        {"code": "-"},
        {"code": ""},
        {"error": "access_denied"},
    ],
)
async def test_case_04_an_answer_that_does_not_fit_is_refused(lying: tuple[SignInLab, Scripted], answer: dict[str, str]) -> None:
    lab, provider = lying
    provider.answer = answer
    browser, terminal = lab.browser(), await lab.offer()
    assert (await browser.open(await provider.go(browser, terminal))).status_code == 403
    assert provider.posted == []
    assert clients(lab) == 0
    assert await lab.audit("sign_in")


async def test_case_04_state_from_another_browser_is_refused_and_ends_the_attempt(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    browser, terminal = lab.browser(), await lab.offer()
    callback = await provider.go(browser, terminal)
    assert (await lab.browser().open(callback)).status_code == 403
    answer = await terminal.outcome()
    assert isinstance(answer, Refused)
    assert answer.code == "sign_in_mismatch"
    assert (await browser.open(callback)).status_code == 403
    assert provider.posted == []


async def test_case_04_answer_of_another_provider_is_refused(lying: tuple[SignInLab, Scripted]) -> None:
    """Mix-up (RFC 9207, RFC 9700 §4.4): the provider names itself, and each has a redirect URI of its own."""
    lab, provider = lying
    provider.answer = {"iss": "https://other.example"}
    await refused(lab, provider, "token_issuer")
    provider.answer = {"iss": provider.service.url}
    await accepted(lab, provider)
    provider.describe(authorization_response_iss_parameter_supported=True)
    await lab.world.apply(provider.document(username="name"))  # another document: it is asked anew
    provider.answer = {}
    await refused(lab, provider, "token_issuer")
    browser, terminal = lab.browser(), await lab.offer()
    callback = (await provider.go(browser, terminal)).replace("/callback/scripted", "/callback/other")
    assert (await browser.open(callback)).status_code == 403


async def test_case_04_a_code_of_somebody_else_cannot_be_slipped_in(corp: SignInLab) -> None:
    """Code injection at a real provider: the verifier is another sign-in's, so the code is worth nothing (PKCE)."""
    callbacks = []
    ada, eve = corp.browser(), corp.browser()
    terminals = []
    for browser, account in ((ada, "ada"), (eve, "eve")):
        terminal = await corp.offer()
        page = await browser.submit(await browser.open(terminal.started.url))
        answer = await browser.submit(page, account=account, until="/sign-in/callback/")
        callbacks.append(answer.headers["location"])
        terminals.append(terminal)
    code_of_ada = callbacks[0].split("code=")[1].split("&")[0]
    code_of_eve = callbacks[1].split("code=")[1].split("&")[0]
    assert (await eve.open(callbacks[1].replace(code_of_eve, code_of_ada))).status_code == 403
    outcome = await terminals[1].outcome()
    assert isinstance(outcome, Refused)
    assert outcome.code == "sign_in_failed"
    assert clients(corp) == 0


@pytest.mark.parametrize("forged", ["x", "x.y", "", ".", "é", "a" * 300, "admin." + "0" * 64])
async def test_case_06_made_up_cookies_count_as_none(lying: tuple[SignInLab, Scripted], forged: str) -> None:
    lab, provider = lying
    browser, terminal = lab.browser(), await lab.offer()
    callback = await provider.go(browser, terminal)
    browser.web.cookies.clear()
    headers = {"cookie": f"{COOKIE}={forged}".encode()}
    assert (await browser.web.get(callback, headers=headers)).status_code == 403
    assert clients(lab) == 0


def test_case_06_cookies_of_another_deployment_or_purpose_are_refused() -> None:
    ours, theirs = Browsers(), Browsers()
    id, cookie = ours.make()
    assert ours.read(cookie) == id
    assert theirs.read(cookie) is None
    assert ours.read(f"{id}.{ours.form_token(id, '')}") is None
    assert ours.read(f"{id}x.{cookie.partition('.')[2]}") is None
    assert ours.is_form_token(id, "a", ours.form_token(id, "a"))
    assert not ours.is_form_token(id, "b", ours.form_token(id, "a"))
    assert not ours.is_form_token("other", "a", ours.form_token(id, "a"))
    assert not ours.is_form_token(id, "a", cookie.partition(".")[2])


async def test_case_06_a_cookie_given_twice_counts_as_none(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    browser, terminal = lab.browser(), await lab.offer()
    callback = await provider.go(browser, terminal)
    value = browser.web.cookies[COOKIE]
    browser.web.cookies.clear()
    assert (await browser.web.get(callback, headers={"cookie": f"{COOKIE}={value}; {COOKIE}={value}"})).status_code == 403


async def test_case_09_a_provider_that_is_somebody_else_is_refused_when_it_is_configured(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    for changes, code in (
        ({"issuer": "https://other.example"}, "provider_mismatch"),
        ({"issuer": provider.service.url, "token_endpoint": "https://evil.example/token"}, "provider_mismatch"),
        ({"token_endpoint": f"{provider.service.url}/token", "jwks_uri": "http://169.254.169.254/jwks"}, "url_forbidden"),
    ):
        provider.describe(**changes)
        answer = await lab.world.api.call("POST", "/documents", content=provider.document(display="nickname"))
        assert answer.json()["code"] == code
    provider.describe(jwks_uri=f"{provider.service.url}/jwks")
    await lab.world.apply(provider.document(display="nickname"))


async def test_case_12_strength_that_is_not_mapped_is_a_password(lab: World, tmp_path: Path) -> None:
    async with scripted_provider(lab, tmp_path, acr={"mfa": ["gold"]}, amr={"hardware": ["hwk"]}) as (signing, provider):
        for claims, strength in (
            ({"acr": "platinum", "amr": ["mfa", "otp", "hardware"]}, "password"),
            ({"acr": "gold"}, "mfa"),
            ({"acr": "Gold"}, "password"),
            ({"acr": ["gold"]}, "password"),
            ({"acr": "hwk"}, "password"),
            ({"amr": ["pwd", "hwk"]}, "hardware"),
            ({"amr": ["gold"]}, "password"),
            ({}, "password"),
        ):
            enrolled = await accepted(signing, provider, **claims)
            assert lab.running.state.agents[enrolled.agent].sign_in_strength == strength, claims


async def test_case_12_an_old_auth_time_is_refused_where_an_age_is_asked_for(lab: World, tmp_path: Path) -> None:
    async with scripted_provider(lab, tmp_path, max_age="1h") as (signing, provider):
        now = int(lab.clock())
        await refused(signing, provider, "token_claim")
        assert provider.asked["max_age"] == ["3600"]
        for value in ("x", None, True, -1, now + 300):
            await refused(signing, provider, "token_claim", auth_time=value)
        await refused(signing, provider, "token_expired", auth_time=now - 3700)
        enrolled = await accepted(signing, provider, auth_time=now - 3000)
        assert lab.running.state.agents[enrolled.agent].signed_in_at == now - 3000


async def test_case_15_a_sign_in_is_over_after_its_time(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    browser, terminal = lab.browser(), await lab.offer()
    callback = await provider.go(browser, terminal)
    lab.world.clock.offset += LIFE_SECONDS
    assert (await browser.open(callback)).status_code == 403
    assert (await browser.open(terminal.started.url)).status_code == 404
    assert clients(lab) == 0


async def test_case_15_a_terminal_that_has_gone_gets_nobody_signed_in(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    browser, terminal = lab.browser(), await lab.offer()
    callback = await provider.go(browser, terminal)
    terminal.agent.core.close_link(terminal.agent.link, "stopped")
    while (await browser.web.get(terminal.started.url)).status_code != 404:
        pass
    assert (await browser.open(callback)).status_code == 403
    assert provider.posted == []
    assert clients(lab) == 0


async def test_case_15_eve_cannot_take_over_what_ada_has_begun(lying: tuple[SignInLab, Scripted]) -> None:
    """Once a browser went on with an attempt, no other browser can, not even with the link."""
    lab, provider = lying
    ada, eve, terminal = lab.browser(), lab.browser(), await lab.offer()
    callback = await provider.go(ada, terminal)
    page = await eve.open(terminal.started.url)
    assert (await eve.submit(page)).status_code == 403
    assert (await ada.open(callback)).status_code == 200


async def test_case_15_going_back_and_saying_yes_again_makes_the_first_answer_worthless(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    browser, terminal = lab.browser(), await lab.offer()
    first = await provider.go(browser, terminal)
    second = await provider.go(browser, terminal)
    assert (await browser.open(first)).status_code == 403
    assert (await browser.open(second)).status_code == 200


async def test_case_17_a_logout_token_signs_nobody_in(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    event = {"http://schemas.openid.net/event/backchannel-logout": {}}
    await refused(lab, provider, "token_type", events=event)
    provider.header = {"typ": "logout+jwt"}
    await refused(lab, provider, "token_type")


async def test_case_12_a_logout_token_is_good_once_whatever_the_exchange_forgets(lying: tuple[SignInLab, Scripted]) -> None:
    """Again, it would end the sign-ins made since. What was spent is in the store: a restart gives no second use."""
    lab, provider = lying
    provider.header = {"typ": "logout+jwt"}
    token = provider.mint(jti="j-1", events={"http://schemas.openid.net/event/backchannel-logout": {}})
    provider.header = {}

    async def post(text: str) -> int:
        return (await lab.world.api.http.post("/sign-in/logout/scripted", data={"logout_token": text})).status_code

    first = await accepted(lab, provider)
    assert await post(token) == 200
    agents = lab.world.running.state.agents
    assert agents[first.agent].revoked_at is not None
    lab.world.clock.offset += 1  # in the very second of a logout nobody knows what was first
    since = await accepted(lab, provider)
    assert await post(token) == 400
    assert agents[since.agent].revoked_at is None
    assert (await lab.audit("sign_out"))[0]["code"] == "token_replayed"
    with lab.world.running.store.read() as connection:
        assert count_presented(connection) == 1


async def logout(lab: SignInLab, provider: Scripted, jti: str, **claims: Any) -> int:
    provider.header = {"typ": "logout+jwt"}
    token = provider.mint(jti=jti, events={"http://schemas.openid.net/event/backchannel-logout": {}}, **claims)
    provider.header = {}
    return (await lab.world.api.http.post("/sign-in/logout/scripted", data={"logout_token": token})).status_code


async def answer_for_the_api(lab: SignInLab, provider: Scripted) -> str:
    """A terminal of an administrator's, whose person has signed in; the secret that it waits with."""
    offer = (await lab.world.api.http.post("/api/v1/sign-in/provider", json={})).json()
    started = SignInStarted(url=offer["url"], code=offer["code"], expires=offer["expires_at"])
    browser = lab.browser()
    page = await browser.open(await provider.go(browser, Terminal(lab.world.agent("client"), started)))
    assert page.status_code == 200, page.text
    return str(offer["secret"])


async def test_case_12_logout_ends_the_tokens_of_a_person_who_has_no_client(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    http = lab.world.api.http
    answer = await http.post("/api/v1/sign-in/wait", json={"secret": await answer_for_the_api(lab, provider)})
    headers = {"authorization": f"Bearer {answer.json()['token']}"}
    assert (await http.get("/api/v1/me", headers=headers)).status_code == 200
    assert await logout(lab, provider, "j-1") == 200
    assert (await http.get("/api/v1/me", headers=headers)).status_code == 401


@pytest.mark.parametrize("said", [{}, {"sid": "s-1"}, {"sid": "s-1", "sub": ...}])
async def test_case_12_a_sign_in_that_was_ended_while_its_terminal_did_not_look_gives_no_token(
    lying: tuple[SignInLab, Scripted], said: dict[str, Any]
) -> None:
    lab, provider = lying
    provider.claims = {"sid": "s-1"}
    secret = await answer_for_the_api(lab, provider)
    assert await logout(lab, provider, "j-1", **said) == 200
    answer = await lab.world.api.http.post("/api/v1/sign-in/wait", json={"secret": secret})
    assert answer.json()["code"] == "signed_out"


async def test_case_12_a_sign_in_that_is_ended_while_it_is_written_down_lets_nobody_in(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    provider.claims = {"sid": "s-1"}
    changes = lab.world.running.changes
    browser, terminal = lab.browser(), await lab.offer()
    callback = await provider.go(browser, terminal)
    async with changes._lock:  # somebody else's long change
        page = asyncio.ensure_future(browser.open(callback))
        await eventually(lambda: changes._lock._waiters)
        leaving = asyncio.ensure_future(logout(lab, provider, "j-1", sid="s-1"))
        await eventually(lambda: len(changes._lock._waiters or ()) == 2)
    assert await leaving == 200
    assert (await page).status_code == 403
    answer = await terminal.outcome()
    assert isinstance(answer, Refused)
    assert answer.code == "signed_out"
    agents = [agent for agent in lab.world.running.state.agents.values() if agent.role == "client"]
    assert [agent.revoked_at is None for agent in agents] == [False]


async def test_case_33_terminals_whose_people_never_come_leave_nothing_behind(
    lying: tuple[SignInLab, Scripted], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whoever begins sign-ins and lets each fail at once has always room for the next one."""
    monkeypatch.setattr("cloister.exchange.signin.service.MAX_WAITING", 3)
    lab, provider = lying
    http, secrets = lab.world.api.http, []
    provider.answer = {"error": "access_denied", "code": "-"}
    for _ in range(4):
        offer = (await http.post("/api/v1/sign-in/provider", json={})).json()
        secrets.append(offer["secret"])
        started = SignInStarted(url=offer["url"], code=offer["code"], expires=offer["expires_at"])
        browser = lab.browser()
        callback = await provider.go(browser, Terminal(lab.world.agent("client"), started))
        assert (await browser.open(callback)).status_code == 403
    answers = [(await http.post("/api/v1/sign-in/wait", json={"secret": secret})).json()["code"] for secret in secrets]
    assert answers == ["sign_in_expired", "sign_in_failed", "sign_in_failed", "sign_in_failed"]
    gc.collect()
    assert "never retrieved" not in caplog.text


async def test_case_12_a_token_that_is_written_down_while_the_person_is_disabled_is_no_token(
    lying: tuple[SignInLab, Scripted], monkeypatch: pytest.MonkeyPatch
) -> None:
    lab, provider = lying
    http, secrets = lab.world.api.http, [await answer_for_the_api(lab, provider) for _ in range(2)]
    user = (await http.post("/api/v1/sign-in/wait", json={"secret": secrets[0]})).json()["user"]
    begun, disk, made = threading.Event(), threading.Event(), asyncio.Event()
    end = sessions.delete_api_tokens_of

    def end_slowly(*arguments: Any) -> None:
        end(*arguments)
        begun.set()
        disk.wait()

    def make_secret() -> str:
        made.set()
        return "made-while-the-other-one-is-written"

    monkeypatch.setattr(sessions, "delete_api_tokens_of", end_slowly)
    monkeypatch.setattr("cloister.exchange.api_tokens.make_secret", make_secret)
    ending = asyncio.create_task(lab.world.api.ok("POST", f"/users/{user}/disable"))
    try:
        await asyncio.to_thread(begun.wait)
        waiting = asyncio.create_task(http.post("/api/v1/sign-in/wait", json={"secret": secrets[1]}))
        await made.wait()
    finally:
        disk.set()
    await ending
    assert (await waiting).json()["code"] == "user_disabled"
    with lab.world.running.store.read() as connection:
        assert sessions.find_api_token(connection, hash_secret("cl-api-made-while-the-other-one-is-written"), 0) is None


async def test_case_15_a_step_up_whose_sign_in_is_ended_meanwhile_ends_the_client(lying: tuple[SignInLab, Scripted]) -> None:
    """The provider ends a session that this client is about to have: it knows of no later moment to say so."""
    lab, provider = lying
    changes, agents = lab.world.running.changes, lab.world.running.state.agents
    browser, terminal = lab.browser(), await lab.offer()
    assert (await browser.open(await provider.go(browser, terminal))).status_code == 200
    enrolled, agent = await terminal.outcome(), terminal.agent
    assert isinstance(enrolled, Enrolled)
    await agent.connect()
    provider.claims = {"sid": "s-2", "auth_time": int(lab.world.clock())}
    agent.send(StepUp(ref=7))
    callback = await provider.go(browser, Terminal(agent, await agent.receive(SignInStarted)))
    async with changes._lock:  # somebody else's long change
        page = asyncio.ensure_future(browser.open(callback))
        await eventually(lambda: changes._lock._waiters)
        leaving = asyncio.ensure_future(logout(lab, provider, "j-1", sid="s-2"))
        await eventually(lambda: len(changes._lock._waiters or ()) == 2)
    assert await leaving == 200
    assert (await page).status_code == 403
    assert agents[enrolled.agent].revoked_at is not None


async def test_case_15_a_client_that_is_revoked_while_a_step_up_waits_stays_revoked(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    running = lab.world.running
    agents = running.state.agents
    row = agents[(await accepted(lab, provider)).agent]
    found = next((id, item) for id, item in running.state.parsed.items() if isinstance(item, IdentityProvider))
    person = Person("scripted", found[1].issuer, "u-1", int(lab.world.clock()), "password")

    def put(agent: Agent) -> None:
        agents[agent.id] = agent

    step_ups = StepUps(running.state, running.changes, lambda _: "password", put, lab.world.clock)
    _, outcome = await asyncio.gather(
        running.administration.revoke_agent(Actor("admin"), row.id),
        step_ups.finish(row.id, Provider(*found), person, row.principal, "password", 7, ""),
        return_exceptions=True,
    )
    assert isinstance(outcome, Refusal)
    assert agents[row.id].revoked_at is not None
    assert agents[row.id].sign_in_vouched_at == row.sign_in_vouched_at


# ------------------------------------------------------------------ groups that stand elsewhere, or are somebody else's


@pytest.mark.parametrize("said", [{"_claim_names": {"groups": "src1"}, "_claim_sources": {"src1": {}}}, {"hasgroups": True}])
async def test_case_10_groups_that_stand_elsewhere_are_not_no_groups(
    lying: tuple[SignInLab, Scripted], said: dict[str, Any]
) -> None:
    """A rule that forbids a group would not see who is in it."""
    lab, provider = lying
    await lab.world.apply(provider.document(groups={"claim": "groups"}))
    await refused(lab, provider, "token_claim", **said)


async def test_case_07_a_provider_under_the_name_of_another_one_vouches_for_none_of_its_sign_ins(
    lying: tuple[SignInLab, Scripted],
) -> None:
    lab, provider = lying
    await lab.world.apply("""
{kind: rule, name: whoever-signs-in-there, effect: permit, who: {any: true}, what: {segments: [jupyter]}, when: {issuers: [scripted]}}
""")
    await lab.world.connector()
    browser, terminal = lab.browser(), await lab.offer()
    assert (await browser.open(await provider.go(browser, terminal))).status_code == 200
    assert isinstance(await terminal.outcome(), Enrolled)
    await terminal.agent.connect()
    ask = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")
    terminal.agent.send(ask)
    session = await terminal.agent.receive(Session)
    await lab.world.apply(provider.document(scopes=["openid", "profile"]))
    terminal.agent.send(ask)
    assert (await terminal.agent.receive(Session)).session == session.session  # negative control: it is the same provider
    await lab.world.apply(provider.document(issuer="https://127.0.0.1:9"))
    assert (await terminal.agent.receive(EndSession)).sessions == [session.session]
    terminal.agent.send(ask)
    assert (await terminal.agent.receive(Refused)).code == "condition_failed"


async def test_case_07_below_a_longer_prefix_groups_are_another_providers(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    for name in ("scripted", "scripted.eu"):
        await lab.world.apply(provider.document(name=name, groups={"claim": "groups"}))
    await lab.world.apply("{kind: group, name: scripted.eu.admins}\n---\n{kind: group, name: scripted.staff}")
    provider.claims = {"groups": ["eu.admins", "staff"], "preferred_username": "ada"}
    browser, terminal = lab.browser(), await lab.offer("scripted")
    assert (await browser.open(await provider.go(browser, terminal))).status_code == 200
    assert lab.world.running.state.membership.groups_of("user", "scripted.ada") == {"scripted.staff"}


# ------------------------------------------------------------------ case 94

HOSTILE = "<script>alert(1)</script>\"'><img src=x onerror=alert(1)>&amp;\u202e"


async def test_case_94_what_comes_from_outside_is_escaped(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    terminal = await lab.offer(hostname=HOSTILE)
    page = await lab.browser().open(terminal.started.url)
    assert "<script" not in page.text
    assert "<img" not in page.text
    assert "\u202e" not in page.text
    assert "&lt;script&gt;" in page.text
    provider.answer = {"error": "%3Cscript%3Ealert(1)%3C/script%3E"}
    browser = lab.browser()
    page = await browser.open(await provider.go(browser, await lab.offer()))
    assert "<script" not in page.text


async def test_case_94_pages_forbid_script_framing_and_foreign_forms(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    terminal = await lab.offer()
    page = await lab.browser().open(terminal.started.url)
    policy = page.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "frame-ancestors 'none'" in policy
    assert f"form-action 'self' {provider.service.url};" in policy
    assert "unsafe" not in policy
    assert "script-src" not in policy
    assert page.headers["x-frame-options"] == "DENY"
    assert page.headers["referrer-policy"] == "no-referrer"
    assert page.headers["cache-control"] == "no-store"
    assert "<script" not in page.text
    assert page.headers["set-cookie"].startswith(COOKIE)
    for word in ("Secure", "HttpOnly", "Path=/", "SameSite=lax"):
        assert word in page.headers["set-cookie"]
    assert "Domain" not in page.headers["set-cookie"]


async def test_case_94_a_form_of_another_site_is_refused(lying: tuple[SignInLab, Scripted]) -> None:
    lab, provider = lying
    terminal, browser = await lab.offer(), lab.browser()
    await browser.open(terminal.started.url)
    stranger = lab.browser()
    foreign = (await stranger.open(terminal.started.url)).text.split('name="token" value="')[1].split('"')[0]
    for fields in ({"provider": "scripted"}, {"provider": "scripted", "token": ""}, {"provider": "scripted", "token": foreign}):
        answer = await browser.web.post(terminal.started.url, data=fields)
        assert answer.status_code == 403
    body = b'{"provider": "scripted"}'
    assert (await browser.web.post(terminal.started.url, content=body, headers={"content-type": "text/plain"})).status_code == 403
    assert provider.asked == {}


async def test_case_94_no_redirect_leads_anywhere_but_to_the_provider(lying: tuple[SignInLab, Scripted]) -> None:
    lab, _ = lying
    terminal, browser = await lab.offer(), lab.browser()
    page = await browser.open(terminal.started.url)
    token = page.text.split('name="token" value="')[1].split('"')[0]
    for name in ("https://evil.example", "//evil.example", "scripted\r\nlocation: https://evil.example", "../scripted", ""):
        answer = await browser.web.post(terminal.started.url, data={"provider": name, "token": token})
        assert answer.status_code == 403
        assert "location" not in answer.headers
    for path in ("/sign-in/x?next=https://evil.example", "/sign-in/callback/scripted?redirect_uri=https://evil.example"):
        answer = await browser.web.get(terminal.started.url.split("/sign-in/")[0] + path)
        assert "location" not in answer.headers


async def test_opening_the_page_changes_nothing(lying: tuple[SignInLab, Scripted]) -> None:
    """Whatever fetches a link before the person does is not the browser that the sign-in belongs to."""
    lab, provider = lying
    terminal, browser = await lab.offer(), lab.browser()
    for _ in range(3):
        await lab.browser().open(terminal.started.url)
    assert (await browser.open(await provider.go(browser, terminal))).status_code == 200


async def test_terminal_and_page_show_the_same_code(lying: tuple[SignInLab, Scripted]) -> None:
    lab, _ = lying
    terminal = await lab.offer(hostname="ada-laptop")
    page = await lab.browser().open(terminal.started.url)
    assert terminal.started.code in page.text
    assert "ada-laptop" in page.text
    other = await lab.offer()
    assert other.started.code not in page.text


async def test_attempts_of_one_source_are_bounded(lying: tuple[SignInLab, Scripted], monkeypatch: pytest.MonkeyPatch) -> None:
    from cloister.exchange.signin import attempts

    lab, _ = lying
    monkeypatch.setattr(attempts, "MAX_PER_SOURCE", 2)
    terminals = [await lab.offer() for _ in range(2)]
    agent = lab.world.agent("client")
    from cloister.model.messages.from_agent import EnrolBySignIn

    answer = await agent.ask_enrolment(EnrolBySignIn(csr=agent.csr()))
    assert isinstance(answer, Refused)
    assert answer.code == "too_many_attempts"
    terminals[0].agent.core.close_link(terminals[0].agent.link, "stopped")
    browser = lab.browser()
    while (await browser.web.get(terminals[0].started.url)).status_code != 404:
        pass
    await lab.offer()


def test_keys_of_the_scripted_provider_are_its_own() -> None:
    assert rsa("scripted").kid == "scripted"
