"""A client that root runs for somebody else (`sudo cloister up`): the owner gets in over TCP and UDP; root, other users and neighbours do not."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator

import pytest
from deployment import Deployment
from netlab import Host, Lab, permitted
from test_capture import become

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")

OWNER, STRANGER, ROOT = 10_001, 10_002, 0
SEEN = "web.lab.internal"

DOCUMENTS = f"""
kind: connector-group
name: lab
suffixes: [lab.internal]
---
kind: segment
name: web
hosts: [{SEEN}]
ports: [8080]
groups: [lab]
---
kind: segment
name: echo
hosts: [{SEEN}]
ports: [5353]
protocol: udp
groups: [lab]
---
kind: group
name: people
users: [ada]
---
kind: rule
name: people
effect: permit
who: {{groups: [people]}}
what: {{segments: [web, echo]}}
"""

LOOK_UP = """
found = set()
try:
    found = {entry[4][0] for entry in socket.getaddrinfo(sys.argv[1], 1)}
except OSError:
    pass
print(json.dumps(sorted(found)))
"""

TALK = """
try:
    with socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=20) as s:
        s.sendall(b"hello")
        s.shutdown(socket.SHUT_WR)
        text = b""
        while part := s.recv(100):
            text += part
        print(text.decode())
except OSError as error:
    print(error.__class__.__name__)
"""

SEND = """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(20)
    s.connect((sys.argv[1], int(sys.argv[2])))
    s.send(b"ping")
    print(s.recv(100).decode(), s.getpeername()[0])
"""


class Services:
    """One TCP service and one UDP service: each answers with what it was sent, and who asked."""

    def __init__(self, host: Host, address: str) -> None:
        self.address = address
        self._stopping = False
        self._tcp = host.inside(lambda: socket.create_server((address, 8080)))
        self._udp = host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self._udp.bind((address, 5353))
        self._threads = [threading.Thread(target=self._serve_tcp), threading.Thread(target=self._serve_udp)]
        for made in (self._tcp, self._udp):
            made.settimeout(0.1)
        for thread in self._threads:
            thread.start()

    def _serve_tcp(self) -> None:
        while not self._stopping:
            try:
                accepted, _ = self._tcp.accept()
            except TimeoutError:
                continue
            with accepted:
                text = b""
                while part := accepted.recv(100):
                    text += part
                accepted.sendall(b"served " + text)

    def _serve_udp(self) -> None:
        while not self._stopping:
            try:
                data, peer = self._udp.recvfrom(100)
            except TimeoutError:
                continue
            self._udp.sendto(b"pong to " + data, peer)

    def close(self) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()
        self._tcp.close()
        self._udp.close()


class Place:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.laptop = lab.laptop
        self.neighbour = lab.hosts["neighbour"]
        self.services = Services(lab.services, lab.service_address(10))
        lab.cluster.write_file("hosts", f"127.0.0.1 localhost\n{self.services.address} {SEEN}\n")
        self.deployment = Deployment(lab.inet, f"{lab.inet.address}:443", lab.directory)
        self.deployment.start_exchange()
        self.deployment.apply(DOCUMENTS.replace("users: [ada]", "users: []"))
        self.deployment.add_user("ada")
        self.deployment.apply(DOCUMENTS)
        self.deployment.start_connector(lab.cluster, "lab")
        self.deployment.sign_in(self.laptop, "ada")
        self.before = self.state()
        os.environ["SUDO_UID"] = str(OWNER)
        try:
            self.client = self.deployment.up(self.laptop, "ada")
        finally:
            del os.environ["SUDO_UID"]
        self.deployment.wait_until_served(self.laptop, "ada", ["web", "echo"])

    def state(self) -> str:
        shown = [
            self.laptop.run(*command.split()).stdout
            for command in ("nft list ruleset", "ip rule", "ip -6 rule", "cat /etc/resolv.conf")
        ]
        return "\n".join(shown)

    def run(self, program: str, *arguments: object, user: int = OWNER, host: Host | None = None) -> str:
        return (host or self.laptop).run(*become(user, program, *arguments)).stdout.strip()

    def synthetic(self, name: str = SEEN) -> str:
        found: list[str] = json.loads(self.run(LOOK_UP, name))
        return next(address for address in found if "." in address)


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Lab(laptops=("laptop", "neighbour")) as lab:
        place = Place(lab)
        try:
            yield place
        finally:
            place.services.close()
            place.deployment.close()


def test_owner_reaches_a_visible_name_over_tcp_and_udp(place: Place) -> None:
    assert place.run(TALK, SEEN, 8080) == "served hello"
    assert place.run(SEND, SEEN, 5353) == f"pong to ping {place.synthetic()}"


def test_case_67_other_users_are_refused_at_the_synthetic_address(place: Place) -> None:
    address = place.synthetic()
    for user in (STRANGER, ROOT):
        assert place.run(TALK, address, 8080, user=user) in ("ConnectionRefusedError", "OSError")
    assert place.run(TALK, address, 8080) == "served hello"


def test_port_beside_the_segment_is_refused_at_once(place: Place) -> None:
    started = time.monotonic()
    assert place.run(TALK, SEEN, 8081) == "ConnectionRefusedError"
    assert time.monotonic() - started < 5


def test_lan_neighbour_does_not_get_in(place: Place) -> None:
    address = place.synthetic()
    place.neighbour.run("ip", "route", "replace", "100.64.0.0/10", "via", place.laptop.address)
    program = TALK.replace("timeout=20", "timeout=0.7")
    assert place.run(program, address, 8080, user=ROOT, host=place.neighbour) == "TimeoutError"


def test_case_71_stopped_client_puts_everything_back(place: Place) -> None:
    place.client.terminate()
    assert place.client.wait(timeout=20) == 0
    assert place.state() == place.before
    assert json.loads(place.run(LOOK_UP, SEEN)) == []
