"""The set-ups that are compared. Each offers one address that leads to the sink, and the processes that stand between."""

import contextlib
import datetime as dt
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "tests" / "e2e"))

from deployment import Deployment, DeploymentError  # noqa: E402  the benchmark is run from the tree
from netlab import LabError, Machine  # noqa: E402

ROLES = ("client", "middle", "connector")
"""In every chain, from the load to the sink; `middle` is haproxy's middle process and Cloister's exchange with its relay."""


class SetupFailed(Exception):
    """A process of a set-up did not come up; the message holds the end of its log."""


@dataclass
class Setup:
    name: str
    address: str
    processes: dict[str, int] = field(default_factory=dict)
    about: dict[str, str] = field(default_factory=dict)


class Processes:
    """Starts processes with a log file each, and ends exactly these."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[subprocess.Popen[bytes]] = []

    def start(
        self,
        name: str,
        command: list[str],
        environment: dict[str, str] | None = None,
        output: IO[bytes] | int | None = None,
        stdin: int = subprocess.DEVNULL,
    ) -> subprocess.Popen[bytes]:
        with (self.directory / f"{name}.log").open("ab") as log:
            process = subprocess.Popen(
                command,
                env={**os.environ, **(environment or {})},
                stdin=stdin,
                stdout=log if output is None else output,
                stderr=log,
            )
        self._running.append(process)
        return process

    def log(self, name: str) -> str:
        return (self.directory / f"{name}.log").read_text(errors="replace")[-2000:]

    def end(self) -> None:
        for process in reversed(self._running):
            process.terminate()
        for process in self._running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
        self._running.clear()


def wait_for_port(address: str, process: subprocess.Popen[bytes], processes: Processes, name: str, patience: float = 30.0) -> None:
    host, port = address.rsplit(":", 1)
    until = time.monotonic() + patience
    while time.monotonic() < until:
        with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
            return
        if process.poll() is not None:
            break
        time.sleep(0.05)
    raise SetupFailed(f"`{name}` does not listen at {address}:\n{processes.log(name)}")


@contextlib.contextmanager
def sink(load: Path, directory: Path, address: str) -> Iterator[Setup]:
    """The sink by itself: plain loopback."""
    processes = Processes(directory)
    try:
        process = processes.start("sink", [str(load), "sink", address])
        wait_for_port(address, process, processes, "sink")
        yield Setup("plain", address)
    finally:
        processes.end()


@contextlib.contextmanager
def haproxy(directory: Path, sink_address: str, ports: Sequence[int] = (7101, 7102, 7103)) -> Iterator[Setup]:
    """The fixed baseline of bench/haproxy.cfg."""
    directory.mkdir(parents=True, exist_ok=True)
    make_certificates(directory)
    addresses = {role: f"127.0.0.1:{port}" for role, port in zip(ROLES, ports, strict=True)}
    environment = {f"{role.upper()}_ADDRESS": address for role, address in addresses.items()}
    environment |= {"SINK_ADDRESS": sink_address, "CERTIFICATES": str(directory)}
    binary = shutil.which("haproxy") or "/usr/sbin/haproxy"
    processes = Processes(directory)
    setup = Setup("haproxy", addresses["client"])
    setup.about["version"] = subprocess.run([binary, "-v"], capture_output=True, text=True, check=True).stdout.splitlines()[0]
    try:
        for role in reversed(ROLES):
            command = [binary, "-db", "-f", str(HERE / "haproxy.cfg")]
            process = processes.start(f"haproxy-{role}", command, {**environment, "ROLE": role})
            wait_for_port(addresses[role], process, processes, f"haproxy-{role}")
            setup.processes[role] = process.pid
        yield setup
    finally:
        processes.end()


@contextlib.contextmanager
def cloister(directory: Path, exchange_address: str, sink_address: str) -> Iterator[Setup]:
    """Cloister as shipped: nothing is set but where things are. The load goes in at `cloister forward`.

    `allow`: the sink stands on the connector's own host, which no segment reaches unless it says so.
    """
    directory.mkdir(parents=True, exist_ok=True)
    machine = Machine("bench", directory)
    deployment = Deployment(machine, exchange_address, directory)
    host, _, port = sink_address.rpartition(":")
    documents = (
        f"kind: connector-group\nname: bench\nnetworks: [{host}/32]\n",
        f"kind: segment\nname: sink\nhosts: [{host}]\nports: [{port}]\ngroups: [bench]\nallow: [{host}/32]\n",
        "kind: group\nname: loads\nusers: [load]\n",
        "kind: rule\nname: loads\neffect: permit\nwho: {groups: [loads]}\nwhat: {segments: [sink]}\n",
    )
    try:
        deployment.start_exchange()
        deployment.add_user("load")
        deployment.apply("---\n".join(documents))
        connector = deployment.start_connector(machine, "bench")
        deployment.sign_in(machine, "load")
        address = deployment.forward(machine, "load", sink_address)
        client = machine.processes[-1]
        version = machine.run(deployment.program, "--version").stdout.strip()
        processes = {"client": client.pid, "middle": deployment.exchange.pid, "connector": connector.pid}
        yield Setup("cloister", address, processes, {"version": version})
    except (DeploymentError, LabError) as error:
        raise SetupFailed(str(error)) from error
    finally:
        deployment.close()
        machine.end()


def make_certificates(directory: Path) -> None:
    """A P-256 CA and a server certificate for each listening hop."""
    ca_key = ec.generate_private_key(ec.SECP256R1())
    ca_name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "bench CA")])
    ca = _certificate(ca_name, ca_key.public_key(), ca_name, ca_key, None)
    (directory / "ca.pem").write_bytes(_pem(ca))
    for role in ("middle", "connector"):
        key = ec.generate_private_key(ec.SECP256R1())
        host = f"{role}.bench.internal"
        name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, host)])
        secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
        (directory / f"{role}.pem").write_bytes(_pem(_certificate(name, key.public_key(), ca_name, ca_key, host)) + secret)


def _certificate(
    subject: x509.Name,
    public: ec.EllipticCurvePublicKey,
    issuer: x509.Name,
    issuer_key: ec.EllipticCurvePrivateKey,
    host: str | None,
) -> x509.Certificate:
    now = dt.datetime.now(dt.UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - dt.timedelta(hours=1))
        .not_valid_after(now + dt.timedelta(days=2))
        .add_extension(x509.BasicConstraints(ca=host is None, path_length=None), critical=True)
    )
    if host is not None:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(host)]), critical=False)
    return builder.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)
