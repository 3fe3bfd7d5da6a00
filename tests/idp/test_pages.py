"""docs/identity/keycloak.md and saml.md, command by command, against a real Keycloak and in a real browser. The page about OpenID Connect: tests/e2e."""

import json
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lab import Client, Lab, agent_id, wait_for
from pages import Guide
from playwright.sync_api import Page, sync_playwright
from tests.idp.browsing import walk
from tests.idp.conftest import PASSWORD, SECRET
from tests.idp.keycloak import REALM, Keycloak, oidc_client, saml_client

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: `make test-idp` installs it")
HERE = "allow_internal: [127.0.0.1]"


class Office:
    """An exchange whose administrator types, registered at Keycloak as the pages say."""

    def __init__(self, lab: Lab, keycloak: Keycloak) -> None:
        self.lab, self.keycloak = lab, keycloak
        lab.start_exchange()
        base = f"https://{lab.exchange.address}"
        self.clients = [keycloak.add_client(client) for client in (oidc_client(base, SECRET), saml_client(base))]
        self.administrator = Client(lab, lab.directory / "administrator")
        who = lab.exchange.administrator
        assert who is not None
        words = ["admin", "sign-in", lab.exchange.login_line, "--user", who["name"], "--password-stdin"]
        assert self.administrator.run(*words, stdin=who["password"].encode()).returncode == 0

    def apply(self, name: str, document: str, words: list[str]) -> None:
        (self.lab.directory / name).write_text(document)
        result = self.administrator.run(*words)
        assert result.returncode == 0, result.stderr.decode()

    def log_in(self, page: Page, who: str, words: list[str]) -> str:
        """`cloister login` as this person; the name of the user that they are here."""
        state = self.lab.directory / f"{who}-{len(self.lab.processes)}"
        login = self.lab.start(f"login-{state.name}", *words, "--no-browser", "--json", environment={"CLOISTER_STATE": str(state)})
        line = wait_for(lambda: re.search(r'^\{"sign_in".*$', login.output, re.MULTILINE), "where to sign in", 60.0)
        shown: dict[str, Any] = json.loads(line[0])["sign_in"]
        walk(page, shown["url"], shown["code"], who, PASSWORD)
        page.get_by_role("heading", name="You are signed in").wait_for()
        assert login.popen.wait(30) == 0, login.output
        device = self.lab.call("GET", f"/agents/{agent_id(state)}")
        return str(device["principal"])

    def close(self) -> None:
        for client in self.clients:
            self.keycloak.admin("DELETE", f"/{REALM}/clients/{client}")


@pytest.fixture
def office(tmp_path: Path, keycloak: Keycloak) -> Iterator[Office]:
    with Lab(tmp_path) as lab:
        made = Office(lab, keycloak)
        yield made
        made.close()


@pytest.fixture
def page() -> Iterator[Page]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-gpu"])
        yield browser.new_context(ignore_https_errors=True).new_page()
        browser.close()


def test_the_page_about_keycloak_does_what_it_says(office: Office, page: Page) -> None:
    guide, line = Guide("keycloak.md"), office.lab.exchange.login_line
    secret = office.lab.directory / "corp.secret"
    secret.write_text(SECRET)
    issuer = f"issuer: {office.keycloak.issuer}\n{HERE}"
    document = guide.document(issuer=issuer, client_secret_file=f"client_secret_file: {secret}")
    office.apply("corp.yaml", document, guide.take("cloister apply -f corp.yaml", line))
    login = guide.take("cloister login exchange.example.org#sha256-5f3a…", line)
    assert office.log_in(page, "ada", login) == "corp.ada"
    assert office.lab.call("GET", "/groups/corp.science")["document"]["users"] == ["corp.ada"]
    assert guide.is_done()


def test_the_page_about_saml_does_what_it_says(office: Office, page: Page) -> None:
    guide, line = Guide("saml.md"), office.lab.exchange.login_line
    descriptor = httpx.get(f"{office.keycloak.issuer}/protocol/saml/descriptor").text
    certificate = re.search(r"<ds:X509Certificate>([^<]+)</ds:X509Certificate>", descriptor)
    assert certificate is not None
    pem = office.lab.directory / "acme.pem"
    pem.write_text(f"-----BEGIN CERTIFICATE-----\n{certificate[1]}\n-----END CERTIFICATE-----\n")
    document = guide.document(
        issuer=f"issuer: {office.keycloak.issuer}",
        sso_url=f"sso_url: {office.keycloak.issuer}/protocol/saml",
        certificate_files=f"certificate_files: [{pem}]",
    )
    office.apply("acme.yaml", document, guide.take("cloister apply -f acme.yaml", line))
    assert office.log_in(page, "ada", guide.take("cloister login HOST", line)) == "acme.ada"
    again = guide.take("cloister login HOST --provider acme", line)
    assert office.log_in(page, "ada", again) == "acme.ada"  # the browser is signed in at Keycloak already
    assert guide.is_done()
