"""A person at a real browser: Chromium, a real OpenID provider, and Cloister's own processes."""

import json
import os
import shutil
import subprocess
import threading
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from lab import Client, Lab, Process, Service, free_port, greet, through_socks, wait_for
from playwright.sync_api import Page, sync_playwright

IDP = Path(__file__).parents[1] / "idp"
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
MFA = "urn:test:mfa"
SECRET = "a secret of the provider that is long enough for every use of it"

if os.environ.get("CI"):
    assert CHROMIUM is not None, "no Chromium: `make test-python` installs it"
    assert (IDP / "node_modules").exists(), "no provider: `make tests/idp/node_modules`"
pytestmark = pytest.mark.skipif(
    CHROMIUM is None or not (IDP / "node_modules").exists(), reason="needs Chromium and `make tests/idp/node_modules`"
)


class Corp:
    """An exchange, a service, and a provider that knows Ada."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.web = Service(greet(b"hello"))
        lab.start_exchange()
        self.issuer = f"http://127.0.0.1:{free_port()}"
        self.provider = start_provider(lab, self.issuer, "corp", {"ada": {"name": "Ada Example", "groups": ["science"]}}, [MFA])
        lab.apply(f"""
kind: connector-group
name: lab
suffixes: ["*"]
---
kind: segment
name: web
hosts: [localhost]
ports: [{self.web.port}]
groups: [lab]
allow: [127.0.0.1, '::1']
---
kind: group
name: corp.science
---
kind: rule
name: science-uses-web-after-a-second-factor
effect: permit
who: {{groups: [corp.science]}}
what: {{segments: [web]}}
when: {{strength: mfa}}
---
kind: identity-provider
name: corp
issuer: {self.issuer}
client_id: corp
scopes: [openid, profile, groups]
groups: {{claim: groups}}
acr: {{mfa: ["{MFA}"]}}
allow_internal: [127.0.0.1]
""")
        lab.call("PUT", "/identity-providers/corp/secret", {"secret": SECRET})
        lab.start_connector("lab")

    def close(self) -> None:
        self.provider.kill()
        self.provider.wait()
        assert self.provider.stdout is not None
        self.provider.stdout.close()
        self.web.close()


def start_provider(
    lab: Lab, issuer: str, client: str, accounts: dict[str, Any], acr: list[str], grants: Sequence[str] = ("authorization_code",)
) -> "subprocess.Popen[bytes]":
    """oidc-provider with this exchange registered as `client`, as the identity provider `corp` here."""
    base = f"https://{lab.exchange.address}"
    roots = lab.directory / "roots.pem"
    roots.write_bytes(lab.api.get(f"{base}/.well-known/cloister/root.pem").content)
    registered = {
        "client_id": client,
        "client_secret": SECRET,
        "redirect_uris": [f"{base}/sign-in/callback/corp"],
        "grant_types": list(grants),
        "backchannel_logout_uri": f"{base}/sign-in/logout/corp",
        "backchannel_logout_session_required": True,
    }
    settings = {"port": int(issuer.rpartition(":")[2]), "clients": [registered], "accounts": accounts, "acr": acr}
    with open(lab.directory / "provider.log", "wb") as log:
        process = subprocess.Popen(
            ["node", "server.mjs", json.dumps(settings)],
            cwd=IDP,
            env=lab.environment({"NODE_EXTRA_CA_CERTS": str(roots)}),
            stdout=subprocess.PIPE,
            stderr=log,
        )
    assert process.stdout is not None
    while (line := process.stdout.readline()) != b"ready\n":
        assert line, "the provider did not start"
    return process


@pytest.fixture
def corp(tmp_path: Path) -> Iterator[Corp]:
    with Lab(tmp_path) as lab:
        made = Corp(lab)
        yield made
        made.close()


@pytest.fixture
def page() -> Iterator[Page]:
    """A page of a fresh Chromium. The exchange's certificate is its own CA's, which no browser knows."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        context = browser.new_context(ignore_https_errors=True)
        yield context.new_page()
        browser.close()


def shown_by(process: Process) -> dict[str, Any]:
    """Where the terminal says that the person should go, once it says so."""

    def look() -> dict[str, Any] | None:
        lines = [line for line in process.output.splitlines() if line.startswith('{"sign_in"')]
        found: dict[str, Any] | None = json.loads(lines[-1])["sign_in"] if lines else None
        return found

    return wait_for(look, "the URL of the sign-in", 30.0)


def sign_in(page: Page, url: str, code: str, acr: str = "") -> None:
    """What Ada does: compare the code, say yes, sign in."""
    page.goto(url)
    assert page.locator(".code").inner_text() == code
    page.get_by_role("button").click()
    page.locator("#account").fill("ada")
    page.locator("input[name=acr]").fill(acr)
    page.locator("#go").click()
    page.get_by_role("heading", name="You are signed in").wait_for()


def test_a_person_signs_in_with_a_browser_steps_up_and_the_flow_goes_on(corp: Corp, page: Page) -> None:
    lab, client = corp.lab, Client(corp.lab, corp.lab.directory / "ada")
    violations: list[str] = []
    page.on("console", lambda message: violations.append(message.text) if "Content Security Policy" in message.text else None)
    login = lab.start(
        "login", "login", lab.exchange.login_line, "--no-browser", "--json", environment={"CLOISTER_STATE": str(client.state)}
    )
    started = shown_by(login)
    sign_in(page, started["url"], started["code"])
    assert login.popen.wait(20) == 0, login.output

    proxy = client.proxy()
    assert client.json("status")["principal"] in ("corp.ada", "Ada Example")
    answers: list[bytes] = []

    def try_to_reach() -> bytes | None:
        with through_socks(proxy.port, "localhost", corp.web.port) as flow:
            flow.sendall(b"GET / HTTP/1.0\r\n\r\n")
            return flow.recv(65536) or None

    def keep_trying() -> None:
        while not answers:
            try:
                if (answer := try_to_reach()) is not None:
                    answers.append(answer)
            except (OSError, AssertionError):
                stop.wait(0.2)
                if stop.is_set():
                    return

    stop = threading.Event()
    waiting = threading.Thread(target=keep_trying, daemon=True)
    waiting.start()
    asked = wait_for(lambda: client.json("status")["sign_in"], "the client to say where to sign in again", 30.0)
    assert not answers
    sign_in(page, asked["url"], asked["code"], MFA)
    waiting.join(30)
    stop.set()
    assert answers
    assert b"hello" in answers[0]
    assert any("signed in again" in notice["text"] for notice in client.json("status")["notices"])
    assert violations == []

    result = client.run("logout", "--json", seconds=40)
    told = json.loads(result.stdout)
    assert told["signed_out"] is True
    assert told["exchange_told"] is True
    assert told["provider_url"].startswith(f"{corp.issuer}/session/end")


def test_a_page_shows_a_hostile_device_name_as_text(corp: Corp, page: Page) -> None:
    """Case 94, in a browser: what would run anywhere else is only read here."""
    lab = corp.lab
    answer = lab.api.post("/sign-in/provider", json={"device": "<img src=x onerror=document.title='owned'><script>1</script>"})
    page.goto(answer.json()["url"])
    assert "<img src=x" in page.locator("dl").inner_text()
    assert page.title() == "Is this your sign-in? - Cloister"
    assert page.locator("img").count() == 0
    framing = page.context.new_page()
    framing.set_content(f'<iframe src="{answer.json()["url"]}"></iframe>')
    framing.wait_for_load_state("networkidle")
    assert all("Is this your sign-in" not in frame.title() for frame in framing.frames[1:])
