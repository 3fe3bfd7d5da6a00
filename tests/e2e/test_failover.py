"""A connector that dies, stops or hangs while another of its group is up: what takes how long. Real processes on loopback."""

import os
import signal
import time
from collections.abc import Iterator

import pytest
from lab import PASSWORD, Client, Lab, Process, Service, agent_id, greet, read_all, through_socks, wait_for

NEW_FLOW = 2.0  # seconds within which a new flow works once a connector is dead
SILENCE = 15.0  # and once one is silent without being dead
TRIALS = int(os.environ.get("FAILOVER_TRIALS", "1"))


class World:
    """An exchange and one service; the connectors are each test's own."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.service = Service(greet(b"still here"))
        lab.start_exchange()
        lab.call("POST", "/users", {"name": "ada", "password": PASSWORD})
        lab.apply(f"""
kind: connector-group
name: lab
suffixes: ["*"]
networks: [127.0.0.0/8]
---
kind: segment
name: web
hosts: [localhost]
ports: [{self.service.port}]
groups: [lab]
allow: [127.0.0.1, "::1"]
---
kind: rule
name: ada
effect: permit
who: {{users: [ada]}}
what: {{segments: [web]}}
""")
        self.ada: Client = lab.sign_in("ada")
        self.proxy = self.ada.proxy().port
        self._count = 0

    def connector(self) -> Process:
        self._count += 1
        return self.lab.start_connector("lab", f"connector-{self._count}")

    def get(self) -> None:
        """One new flow, from its first byte to its last."""
        with through_socks(self.proxy, "localhost", self.service.port, 30.0) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\n\r\n")
            assert read_all(connection).endswith(b"still here")

    def serving(self) -> list[str]:
        """Connectors of the person's session, the one in use first."""
        sessions = self.lab.call("GET", "/sessions")
        return list(sessions[0]["connectors"]) if sessions else []


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab(tmp_path_factory.mktemp("failover")) as lab:
        world = World(lab)
        yield world
        world.service.close()


@pytest.fixture
def pair(world: World) -> Iterator[list[Process]]:
    """The connector in use, whose name alone the ticket holds, and a second one that came later."""
    first = world.connector()
    wait_for(lambda: len(_up(world)) == 1, "the first connector alone")
    world.get()
    assert world.serving() == _up(world)
    connectors = [first, world.connector()]
    yield connectors
    for connector in connectors:
        connector.kill()
    wait_for(lambda: not _up(world), "both links to be gone")


def _up(world: World) -> list[str]:
    return [agent["id"] for agent in world.lab.call("GET", "/agents") if agent["role"] == "connector" and agent["up"]]


@pytest.mark.parametrize("_trial", range(TRIALS))
def test_killed_connector_leaves_new_flows_to_the_other_one(world: World, pair: list[Process], _trial: int) -> None:
    victim, rest = pair
    victim.popen.kill()
    start = time.monotonic()
    world.get()
    assert time.monotonic() - start < NEW_FLOW
    assert rest.popen.poll() is None


@pytest.mark.parametrize("_trial", range(TRIALS))
def test_connector_killed_while_the_ticket_names_both(world: World, pair: list[Process], _trial: int) -> None:
    """The one in use dies; the other may have a tunnel already or not."""
    world.lab.call("POST", f"/sessions/{world.lab.call('GET', '/sessions')[0]['id']}/revoke")
    world.get()
    assert len(world.serving()) == 2
    by_id = {agent_id(world.lab.directory / connector.name): connector for connector in pair}
    by_id[world.serving()[0]].popen.kill()
    start = time.monotonic()
    world.get()
    assert time.monotonic() - start < NEW_FLOW


def test_silent_connector_is_left_once_its_silence_is_noticed(world: World, pair: list[Process]) -> None:
    """Stopped, not dead: its kernel still acknowledges every byte."""
    victim, _ = pair
    victim.popen.send_signal(signal.SIGSTOP)
    start = time.monotonic()
    world.get()
    assert time.monotonic() - start < SILENCE
    world.get()
    assert time.monotonic() - start < SILENCE + NEW_FLOW
