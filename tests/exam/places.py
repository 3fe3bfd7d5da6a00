"""Where the examination happens: hosts for places, Cloister's processes on them, the resources, and the fixture's documents."""

import contextlib
import itertools
import json
import os
import select
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from deployment import START_WAIT, Deployment, DeploymentError
from netlab import Lab, Machine, permitted

from cloister.model.documents import to_fields
from cloister.model.parse import parse_documents
from exam.programs import Issuer
from exam.providers import Providers
from exam.rows import PLACES
from exam.services import Service, serve

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
FIXTURE = tuple(HERE / "fixture" / name for name in ("resources.yaml", "people.yaml", "rules.yaml"))


def fixture() -> list[dict[str, Any]]:
    """The documents of the fixture."""
    read = parse_documents("---\n".join(file.read_text() for file in FIXTURE))
    if read.errors:
        raise ValueError(f"the fixture: {read.errors[0]}")
    return [to_fields(document) for document in read.documents]


class DeviceHost:
    """The process of the devices that stand at one place."""

    def __init__(self, machine: Machine, deployment: Deployment, place: str) -> None:
        self.machine = machine
        command = [sys.executable, HERE / "devices.py", deployment.login_line, deployment.directory / f"devices-{place}"]
        self._process = machine.start(f"devices-{place}", *command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._numbers = itertools.count(1)

    def ask(self, op: str, device: str, **fields: object) -> dict[str, Any]:
        """One request; what the host could not do is in the answer."""
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        request = {"n": next(self._numbers), "op": op, "device": device, **fields}
        stdin.write(json.dumps(request) + "\n")
        stdin.flush()
        ready, _, _ = select.select([stdout], [], [], START_WAIT)
        line = stdout.readline() if ready else ""
        if not line:
            raise DeploymentError(f"the devices do not answer:\n{self.machine.log('devices')}")
        answer: dict[str, Any] = json.loads(line)
        return answer


class Places:
    """The running examination: everything but what rows change."""

    def __init__(self, lab: Lab | None, directory: Path) -> None:
        self._lab = lab
        self._directory = directory
        here = Machine("exam", directory)
        self.main = here if lab is None else lab.inet
        self.inside = here if lab is None else lab.cluster
        address = "127.0.0.1:7443" if lab is None else f"{lab.inet.address}:7443"
        self.deployment = Deployment(self.main, address, directory)
        self.services: dict[tuple[str, int], Service] = {}
        self.programs = Issuer()
        self.providers: Providers
        self._hosts: dict[str, DeviceHost] = {}

    def machine(self, place: str) -> Machine:
        return self.main if self._lab is None else self._lab.hosts[place]

    def devices(self, place: str) -> DeviceHost:
        if place not in self._hosts:
            self._hosts[place] = DeviceHost(self.machine(place), self.deployment, place)
        return self._hosts[place]

    def start(self, documents: list[dict[str, Any]]) -> None:
        self.deployment.start_exchange()
        self.providers = Providers(self.main, self.deployment, documents)
        self.providers.start()
        self.deployment.apply("---\n".join([*(file.read_text() for file in FIXTURE), self.programs.document]))
        self.providers.give_secrets()
        segments = [document for document in documents if document["kind"] == "segment"]
        for host, port in sorted({(segment["hosts"][0], segment["ports"][0]) for segment in segments}):
            self.services[host, port] = serve(self.inside, host, port)
        groups = sorted({segment["groups"][0] for segment in segments})
        starting = [threading.Thread(target=self._start_connector, args=(group, self._key(group))) for group in groups]
        for thread in starting:
            thread.start()
        for thread in starting:
            thread.join()
        if len(self.deployment.connectors) != len(groups):
            raise DeploymentError("not every connector came up")

    def _key(self, group: str) -> str:
        return self.deployment.key("connector", group=group)

    def _start_connector(self, group: str, key: str) -> None:
        self.deployment.start_connector(self.inside, group, f"connector-{group}", key=key)


@contextlib.contextmanager
def places() -> Iterator[Places]:
    """Namespaces where they are permitted, else this machine's loopback: then a place is a process of its own, without an address of its own."""
    with contextlib.ExitStack() as stack:
        refused = permitted()
        if refused is None:
            lab = stack.enter_context(Lab(prefix=f"exam-{os.getpid()}", laptops=PLACES))
            directory = lab.directory
        else:
            print(f"{refused}: every place is a process of this machine, without an address of its own", file=sys.stderr)
            lab, directory = None, Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="exam-")))
        made = Places(lab, directory)
        try:
            made.start(fixture())
            yield made
        except BaseException:
            for log in sorted(directory.glob("*.log")):
                print(f"---- {log.name}\n{log.read_text(errors='replace')[-2000:]}", file=sys.stderr)
            raise
        finally:
            made.deployment.close()
            made.main.end()
