"""Cloister's real processes on the machines of a laboratory: an exchange, connectors, relays, clients, and its administrator.

Nothing is polled where a process can say that it is ready: the exchange prints one JSON line, agents speak sd_notify(3).
"""

import hashlib
import http.client
import json
import os
import secrets
import select
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from netlab import Machine

START_WAIT = 60.0
KEPT_OPEN = 2.0  # seconds; a server may close a connection that was quiet for longer
NO_PRIVILEGES = ("setpriv", "--bounding-set=-all", "--inh-caps=-all", "--no-new-privs", "--")
"""A process of root's with no capability: what a connector is run with."""


class DeploymentError(Exception):
    """A process of Cloister's, or a call to its API, did not do what was asked; the message holds what it said."""


@dataclass(frozen=True)
class Administrator:
    name: str
    password: str


class Deployment:
    """One exchange at `address` on `machine`, and what joins it. `directory` holds all state and logs."""

    def __init__(self, machine: Machine, address: str, directory: Path) -> None:
        self.machine = machine
        self.address = address
        self.directory = directory
        self.program = Path(sys.executable).with_name("cloister")
        self.data = directory / "exchange"
        self.exchange: subprocess.Popen[str]
        self.root_sha256 = ""
        self.administrator: Administrator | None = None
        self.connectors: list[subprocess.Popen[str]] = []
        self.relays: list[subprocess.Popen[str]] = []
        self._token = ""
        self._used_at = 0.0
        self._api: http.client.HTTPSConnection | None = None
        self._passwords: dict[str, str] = {}

    @property
    def connector_pids(self) -> list[int]:
        return [process.pid for process in self.connectors]

    @property
    def login_line(self) -> str:
        return f"{self.address}#sha256-{self.root_sha256}"

    # ------------------------------------------------------------ the exchange

    def start_exchange(self, *options: str) -> None:
        """Start it, or start it again on the same data and address."""
        arguments = ["exchange", "run", "--data-dir", self.data, "--listen", self.address, "--json", *options]
        self.exchange = self.machine.start("exchange", self.program, *arguments, stdout=subprocess.PIPE, environment=self._clean())
        line = self._first_line(self.exchange, "exchange", self.machine)
        self.root_sha256 = line["root_sha256"]
        if first := line["administrator"]:
            self.administrator = Administrator(first["name"], first["password"])
        self.close()

    def close(self) -> None:
        """End the connection to the API; the processes are the machines' to end."""
        if self._api is not None:
            self._api.close()
            self._api = None

    def kill_exchange(self) -> None:
        self.exchange.send_signal(signal.SIGKILL)
        self.exchange.wait()

    # ------------------------------------------------------------ its API

    def call(self, method: str, path: str, body: object = None, *, content: bytes | None = None, token: str = "") -> Any:
        """One request as the administrator, or as the holder of `token`. Raises DeploymentError for every answer of 400 and up."""
        if self._api is None or time.monotonic() - self._used_at > KEPT_OPEN:
            self.close()
            self._connect()
        self._used_at = time.monotonic()
        headers = {"authorization": f"Bearer {token or self._token}"}
        data = content
        if body is not None:
            data = json.dumps(body).encode()
            headers["content-type"] = "application/json"
        elif content is not None:
            headers["content-type"] = "application/yaml"
        assert self._api is not None
        self._api.request(method, f"/api/v1{path}", data, headers)
        answer = self._api.getresponse()
        text = answer.read()
        self._used_at = time.monotonic()
        if answer.status >= 400:
            raise DeploymentError(f"{method} {path}: {answer.status} {text.decode(errors='replace')[:2000]}")
        return json.loads(text) if text else None

    def _connect(self) -> None:
        host, _, port = self.address.rpartition(":")
        context = ssl.create_default_context(cadata=self.root())
        self._api = http.client.HTTPSConnection(host, int(port))
        plain = self.machine.dial(host, int(port), timeout=START_WAIT)
        plain.setsockopt(
            socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
        )  # as http.client does where it dials: a body never waits for an ACK
        self._api.sock = context.wrap_socket(plain, server_hostname=host)
        assert self.administrator is not None
        if self._token:
            return
        self._used_at = time.monotonic()
        credentials = {"user": self.administrator.name, "password": self.administrator.password}
        self._token = self.call("POST", "/sign-in", credentials)["token"]

    def root(self) -> str:
        """The exchange's root certificate, told by its fingerprint."""
        for authority in json.loads((self.data / "keys" / "keyring.json").read_text())["authorities"]:
            text: str = authority["root"]
            if hashlib.sha256(ssl.PEM_cert_to_DER_cert(text)).hexdigest() == self.root_sha256:
                return text
        raise DeploymentError("the exchange's root is not among its keys")

    def apply(self, documents: str) -> Any:
        """Documents as people write them."""
        return self.call("POST", "/documents", content=documents.encode())

    def add_user(self, name: str, display: str = "") -> None:
        self._passwords[name] = secrets.token_urlsafe(18)
        self.call("POST", "/users", {"name": name, "display": display or name, "password": self._passwords[name]})

    def password_of(self, user: str) -> str:
        return self._passwords[user]

    def token_of(self, user: str) -> str:
        """A token of this person's for the API."""
        token: str = self.call("POST", "/sign-in", {"user": user, "password": self._passwords[user]})["token"]
        return token

    def key(self, role: str, **fields: object) -> str:
        """A provisioning key."""
        made: str = self.call("POST", "/keys", {"role": role, **fields})["key"]
        return made

    # ------------------------------------------------------------ agents

    def start_connector(
        self, machine: Machine, group: str, name: str = "connector", *options: object, key: str = ""
    ) -> subprocess.Popen[str]:
        """With no capability, and a state directory of its own. Returns when its link is up."""
        key = key or self.key("connector", group=group)
        state = self.directory / name
        arguments = ["connector", "--exchange", self.address, "--key-file", "-", "--state", state, *options]
        process = self._start_ready(machine, name, *NO_PRIVILEGES, self.program, *arguments, stdin=key)
        self.connectors.append(process)
        return process

    def start_relay(self, machine: Machine, address: str, name: str = "relay") -> subprocess.Popen[str]:
        key = self.key("relay", address=address)
        state = self.directory / name
        arguments = [
            "relay",
            "--exchange",
            self.address,
            "--key-file",
            "-",
            "--state",
            state,
            "--listen",
            address,
            "--advertise",
            address,
        ]
        process = self._start_ready(machine, name, self.program, *arguments, stdin=key)
        self.relays.append(process)
        return process

    # ------------------------------------------------------------ people

    def client_state(self, user: str) -> Path:
        return self.directory / f"client-{user}"

    def client(self, machine: Machine, user: str, *arguments: object, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return machine.run(self.program, *arguments, input=input, environment=self._clean(user), check=False)

    def client_json(self, machine: Machine, user: str, *arguments: object) -> Any:
        result = self.client(machine, user, *arguments, "--json")
        if not result.stdout:
            raise DeploymentError(f"`cloister {' '.join(map(str, arguments))}` as {user}: {result.stderr.strip()}")
        return json.loads(result.stdout)

    def sign_in(self, machine: Machine, user: str) -> None:
        result = self.client(
            machine, user, "login", self.login_line, "--user", user, "--password-stdin", input=self._passwords[user]
        )
        if result.returncode != 0:
            raise DeploymentError(f"sign-in of {user}: {result.stderr.strip()}")

    def up(self, machine: Machine, user: str) -> subprocess.Popen[str]:
        """The client with capture by name, until the machine's end."""
        return self._start_ready(machine, f"up-{user}", self.program, "up", "--foreground", environment=self._clean(user))

    def proxy(self, machine: Machine, user: str) -> str:
        return self._entrance(machine, f"proxy-{user}", user, "proxy", "--listen", "127.0.0.1:0")

    def forward(self, machine: Machine, user: str, destination: str, local: str = "127.0.0.1:0", *options: object) -> str:
        return self._entrance(machine, f"forward-{user}", user, "forward", destination, local, *options)

    def notices(self, machine: Machine, user: str) -> list[str]:
        """What the running client has told this person, oldest first."""
        status = self.client_json(machine, user, "status")
        return [" ".join(str(notice.get(part, "")) for part in ("text", "remedy", "code")) for notice in status.get("notices", [])]

    def wait_until_served(self, machine: Machine, user: str, segments: Iterable[str], patience: float = 60.0) -> None:
        """Until these segments are visible to the person and some connector reports them healthy."""
        wanted, until, seen = set(segments), time.monotonic() + patience, None
        while time.monotonic() < until:
            seen = self.client_json(machine, user, "apps")
            if wanted <= {app["name"] for app in seen if app["healthy"]}:
                return
            time.sleep(0.2)
        raise DeploymentError(f"not served to {user} after {patience:g} s: `{wanted}`; visible: {seen}")

    # ------------------------------------------------------------

    def _clean(self, user: str | None = None) -> dict[str, str]:
        """Unbuffered, and with this person's state. Proxies of this machine do not lead into a laboratory."""
        extra = {"PYTHONUNBUFFERED": "1", "NO_PROXY": "*", "no_proxy": "*"}
        return extra | ({"CLOISTER_STATE": str(self.client_state(user))} if user is not None else {})

    def _entrance(self, machine: Machine, name: str, user: str, *arguments: object) -> str:
        process = machine.start(name, self.program, *arguments, "--json", stdout=subprocess.PIPE, environment=self._clean(user))
        address: str = self._first_line(process, name, machine)["address"]
        return address

    def start_announced(
        self, machine: Machine, name: str, *command: object, environment: Mapping[str, str], directory: Path
    ) -> None:
        """Start a process that prints a line when it is ready."""
        process = machine.start(name, *command, stdout=subprocess.PIPE, environment=environment, directory=directory)
        assert process.stdout is not None
        if not select.select([process.stdout], [], [], START_WAIT)[0] or not process.stdout.readline():
            raise DeploymentError(f"`{name}` did not start:\n{machine.log(name).read_text(errors='replace')[-3000:]}")

    def _first_line(self, process: subprocess.Popen[str], name: str, machine: Machine) -> Any:
        """The JSON line with which a process says that it is ready."""
        assert process.stdout is not None
        ready, _, _ = select.select([process.stdout], [], [], START_WAIT)
        line = process.stdout.readline() if ready else ""
        if not line:
            raise DeploymentError(f"`{name}` did not start:\n{machine.log(name).read_text(errors='replace')[-3000:]}")
        return json.loads(line)

    def _start_ready(
        self, machine: Machine, name: str, *command: object, stdin: str | None = None, environment: Mapping[str, str] | None = None
    ) -> subprocess.Popen[str]:
        """Start a process and return when it has said READY=1."""
        with tempfile.TemporaryDirectory(prefix="notify-") as where, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(os.path.join(where, "s"))
            channel.settimeout(0.2)
            variables = {**self._clean(), **(environment or {}), "NOTIFY_SOCKET": os.path.join(where, "s")}
            pipe = subprocess.DEVNULL if stdin is None else subprocess.PIPE
            process = machine.start(name, *command, stdin=pipe, environment=variables)
            if process.stdin is not None and stdin is not None:
                process.stdin.write(stdin)
                process.stdin.close()
            until = time.monotonic() + START_WAIT
            while time.monotonic() < until and process.poll() is None:
                try:
                    channel.recv(64)
                except TimeoutError:
                    continue
                return process
        raise DeploymentError(f"`{name}` is not ready:\n{machine.log(name).read_text(errors='replace')[-3000:]}")
