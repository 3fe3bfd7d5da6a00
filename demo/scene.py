"""The machines of the demo: a network namespace for each host, or this machine's loopback; and what people do on theirs."""

import contextlib
import itertools
import json
import os
import socket
import subprocess
import tempfile
import threading
from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, Self

from deployment import Deployment
from netlab import Host, Lab, LabError, Machine

from people import ADA, BEN, PEOPLE, Person
from stage import PORTS, Place, Stage

ROOT = Path(__file__).parent.parent
PATIENCE = 60.0  # seconds for a visitor's answer
COMPANY = "id.corp.example"
"""Where people sign in, if that is not the exchange."""


class Visitor:
    """A person's tools: a process of theirs that stays, so that loading Python is in no measured time."""

    def __init__(self, machine: Machine, programs: Path, name: str) -> None:
        script = ROOT / "demo" / "visitor.py"
        self._process = machine.start(f"visitor-{name}", programs / "python", script, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    def send(self, **command: object) -> None:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(command) + "\n")
        self._process.stdin.flush()

    def hear(self) -> dict[str, Any]:
        """The next answer. A visitor that says nothing for long is ended, and so is the demo."""
        assert self._process.stdout is not None
        patience = threading.Timer(PATIENCE, self._process.kill)
        patience.start()
        line = self._process.stdout.readline()
        patience.cancel()
        if not line:
            raise LabError(f"a visitor's process ended, or said nothing for {PATIENCE:g} s")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def ask(self, **command: object) -> dict[str, Any]:
        self.send(**command)
        return self.hear()

    def stop(self) -> None:
        self._process.terminate()
        self._process.wait()


class Scene(ABC):
    """The machines, the services on them, and Cloister between them."""

    stage: Stage
    deployment: Deployment
    loopback: bool

    def __init__(self, programs: Path) -> None:
        self.programs = programs  # bin of the services' environment
        self._entrances: dict[Person, subprocess.Popen[str]] = {}

    @abstractmethod
    def machine_of(self, person: Person) -> Machine: ...

    @abstractmethod
    def company(self) -> tuple[Machine, Place]:
        """Where the company's identity provider stands."""

    @abstractmethod
    def enter_as(self, person: Person) -> None:
        """Bring this person's client up, after the sign-in."""

    @abstractmethod
    def entrance_log(self, person: Person) -> Path: ...

    def last_words(self, person: Person) -> str:
        """What this person's client says when it ends by itself, once it has."""
        self._entrances[person].wait(timeout=10)
        return self.entrance_log(person).read_text(errors="replace").strip().rpartition("\n")[2]

    @abstractmethod
    def target(self, person: Person, place: Place) -> dict[str, object]:
        """Where a visitor of this person finds a place."""

    @abstractmethod
    def try_commands(self) -> list[tuple[str, str]]:
        """What to type while it is up, each with what it shows."""


class Namespaces(Scene):
    loopback = False

    def __enter__(self) -> Self:
        self.lab = Lab(prefix=f"demo-{os.getpid()}", laptops=("idp", *(person.name for person in PEOPLE))).__enter__()
        places = itertools.count(11)
        self.stage = Stage(self.lab.services, self.lab.directory, self.programs, lambda _: self.lab.service_address(next(places)))
        names = {place.host: place.address for place in self.stage.places.values()}
        self.lab.cluster.write_file("hosts", "127.0.0.1 localhost\n" + "".join(f"{at} {name}\n" for name, at in names.items()))
        for host in (self.lab.inet, self.lab.hosts["idp"], *map(self.machine_of, PEOPLE)):
            host.write_file("hosts", f"127.0.0.1 localhost\n{self.lab.hosts['idp'].address} {COMPANY}\n")
        self.deployment = Deployment(self.lab.inet, f"{self.lab.inet.address}:7443", self.lab.directory)
        return self

    def __exit__(self, *_: object) -> None:
        self.deployment.close()
        self.lab.close()

    def machine_of(self, person: Person) -> Host:
        return self.lab.hosts[person.name]

    def company(self) -> tuple[Machine, Place]:
        host = self.lab.hosts["idp"]
        return host, Place(COMPANY, host.address, 8443)

    def enter_as(self, person: Person) -> None:
        self._entrances[person] = self.deployment.up(self.machine_of(person), person.name)

    def entrance_log(self, person: Person) -> Path:
        return self.machine_of(person).log(f"up-{person.name}")

    def target(self, person: Person, place: Place) -> dict[str, object]:  # noqa: ARG002  the same for everybody: its name
        return {"host": place.host, "port": place.port}

    def try_commands(self) -> list[tuple[str, str]]:
        shells = {person: self.lab.directory / f"as-{person.name}" for person in PEOPLE}
        for person, path in shells.items():
            host = self.machine_of(person)
            state = self.deployment.client_state(person.name)
            path.write_text(f'#!/bin/sh\nexec env CLOISTER_STATE={state} {" ".join(host.command([]))} "$@"\n')
            path.chmod(0o755)
        ada, ben = shells[ADA], shells[BEN]
        return [
            ("Ben reads a model's answer, by name", f"{ben} curl -s http://inference.lab.internal:8000/v1/models"),
            ("what Ben may reach, and why not the notebook", f"{ben} {self.deployment.program} apps"),
            ("", f"{ben} {self.deployment.program} explain jupyter.lab.internal:8888"),
            ("Ada was taken out of her group; she is told why", f"{ada} {self.deployment.program} status"),
            (
                "what the internet sees of the cluster: nothing",
                f"{' '.join(self.lab.inet.command(['nmap', '-Pn', self.lab.cluster.address]))}",
            ),
        ]


class Loopback(Scene):
    loopback = True

    def __enter__(self) -> Self:
        self._temporary = tempfile.TemporaryDirectory(prefix="cloister-demo-")
        directory = Path(self._temporary.name)
        directory.chmod(0o755)
        self.machine = Machine("here", directory)
        self._doors: dict[str, str] = {}
        ports = dict(zip(PORTS, free_ports(len(PORTS)), strict=True))
        self.stage = Stage(self.machine, directory, self.programs, lambda _: "127.0.0.1", ports, by_name=False)
        self.deployment = Deployment(self.machine, f"127.0.0.1:{free_ports(1)[0]}", directory)
        return self

    def __exit__(self, *_: object) -> None:
        self.deployment.close()
        self.machine.end()
        self._temporary.cleanup()

    def machine_of(self, person: Person) -> Machine:  # noqa: ARG002  there is only one
        return self.machine

    def company(self) -> tuple[Machine, Place]:
        return self.machine, Place("127.0.0.1", "127.0.0.1", free_ports(1)[0])

    def enter_as(self, person: Person) -> None:
        self._doors[person.name] = self.deployment.proxy(self.machine, person.name)
        self._entrances[person] = self.machine.processes[-1]

    def entrance_log(self, person: Person) -> Path:
        return self.machine.log(f"proxy-{person.name}")

    def target(self, person: Person, place: Place) -> dict[str, object]:
        return {"host": place.host, "port": place.port, "proxy": self._doors[person.name]}

    def try_commands(self) -> list[tuple[str, str]]:
        place = self.stage.places["inference"]
        return [
            (
                f"{person.display}, through their own proxy",
                f"curl -sx socks5h://{self._doors[person.name]} http://{place.host}:{place.port}/v1/models",
            )
            for person in PEOPLE
        ]


def free_ports(count: int) -> list[int]:
    with contextlib.ExitStack() as stack:
        held = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)]
        return [one.getsockname()[1] for one in held]
