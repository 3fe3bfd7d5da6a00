"""docs/identity/oidc.md, command by command, against a real OpenID provider (oidc-provider) and in a real browser. Keycloak's page and SAML's: tests/idp."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import Client, Lab, Process, free_port
from pages import Guide
from playwright.sync_api import Page
from test_sign_in import SECRET, page, pytestmark, shown_by, start_provider

__all__ = ["page", "pytestmark"]


YES = "button[type=submit]:not([name=abort]), form button:not([type])"


class Office:
    """An exchange whose administrator types, and a provider as the page wants it registered."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        lab.start_exchange()
        self.issuer = f"http://127.0.0.1:{free_port()}"
        grants = ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"]
        accounts = {"ada": {"name": "Ada Example", "groups": ["/ml-platform", "data"]}}
        self.provider = start_provider(lab, self.issuer, "cloister", accounts, ["mfa", "phrh"], grants)
        self.administrator = Client(lab, lab.directory / "administrator")
        who = lab.exchange.administrator
        assert who is not None
        words = ["admin", "sign-in", lab.exchange.login_line, "--user", who["name"], "--password-stdin"]
        assert self.administrator.run(*words, stdin=who["password"].encode()).returncode == 0

    def type(self, name: str, state: Path, words: list[str]) -> Process:
        """A command that waits for a person at a browser."""
        return self.lab.start(name, *words, "--json", environment={"CLOISTER_STATE": str(state)})

    def groups(self) -> dict[str, list[str]]:
        return {row["document"]["name"]: row["document"].get("users", []) for row in self.lab.call("GET", "/groups")}

    def close(self) -> None:
        self.provider.kill()
        self.provider.wait()
        assert self.provider.stdout is not None
        self.provider.stdout.close()


@pytest.fixture
def office(tmp_path: Path) -> Iterator[Office]:
    with Lab(tmp_path) as lab:
        made = Office(lab)
        yield made
        made.close()


def sign_in(page: Page, shown: dict[str, Any], acr: str = "") -> None:
    """Yes to whatever is asked, and Ada's name at the provider."""
    page.goto(shown["url"], wait_until="networkidle")
    for _ in range(6):
        if page.locator("#account").count():
            page.locator("#account").fill("ada")
            page.locator("input[name=acr]").fill(acr)
            page.locator("#go").click()
        elif page.locator(YES).count():
            page.locator(YES).first.click()
        else:
            return
        page.wait_for_load_state("networkidle")


def finish(process: Process) -> Any:
    assert process.popen.wait(30) == 0, process.output
    assert process.popen.stdout is not None
    return json.loads(process.popen.stdout.read())


def test_the_page_about_openid_connect_does_what_it_says(office: Office, page: Page) -> None:
    lab, guide = office.lab, Guide("oidc.md")
    line = lab.exchange.login_line
    (lab.directory / "corp.secret").write_text(SECRET)
    document = guide.document(
        issuer=f"issuer: {office.issuer}",
        client_secret_file=f"client_secret_file: {lab.directory / 'corp.secret'}\nallow_internal: [127.0.0.1]",
    )
    (lab.directory / "corp.yaml").write_text(document)
    result = office.administrator.run(*guide.take("cloister apply -f corp.yaml", line))
    assert result.returncode == 0, result.stderr

    ada = lab.directory / "ada"
    login = office.type("login", ada, [*guide.take("cloister login exchange.example.org#sha256-5f3a…", line), "--no-browser"])
    sign_in(page, shown_by(login))
    finish(login)
    assert office.groups() == {"researchers": ["corp.ada"], "corp.data": ["corp.ada"]}

    client = Client(lab, ada)
    client.proxy()
    assert client.json(*guide.take("cloister status", line))["principal"] in ("corp.ada", "Ada Example")
    step_up = office.type("step-up", ada, [*guide.take("cloister login --step-up", line), "--no-browser"])
    sign_in(page, shown_by(step_up), "mfa")
    assert finish(step_up)["strength"] == "mfa"

    headless = lab.directory / "headless"
    device = office.type("device", headless, guide.take("cloister login HOST --device", line))
    sign_in(page, shown_by(device))
    finish(device)

    admin = office.type("admin", lab.directory / "ada-admin", guide.take("cloister admin sign-in HOST --provider corp", line))
    sign_in(page, shown_by(admin))
    assert finish(admin)["user"] == "corp.ada"
    assert lab.call("GET", "/users/corp.ada")["role"] == "user"

    told = client.json(*guide.take("cloister logout", line))
    assert (told["signed_out"], told["exchange_told"]) == (True, True)
    assert told["provider_url"].startswith(f"{office.issuer}/session/end")
    assert guide.is_done()


def test_a_command_that_nobody_types_is_noticed() -> None:
    guide = Guide("oidc.md")
    with pytest.raises(AssertionError):
        guide.is_done()
    with pytest.raises(AssertionError, match="the page does not say"):
        guide.take("cloister fly", "")
    with pytest.raises(AssertionError, match="no line `altitude:`"):
        guide.document(altitude="")
