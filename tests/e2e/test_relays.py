"""Relays that run alone: they carry, they are cut from afar, and one that dies takes no flow with it."""

from collections.abc import Iterator

import pytest
from lab import PASSWORD, Client, CountedStream, Lab, Service, count, through_socks, wait_for


class World:
    """An exchange that carries nothing itself, two relays, one connector."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.service = Service(count)
        lab.start_exchange("--no-relay")
        lab.call("POST", "/users", {"name": "ada", "password": PASSWORD})
        lab.apply(f"""
kind: connector-group
name: lab
suffixes: ["*"]
networks: [127.0.0.0/8]
---
kind: segment
name: count
hosts: [localhost]
ports: [{self.service.port}]
groups: [lab]
allow: [127.0.0.1, "::1"]
---
kind: rule
name: ada
effect: permit
who: {{users: [ada]}}
what: {{segments: [count]}}
""")
        self.relays = [lab.start_relay("relay-1"), lab.start_relay("relay-2")]
        self.connector = lab.start_connector("lab")
        self.ada: Client = lab.sign_in("ada")
        self.proxy = self.ada.proxy().port

    def used(self) -> str:
        tunnels = wait_for(
            lambda: [t for t in self.ada.json("status")["tunnels"] if t["state"] == "up"], "a tunnel that is up", 30.0
        )
        return str(tunnels[0]["relay"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab(tmp_path_factory.mktemp("relays")) as lab:
        yield World(lab)


def test_flow_goes_through_a_relay_alone(world: World) -> None:
    stream = CountedStream(through_socks(world.proxy, "localhost", world.service.port))
    stream.wait_for_more()
    stream.close()


def test_relay_killed_in_mid_transfer_loses_no_byte(world: World) -> None:
    stream = CountedStream(through_socks(world.proxy, "localhost", world.service.port))
    stream.wait_for_more()
    before = world.used()
    process = next(relay for relay in world.relays if before in relay.output)  # it told its id when it enrolled
    process.kill()
    stream.wait_for_more(8 << 20)
    assert world.used() != before
    stream.close()


def test_revocation_reaches_through_a_relay_alone(world: World) -> None:
    stream = CountedStream(through_socks(world.proxy, "localhost", world.service.port))
    stream.wait_for_more()
    world.lab.call("POST", "/users/ada/revoke-sessions")
    assert stream.ended.wait(2.0)
    stream.close()
