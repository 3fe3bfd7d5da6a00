"""Seats: people with a device, a connector and two segments each, so that the end of one's sessions is seen by nobody else; one exchange serves all."""

import itertools
import json
import queue
import subprocess
import sys
import threading
from concurrent.futures import Future
from pathlib import Path
from typing import Any

from deployment import START_WAIT, Deployment, DeploymentError
from netlab import Machine

TCP, UDP, MOVED = 7100, 7200, 200
"""The first seat's ports, and how far a changed segment is from them."""


class SharedDeployment(Deployment):
    """For many threads: one request at a time."""

    def __init__(self, machine: Machine, address: str, directory: Path) -> None:
        super().__init__(machine, address, directory)
        self._one = threading.RLock()

    def call(self, method: str, path: str, body: object = None, *, content: bytes | None = None, token: str = "") -> Any:
        with self._one:
            return super().call(method, path, body, content=content, token=token)


class AgentsProcess:
    """bench/agents.py, for many threads."""

    def __init__(self, machine: Machine, deployment: Deployment) -> None:
        command = [sys.executable, Path(__file__).with_name("agents.py"), deployment.login_line, deployment.directory / "agents"]
        self._process = machine.start("agents", *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._numbers = itertools.count()
        self._waiting: dict[int, Future[dict[str, Any]]] = {}
        self._lines: queue.SimpleQueue[str] = queue.SimpleQueue()
        for work in (self._read, self._write):
            threading.Thread(target=work, daemon=True).start()

    @property
    def pid(self) -> int:
        return self._process.pid

    def ask(self, op: str, name: str, **fields: object) -> dict[str, Any]:
        number = next(self._numbers)
        waiting: Future[dict[str, Any]] = Future()
        self._waiting[number] = waiting
        self._lines.put(json.dumps({"number": number, "op": op, "name": name, **fields}) + "\n")
        answer = waiting.result(START_WAIT)
        if not answer["ok"]:
            raise DeploymentError(f"`{op} {name}`: {answer['code']}: {answer.get('message', 'no more is said')}")
        return answer

    def _write(self) -> None:
        assert self._process.stdin is not None
        while True:
            line = self._lines.get()
            try:
                self._process.stdin.write(line)
                self._process.stdin.flush()
            except OSError:  # the process is gone: nobody waits for an answer but until START_WAIT
                return

    def _read(self) -> None:
        assert self._process.stdout is not None
        for line in self._process.stdout:
            answer = json.loads(line)
            self._waiting.pop(answer["number"]).set_result(answer)


class Seat:
    """One person, `bench-N`, and everything of the same name."""

    def __init__(self, site: "Site", number: int) -> None:
        self._site = site
        self.number = number
        self.name = f"bench-{number}"
        self.program = f"job-{number}"
        self.person = self.name
        self.scim_id = ""
        self.client = ""
        self.connector = ""
        self.doors: dict[str, str] = {}

    @property
    def ports(self) -> tuple[int, int]:
        return TCP + self.number, UDP + self.number

    def segments(self, moved: int = 0) -> str:
        return "---\n".join(
            f"kind: segment\nname: {protocol}-{self.number}\nhosts: [{self._site.host}]\nports: [{port + moved}]\n"
            f"protocol: {protocol}\ngroups: [{self.name}]\nallow: [{self._site.host}/32]\n"
            for protocol, port in zip(("tcp", "udp"), self.ports, strict=True)
        )

    def documents(self) -> str:
        return (
            f"kind: connector-group\nname: {self.name}\nnetworks: [{self._site.host}/32]\n---\n"
            f"kind: group\nname: {self.name}\nusers: [{self.name}]\n---\n{self.segments()}"
        )

    def put_rule(self, **fields: object) -> None:
        what = {"segments": [f"tcp-{self.number}", f"udp-{self.number}"]}
        rule = {"effect": "permit", "who": {"groups": [self.name]}, "what": what, **fields}
        self._site.deployment.call("PUT", f"/rules/{self.name}", rule)

    def new_client(self, **proof: str) -> None:
        """Enrolled with this proof, or with a key."""
        given = proof or {"key": self._site.deployment.key("client", user=self.person)}
        self.client = self._site.agents.ask("client", self.name, **given)["agent"]
        for protocol, port in zip(("tcp", "udp"), self.ports, strict=True):
            fields = {"host": self._site.host, "port": port, "protocol": protocol}
            self.doors[protocol] = self._site.agents.ask("door", self.name, **fields)["address"]

    def new_connector(self) -> None:
        key = self._site.deployment.key("connector", group=self.name)
        self.connector = self._site.agents.ask("connector", self.name, key=key)["agent"]

    def enable(self) -> None:
        """A client whose user was disabled has ended for good: the person signs in again."""
        if self._site.deployment.call("GET", f"/users/{self.name}")["disabled"]:
            self._site.deployment.call("POST", f"/users/{self.name}/enable")
            self.new_client()

    def allow(self) -> None:
        """As it was built."""
        self.put_rule()
        if self.person != self.name:
            self.person = self.name
            self.new_client()
        self.enable()


class Site:
    def __init__(self, deployment: Deployment, agents: AgentsProcess, host: str, seats: int) -> None:
        self.deployment = deployment
        self.agents = agents
        self.host = host
        self.seats = [Seat(self, number) for number in range(seats)]

    def build(self) -> None:
        for seat in self.seats:
            self.deployment.add_user(seat.name)
        self.deployment.apply("---\n".join(seat.documents() for seat in self.seats))
        for seat in self.seats:
            seat.put_rule()
            seat.new_connector()
            seat.new_client()
