"""The company's identity provider for `make demo IDP=keycloak`: a real Keycloak with people and groups, and people's browsers at it."""

import contextlib
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployment import DeploymentError
from netlab import Machine
from playwright.sync_api import Browser, Error, sync_playwright
from tests.idp.browsing import OtherCode, walk
from tests.idp.keycloak import REALM, Keycloak, Tls, oidc_client, person

from people import BEN, PEOPLE, Person
from scene import free_ports
from staff import Staff

SECONDS = 30.0


class Corp(Staff):
    """Keycloak at the company's own host. Ada signs in with her browser, Ben's machine has none: he types a code elsewhere."""

    out_by = " at Keycloak and signs in again"

    def begin(self) -> None:
        scene = self.scene
        machine, place = scene.company()
        self._directory = scene.deployment.directory
        self._passwords = {one: secrets.token_urlsafe(12) for one in PEOPLE}
        self._secret = secrets.token_urlsafe(24)
        certificate, key = make_certificate(self._directory, place.host)
        roots = self._directory / "exchange-root.pem"
        roots.write_text(scene.deployment.root())
        self.keycloak = Keycloak(machine, place.host, place.address, place.port, Tls(certificate, key, roots))
        self._process = self.keycloak.start(free_ports(1)[0])
        self._began = time.monotonic()

    def documents(self) -> str:
        return "---\n".join(f"kind: group\nname: {name}\n" for name in sorted({one.group for one in PEOPLE}))

    def wait(self) -> None:
        keycloak, deployment = self.keycloak, self.scene.deployment
        keycloak.wait(self._process)
        people = [person(one.name, self._passwords[one], [one.group], one.display) for one in PEOPLE]
        keycloak.add_realm(people, sorted({one.group for one in PEOPLE}))
        keycloak.add_client(oidc_client(f"https://{deployment.address}", self._secret))
        provider = {
            "kind": "identity-provider",
            "name": "corp",
            "prefix": "",
            "issuer": keycloak.issuer,
            "client_id": "cloister",
            "groups": {"claim": "groups", "map": {one.group: one.group for one in PEOPLE}},
            "allow_internal": [keycloak.host],
            "ca_file": str(self._directory / "company.pem"),
        }
        deployment.apply(json.dumps(provider))
        deployment.call("PUT", "/identity-providers/corp/secret", {"secret": self._secret})
        print(f"  Keycloak answers ({time.monotonic() - self._began:.1f} s)", flush=True)

    def sign_in(self, person: Person) -> None:
        how = ["--device"] if person is BEN else ["--no-browser"]
        with self._login(person, self.scene.deployment.login_line, *how) as process:
            _, text = self._walk(person, process)
            if process.wait(SECONDS) != 0:
                raise DeploymentError(f"sign-in of {person.name} at Keycloak: {text[-500:]}")

    def take_out(self, person: Person) -> float:
        """Keycloak's groups travel in the token of a sign-in: the next one tells."""
        user = self.keycloak.id_of(person.name)
        groups = {one["name"]: one["id"] for one in self.keycloak.admin("GET", f"/{REALM}/groups").json()}
        self.keycloak.admin("DELETE", f"/{REALM}/users/{user}/groups/{groups[person.group]}")
        with self._login(person, "--step-up", "--no-browser") as process:
            came_back, text = self._walk(person, process)
            process.wait(SECONDS)
        if not came_back:
            raise DeploymentError(f"{person.name} did not come back from Keycloak: {text[-500:]}")
        return came_back

    def disable(self, person: Person) -> float:
        """Disable the person and end their sessions, as `Sign out` in Keycloak's console does. Returns when Keycloak was told."""
        user = f"/{REALM}/users/{self.keycloak.id_of(person.name)}"
        self.keycloak.admin("PUT", user, {**self.keycloak.admin("GET", user).json(), "enabled": False})
        token, changed = self.keycloak.token(), time.time()
        self.keycloak.admin("POST", f"{user}/logout", token=token)
        return changed

    def enable(self, person: Person) -> None:
        user = f"/{REALM}/users/{self.keycloak.id_of(person.name)}"
        self.keycloak.admin("PUT", user, {**self.keycloak.admin("GET", user).json(), "enabled": True})

    def try_again(self, person: Person) -> str:
        """A sign-in that Keycloak does not let through; returns what its last page says."""
        with self._login(person, self.scene.deployment.login_line, "--no-browser") as process:
            return self._walk(person, process)[1]

    # ------------------------------------------------------------

    @contextlib.contextmanager
    def _login(self, person: Person, *options: str) -> Iterator["subprocess.Popen[str]"]:
        """`cloister login`, which says on standard error where to go; ended if it still waits when the person has given up."""
        deployment, machine = self.scene.deployment, self.scene.machine_of(person)
        command = ["sh", "-c", 'exec "$@" 2>&1', "login", deployment.program, "login", *options, "--json"]
        environment = {"CLOISTER_STATE": str(deployment.client_state(person.name)), "PYTHONUNBUFFERED": "1"}
        process = machine.start(f"login-{person.name}", *command, stdout=subprocess.PIPE, environment=environment)
        try:
            yield process
        finally:
            if process.poll() is None:
                process.terminate()
                process.wait()

    def _walk(self, person: Person, process: "subprocess.Popen[str]") -> tuple[float, str]:
        """What the person does in a browser on their machine: when it went back to the exchange, and what its last page says."""
        assert process.stdout is not None
        said = ""
        for line in process.stdout:
            said += line
            if line.startswith('{"sign_in"'):
                break
        else:
            raise DeploymentError(f"`cloister login` as {person.name}: {said.strip()}")
        started = json.loads(line)["sign_in"]
        with open_chromium(self.scene.machine_of(person), self._directory / f"chromium-{person.name}") as browser:
            page = browser.new_context(ignore_https_errors=True).new_page()  # its own CAs are not this machine's
            page.set_default_timeout(SECONDS * 1000)
            try:
                came_back = walk(page, started["url"], started["code"], person.name, self._passwords[person])
                return came_back, page.inner_text("body")
            except (Error, OtherCode) as error:
                raise DeploymentError(f"the browser of {person.name}, at {page.url[:120]}: {error}") from None


@contextlib.contextmanager
def open_chromium(machine: Machine, wrapper: Path) -> Iterator[Browser]:
    """A person's headless browser on their own machine."""
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    if chromium is None:
        raise DeploymentError("Chromium is missing; `make demo IDP=keycloak` installs it where it may")
    wrapper.write_text(f'#!/bin/sh\nexec {" ".join(machine.command([chromium]))} "$@"\n')
    wrapper.chmod(0o755)
    arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=str(wrapper), args=arguments)
        yield browser
        browser.close()


def make_certificate(directory: Path, host: str) -> tuple[Path, Path]:
    """The certificate of the company's host, which vouches for itself, and its key."""
    certificate, key = directory / "company.pem", directory / "company.key"
    kind = "IP" if host.replace(".", "").isdigit() else "DNS"
    command: list[Any] = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2"]
    command += ["-subj", f"/CN={host}", "-addext", f"subjectAltName={kind}:{host}", "-keyout", key, "-out", certificate]
    subprocess.run(command, check=True, capture_output=True)
    return certificate, key
