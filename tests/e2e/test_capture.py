"""Who gets into captured addresses: the owner's own processes, by the kernel's own TCP and UDP, and nobody else.

The core's transparent sockets are stood in for by sockets of the test, so that what is shown is the kernel's part: rules and routes.
"""

import contextlib
import json
import socket
import struct
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from netlab import Host, Lab, permitted

from cloister.client.capture import Capture, rules
from cloister.client.capture.rules import Owner, Pools, parse_pairs, write_ruleset

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")

OWNER, STRANGER, ROOT = 10_001, 10_002, 0
POOL4, POOL6 = "100.64.0.0/16", "fd64:5e6:ca9e::/64"
NAME4, NAME6, OTHER4 = "100.64.0.1", "fd64:5e6:ca9e::1", "100.64.0.2"
RESOLVER = "nameserver 192.0.2.53\nsearch example.test\n"
IP_TRANSPARENT, IPV6_TRANSPARENT = 19, 75
IP_RECVORIGDSTADDR = 20

BECOME = """
import encodings.idna, json, os, socket, sys
os.setgroups([])
os.setgid(int(sys.argv[1]))
os.setuid(int(sys.argv.pop(1)))
"""
"""The interpreter may lie where only root reads: the program becomes the user after it has loaded all it needs."""

CONNECT = """
family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
with socket.socket(family) as s:
    s.settimeout(float(sys.argv[3]))
    try:
        s.connect((sys.argv[1], int(sys.argv[2])))
        s.sendall(b"hello")
        s.shutdown(socket.SHUT_WR)
        text = b""
        while part := s.recv(100):
            text += part
        print(text.decode())
    except TimeoutError:
        print("timeout")
    except OSError as error:
        print(error.__class__.__name__)
"""

EXCHANGE = """
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as s:
    s.settimeout(2)
    answers = []
    for turn in range(2):
        for address in sys.argv[1:]:
            try:
                s.sendto(address.encode(), (address, 53))
                data, source = s.recvfrom(100)
                answers.append([data.decode(), source[0], source[1]])
            except TimeoutError:
                answers.append("timeout")
            except OSError as error:
                answers.append(error.__class__.__name__)
    print(json.dumps(answers))
"""


class Sockets:
    """Transparent sockets on loopback of one host; TCP answers with the address that was dialled, UDP with the one that was sent to."""

    def __init__(self, host: Host) -> None:
        self._stopping = False
        self.tcp4, self.tcp6, self.udp4 = host.inside(self._open)
        self._host = host
        self.ports = {"tcp4": self.tcp4.getsockname()[1], "tcp6": self.tcp6.getsockname()[1], "udp4": self.udp4.getsockname()[1]}
        self._threads = [
            threading.Thread(target=self._accept, args=[self.tcp4]),
            threading.Thread(target=self._accept, args=[self.tcp6]),
            threading.Thread(target=lambda: host.inside(self._answer)),
        ]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _open() -> tuple[socket.socket, socket.socket, socket.socket]:
        sockets = []
        for family, kind in (
            (socket.AF_INET, socket.SOCK_STREAM),
            (socket.AF_INET6, socket.SOCK_STREAM),
            (socket.AF_INET, socket.SOCK_DGRAM),
        ):
            made = socket.socket(family, kind)
            made.settimeout(0.1)
            if family == socket.AF_INET:
                made.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
            else:
                made.setsockopt(socket.IPPROTO_IPV6, IPV6_TRANSPARENT, 1)
            made.bind(("127.0.0.1" if family == socket.AF_INET else "::1", 0))
            if kind == socket.SOCK_STREAM:
                made.listen()
            else:
                made.setsockopt(socket.SOL_IP, IP_RECVORIGDSTADDR, 1)
            sockets.append(made)
        return sockets[0], sockets[1], sockets[2]

    def _accept(self, listener: socket.socket) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                accepted, _ = listener.accept()
                with accepted:
                    accepted.settimeout(5)
                    with contextlib.suppress(OSError):
                        while accepted.recv(100):
                            pass
                        accepted.sendall(f"reached {accepted.getsockname()[0]} {accepted.getsockname()[1]}".encode())

    def _answer(self) -> None:
        while not self._stopping:
            with contextlib.suppress(TimeoutError):
                data, ancillary, _, peer = self.udp4.recvmsg(100, 100)
                body = next(body for _, kind, body in ancillary if kind == IP_RECVORIGDSTADDR)
                port, raw = struct.unpack_from("!2xH4s", body)
                original = (socket.inet_ntoa(raw), port)
                with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as answer:
                    answer.setsockopt(socket.SOL_IP, IP_TRANSPARENT, 1)
                    answer.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                    answer.bind(original)
                    answer.sendto(b"for " + data, peer)

    def close(self) -> None:
        self._stopping = True
        for thread in self._threads:
            thread.join()
        for made in (self.tcp4, self.tcp6, self.udp4):
            made.close()


def become(user: int, program: str, *arguments: object) -> list[object]:
    return [sys.executable, "-c", BECOME + program, user, *arguments]


class Place:
    """A laptop with its LAN neighbour and a container behind it, and capture for the owner."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.laptop = lab.laptop
        self.neighbour = lab.hosts["neighbour"]
        self.container = lab.hosts["container"]
        self.sockets = Sockets(self.laptop)
        self.resolver = lab.directory / "resolv.conf"
        self.resolver.write_text(RESOLVER)
        self.capture = Capture(OWNER, lab.directory, self.resolver)
        self._route_the_pool_to_the_laptop()

    def _route_the_pool_to_the_laptop(self) -> None:
        # the bridge in inet stands for the LAN; the container's traffic is forwarded by the laptop
        self.neighbour.run("ip", "route", "add", POOL4, "via", self.laptop.address)
        self.neighbour.run("ip", "-6", "route", "add", POOL6, "via", self.laptop.address6)
        self.laptop.run("ip", "route", "add", "default", "via", self.lab.inet.address)
        self.container.run("ip", "link", "del", "outer")
        self.laptop.run("ip", "link", "add", "pod", "type", "veth", "peer", "name", "eth0", "netns", self.container.namespace)
        self.laptop.run("ip", "address", "add", "10.88.0.1/24", "dev", "pod")
        self.laptop.run("ip", "link", "set", "pod", "up")
        self.container.run("ip", "address", "add", "10.88.0.2/24", "dev", "eth0")
        self.container.run("ip", "link", "set", "eth0", "up")
        self.container.run("ip", "route", "add", "default", "via", "10.88.0.1")
        self.laptop.run("sysctl", "-qw", "net.ipv4.ip_forward=1", "net.ipv6.conf.all.forwarding=1")

    def captured(self) -> list[tuple[str, str, int, int]]:
        return [(NAME4, "tcp", 80, 90), (NAME6, "tcp", 80, 90), (NAME4, "udp", 53, 53), (OTHER4, "udp", 53, 53)]

    def start(self) -> None:
        def work() -> None:
            self.capture.prepare(POOL4, POOL6)
            self.capture.start(self.sockets.ports, self.captured())

        self.laptop.inside(work)

    def stop(self) -> None:
        self.laptop.inside(self.capture.stop)

    def connect(self, host: Host, address: str, port: int = 80, user: int = OWNER, wait: float = 5) -> str:
        return host.run(*become(user, CONNECT, address, port, wait)).stdout.strip()


@pytest.fixture(scope="module")
def place() -> Iterator[Place]:
    with Lab(laptops=("laptop", "neighbour", "container")) as lab:
        place = Place(lab)
        yield place
        place.sockets.close()


@pytest.fixture
def captured(place: Place) -> Iterator[Place]:
    place.start()
    yield place
    place.stop()


def test_owner_reaches_captured_pairs_with_the_kernels_own_tcp(captured: Place) -> None:
    assert captured.connect(captured.laptop, NAME4) == f"reached {NAME4} 80"
    assert captured.connect(captured.laptop, NAME4, 90) == f"reached {NAME4} 90"
    assert captured.connect(captured.laptop, NAME6) == f"reached {NAME6} 80"


def test_pairs_outside_the_capture_are_refused_at_once(captured: Place) -> None:
    assert captured.connect(captured.laptop, NAME4, 91) == "ConnectionRefusedError"
    assert captured.connect(captured.laptop, OTHER4, 80) == "ConnectionRefusedError"
    assert captured.connect(captured.laptop, NAME6, 91) == "ConnectionRefusedError"


def test_case_67_another_user_of_the_machine_is_refused(captured: Place) -> None:
    for user in (STRANGER, ROOT):
        assert captured.connect(captured.laptop, NAME4, user=user) == "ConnectionRefusedError"
        assert captured.connect(captured.laptop, NAME6, user=user) in ("ConnectionRefusedError", "OSError")
    answers = json.loads(captured.laptop.run(*become(STRANGER, EXCHANGE, NAME4)).stdout)
    assert answers[0] in ("ConnectionRefusedError", "PermissionError")


def test_case_67_control_without_the_uid_guard_another_user_gets_in(captured: Place) -> None:
    owner = Owner(OWNER)
    pools = Pools(*(rules.ipaddress.ip_network(pool) for pool in (POOL4, POOL6)))  # type: ignore[arg-type]
    text = write_ruleset(owner, pools, captured.sockets.ports, parse_pairs(captured.captured()))
    unguarded = text.replace(f"meta skuid != {OWNER} return\n", "\n").replace(f"meta skuid {OWNER} ", "")
    captured.laptop.run("nft", "-f", "-", input=unguarded)
    assert captured.connect(captured.laptop, NAME4, user=STRANGER) == f"reached {NAME4} 80"


def test_udp_keeps_its_destination_and_is_answered_from_it(captured: Place) -> None:
    answers = json.loads(captured.laptop.run(*become(OWNER, EXCHANGE, NAME4, OTHER4)).stdout)
    assert answers == [[f"for {address}", address, 53] for address in (NAME4, OTHER4)] * 2


def test_lan_neighbour_and_container_do_not_get_in(captured: Place) -> None:
    for host in (captured.neighbour, captured.container):
        assert captured.connect(host, NAME4, wait=0.7) == "timeout"
    assert captured.connect(captured.neighbour, NAME6, wait=0.7) == "timeout"


NAIVE = """
table inet naive {{
  chain take {{
    type filter hook prerouting priority mangle; policy accept;
    ip daddr {pool} meta l4proto tcp tproxy ip to 127.0.0.1:{port} meta mark set 1 accept
  }}
}}
"""


def test_control_bare_local_route_lets_neighbour_and_container_in_until_the_pool_is_guarded(place: Place) -> None:
    laptop = place.laptop
    laptop.run("ip", "route", "add", "local", POOL4, "dev", "lo")
    laptop.run("nft", "-f", "-", input=NAIVE.format(pool=POOL4, port=place.sockets.ports["tcp4"]))
    try:
        for host in (place.neighbour, place.container):
            assert place.connect(host, NAME4) == f"reached {NAME4} 80"
        owner = Owner(OWNER)
        pools = Pools(*(rules.ipaddress.ip_network(pool) for pool in (POOL4, POOL6)))  # type: ignore[arg-type]
        guarded = write_ruleset(owner, pools, place.sockets.ports, [])
        laptop.run("nft", "-f", "-", input=guarded)
        for host in (place.neighbour, place.container):
            assert place.connect(host, NAME4, wait=0.7) == "timeout"
    finally:
        laptop.run("nft", "delete", "table", "inet", "naive")
        laptop.run("ip", "route", "del", "local", POOL4, "dev", "lo")
        laptop.inside(place.capture.clean)


def test_open_flow_survives_when_its_pair_leaves_the_capture(captured: Place) -> None:
    script = CONNECT.replace('s.sendall(b"hello")', 's.sendall(b"hello"); print("open", flush=True); sys.stdin.readline()')
    command = captured.laptop.command(become(OWNER, script, NAME4, 80, 10))
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "open\n"
        assert captured.laptop.inside(lambda: captured.capture.update([]))
        assert captured.connect(captured.laptop, NAME4) == "ConnectionRefusedError"
        process.stdin.write("\n")
        process.stdin.flush()
        assert process.stdout.read().strip() == f"reached {NAME4} 80"


def state(host: Host) -> str:
    shown = [
        host.run(*command.split(" ")).stdout for command in ("nft list ruleset", "ip rule", "ip -6 rule", "ip route show table all")
    ]
    return "\n".join([*shown, host.run("ip", "-6", "route", "show", "table", "all").stdout])


def test_case_71_stop_restores_the_host_exactly(place: Place) -> None:
    before, resolver, inode = state(place.laptop), place.resolver.read_bytes(), place.resolver.stat()
    place.start()
    assert state(place.laptop) != before
    assert place.resolver.read_bytes() != resolver
    place.stop()
    assert state(place.laptop) == before
    after = place.resolver.stat()
    assert place.resolver.read_bytes() == resolver
    assert (after.st_ino, after.st_mtime_ns, after.st_mode) == (inode.st_ino, inode.st_mtime_ns, inode.st_mode)


def test_case_71_killed_process_leaks_no_name_and_the_next_start_takes_over(place: Place) -> None:
    before, resolver = state(place.laptop), place.resolver.read_bytes()
    place.start()
    killed = place.resolver.read_text()
    assert "192.0.2.53" not in killed, "private names go to nobody while the client is gone"
    place.capture = Capture(OWNER, place.lab.directory, place.resolver)  # a new process, which knows nothing
    preparation = place.laptop.inside(lambda: place.capture.prepare(POOL4, POOL6))
    assert preparation.upstreams == ["192.0.2.53:53"]
    assert place.resolver.read_text() == killed
    place.start()
    assert place.connect(place.laptop, NAME4) == f"reached {NAME4} 80"
    place.stop()
    assert state(place.laptop) == before
    assert place.resolver.read_bytes() == resolver


def test_case_74_pool_in_use_moves_and_the_person_is_told(place: Place) -> None:
    place.laptop.run("ip", "address", "add", "100.64.7.1/24", "dev", "pod")
    try:
        preparation = place.laptop.inside(lambda: place.capture.prepare(POOL4, POOL6))
        assert str(preparation.pools.v4) == "100.65.0.0/16"
        assert preparation.pools.moved is not None
        assert "100.64.7.0/24" in preparation.pools.moved
    finally:
        place.laptop.run("ip", "address", "del", "100.64.7.1/24", "dev", "pod")
    place.start()
    try:
        place.laptop.run("ip", "route", "add", "100.64.9.0/24", "via", "10.88.0.2")
        assert "100.64.9.0/24" in (place.laptop.inside(place.capture.overlap) or "")
        place.laptop.run("ip", "route", "del", "100.64.9.0/24")
        assert place.laptop.inside(place.capture.overlap) is None
    finally:
        place.stop()


def test_case_76_what_other_programs_take_away_is_put_back(captured: Place) -> None:
    laptop, capture = captured.laptop, captured.capture
    whole = state(laptop)
    assert not laptop.inside(capture.repair_rules)
    assert laptop.inside(capture.repair_resolver) is None
    laptop.run("nft", "flush", "ruleset")
    laptop.run("ip", "rule", "delete", "lookup", Owner(OWNER).mark)
    assert laptop.inside(capture.repair_rules)
    assert state(laptop) == whole
    assert captured.connect(laptop, NAME4) == f"reached {NAME4} 80"
    captured.resolver.write_text("nameserver 198.51.100.53\n")  # another network
    assert laptop.inside(capture.repair_resolver) == ["198.51.100.53:53"]
    assert "198.51.100.53" not in captured.resolver.read_text()
    laptop.inside(capture.stop)
    assert captured.resolver.read_text() == "nameserver 198.51.100.53\n", "the newer file comes back, not the one from before"
    captured.resolver.write_text(RESOLVER)


def test_failed_start_leaves_nothing(place: Place, tmp_path: Path) -> None:
    before = state(place.laptop)
    other = tmp_path / "resolv.conf"
    other.write_text(f"{rules.RESOLVER_MARK} 12: x\nnameserver 127.67.0.13\n")
    capture = Capture(OWNER, tmp_path, other)

    def work() -> None:
        capture.prepare(POOL4, POOL6)
        capture.start(place.sockets.ports, place.captured())

    with pytest.raises(Exception, match="uid `12`"):
        place.laptop.inside(work)
    assert state(place.laptop) == before
    assert "127.67.0.13" in other.read_text()
