"""The client's process: one link for all commands, UDP, a new sign-in while it runs, proxies on the way out, IPv6."""

import base64
import contextlib
import select
import socket
import threading
from collections.abc import Iterator

import pytest
from lab import PASSWORD, Client, CountedStream, Lab, Service, count, greet, read_all, through_socks, wait_for


class UdpEcho:
    """Answers every datagram with itself, in capitals."""

    def __init__(self) -> None:
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.bind(("127.0.0.1", 0))
        self.port: int = self._socket.getsockname()[1]
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                data, peer = self._socket.recvfrom(65536)
                self._socket.sendto(data.upper(), peer)

    def close(self) -> None:
        self._socket.close()


class World:
    def __init__(self, lab: Lab, host: str = "127.0.0.1") -> None:
        self.lab = lab
        self.web, self.count, self.udp = Service(greet(b"hello")), Service(count), UdpEcho()
        lab.start_exchange(*(["--listen", f"[::1]:{lab.port}"] if host == "::1" else []))
        for user in ("ada", "bob"):
            lab.call("POST", "/users", {"name": user, "password": PASSWORD})
        lab.apply(f"""
kind: connector-group
name: lab
suffixes: ["*"]
---
kind: segment
name: web
hosts: [localhost]
ports: [{self.web.port}]
groups: [lab]
allow: [127.0.0.1, '::1']
---
kind: segment
name: count
hosts: [localhost]
ports: [{self.count.port}]
groups: [lab]
allow: [127.0.0.1, '::1']
---
kind: segment
name: udp
hosts: [localhost]
ports: [{self.udp.port}]
protocol: udp
groups: [lab]
allow: [127.0.0.1, '::1']
---
kind: rule
name: people
effect: permit
who: {{users: [ada, bob]}}
what: {{any: true}}
""")
        self.connector = lab.start_connector("lab")

    def close(self) -> None:
        for service in (self.web, self.count, self.udp):
            service.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab(tmp_path_factory.mktemp("client")) as lab:
        world = World(lab)
        yield world
        world.close()


@pytest.fixture
def ada(world: World) -> Iterator[Client]:
    client = world.lab.sign_in("ada")
    yield client
    for entrance in client.entrances:
        entrance.process.end()


def _get(proxy: int, port: int) -> bytes:
    with through_socks(proxy, "localhost", port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        return read_all(connection).rpartition(b"\r\n\r\n")[2]


def _ask_udp(port: int, text: bytes) -> bytes:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("127.0.0.1", port))
        for _ in range(20):
            asking.send(text)
            if select.select([asking], [], [], 0.5)[0]:
                return asking.recv(65536)
    return b""


def test_datagrams_go_there_and_back(world: World, ada: Client) -> None:
    entrance = ada.forward(f"localhost:{world.udp.port}", "--udp")
    assert _ask_udp(entrance.port, b"hello") == b"HELLO"
    assert _ask_udp(entrance.port, b"a" * 1200) == b"A" * 1200


def test_revoked_session_ends_datagrams(world: World, ada: Client) -> None:
    entrance = ada.forward(f"localhost:{world.udp.port}", "--udp")
    assert _ask_udp(entrance.port, b"hello") == b"HELLO"
    world.lab.call("PUT", "/rules/no", {"effect": "forbid", "who": {"users": ["ada"]}, "what": {"segments": ["udp"]}})
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
        asking.connect(("127.0.0.1", entrance.port))
        asking.send(b"too late")
        assert not select.select([asking], [], [], 1.5)[0] or not _received(asking)
    world.lab.call("DELETE", "/rules/no")


def _received(asking: socket.socket) -> bytes:
    try:
        return asking.recv(100)
    except ConnectionError:
        return b""


def test_all_commands_share_one_link(world: World, ada: Client) -> None:
    entrance = ada.proxy()
    assert _get(entrance.port, world.web.port) == b"hello"
    assert ada.run("connect", f"localhost:{world.web.port}", stdin=b"GET / HTTP/1.1\r\n\r\n").stdout.endswith(b"hello")
    forward = ada.forward(f"localhost:{world.web.port}")
    status = ada.json("status")
    assert status["link"] == "up"
    assert {item["address"] for item in status["entrances"]} == {entrance.address, forward.address}
    device = next(agent for agent in world.lab.call("GET", "/agents") if agent["id"] == status["device"])
    assert device["up"]
    assert not device["twin_seen_at"]


def test_every_short_connect_gets_its_answer(world: World, ada: Client) -> None:
    """The core waits on the descriptor: one that does not block reads as broken whenever the answer is not there yet."""
    ada.proxy()
    for _ in range(12):
        result = ada.run("connect", f"localhost:{world.web.port}", stdin=b"GET / HTTP/1.1\r\n\r\n")
        assert result.stdout.endswith(b"hello"), result.stderr


def test_entrance_closes_with_its_command_and_the_others_stay(world: World, ada: Client) -> None:
    proxy = ada.proxy()
    forward = ada.forward(f"localhost:{world.web.port}")
    assert forward.process.end() == 0
    wait_for(lambda: len(ada.json("status")["entrances"]) == 1, "the entrance to close")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", forward.port), timeout=5)
    assert _get(proxy.port, world.web.port) == b"hello"


def test_new_sign_in_never_shares_a_tunnel_with_the_one_before(world: World, ada: Client) -> None:
    entrance = ada.proxy()
    assert _get(entrance.port, world.web.port) == b"hello"
    result = ada.run("login", world.lab.exchange.login_line, "--user", "bob", "--password-stdin", stdin=PASSWORD.encode())
    assert result.returncode == 0, result.stderr
    assert b"has stopped" in result.stdout
    assert entrance.process.popen.wait(20) == 1
    assert _get(ada.proxy().port, world.web.port) == b"hello"
    assert {session["principal"] for session in world.lab.call("GET", "/sessions?user=bob")} == {"bob"}


def test_refused_sign_in_leaves_the_running_client_alone(world: World, ada: Client) -> None:
    entrance = ada.proxy()
    result = ada.run("login", world.lab.exchange.login_line, "--user", "bob", "--password-stdin", stdin=b"wrong password")
    assert result.returncode == 3
    assert _get(entrance.port, world.web.port) == b"hello"
    assert ada.json("status")["principal"] == "ada"


def test_signing_out_ends_the_running_client(world: World, ada: Client) -> None:
    entrance = ada.proxy()
    result = ada.run("logout")
    assert result.returncode == 0
    assert b"WARNING" not in result.stderr
    assert entrance.process.popen.wait(20) == 3  # the exchange ended this device, and says so
    assert ada.run("apps").returncode == 7


def test_kill_switch_ends_a_stream_and_is_told_as_such(world: World, ada: Client) -> None:
    stream = CountedStream(through_socks(ada.proxy().port, "localhost", world.count.port))
    stream.wait_for_more()
    switch = world.lab.call("POST", "/kill-switches", {"scope": "user", "target": "ada", "reason": "lost laptop"})
    assert stream.ended.wait(2.0)
    stream.close()
    result = ada.run("explain", f"localhost:{world.count.port}")
    assert result.returncode == 3
    assert b"[kill_switch]" in result.stdout
    world.lab.call("DELETE", f"/kill-switches/{switch['id']}")
    wait_for(lambda: ada.run("explain", f"localhost:{world.count.port}").returncode == 0, "access again")


def test_disabled_user_is_stopped_with_the_reason(world: World) -> None:
    world.lab.call("POST", "/users", {"name": "eve", "password": PASSWORD})
    eve = world.lab.sign_in("eve")
    entrance = eve.proxy()
    world.lab.call("POST", "/users/eve/disable")
    assert entrance.process.popen.wait(20) == 3
    assert "disabled" in entrance.process.output
    assert eve.run("apps").returncode == 3


class HttpProxy:
    """An HTTP CONNECT proxy that wants a password, and keeps what it was asked."""

    def __init__(self, password: str) -> None:
        self.asked: list[bytes] = []
        wanted = b"basic " + base64.b64encode(f"user:{password}".encode()).lower()

        def serve(connection: socket.socket) -> None:
            head = b""
            while b"\r\n\r\n" not in head:
                head += connection.recv(4096)
            self.asked.append(head.split(b"\r\n")[0])
            if wanted not in head.lower():
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\ncontent-length: 0\r\n\r\n")
                return
            host, _, port = head.split()[1].decode().rpartition(":")
            with socket.create_connection((host.strip("[]"), int(port))) as onward:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                _carry(connection, onward)

        self.service = Service(serve)


def _carry(left: socket.socket, right: socket.socket) -> None:
    while True:
        for ready in select.select([left, right], [], [])[0]:
            data = ready.recv(65536)
            if not data:
                return
            (right if ready is left else left).sendall(data)


def test_links_and_carriers_go_through_a_proxy_with_a_password(world: World) -> None:
    proxy = HttpProxy("hunter2")
    url = f"http://user:hunter2@127.0.0.1:{proxy.service.port}"
    ada = Client(world.lab, world.lab.directory / "behind-proxy")
    environment = {"CLOISTER_STATE": str(ada.state), "HTTPS_PROXY": url}
    login = ["login", world.lab.exchange.login_line, "--user", "ada", "--password-stdin"]
    result = world.lab.run(*login, stdin=PASSWORD.encode(), environment=environment)
    assert result.returncode == 0, result.stderr
    carried = world.lab.run(
        "--verbose", "connect", f"localhost:{world.web.port}", stdin=b"GET / HTTP/1.1\r\n\r\n", environment=environment
    )
    assert carried.stdout.endswith(b"hello"), carried.stderr
    assert len(proxy.asked) >= 3  # enrolment, link, carrier
    assert set(proxy.asked) == {f"CONNECT {world.lab.exchange.address} HTTP/1.1".encode()}
    assert b"hunter2" not in carried.stderr + result.stderr
    wrong = {**environment, "HTTPS_PROXY": url.replace("hunter2", "wrong")}
    refused = world.lab.run("apps", environment=wrong)
    assert refused.returncode == 5
    assert b"wrong" not in refused.stderr
    proxy.service.close()


def test_no_proxy_exempts_the_exchange(world: World, ada: Client) -> None:
    environment = {"CLOISTER_STATE": str(ada.state), "HTTPS_PROXY": "http://127.0.0.1:1", "NO_PROXY": "127.0.0.0/8"}
    assert world.lab.run("apps", environment=environment).returncode == 0


def test_main_line_works_over_ipv6(tmp_path_factory: pytest.TempPathFactory) -> None:
    if not socket.has_ipv6:
        pytest.skip("no IPv6 on this host")
    with Lab(tmp_path_factory.mktemp("ipv6")) as lab:
        world = World(lab, "::1")
        result = lab.sign_in("ada").run("connect", f"localhost:{world.web.port}", stdin=b"GET / HTTP/1.1\r\n\r\n")
        assert result.stdout.endswith(b"hello"), result.stderr
        world.close()
