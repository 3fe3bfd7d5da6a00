"""A real Keycloak for a whole run, and an exchange for each test that people sign in to there."""

import json
import os
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from netlab import Machine
from tests.idp.keycloak import HOME, REALM, Keycloak, oidc_client, person, saml_client
from tests.unit.exchange import conftest as exchange
from tests.unit.exchange.conftest import World
from tests.unit.exchange.signin.conftest import SignInLab
from tests.unit.exchange.signin.provider import free_port

lab, world = exchange.lab, exchange.world  # the fixtures of an exchange in process
SECRET = "a secret of the client at Keycloak"
PASSWORD = "correct horse battery"


@pytest.fixture(scope="session")
def keycloak(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Keycloak]:
    """Started once: that takes most of the time."""
    if not (HOME / ".ready").exists():
        if os.environ.get("CI"):
            raise AssertionError("Keycloak is not there: `make test-idp` fetches it")
        pytest.skip("needs Keycloak: `make test-idp`")
    machine = Machine("here", tmp_path_factory.mktemp("keycloak"))
    found = Keycloak(machine, "127.0.0.1", "127.0.0.1", free_port())
    try:
        found.wait(found.start(free_port()))
        found.add_realm([person("ada", PASSWORD, ["science"]), person("eve", PASSWORD)], ["science", "other"])
        yield found
    finally:
        machine.end()


@pytest.fixture
async def corp(lab: World, keycloak: Keycloak, tmp_path: Path) -> AsyncIterator[SignInLab]:
    """The lab's exchange as a client of the realm, under OpenID Connect and under SAML."""
    base = f"https://{lab.running.address}"
    ids = [keycloak.add_client(client) for client in (oidc_client(base, SECRET), saml_client(base))]
    await lab.apply("{kind: group, name: corp.science}\n---\n{kind: group, name: corp.other}")
    document = {
        "kind": "identity-provider",
        "name": "corp",
        "issuer": keycloak.issuer,
        "client_id": "cloister",
        "groups": {"claim": "groups"},
        "allow_internal": ["127.0.0.1"],
    }
    await lab.apply(json.dumps(document))
    await lab.api.ok("PUT", "/identity-providers/corp/secret", json={"secret": SECRET})
    made = SignInLab(lab, None, trusts_loopback=True)  # type: ignore[arg-type]  # the provider is Keycloak
    yield made
    for browser in made.browsers:
        await browser.close()
    for id in ids:
        keycloak.admin("DELETE", f"/{REALM}/clients/{id}")
