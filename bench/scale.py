"""10,000 sessions at one exchange: 1,000 devices with real links and ten sessions each, 200 of them with a live flow over a tunnel.

One session is revoked, again and again; then one change ends them all; then both again while a directory provisions. Time runs from before the request
to the last byte that came back.
"""

import contextlib
import json
import select
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from deployment import Deployment, DeploymentError
from netlab import Machine

from bench.run import EXCHANGE, HOSTS
from bench.watch import open_tcp, release, split

ROOT = Path(__file__).parent.parent
PORTS = tuple(range(7001, 7011))
START_WAIT = 400.0
ASK_EVERY = 0.001
QUIET_BEFORE = 0.05
LAST_BYTE_WAIT = 20.0
SYNCED = 10_000
SETTLE = 2.0
RULE = "kind: rule\nname: fleet\neffect: permit\nwho: {groups: [fleet]}\nwhat: {any: true}\n"


@dataclass(frozen=True)
class Times:
    name: str
    times: list[float]
    is_of_one_change: bool = False
    """One change ended all of them: only the longest counts."""


@dataclass(frozen=True)
class Synced:
    """How far a directory came meanwhile."""

    users: int
    of: int
    seconds: float
    per_second: float


def measure(directory: Path, devices: int, live: int, trials: int) -> Iterator[Times | Synced]:
    size = f"of {devices * len(PORTS):,}"
    with service(), Fleet(directory, devices, live) as fleet:
        yield from measure_both(fleet, size, trials)
        fleet.stand_again()
        sync = Sync(fleet.deployment, SYNCED)
        try:
            yield from measure_both(fleet, f"{size}, during a sync", trials)
        finally:
            synced = sync.end()
        yield synced


def measure_both(fleet: "Fleet", size: str, trials: int) -> Iterator[Times]:
    flows = open_flows(fleet.doors)
    known = sessions_of(fleet.deployment)
    times = []
    for door, device in fleet.doors[:trials]:
        times.append(revoke_one(fleet.deployment, known[device], flows[device]))
        flows[device] = open_tcp(split(door), b"?")  # so that as many live on
    yield Times(f"one session {size}", times)
    yield Times(f"all {size}", end_all(fleet.deployment, list(flows.values())), is_of_one_change=True)


class Sync:
    """A directory provisions so many users."""

    def __init__(self, deployment: Deployment, users: int) -> None:
        token = deployment.call("POST", "/directories", {"name": "corp", "issuer": "https://login.example"})["token"]
        command = [sys.executable, ROOT / "bench" / "scim.py", deployment.address, token, str(users)]
        self._users = users
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self._process.stdout is not None
        self._process.stdout.readline()  # the first hundred are there: it is going on

    def end(self) -> Synced:
        assert self._process.stdout is not None
        self._process.terminate()
        lines = [line.split() for line in self._process.stdout]
        self._process.wait()
        self._process.stdout.close()
        made, seconds = (int(lines[-1][0]), float(lines[-1][1])) if lines else (100, float("inf"))
        return Synced(made, self._users, seconds, round(made / seconds, 1))


def end_all(deployment: Deployment, flows: Sequence[socket.socket]) -> list[float]:
    """Seconds from the request that removes the one rule to the end of each flow; all of them are asked all the while, ten times a second."""
    last = [time.monotonic()] * len(flows)
    over = threading.Event()

    def ask(number: int, flow: socket.socket) -> None:
        with contextlib.suppress(OSError):
            while not over.is_set():
                flow.sendall(b"?")
                if not flow.recv(1):
                    break
                last[number] = time.monotonic()
                over.wait(0.1)
        last[number] = time.monotonic()  # the last byte was not later

    asking = [threading.Thread(target=ask, args=item) for item in enumerate(flows)]
    for thread in asking:
        thread.start()
    time.sleep(QUIET_BEFORE)
    started = time.monotonic()
    deployment.call("DELETE", "/rules/fleet")
    for thread in asking:
        thread.join(max(started + LAST_BYTE_WAIT - time.monotonic(), 0.0))
    over.set()
    return [max(moment - started, 0.0) for moment in last]


@contextlib.contextmanager
def service() -> Iterator[None]:
    """Echoes on the port of every segment."""
    listeners = [socket.create_server((HOSTS[0], port), backlog=1024) for port in PORTS]
    for listener in listeners:
        threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    try:
        yield
    finally:
        for listener in listeners:
            release(listener)


def _accept(listener: socket.socket) -> None:
    with contextlib.suppress(OSError):
        while True:
            connection, _ = listener.accept()
            threading.Thread(target=_echo, args=(connection,), daemon=True).start()


def _echo(connection: socket.socket) -> None:
    with connection, contextlib.suppress(OSError):
        while data := connection.recv(4096):
            connection.sendall(data)


class Fleet:
    """The exchange, a connector, and all devices; `doors` are addresses with the device behind each."""

    def __init__(self, directory: Path, devices: int, live: int) -> None:
        self._machine = Machine("bench", directory)
        self._directory = directory
        self._sizes = (devices, live)
        self.deployment = Deployment(self._machine, EXCHANGE, directory)
        self.doors: list[tuple[str, str]] = []

    def __enter__(self) -> "Fleet":
        try:
            self._start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.deployment.close()
        self._machine.end()

    def _start(self) -> None:
        devices, live = self._sizes
        segments = [
            f"kind: segment\nname: s{port}\nhosts: [{HOSTS[0]}]\nports: [{port}]\ngroups: [bench]\nallow: [{HOSTS[0]}/32]\n"
            for port in PORTS
        ]
        rest = (
            f"kind: connector-group\nname: bench\nnetworks: [{HOSTS[0]}/32]\n",
            "kind: group\nname: fleet\nusers: [fleet]\n",
            RULE,
        )
        self.deployment.start_exchange()
        self.deployment.add_user("fleet")
        self.deployment.apply("---\n".join([*segments, *rest]))
        self.deployment.start_connector(self._machine, "bench")
        command = [
            sys.executable,
            ROOT / "bench" / "fleet.py",
            self.deployment.login_line,
            self._directory / "fleet",
            devices,
            live,
        ]
        places = [f"{HOSTS[0]}:{port}" for port in PORTS]
        self._fleet = self._machine.start("fleet", *command, *places, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        said = self._say(self.deployment.key("client", user="fleet", uses=devices))
        self.doors = [(door, device) for door, device in said["doors"]]

    def stand_again(self) -> None:
        """All sessions, after they were ended."""
        time.sleep(SETTLE)
        self.deployment.apply(RULE)
        self._say("again")

    def _say(self, line: str) -> Any:
        started = time.monotonic()
        assert self._fleet.stdin is not None
        assert self._fleet.stdout is not None
        self._fleet.stdin.write(f"{line}\n")
        self._fleet.stdin.flush()
        if not select.select([self._fleet.stdout], [], [], START_WAIT)[0] or not (answer := self._fleet.stdout.readline()):
            raise DeploymentError(f"the fleet did not come up:\n{self._machine.log('fleet').read_text()[-3000:]}")
        print(f"       the fleet is up after {time.monotonic() - started:.0f} s", file=sys.stderr, flush=True)
        return json.loads(answer)


def open_flows(doors: Sequence[tuple[str, str]]) -> dict[str, socket.socket]:
    """A flow through every door that has carried a byte each way; by the device behind it."""
    return {device: open_tcp(split(door), b"?") for door, device in doors}


def sessions_of(deployment: Deployment) -> dict[str, str]:
    """Device → its session to the first segment."""
    found = deployment.call("GET", f"/sessions?segment=s{PORTS[0]}&limit=1000")
    return {session["client"]: session["id"] for session in found}


def revoke_one(deployment: Deployment, session: str, flow: socket.socket) -> float:
    """Seconds from the request to the last byte that came back on the flow of this session."""
    answers = [time.monotonic()]
    asking = threading.Thread(target=_ask, args=(flow, answers))
    asking.start()
    time.sleep(QUIET_BEFORE)
    started = time.monotonic()
    deployment.call("POST", f"/sessions/{session}/revoke")
    asking.join()
    flow.close()
    return max(answers[-1] - started, 0.0)


def _ask(flow: socket.socket, answers: list[float]) -> None:
    """Ask every millisecond, until the flow ends."""
    with contextlib.suppress(OSError):
        while True:
            flow.sendall(b"?")
            if not flow.recv(1):
                return
            answers.append(time.monotonic())
            time.sleep(ASK_EVERY)
