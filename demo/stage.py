"""The services of the demo: where each stands, how it is started, when it is ready. All are the real programs."""

import contextlib
import os
import secrets
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

HERE = Path(__file__).parent
DOMAIN = "lab.internal"
DATABASE, DATABASE_USER = "features", "lab"


class Ground(Protocol):
    """Where the services run: a namespace of the laboratory, or this machine's loopback."""

    def start(
        self,
        name: str,
        *arguments: object,
        user: str | None = None,
        environment: Mapping[str, str] | None = None,
        directory: Path | None = None,
    ) -> subprocess.Popen[str]: ...

    def run(
        self,
        *arguments: object,
        user: str | None = None,
        timeout: float = 60,
        input: str | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> subprocess.CompletedProcess[str]: ...

    def dial(self, address: str, port: int, timeout: float = 5.0) -> socket.socket: ...


@dataclass(frozen=True)
class Place:
    """One port of one service. People know the name; only the cluster knows the address."""

    host: str
    address: str
    port: int


@dataclass(frozen=True)
class Secrets:
    jupyter: str
    database: str

    @classmethod
    def fresh(cls) -> "Secrets":
        return cls(secrets.token_urlsafe(24), secrets.token_urlsafe(24))


class StageFailed(Exception):
    """A service did not come up; the message holds the end of its log."""


PORTS = {"jupyter": 8888, "inference": 8000, "inference-grpc": 8001, "postgres": 5432, "chroma": 8002, "mlflow": 5000}
HOSTS = {name: f"{name.removesuffix('-grpc')}.{DOMAIN}" for name in PORTS}


class Stage:
    """Starts every service on a ground; `places` says where each came to stand."""

    def __init__(
        self,
        ground: Ground,
        directory: Path,
        programs: Path,
        address_of: Callable[[str], str],
        ports: Mapping[str, int] = PORTS,
        *,
        by_name: bool = True,
    ) -> None:
        self.ground = ground
        self.directory = directory
        self.programs = programs  # bin of the demo's environment
        self.secrets = Secrets.fresh()
        addresses = {host: address_of(host) for host in sorted(set(HOSTS.values()))}
        self.places = {
            name: Place(host if by_name else addresses[host], addresses[host], ports[name]) for name, host in HOSTS.items()
        }
        self._processes: dict[str, subprocess.Popen[str]] = {}

    def start(self) -> None:
        """Start everything; nothing is waited for."""
        self._start_postgres()
        self._start_jupyter()
        self._start_mlflow()
        self._start_chroma()
        place, grpc = self.places["inference"], self.places["inference-grpc"]
        script = HERE / "services" / "inference.py"
        self._start("inference", self.programs / "python", script, place.address, place.port, grpc.port)

    def wait(self, told: Callable[[str, float], None], patience: float = 240) -> None:
        """Until every port answers; `told` hears of each with the seconds since the call."""
        started = time.monotonic()
        waiting = dict(self.places)
        while waiting:
            for name, place in list(waiting.items()):
                with contextlib.suppress(OSError), self.ground.dial(place.address, place.port, timeout=1):
                    told(name, time.monotonic() - started)
                    del waiting[name]
            for name, process in self._processes.items():
                if process.poll() is not None or (waiting and time.monotonic() - started > patience):
                    state = (
                        f"ended with {process.returncode}"
                        if process.poll() is not None
                        else f"`{', '.join(waiting)}` not up in time"
                    )
                    log = (self.directory / f"{name}.log").read_text(errors="replace")
                    raise StageFailed(f"service `{name}`: {state}\n{log[-2000:]}")
            time.sleep(0.1)
        self._make_database()

    def _start(self, name: str, *command: object, user: str | None = None, environment: Mapping[str, str] | None = None) -> None:
        home = self._home(name)
        variables = {"HOME": str(home), "PYTHONWARNINGS": "ignore", "DO_NOT_TRACK": "true", **(environment or {})}
        self._processes[name] = self.ground.start(name, *command, user=user, environment=variables, directory=home)

    def _home(self, name: str) -> Path:
        home = self.directory / "homes" / name
        home.mkdir(parents=True, exist_ok=True)
        return home

    def _start_jupyter(self) -> None:
        place = self.places["jupyter"]
        options = [f"--ServerApp.ip={place.address}", f"--ServerApp.port={place.port}", "--ServerApp.allow_remote_access=True"]
        # The token goes through the environment: command lines are readable by every user of the machine.
        self._start(
            "jupyter",
            self.programs / "jupyter-lab",
            "--no-browser",
            "--allow-root",
            "--ServerApp.port_retries=0",
            *options,
            environment={"JUPYTER_TOKEN": self.secrets.jupyter},
        )

    def _start_mlflow(self) -> None:
        place, home = self.places["mlflow"], self._home("mlflow")
        names = [f"{place.host}:{place.port}", f"{place.host}", f"{place.address}:{place.port}", "127.0.0.1:*", "localhost:*"]
        self._start(
            "mlflow",
            self.programs / "mlflow",
            "server",
            "--host",
            place.address,
            "--port",
            place.port,
            "--workers",
            1,
            "--backend-store-uri",
            f"sqlite:///{home}/mlflow.db",
            "--artifacts-destination",
            home / "artifacts",
            "--allowed-hosts",
            ",".join(names),
            environment={"PATH": f"{self.programs}:{os.environ['PATH']}", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"},
        )

    def _start_chroma(self) -> None:
        place, home = self.places["chroma"], self._home("chroma")
        command = [self.programs / "chroma", "run", "--path", home / "data", "--host", place.address, "--port", place.port]
        self._start("chroma", *command, environment={"ANONYMIZED_TELEMETRY": "False"})

    def _start_postgres(self) -> None:
        place, home = self.places["postgres"], self._home("postgres")
        user = "postgres" if os.geteuid() == 0 else None  # PostgreSQL refuses to run as root
        if user is not None:
            shutil.chown(home, user)
        binaries = _postgres_binaries()
        data = home / "data"
        self.ground.run(binaries / "initdb", "-D", data, "--auth-local=peer", "--auth-host=scram-sha-256", "--no-sync", user=user)
        with (data / "pg_hba.conf").open("a") as rules:
            rules.write("host all all all scram-sha-256\n")
        command = [binaries / "postgres", "-D", data, "-h", place.address, "-p", place.port, "-k", home]
        self._start("postgres", *command, user=user)

    def _make_database(self) -> None:
        place = self.places["postgres"]
        statements = (
            f"CREATE ROLE {DATABASE_USER} LOGIN PASSWORD '{self.secrets.database}';\n"
            f"CREATE DATABASE {DATABASE} OWNER {DATABASE_USER};\n\\c {DATABASE}\n"
            f"SET ROLE {DATABASE_USER};\n"
            "CREATE TABLE features AS SELECT n AS id, sin(n) AS value FROM generate_series(1, 1000) AS n;\n"
        )
        user = "postgres" if os.geteuid() == 0 else None
        socket_directory = self._home("postgres")
        command = ["psql", "-q", "-v", "ON_ERROR_STOP=1", "-h", socket_directory, "-p", place.port, "-d", "postgres"]
        self.ground.run(*command, user=user, input=statements)


def _postgres_binaries() -> Path:
    versions = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    if not versions:
        raise StageFailed("PostgreSQL is missing; `make demo` installs it where it may")
    return versions[-1]
