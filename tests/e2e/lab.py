"""A small laboratory of real processes on loopback ports: exchange, connectors, relays, clients, and services to reach.

Nothing is polled where a process can say that it is ready: the exchange prints one JSON line, agents speak sd_notify(3).
"""

import contextlib
import json
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx
from cryptography import x509

T = TypeVar("T")
START_WAIT = 30.0
PASSWORD = "correct horse battery staple"


def wait_for(look: Callable[[], T | None], what: str, seconds: float = 15.0) -> T:
    """Look until there is something; for what no process announces."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        found = look()
        if found:
            return found
        threading.Event().wait(0.02)
    raise AssertionError(f"waited {seconds} s in vain for {what}")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def leaf_of(state: Path) -> x509.Certificate:
    """The certificate in an agent's state directory."""
    chain = json.loads((state / "identity.json").read_text())["chain"]
    return x509.load_pem_x509_certificates(chain.encode())[0]


def agent_id(state: Path) -> str:
    names = leaf_of(state).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    return str(names.get_values_for_type(x509.UniformResourceIdentifier)[0].rpartition("/")[2])


@dataclass
class Process:
    """A process of the laboratory, with what it wrote."""

    name: str
    popen: "subprocess.Popen[bytes]"
    log: Path

    def end(self, number: int = signal.SIGTERM, seconds: float = 20.0) -> int:
        if self.popen.poll() is None:
            self.popen.send_signal(number)
        try:
            return self.popen.wait(seconds)
        except subprocess.TimeoutExpired:
            self.popen.kill()
            self.popen.wait()
            raise

    def kill(self) -> None:
        self.end(signal.SIGKILL)

    @property
    def output(self) -> str:
        return self.log.read_text(errors="replace")


@dataclass
class Exchange:
    process: Process
    address: str
    root_sha256: str
    administrator: dict[str, str] | None

    @property
    def login_line(self) -> str:
        return f"{self.address}#sha256-{self.root_sha256}"


@dataclass
class Entrance:
    """A command that stays, such as `cloister proxy`, and the address that it printed."""

    process: Process
    address: str

    @property
    def port(self) -> int:
        return int(self.address.rpartition(":")[2])


@dataclass
class Client:
    """One person's client: a state directory, and the commands run with it."""

    lab: "Lab"
    state: Path
    entrances: list[Entrance] = field(default_factory=list)

    def run(self, *arguments: str, stdin: bytes = b"", seconds: float = 30.0) -> "subprocess.CompletedProcess[bytes]":
        return self.lab.run(*arguments, stdin=stdin, environment={"CLOISTER_STATE": str(self.state)}, seconds=seconds)

    def json(self, *arguments: str) -> Any:
        result = self.run(*arguments, "--json")
        if not result.stdout:
            raise AssertionError(result.stderr.decode())
        return json.loads(result.stdout)

    def enter(self, *arguments: str) -> Entrance:
        process = self.lab.start(
            f"{self.state.name}-{arguments[0]}", *arguments, "--json", environment={"CLOISTER_STATE": str(self.state)}
        )
        entrance = Entrance(process, self.lab.first_line(process)["address"])
        self.entrances.append(entrance)
        return entrance

    def proxy(self) -> Entrance:
        return self.enter("proxy", "--listen", "127.0.0.1:0")

    def forward(self, destination: str, *options: str) -> Entrance:
        return self.enter("forward", destination, "127.0.0.1:0", *options)


class Lab:
    """Everything it starts ends with it. `directory` holds all state and all logs."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.processes: list[Process] = []
        self.exchange: Exchange
        self.port = free_port()
        self._admin: httpx.Client | None = None
        self._clients = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._admin is not None:
            self._admin.close()
        for process in reversed(self.processes):
            if process.popen.poll() is None:
                process.popen.kill()
            process.popen.wait()
            if process.popen.stdout is not None:
                process.popen.stdout.close()

    # ------------------------------------------------------------ processes

    def environment(self, extra: dict[str, str] | None = None) -> dict[str, str]:
        kept = {
            key: value
            for key, value in os.environ.items()
            if not key.lower().endswith("_proxy") and not key.startswith("CLOISTER_")
        }
        return {**kept, "PYTHONPATH": os.pathsep.join(sys.path), "PYTHONUNBUFFERED": "1", **(extra or {})}

    def start(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> Process:
        log = self.directory / f"{name}.log"
        with open(log, "ab") as errors:
            popen = subprocess.Popen(
                [sys.executable, "-m", "cloister", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=errors,
                env=self.environment(environment),
                cwd=self.directory,
            )
        process = Process(name, popen, log)
        self.processes.append(process)
        return process

    def run(
        self, *arguments: str, stdin: bytes = b"", environment: dict[str, str] | None = None, seconds: float = 30.0
    ) -> "subprocess.CompletedProcess[bytes]":
        return subprocess.run(
            [sys.executable, "-m", "cloister", *arguments],
            input=stdin,
            capture_output=True,
            env=self.environment(environment),
            cwd=self.directory,
            timeout=seconds,
            check=False,
        )

    def first_line(self, process: Process) -> Any:
        """The JSON line with which a process says that it is ready."""
        pipe = process.popen.stdout
        assert pipe is not None
        ready, _, _ = select.select([pipe], [], [], START_WAIT)
        line = pipe.readline() if ready else b""
        if not line:
            raise AssertionError(f"`{process.name}` did not start:\n{process.output}")
        return json.loads(line)

    def start_notifying(self, name: str, *arguments: str, environment: dict[str, str] | None = None) -> Process:
        """Start a process and return when it has said READY=1: its link is up."""
        with tempfile.TemporaryDirectory(prefix="notify-") as where, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
            channel.bind(f"{where}/s")
            process = self.start(name, *arguments, environment={"NOTIFY_SOCKET": f"{where}/s", **(environment or {})})
            deadline = time.monotonic() + START_WAIT
            while not select.select([channel], [], [], 0.2)[0]:
                if process.popen.poll() is not None or time.monotonic() > deadline:
                    raise AssertionError(f"`{name}` is not ready:\n{process.output}")
        return process

    # ------------------------------------------------------------ the exchange and its API

    def start_exchange(self, *options: str) -> Exchange:
        """Start it, or start it again on the same data and port."""
        arguments = ["exchange", "run", "--data-dir", str(self.directory / "exchange"), "--listen", f"127.0.0.1:{self.port}"]
        process = self.start("exchange", *arguments, *options, "--json")
        line = self.first_line(process)
        before = getattr(self, "exchange", None)
        administrator = line["administrator"] or (before.administrator if before else None)
        self.exchange = Exchange(process, line["address"], line["root_sha256"], administrator)
        return self.exchange

    @property
    def api(self) -> httpx.Client:
        """Signed in as the administrator of the first start."""
        if self._admin is None:
            assert self.exchange.administrator is not None
            # The laboratory's certificate is its own CA's; that the CLI checks it is tested with the CLI.
            self._admin = httpx.Client(base_url=f"https://{self.exchange.address}/api/v1", verify=False, timeout=20.0)
            who = self.exchange.administrator
            token = self.call("POST", "/sign-in", {"user": who["name"], "password": who["password"]})["token"]
            self._admin.headers["authorization"] = f"Bearer {token}"
        return self._admin

    def call(self, method: str, path: str, body: Any = None) -> Any:
        response = self.api.request(method, path, json=body)
        if response.status_code >= 400:
            raise AssertionError(f"{method} {path}: {response.status_code} {response.text}")
        return response.json() if response.content else None

    def apply(self, documents: str) -> Any:
        """Documents as people write them."""
        response = self.api.post("/documents", content=documents.encode(), headers={"content-type": "application/yaml"})
        assert response.status_code < 400, response.text
        return response.json()

    def make_key(self, role: str, **fields: Any) -> Path:
        """A provisioning key in a file of mode 0600."""
        created = self.call("POST", "/keys", {"role": role, **fields})
        handle, name = tempfile.mkstemp(prefix="key-", dir=self.directory)
        with open(handle, "w") as file:
            file.write(created["key"])
        return Path(name)

    # ------------------------------------------------------------ agents

    def start_connector(
        self, group: str, name: str = "connector", *options: str, environment: dict[str, str] | None = None
    ) -> Process:
        key = self.make_key("connector", group=group)
        arguments = ["--exchange", self.exchange.address, "--key-file", str(key), "--state", str(self.directory / name)]
        return self.start_notifying(name, "connector", *arguments, *options, environment=environment)

    def start_relay(self, name: str = "relay") -> Process:
        key, port = self.make_key("relay"), free_port()
        arguments = ["--exchange", self.exchange.address, "--key-file", str(key), "--state", str(self.directory / name)]
        where = f"127.0.0.1:{port}"
        return self.start_notifying(name, "relay", *arguments, "--listen", where, "--advertise", where)

    def sign_in(self, user: str, password: str = PASSWORD) -> Client:
        self._clients += 1
        client = Client(self, self.directory / f"{user}-{self._clients}")
        result = client.run("login", self.exchange.login_line, "--user", user, "--password-stdin", stdin=password.encode())
        assert result.returncode == 0, result.stderr.decode()
        return client


# ------------------------------------------------------------------ services to reach


class Service:
    """A TCP service on a loopback port; `serve` gets each accepted socket in a thread of its own."""

    def __init__(self, serve: Callable[[socket.socket], None]) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._serve = serve
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.accepted += 1
                threading.Thread(target=self._one, args=(connection,), daemon=True).start()

    def _one(self, connection: socket.socket) -> None:
        with connection, contextlib.suppress(OSError):
            self._serve(connection)

    def close(self) -> None:
        with contextlib.suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def echo(connection: socket.socket) -> None:
    """Send back what comes, and close the other direction when the peer closes its own."""
    while data := connection.recv(65536):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def greet(text: bytes) -> Callable[[socket.socket], None]:
    """A minimal HTTP service."""

    def serve(connection: socket.socket) -> None:
        request = b""
        while b"\r\n\r\n" not in request:
            part = connection.recv(4096)
            if not part:
                return
            request += part
        connection.sendall(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: %d\r\n\r\n%s" % (len(text), text))

    return serve


def drip(connection: socket.socket) -> None:
    """Send for ever, as fast as the peer takes it."""
    block = b"x" * 16384
    while True:
        connection.sendall(block)


COUNTED = struct.Struct("!Q")


def count(connection: socket.socket) -> None:
    """Send 0, 1, 2, … as 8 bytes each for ever: whoever reads it sees a lost, doubled or swapped byte."""
    first = 0
    while True:
        block = b"".join(COUNTED.pack(number) for number in range(first, first + 2048))
        connection.sendall(block)
        first += 2048


class CountedStream:
    """Reads `count` in a thread and checks it."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.received = 0
        self.last_at = 0.0
        self.error = ""
        self.ended = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self) -> None:
        rest, expected = b"", 0
        try:
            while data := self._connection.recv(65536):
                self.received += len(data)
                self.last_at = time.monotonic()
                data = rest + data
                whole = len(data) - len(data) % COUNTED.size
                for (number,) in COUNTED.iter_unpack(data[:whole]):
                    if number != expected:
                        self.error = f"expected {expected}, got {number}"
                        return
                    expected += 1
                rest = data[whole:]
        except OSError as error:
            self.error = str(error)
        finally:
            self.ended.set()

    def wait_for_more(self, bytes_more: int = 1 << 20, seconds: float = 30.0) -> None:
        target = self.received + bytes_more
        wait_for(lambda: self.received >= target or self.error, f"{bytes_more} more bytes", seconds)
        assert not self.error

    def close(self) -> None:
        self._connection.close()


def through_socks(proxy_port: int, host: str, port: int, seconds: float = 15.0) -> socket.socket:
    """A TCP connection by SOCKS5 with a domain name (RFC 1928). Raises ConnectionError with the reply code."""
    connection = socket.create_connection(("127.0.0.1", proxy_port), timeout=seconds)
    try:
        name = host.encode()
        connection.sendall(b"\x05\x01\x00")
        _exactly(connection, 2)
        connection.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + port.to_bytes(2, "big"))
        reply = _exactly(connection, 4)
        if reply[1] != 0:
            raise ConnectionError(f"socks reply {reply[1]}")
        _exactly(connection, {1: 4, 4: 16}[reply[3]] + 2)
    except BaseException:
        connection.close()
        raise
    return connection


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("closed")
        data += part
    return data


def read_all(connection: socket.socket) -> bytes:
    data = b""
    while part := connection.recv(65536):
        data += part
    return data
