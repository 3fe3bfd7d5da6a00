"""The main line with real processes on loopback: exchange, connectors, clients, a relay, and services to reach."""

import http.client
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from lab import PASSWORD, Client, CountedStream, Lab, Process, Service, count, drip, echo, greet, read_all, through_socks, wait_for

FOREIGN = {"sqlalchemy", "alembic", "sqlite3", "fastapi", "starlette", "uvicorn", "argon2"}
OURS_BUT_FOREIGN = ("cloister.policy", "cloister.store", "cloister.trust", "cloister.exchange", "cloister.telemetry")


def _bundle(web: int, other: int, stream: int, count: int) -> str:
    return f"""
kind: connector-group
name: lab
suffixes: ["*"]
networks: [127.0.0.0/8]
---
kind: segment
name: web
hosts: [localhost]
ports: [{web}]
groups: [lab]
allow: [127.0.0.1, "::1"]
health: {{interval: 1s}}
---
kind: segment
name: stream
hosts: [localhost]
ports: [{stream}]
groups: [lab]
allow: [127.0.0.1, "::1"]
---
kind: segment
name: other
hosts: [localhost]
ports: [{other}]
groups: [lab]
allow: [127.0.0.1, "::1"]
---
kind: segment
name: count
hosts: [localhost]
ports: [{count}]
groups: [lab]
allow: [127.0.0.1, "::1"]
---
kind: rule
name: ada-may
effect: permit
who: {{users: [ada]}}
what: {{segments: [web, stream, count]}}
"""


class World:
    """One exchange with one connector and three services on the same host."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.web = Service(greet(b"hello from inside"))
        self.other = Service(greet(b"never to be seen"))
        self.stream = Service(drip)
        self.count = Service(count)
        lab.start_exchange()
        for user in ("ada", "eve"):
            lab.call("POST", "/users", {"name": user, "password": PASSWORD})
        self.connector = self.start(lab, "connector")

    def start(self, lab: Lab, name: str) -> Process:
        lab.apply(_bundle(self.web.port, self.other.port, self.stream.port, self.count.port))
        return lab.start_connector("lab", name)

    def close(self) -> None:
        for service in (self.web, self.other, self.stream, self.count):
            service.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab(tmp_path_factory.mktemp("main")) as lab:
        world = World(lab)
        yield world
        world.close()


@pytest.fixture(scope="module")
def ada(world: World) -> Client:
    return world.lab.sign_in("ada")


@pytest.fixture(scope="module")
def proxy(ada: Client) -> int:
    return ada.proxy().port


def _get(proxy: int, port: int, host: str = "localhost") -> tuple[int, bytes]:
    with through_socks(proxy, host, port) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n")
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
        return int(head.split()[1]), body


def test_permitted_service_is_reached_by_name(world: World, proxy: int) -> None:
    assert _get(proxy, world.web.port) == (200, b"hello from inside")


def test_http_connect_reaches_it_as_well(world: World, proxy: int) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", proxy, timeout=15)
    connection.set_tunnel("localhost", world.web.port)
    connection.request("GET", "/")
    assert connection.getresponse().read() == b"hello from inside"
    connection.close()


def test_another_port_of_the_same_host_stays_closed(world: World, proxy: int) -> None:
    with pytest.raises(ConnectionError):
        through_socks(proxy, "localhost", world.other.port)
    assert world.other.accepted == 0


def test_case_68_not_allowed_looks_like_not_existing(world: World, proxy: int) -> None:
    replies = set()
    for host, port in (("localhost", world.other.port), ("nowhere.lab.internal", world.other.port), ("localhost", 1)):
        with pytest.raises(ConnectionError) as caught:
            through_socks(proxy, host, port)
        replies.add(str(caught.value))
    assert len(replies) == 1


def test_person_without_a_rule_reaches_and_sees_nothing(world: World) -> None:
    eve = world.lab.sign_in("eve")
    assert eve.json("apps") == []
    entrance = eve.proxy()
    with pytest.raises(ConnectionError):
        through_socks(entrance.port, "localhost", world.web.port)
    result = eve.run("explain", f"localhost:{world.web.port}")
    assert result.returncode == 4
    unknown = eve.run("explain", "nowhere.lab.internal:1")
    assert unknown.stdout.replace(b"nowhere.lab.internal:1", b"X") == result.stdout.replace(
        f"localhost:{world.web.port}".encode(), b"X"
    )


def test_apps_and_explain_say_what_is_there_and_why(world: World, ada: Client) -> None:
    assert [app["name"] for app in ada.json("apps")] == ["count", "stream", "web"]
    assert ada.json("explain", f"localhost:{world.web.port}")["allowed"]


def test_forward_leads_to_one_destination(world: World, ada: Client) -> None:
    entrance = ada.forward(f"localhost:{world.web.port}")
    with socket.create_connection(("127.0.0.1", entrance.port), timeout=15) as connection:
        connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
        assert read_all(connection).endswith(b"hello from inside")
    assert entrance.process.end() == 0


def test_connect_carries_standard_input_and_output(world: World, ada: Client) -> None:
    result = ada.run("connect", f"localhost:{world.web.port}", stdin=b"GET / HTTP/1.1\r\n\r\n")
    assert result.returncode == 0, result.stderr
    assert result.stdout.endswith(b"hello from inside")


def test_connect_to_what_is_not_there_fails_with_not_found(world: World, ada: Client) -> None:
    result = ada.run("connect", f"localhost:{world.other.port}")
    assert result.returncode == 4, result.stderr


def test_half_close_survives_the_whole_path(world: World, ada: Client) -> None:
    with Service(echo) as service:
        world.lab.apply(
            f"kind: segment\nname: echo\nhosts: [localhost]\nports: [{service.port}]\ngroups: [lab]\nallow: [127.0.0.1, '::1']\n"
        )
        world.lab.apply("kind: rule\nname: echo\neffect: permit\nwho: {users: [ada]}\nwhat: {segments: [echo]}\n")
        wait_for(lambda: any(app["name"] == "echo" for app in ada.json("apps")), "the new segment")
        data = b"0123456789abcdef" * 65536
        result = ada.run("connect", f"localhost:{service.port}", stdin=data)
        assert result.stdout == data, result.stderr


def _stream(proxy: int, port: int) -> tuple[socket.socket, threading.Event, list[float]]:
    connection = through_socks(proxy, "localhost", port)
    ended, last = threading.Event(), [0.0]

    def read() -> None:
        try:
            while connection.recv(65536):
                last[0] = time.monotonic()
        except OSError:
            pass
        ended.set()

    threading.Thread(target=read, daemon=True).start()
    return connection, ended, last


def test_revoked_session_ends_a_busy_stream_within_a_second(world: World, ada: Client, proxy: int) -> None:
    connection, ended, last = _stream(proxy, world.stream.port)
    with connection:
        wait_for(lambda: last[0] > 0, "the first bytes")
        sessions = wait_for(lambda: [s for s in world.lab.call("GET", "/sessions") if s["segment"] == "stream"], "the session")
        start = time.monotonic()
        world.lab.call("POST", f"/sessions/{sessions[0]['id']}/revoke")
        assert ended.wait(5.0)
        assert last[0] - start < 1.0


def test_rule_taken_away_ends_the_stream_and_tells_the_person(world: World, ada: Client, proxy: int) -> None:
    connection, ended, last = _stream(proxy, world.stream.port)
    with connection:
        wait_for(lambda: last[0] > 0, "the first bytes")
        world.lab.apply("kind: rule\nname: no\neffect: forbid\nwho: {users: [ada]}\nwhat: {segments: [stream]}\n")
        start = time.monotonic()
        assert ended.wait(5.0)
        assert time.monotonic() - start < 1.0
        notices = ada.json("status")["notices"]
        assert any(f"localhost:{world.stream.port}" in notice["text"] for notice in notices)
        world.lab.call("DELETE", "/rules/no")
    wait_for(lambda: _get_ok(proxy, world), "access again")


def test_reason_of_a_kill_switch_reaches_the_person(world: World, ada: Client, proxy: int) -> None:
    connection, ended, last = _stream(proxy, world.stream.port)
    with connection:
        wait_for(lambda: last[0] > 0, "the first bytes")
        switch = world.lab.call(
            "POST", "/kill-switches", {"scope": "segment", "target": "stream", "reason": "disk swap until noon"}
        )
        assert ended.wait(5.0)
        wait_for(lambda: any("disk swap until noon" in notice["text"] for notice in ada.json("status")["notices"]), "the notice")
        assert b"disk swap until noon" in ada.run("explain", f"localhost:{world.stream.port}").stdout
    world.lab.call("DELETE", f"/kill-switches/{switch['id']}")


def _get_ok(proxy: int, world: World) -> bool:
    try:
        return _get(proxy, world.web.port)[0] == 200
    except OSError:
        return False


def test_exchange_killed_and_restarted_finds_its_agents_again(world: World, ada: Client, proxy: int) -> None:
    before = world.lab.call("GET", "/agents")
    world.lab.exchange.process.kill()
    world.lab.start_exchange()
    assert {agent["id"] for agent in world.lab.call("GET", "/agents")} == {agent["id"] for agent in before}
    wait_for(lambda: _get_ok(proxy, world), "access after the restart", 30.0)
    _wait_for_agents(world, before)


def _wait_for_agents(world: World, before: list[Any]) -> None:
    """Until every agent that was up is up again: before that a new session finds no connector."""
    wanted = {agent["id"] for agent in before if agent["up"] and agent["role"] == "connector"}
    wait_for(lambda: wanted <= {agent["id"] for agent in world.lab.call("GET", "/agents") if agent["up"]}, "the agents", 30.0)


def test_stream_outlives_the_exchange_that_carried_it(world: World, ada: Client, proxy: int) -> None:
    stream = CountedStream(through_socks(proxy, "localhost", world.count.port))
    stream.wait_for_more()
    before = world.lab.call("GET", "/agents")
    world.lab.exchange.process.kill()
    world.lab.start_exchange()
    stream.wait_for_more(8 << 20)
    stream.close()
    _wait_for_agents(world, before)


def test_connector_process_loads_nothing_of_the_exchange(world: World) -> None:
    """The same walk as the unit test, over the imports of a process that really serves."""
    process = world.lab.start_connector("lab", "watched", environment={"PYTHONPROFILEIMPORTTIME": "1"})
    assert process.end() == 0
    imported = {line.rpartition("|")[2].strip() for line in process.output.splitlines() if line.startswith("import time:")}
    assert "cloister.connector.service" in imported
    assert not [name for name in imported if name.partition(".")[0] in FOREIGN or name.startswith(OURS_BUT_FOREIGN)]


def test_connector_listens_nowhere(world: World) -> None:
    listening = Path(f"/proc/{world.connector.popen.pid}/net/tcp")
    inodes = {line.split()[9] for line in listening.read_text().splitlines()[1:] if line.split()[3] == "0A"}
    held = {link.readlink().name for link in Path(f"/proc/{world.connector.popen.pid}/fd").iterdir() if link.is_symlink()}
    assert not {f"socket:[{inode}]" for inode in inodes} & held


def test_connector_drains_on_sigterm_and_exits_clean(world: World, ada: Client, proxy: int) -> None:
    leaving = world.lab.start_connector("lab", "connector-3", "--grace", "5")
    assert leaving.end(signal.SIGTERM) == 0
    assert _get(proxy, world.web.port)[0] == 200
