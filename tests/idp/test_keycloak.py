"""Keycloak, which others wrote: OpenID Connect, devices, a new sign-in, and SAML. `make test-idp`."""

import json
import re
from pathlib import Path

import httpx
from tests.idp.conftest import PASSWORD
from tests.idp.keycloak import Keycloak
from tests.unit.exchange.signin.conftest import SignInLab, Terminal
from tests.unit.exchange.signin.provider import Browser, forms_of

from cloister.model.messages.from_agent import StepUp
from cloister.model.messages.from_exchange import Enrolled, Refused, SignedIn, SignInStarted


async def walk(lab: SignInLab, started: SignInStarted, user: str, browser: Browser | None = None) -> httpx.Response:
    """Say yes, and sign in at Keycloak's own pages."""
    browser = browser or lab.browser()
    page = await browser.open(started.url)
    for _ in range(6):
        forms = forms_of(page)
        if not forms:
            break
        fields = forms[0]["fields"]
        if "password" in fields:
            page = await browser.submit(page, username=user, password=PASSWORD)
        elif "SAMLResponse" in fields:
            cookies, browser.web.cookies = (
                browser.web.cookies,
                httpx.Cookies(),
            )  # a form of another site: no cookie that is not for such
            answer = await browser.web.post(forms[0]["action"], data=fields)
            browser.web.cookies = cookies
            page = await browser._follow(answer, "\0")
        else:
            page = await browser.submit(page)
    return page


async def enrol(lab: SignInLab, user: str, provider: str = "corp", browser: Browser | None = None) -> Terminal:
    terminal = await lab.offer(provider)
    page = await walk(lab, terminal.started, user, browser)
    assert "You are signed in" in page.text, page.text
    assert isinstance(await terminal.outcome(), Enrolled)
    await terminal.agent.connect()
    return terminal


async def test_people_of_keycloak_sign_in_with_their_groups(corp: SignInLab, keycloak: Keycloak) -> None:
    ada = (await enrol(corp, "ada")).agent
    state = corp.world.running.state
    row = state.agents[ada.id]
    assert corp.user_of(ada) == "corp.ada"
    assert state.membership.groups_of("user", "corp.ada") == {"corp.science"}
    assert row.signed_in_at  # Keycloak says `auth_time` by itself
    assert row.sign_in_session
    eve = (await enrol(corp, "eve")).agent
    assert state.membership.groups_of("user", corp.user_of(eve)) == frozenset()
    assert state.parsed[row.principal or ""].issuer == keycloak.issuer  # type: ignore[union-attr]


async def test_a_device_signs_in_with_a_code_of_keycloak(corp: SignInLab) -> None:
    terminal = await corp.offer("corp", "device")
    page = await walk(corp, terminal.started, "ada")
    assert page.status_code == 200
    assert isinstance(await terminal.outcome(), Enrolled)
    await terminal.agent.connect()
    assert corp.user_of(terminal.agent) == "corp.ada"


async def test_step_up_makes_keycloak_ask_again(corp: SignInLab) -> None:
    browser = corp.browser()
    agent = (await enrol(corp, "ada", browser=browser)).agent
    before = corp.world.running.state.agents[agent.id].signed_in_at or 0
    agent.send(StepUp(ref=1))
    page = await walk(
        corp, await agent.receive(SignInStarted), "ada", browser
    )  # the same browser: its session at Keycloak is not enough
    assert "You are signed in" in page.text
    assert any("prompt=login" in url for url in browser.way)
    assert (await agent.receive(SignedIn)).at >= before


async def test_step_up_by_another_person_of_keycloak_is_refused(corp: SignInLab) -> None:
    agent = (await enrol(corp, "ada")).agent
    agent.send(StepUp(ref=1))
    assert (await walk(corp, await agent.receive(SignInStarted), "eve")).status_code == 403
    assert (await agent.receive(Refused)).code == "sign_in_mismatch"


async def test_people_of_keycloak_sign_in_by_saml(corp: SignInLab, keycloak: Keycloak, tmp_path: Path) -> None:
    descriptor = (await corp.browser().open(f"{keycloak.issuer}/protocol/saml/descriptor")).text
    certificate = re.search(r"<ds:X509Certificate>([^<]+)</ds:X509Certificate>", descriptor)
    assert certificate is not None
    (tmp_path / "acme.pem").write_text(f"-----BEGIN CERTIFICATE-----\n{certificate[1]}\n-----END CERTIFICATE-----\n")
    document = {
        "kind": "identity-provider",
        "name": "acme",
        "protocol": "saml",
        "issuer": keycloak.issuer,
        "sso_url": f"{keycloak.issuer}/protocol/saml",
        "certificate_files": [str(tmp_path / "acme.pem")],
        "username": "uid",
        "display": "displayName",
    }
    await corp.world.apply(json.dumps(document))
    agent = (await enrol(corp, "ada", "acme")).agent
    assert corp.user_of(agent) == "acme.ada"
    assert corp.world.running.state.agents[agent.id].signed_in_at
