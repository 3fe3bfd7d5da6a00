"""The exchange as a process: killed, stopped, started again, under load of changes."""

import contextlib
import itertools
import os
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lab import PASSWORD, Entrance, Lab, Process, Service, echo, wait_for

from cloister.store import documents
from cloister.store.service import Store
from cloister.store.types import Actor, AuditEntry

ENTRY = AuditEntry(int(time.time()), Actor("operator"), "rule.delete", "rule")

BASE = """
kind: connector-group
name: lab
suffixes: [lab.internal]
---
kind: segment
name: jupyter
hosts: [jupyter.lab.internal]
ports: [8888]
groups: [lab]
"""


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        lab.start_exchange()
        lab.apply(BASE)
        yield lab


def _agent(lab: Lab, role: str) -> dict[str, Any]:
    return next(agent for agent in lab.call("GET", "/agents") if agent["role"] == role)


def test_exchange_killed_with_9_loses_nothing_and_agents_return_by_themselves(lab: Lab) -> None:
    lab.call("POST", "/users", {"name": "ada", "password": PASSWORD})
    key = lab.call("POST", "/keys", {"role": "relay", "uses": 5})
    relay = lab.start_relay()
    wait_for(lambda: _agent(lab, "relay")["up"], "the relay's link")
    before = {path: lab.call("GET", path) for path in ("/segments", "/users", "/keys", "/trust")}
    lab.exchange.process.kill()
    lab.start_exchange()
    assert {path: lab.call("GET", path) for path in before} == before
    wait_for(lambda: _agent(lab, "relay")["up"], "the relay's return")
    assert relay.popen.poll() is None
    assert [row["uses"] for row in lab.call("GET", "/keys") if row["id"] == key["id"]] == [0]
    assert lab.call("GET", "/audit/check")["tampered"] is None


def test_every_change_that_was_answered_survives_a_kill_in_the_middle(lab: Lab) -> None:
    """Documents are written one after the other until the process dies; what was answered is there, and at most one more."""
    answered: list[str] = []

    def write() -> None:
        try:
            for number in range(10_000):
                lab.call("PUT", f"/devices/d{number}", {})
                answered.append(f"d{number}")
        except (httpx.HTTPError, AssertionError):
            return

    writer = threading.Thread(target=write)
    writer.start()
    wait_for(lambda: len(answered) >= 20, "twenty changes")
    lab.exchange.process.kill()
    writer.join()
    lab.start_exchange()
    stored = [row["document"]["name"] for row in lab.call("GET", "/devices")]
    assert set(answered) <= set(stored)
    assert len(stored) - len(answered) <= 1
    audited = lab.call("GET", "/audit?action=device.put&limit=1000")["entries"]
    assert {entry["target"] for entry in audited} == {f"device {name}" for name in stored}


def test_stop_is_clean_and_leaves_no_socket(lab: Lab) -> None:
    assert lab.exchange.process.end(signal.SIGTERM) == 0
    assert not list((lab.directory / "exchange" / "run").iterdir())
    assert "Traceback" not in lab.exchange.process.output


def test_two_exchanges_on_one_directory_do_not_both_start(lab: Lab) -> None:
    arguments = ["exchange", "run", "--data-dir", str(lab.directory / "exchange"), "--listen", "127.0.0.1:0", "--json"]
    result = lab.run(*arguments)
    assert result.returncode not in (0, None)
    assert b"Traceback" not in result.stderr
    assert lab.call("GET", "/me")["user"] == "admin"


# ------------------------------------------------------------------ with flows


def _segment(service: Service) -> str:
    return f"""
kind: connector-group
name: here
networks: [127.0.0.0/8]
---
kind: segment
name: service
hosts: [127.0.0.1]
ports: [{service.port}]
groups: [here]
allow: [127.0.0.1/32]
---
kind: user
name: ada
---
kind: rule
name: ada-uses-it
effect: permit
who: {{users: [ada]}}
what: {{segments: [service]}}
"""


def _open(door: Entrance) -> socket.socket:
    flow = socket.create_connection(("127.0.0.1", door.port), timeout=10)
    try:
        flow.sendall(b"ping")
        assert flow.recv(4) == b"ping"
    except BaseException:
        flow.close()
        raise
    return flow


def _end_of(flow: socket.socket) -> float:
    """When the flow ended, as the person sees it."""
    with contextlib.suppress(OSError):
        while flow.recv(65536):
            pass
    return time.monotonic()


@pytest.fixture
def flows(lab: Lab) -> Iterator[tuple[Lab, Service, Process, Entrance]]:
    with Service(echo) as service:
        lab.apply(_segment(service))
        lab.call("PUT", "/users/ada/password", {"password": PASSWORD})
        connector = lab.start_connector("here")
        client = lab.sign_in("ada")
        door = client.forward(f"127.0.0.1:{service.port}")
        wait_for(lambda: client.json("apps"), "the catalogue")
        yield lab, service, connector, door


def test_frozen_connector_is_cut_at_the_relay_and_serves_again_when_it_wakes(
    flows: tuple[Lab, Service, Process, Entrance],
) -> None:
    """It cannot confirm the revocation, so the relay ends its carriers; woken, it reconciles and is let in again."""
    lab, _service, connector, door = flows
    flow = _open(door)
    connector.popen.send_signal(signal.SIGSTOP)
    started = time.monotonic()
    lab.call("POST", "/users/ada/revoke-sessions")
    assert _end_of(flow) - started < 1.0
    flow.close()
    connector.popen.send_signal(signal.SIGCONT)
    wait_for(lambda: _works(door), "a new session through the woken connector", 30)


def _works(door: Entrance) -> bool:
    try:
        _open(door).close()
    except (OSError, AssertionError):
        return False
    return True


def test_flows_outlive_the_exchanges_restart_and_sessions_go_on(flows: tuple[Lab, Service, Process, Entrance]) -> None:
    """The embedded relay goes with the process; the tunnel resumes over a new carrier, and the session is the same one."""
    lab, _service, _connector, door = flows
    flow = _open(door)
    before = [session["id"] for session in lab.call("GET", "/sessions")]
    lab.exchange.process.kill()
    lab.start_exchange()
    flow.settimeout(30)
    flow.sendall(b"still")
    assert flow.recv(5) == b"still"
    assert [session["id"] for session in lab.call("GET", "/sessions")] == before
    flow.close()


def test_an_agent_warns_once_that_the_exchange_is_gone_and_once_that_it_is_back(
    flows: tuple[Lab, Service, Process, Entrance],
) -> None:
    lab, _service, connector, _door = flows
    before = len(connector.output)
    lab.exchange.process.kill()
    wait_for(lambda: connector.output.count("no link to the exchange", before) >= 4, "four attempts")
    lab.start_exchange()
    wait_for(lambda: "is up" in connector.output[before:], "the link")
    attempts = [line for line in connector.output[before:].splitlines() if "no link to the exchange" in line]
    warned = [line.partition(": no link to the exchange ")[2].partition(";")[0] for line in attempts if " WARNING " in line]
    assert 1 <= len(warned) < len(attempts)
    assert all(one != other for one, other in itertools.pairwise(warned)), warned
    assert " WARNING cloister.link: the link to the exchange" in connector.output[before:]


def test_revoked_while_the_exchange_was_down_is_revoked_when_it_is_back(flows: tuple[Lab, Service, Process, Entrance]) -> None:
    """A change is committed and the process dies before anything was sent: the start decides every session again."""
    lab, _service, _connector, door = flows
    flow = _open(door)
    lab.exchange.process.kill()
    with Store(lab.directory / "exchange" / "exchange.db") as store, store.change(ENTRY) as change:
        rule = next(row for row in documents.list_documents(change.connection) if row.kind == "rule")
        documents.delete_document(change, rule.id)
    lab.start_exchange()
    flow.settimeout(20)
    _end_of(flow)
    assert lab.call("GET", "/sessions") == []
    assert not _works(door)
    flow.close()


def test_compromised_authority_ends_flows_and_agents(flows: tuple[Lab, Service, Process, Entrance]) -> None:
    lab, _service, connector, door = flows
    flow = _open(door)
    lab.call("POST", "/trust/rotate-ca", {"compromised": True})
    flow.settimeout(5)
    started = time.monotonic()
    assert _end_of(flow) - started < 3
    assert connector.popen.wait(30) != 0
    flow.close()


def test_first_password_is_shown_though_the_port_was_taken_at_first(lab: Lab) -> None:
    """Whoever has lost that one cannot get in. The sign-in line is shown on every start, at once, into a pipe as well."""
    start = ("exchange", "run", "--data-dir", "other", "--listen")
    buffered = {"PYTHONUNBUFFERED": ""}
    refused = lab.run(*start, lab.exchange.address, environment=buffered)
    assert (refused.returncode, refused.stdout) == (2, b"")
    for last, number in ((b"administrator ", 1), (b"sign in ", 0)):
        process = lab.start("other", *start, "127.0.0.1:0", environment=buffered)
        text = _read_until(process, last)
        assert b"cloister login 127.0.0.1:" in text
        assert text.count(b"administrator ") == number
        assert process.end() == 0


def _read_until(process: Process, word: bytes) -> bytes:
    pipe = process.popen.stdout
    assert pipe is not None
    text = b""
    while word not in text:
        assert select.select([pipe], [], [], 10)[0], text
        chunk = os.read(pipe.fileno(), 4096)
        assert chunk, text
        text += chunk
    return text
