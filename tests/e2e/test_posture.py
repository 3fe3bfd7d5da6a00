"""A real client whose device changes: what a posture profile asked for is gone, and the open flow ends with the reason."""

import json
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from lab import PASSWORD, Client, Lab, Service, count, echo, through_socks, wait_for


class World:
    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.echo, self.count = Service(echo), Service(count)
        self.marker = lab.directory / "managed"
        lab.start_exchange()
        lab.call("POST", "/users", {"name": "ada", "password": PASSWORD})
        lab.apply(f"""
kind: connector-group
name: lab
suffixes: ["*"]
---
kind: segment
name: echo
hosts: [localhost]
ports: [{self.echo.port}]
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
kind: posture-profile
name: managed
require:
  marker: {{file: {{path: {self.marker}}}}}
  os.platform: {{one_of: [linux, other]}}
---
kind: rule
name: managed-devices
effect: permit
who: {{users: [ada]}}
what: {{any: true}}
when: {{profiles: [managed]}}
""")
        lab.start_connector("lab")

    def close(self) -> None:
        for service in (self.echo, self.count):
            service.close()


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab(tmp_path_factory.mktemp("posture")) as lab:
        world = World(lab)
        yield world
        world.close()


@pytest.fixture
def ada(world: World) -> Iterator[Client]:
    world.marker.write_text("by the management")
    client = world.lab.sign_in("ada")
    yield client
    for entrance in client.entrances:
        entrance.process.end()


def _reported(world: World, device: str) -> dict[str, str]:
    """What the exchange knows of this client's device, by fact."""
    return {fact["name"]: fact["value"] for fact in world.lab.call("GET", f"/agents/{device}/facts")["facts"]}


def _ended(flow: socket.socket) -> float:
    """Read until the flow ends; when."""
    flow.settimeout(30)
    try:
        while flow.recv(65536):
            pass
    except ConnectionError:
        pass
    return time.monotonic()


def test_a_new_client_says_what_is_asked_of_it_before_its_first_flow(world: World, ada: Client) -> None:
    """`connect` is a process that lives for one flow: the very first decision about it knows its device."""
    result = ada.run("connect", f"localhost:{world.echo.port}", stdin=b"hello")
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr


def test_a_file_that_is_removed_ends_an_idle_and_a_busy_flow_within_a_second_of_the_report(world: World, ada: Client) -> None:
    entrance = ada.proxy()
    device, fact = ada.json("status")["device"], f"file/{world.marker}"
    with (
        through_socks(entrance.port, "localhost", world.echo.port) as idle,
        through_socks(entrance.port, "localhost", world.count.port) as busy,
    ):
        idle.sendall(b"x")
        assert idle.recv(1) == b"x"
        assert busy.recv(1)
        assert len(_reported(world, device)[fact]) == 64
        removed = time.monotonic()
        os.unlink(world.marker)
        reported = wait_for(lambda: time.monotonic() if _reported(world, device)[fact] == "absent" else None, "the report")
        ends = [_ended(flow) for flow in (busy, idle)]
    assert max(ends) - reported < 1.0
    assert max(ends) - removed < 6.0  # the client looks every two seconds
    notices = [notice for notice in ada.json("status")["notices"] if notice["code"] == "posture_failed"]
    assert any("the posture profile `managed`: `marker` is `absent`" in notice["text"] for notice in notices), notices
    refused = ada.run("connect", f"localhost:{world.echo.port}", stdin=b"hello")
    assert refused.returncode != 0
    assert b"`marker` is `absent`" in refused.stderr
    world.marker.write_text("back again")
    wait_for(lambda: ada.run("connect", f"localhost:{world.echo.port}", stdin=b"hello").stdout == b"hello", "access again")


def test_a_source_outside_is_set_up_and_heard_over_the_command_line(world: World, ada: Client) -> None:
    admin = Client(world.lab, world.lab.directory / "administrator")
    who = world.lab.exchange.administrator
    assert who is not None
    line, password = world.lab.exchange.login_line, who["password"].encode()
    assert admin.run("admin", "sign-in", line, "--user", who["name"], "--password-stdin", stdin=password).returncode == 0
    world.lab.apply("{kind: device, name: laptop, owner: ada}")
    with_client = ada.proxy()
    device = ada.json("status")["device"]
    assert admin.run("device", "add-client", "laptop", device).returncode == 0
    assert [agent["device"] for agent in admin.json("get", "agents") if agent["id"] == device] == ["laptop"]
    assert admin.run("create", "user", "mdm-service", "--no-password").returncode == 0
    token = admin.run("device", "token", "mdm", "--account", "mdm-service").stdout.decode().strip()
    answer = httpx.put(
        f"https://{world.lab.exchange.address}/api/v1/devices/laptop/facts/mdm",
        json={"facts": [{"name": "compliant", "value": True}]},
        headers={"authorization": f"Bearer {token}"},
        verify=False,
    )
    assert answer.status_code == 200, answer.text
    told = admin.run("device", "facts", "laptop").stdout.decode()
    assert "device laptop, owner ada" in told
    assert "compliant" in told
    assert "profile managed: fulfilled" in told
    set_again = admin.run(
        "device", "set-facts", device, "--client", "--source", "mdm", "--fact", "compliant=false", "--lasts", "8h"
    )
    assert set_again.returncode == 0, set_again.stderr
    seen = admin.json("device", "facts", device, "--client")["facts"]
    assert ("mdm", "compliant", "false") in [(fact["source"], fact["name"], fact["value"]) for fact in seen]
    assert admin.run("device", "remove-client", device).returncode == 0
    assert admin.json("device", "facts", "laptop")["clients"] == []
    with_client.process.end()


def test_the_report_can_be_seen_signed_in_and_signed_out(world: World, ada: Client, tmp_path: Path) -> None:
    seen = ada.json("posture")
    assert [(profile["name"], profile["holds"]) for profile in seen["profiles"]] == [("managed", True)]
    assert {fact["name"] for fact in seen["facts"]} >= {"os.platform", "client.version", f"file/{world.marker}"}
    os.unlink(world.marker)
    result = ada.run("posture")
    assert result.returncode == 1
    assert b"marker is `absent`" in result.stdout
    nobody = Client(world.lab, tmp_path / "nobody").run("posture", "--json", seconds=120)
    assert nobody.returncode == 0, nobody.stderr
    answer = json.loads(nobody.stdout)
    assert answer["profiles"] == []
    assert not any(fact["name"].startswith(("file/", "process/", "certificate/")) for fact in answer["facts"])
