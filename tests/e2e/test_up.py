"""`cloister up` on a laptop of its own: names work for unmodified programs, and everything is as before after `cloister down`."""

import json
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from deployment import Deployment
from netlab import Host, Lab, permitted

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")

DOCUMENTS = """
kind: connector-group
name: lab
suffixes: [lab.internal]
---
kind: segment
name: web
hosts: [web.lab.internal, "*.apps.lab.internal"]
ports: [8080]
groups: [lab]
---
kind: segment
name: hidden
hosts: [hidden.lab.internal]
ports: [8080]
groups: [lab]
---
kind: segment
name: clock
hosts: [clock.lab.internal, watch.lab.internal]
ports: [3737]
protocol: udp
groups: [lab]
---
kind: rule
name: ada
effect: permit
who: {users: [ada]}
what: {segments: [web, clock]}
"""

SERVICE = """
import http.server, time
class Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
        self.wfile.write(b"hello")
        while self.path == "/stream":
            self.wfile.write(b"x" * 1024)
            self.wfile.flush()
            time.sleep(0.01)
http.server.ThreadingHTTPServer(("0.0.0.0", 8080), Page).serve_forever()
"""


CLOCK = """
import socket, sys
channel = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
channel.bind((sys.argv[1], 3737))
while True:
    data, peer = channel.recvfrom(2048)
    channel.sendto(sys.argv[2].encode() + b" says " + data, peer)
"""

# One socket, several destinations, each twice: what came, and whether it came from where it was sent to.
DATAGRAMS = """
import json, socket, sys
family = {"4": socket.AF_INET, "6": socket.AF_INET6}[sys.argv[1]]
channel = socket.socket(family, socket.SOCK_DGRAM)
channel.settimeout(10)
answers = []
for turn in ("first", "second"):
    for name in sys.argv[2:]:
        there = socket.getaddrinfo(name, 3737, family, socket.SOCK_DGRAM)[0][4]
        channel.sendto(turn.encode(), there)
        data, peer = channel.recvfrom(2048)
        answers.append([data.decode(), peer[:2] == there[:2]])
print(json.dumps(answers))
"""


class World:
    def __init__(self, lab: Lab, directory: Path) -> None:
        self.lab = lab
        address = lab.service_address(77)
        hosts = dict.fromkeys(("web.lab.internal", "one.apps.lab.internal", "hidden.lab.internal"), address)
        for at, name in enumerate(("clock", "watch"), start=78):
            hosts[f"{name}.lab.internal"] = lab.service_address(at)
            lab.services.start(name, "python3", "-c", CLOCK, lab.service_address(at), name)
        lab.cluster.write_file("hosts", "".join(f"{address} {name}\n" for name, address in hosts.items()))
        lab.services.start("web", "python3", "-c", SERVICE)
        self.cloister = Deployment(lab.inet, f"{lab.inet.address}:443", directory)
        self.cloister.start_exchange("--suffix", "lab.internal")
        self.cloister.add_user("ada")
        self.cloister.apply(DOCUMENTS)
        self.cloister.start_connector(lab.cluster, "lab")
        self.cloister.sign_in(lab.laptop, "ada")
        self.cloister.wait_until_served(lab.laptop, "ada", ["web", "clock"])

    @property
    def laptop(self) -> Host:
        return self.lab.laptop

    def curl(self, name: str, *options: str) -> str:
        return self.laptop.run("curl", "-s", "-m", "15", *options, f"http://{name}:8080/", check=False).stdout


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab() as lab:
        world = World(lab, tmp_path_factory.mktemp("up"))
        yield world
        world.cloister.close()


@pytest.fixture
def up(world: World) -> Iterator[None]:
    process = world.cloister.up(world.laptop, "ada")
    yield
    if process.poll() is None:
        process.send_signal(signal.SIGTERM)
        process.wait(timeout=20)


def _host_state(laptop: Host) -> tuple[str, ...]:
    rules = laptop.run("ip", "rule", "show").stdout
    tables = laptop.run("nft", "list", "tables").stdout
    resolver = laptop.run("cat", "/etc/resolv.conf").stdout
    return rules, tables, resolver


@pytest.mark.usefixtures("up")
def test_unmodified_program_reaches_a_service_by_name(world: World) -> None:
    assert world.curl("web.lab.internal", "-4") == "hello"
    assert world.curl("web.lab.internal", "-6") == "hello"


@pytest.mark.usefixtures("up")
@pytest.mark.parametrize("family", ["4", "6"])
def test_datagrams_reach_the_service_that_they_were_sent_to_and_are_answered_from_it(world: World, family: str) -> None:
    names = ("clock.lab.internal", "watch.lab.internal")
    answers = json.loads(world.laptop.run(sys.executable, "-c", DATAGRAMS, family, *names).stdout)
    assert answers == [[f"{name} says {turn}", True] for turn in ("first", "second") for name in ("clock", "watch")]


@pytest.mark.usefixtures("up")
def test_name_below_a_wildcard_works_at_its_first_use(world: World) -> None:
    assert world.curl("one.apps.lab.internal", "-4") == "hello"


@pytest.mark.usefixtures("up")
def test_case_68_hidden_name_answers_like_one_that_does_not_exist(world: World) -> None:
    hidden = world.laptop.run("getent", "ahosts", "hidden.lab.internal", check=False)
    nowhere = world.laptop.run("getent", "ahosts", "nowhere.lab.internal", check=False)
    assert (hidden.returncode, hidden.stdout) == (nowhere.returncode, nowhere.stdout)
    assert world.curl("hidden.lab.internal") == ""


@pytest.mark.usefixtures("up")
def test_case_67_another_user_does_not_get_in(world: World) -> None:
    address = world.laptop.run("getent", "ahostsv4", "web.lab.internal").stdout.split()[0]
    assert world.curl(address) == "hello"
    command = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "curl", "-s", "-m", "5", f"http://{address}:8080/"]
    assert world.laptop.run(*command, check=False).stdout == ""


@pytest.mark.usefixtures("up")
def test_revoked_stream_ends_and_the_person_is_told(world: World) -> None:
    stream = world.laptop.start("stream", "curl", "-s", "-o", "/dev/null", "http://web.lab.internal:8080/stream")
    deadline = time.monotonic() + 15
    while not (sessions := world.cloister.call("GET", "/sessions")) and time.monotonic() < deadline:
        time.sleep(0.05)
    assert sessions
    world.cloister.call("PUT", "/rules/no", {"effect": "forbid", "who": {"users": ["ada"]}, "what": {"segments": ["web"]}})
    assert stream.wait(timeout=5) != 0
    assert any("web.lab.internal" in notice for notice in world.cloister.notices(world.laptop, "ada"))
    world.cloister.call("DELETE", "/rules/no")


def test_everything_is_as_before_after_down(world: World) -> None:
    before = _host_state(world.laptop)
    process = world.cloister.up(world.laptop, "ada")
    assert _host_state(world.laptop) != before
    assert world.cloister.client(world.laptop, "ada", "down").returncode == 0
    assert process.wait(timeout=20) == 0
    assert _host_state(world.laptop) == before


def test_case_71_killed_client_leaks_no_private_name_and_down_cleans_up(world: World) -> None:
    before = _host_state(world.laptop)
    process = world.cloister.up(world.laptop, "ada")
    process.kill()
    process.wait()
    assert world.laptop.run("getent", "hosts", "web.lab.internal", check=False).returncode != 0
    assert _host_state(world.laptop) != before
    assert world.cloister.client(world.laptop, "ada", "down").returncode == 0
    assert _host_state(world.laptop) == before


def test_background_start_tells_that_it_is_up(world: World) -> None:
    result = world.cloister.client(world.laptop, "ada", "up", "--json")
    assert json.loads(result.stdout)["link"] == "up", result.stderr
    assert world.curl("web.lab.internal") == "hello"
    again = world.cloister.client(world.laptop, "ada", "up")
    assert again.returncode == 6
    assert world.cloister.client(world.laptop, "ada", "down").returncode == 0
