"""A real Keycloak as a process, on any machine of a laboratory, told over its administration API what it shall know."""

import contextlib
import os
import subprocess
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from netlab import Machine

CACHE = Path(os.environ.get("CACHE") or Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloister")
VERSION = "26.4.7"
HOME = CACHE / f"keycloak-{VERSION}"
ADMIN = ("admin", "an administrator of Keycloak")
REALM = "corp"
PATIENCE = 60.0
START_SECONDS = 200.0


class KeycloakFailed(Exception):
    """Keycloak did not start, or refused what was asked of it; the message holds what it said."""


@dataclass(frozen=True)
class Tls:
    """What a Keycloak serves under, and whose certificates it accepts of those that it asks: files in PEM."""

    certificate: Path
    key: Path
    trusted: Path


@dataclass(frozen=True)
class Keycloak:
    machine: Machine
    host: str
    address: str
    port: int
    tls: Tls | None = None

    @property
    def base(self) -> str:
        return f"{'http' if self.tls is None else 'https'}://{self.host}:{self.port}"

    @property
    def issuer(self) -> str:
        return f"{self.base}/realms/{REALM}"

    def start(self, management_port: int) -> "subprocess.Popen[str]":
        """Start it; `wait` returns when it answers."""
        options = [
            f"--hostname={self.base}", f"--http-management-port={management_port}", "--log-level=WARN,org.keycloak.quarkus.runtime:INFO",
            f"--http-host={self.address}",
        ]  # fmt: skip
        if self.tls is None:
            options += ["--http-enabled=true", f"--http-port={self.port}"]
        else:
            options += [
                f"--https-port={self.port}", f"--https-certificate-file={self.tls.certificate}",
                f"--https-certificate-key-file={self.tls.key}", f"--truststore-paths={self.tls.trusted}",
            ]  # fmt: skip
        environment = {
            "KC_BOOTSTRAP_ADMIN_USERNAME": ADMIN[0],
            "KC_BOOTSTRAP_ADMIN_PASSWORD": ADMIN[1],
            "JAVA_OPTS_APPEND": "-Xmx640m -XX:TieredStopAtLevel=1 -Djava.net.preferIPv4Stack=true",
        }
        return self.machine.start("keycloak", HOME / "bin" / "kc.sh", "start", "--optimized", *options, environment=environment)

    def wait(self, process: "subprocess.Popen[str]") -> None:
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None:
            with contextlib.suppress(httpx.HTTPError):
                if self._ask("GET", "/realms/master/.well-known/openid-configuration").status_code == 200:
                    return
            time.sleep(0.5)
        raise KeycloakFailed(f"Keycloak did not start:\n{self.machine.log('keycloak').read_text(errors='replace')[-4000:]}")

    def token(self) -> str:
        """The administrator's, good for a minute."""
        form = {"grant_type": "password", "client_id": "admin-cli", "username": ADMIN[0], "password": ADMIN[1]}
        got = self._ask("POST", "/realms/master/protocol/openid-connect/token", data=form)
        return str(got.raise_for_status().json()["access_token"])

    def admin(self, method: str, path: str, body: object = None, token: str = "") -> httpx.Response:
        """A call to the administration API below `/admin/realms`. Raises KeycloakFailed unless it succeeds."""
        headers = {"authorization": f"Bearer {token or self.token()}"}
        answer = self._ask(method, f"/admin/realms{path}", json=body, headers=headers)
        if answer.is_error:
            raise KeycloakFailed(f"{method} {path}: {answer.status_code} {answer.text[:2000]}")
        return answer

    def add_realm(self, users: Iterable[Mapping[str, Any]], groups: Iterable[str]) -> None:
        made = {"realm": REALM, "enabled": True, "sslRequired": "none", "groups": [{"name": name} for name in groups]}
        self.admin("POST", "", {**made, "users": list(users)})

    def add_client(self, client: Mapping[str, Any]) -> str:
        """Returns its id, which its deletion needs."""
        return str(self.admin("POST", f"/{REALM}/clients", client).headers["location"].rpartition("/")[2])

    def id_of(self, user: str) -> str:
        return str(self.admin("GET", f"/{REALM}/users?exact=true&username={user}").json()[0]["id"])

    def _ask(self, method: str, path: str, **what: Any) -> httpx.Response:
        """From its own machine, by address: its name means nothing to this process. Not verified: whom this asks it has started itself."""
        url = f"{self.base.partition(':')[0]}://{self.address}:{self.port}{path}"
        return self.machine.inside(lambda: httpx.request(method, url, verify=False, timeout=PATIENCE, trust_env=False, **what))


def person(name: str, password: str, groups: Iterable[str] = (), display: str = "") -> dict[str, Any]:
    return {
        "username": name,
        "enabled": True,
        "email": f"{name}@example.org",
        "emailVerified": True,
        "firstName": display or name.capitalize(),
        "lastName": "Example",
        "credentials": [{"type": "password", "value": password}],
        "groups": [f"/{group}" for group in groups],
    }


def oidc_client(base: str, secret: str, provider: str = "corp") -> dict[str, Any]:
    """The exchange at `base`, as docs/identity/keycloak.md says to register it."""
    return {
        "clientId": "cloister",
        "secret": secret,
        "publicClient": False,
        "standardFlowEnabled": True,
        "redirectUris": [f"{base}/sign-in/callback/{provider}"],
        "attributes": {
            "pkce.code.challenge.method": "S256",
            "oauth2.device.authorization.grant.enabled": "true",
            "backchannel.logout.url": f"{base}/sign-in/logout/{provider}",
            "backchannel.logout.session.required": "true",
        },
        "protocolMappers": [
            {
                "name": "groups",
                "protocol": "openid-connect",
                "protocolMapper": "oidc-group-membership-mapper",
                "config": {"full.path": "false", "id.token.claim": "true", "claim.name": "groups"},
            }
        ],
    }


def saml_client(base: str, provider: str = "acme") -> dict[str, Any]:
    def attribute(name: str, source: str) -> dict[str, Any]:
        config = {"attribute.name": name, "user.attribute": source, "attribute.nameformat": "Basic"}
        return {"name": name, "protocol": "saml", "protocolMapper": "saml-user-property-mapper", "config": config}

    return {
        "clientId": f"{base}/sign-in/saml/{provider}",
        "protocol": "saml",
        "redirectUris": [f"{base}/sign-in/acs/{provider}"],
        "attributes": {
            "saml.assertion.signature": "true",
            "saml.server.signature": "true",
            "saml.client.signature": "false",
            "saml.authnstatement": "true",
            "saml.force.post.binding": "true",
            "saml_force_name_id_format": "true",
            "saml_name_id_format": "persistent",
            "saml.signature.algorithm": "RSA_SHA256",
            "saml_signature_canonicalization_method": "http://www.w3.org/2001/10/xml-exc-c14n#",
            "saml_assertion_consumer_url_post": f"{base}/sign-in/acs/{provider}",
        },
        "protocolMappers": [attribute("uid", "username"), attribute("displayName", "firstName")],
    }
