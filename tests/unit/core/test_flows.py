"""Laws of the whole data plane in one process: exchange with its relay, connector, client, a real service on loopback."""

import json
import os
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.unit.core.cores import PATIENCE, Host, World

from cloister import _core
from cloister.trust.types import TicketClaims

CLIENT, CONNECTOR, SEGMENT = "00000000000000d1", "00000000000000c1", "00000000000000a1"
NAME = "localhost"  # the one name that resolves on any machine; the segment spells its addresses out


class Echo:
    """A TCP service that sends back what it gets and, when the client has ended, says `bye` and ends."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self.listener.getsockname()[1]
        self.accepted = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self.listener.accept()
                self.accepted += 1
                threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while chunk := connection.recv(65536):
                connection.sendall(chunk)
            connection.sendall(b"bye")

    def close(self) -> None:
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()


@dataclass
class Net:
    """Everything that a flow passes."""

    world: World
    exchange: Host
    server: _core.Server
    connector: Host
    connector_plane: _core.Connector
    client: Host
    client_plane: _core.Client
    thumbprint: str
    echo: Echo
    room: Path
    sockets: list[socket.socket] = field(default_factory=list)
    sessions: int = 0

    def segment(self, **edit: Any) -> bytes:
        own = {
            "id": SEGMENT,
            "hosts": [NAME],
            "ports": [{"first": self.echo.port, "last": self.echo.port}],
            "protocol": "tcp",
            "allow": ["127.0.0.1/32", "::1/128"],
        }
        return json.dumps([own | edit]).encode()

    def ticket(self, session: str, generation: int, life: int = 300) -> tuple[str, int]:
        now = int(time.time())
        claims = TicketClaims(
            issuer=self.world.keyring.trust_domain,
            token_id=f"j{session}",
            session=session,
            principal="user:alice",
            client=CLIENT,
            segment=SEGMENT,
            connectors=(CONNECTOR,),
            key_thumbprint=self.thumbprint,
            issued=now,
            expires=now + life,
            generation=generation,
            continuity=0,
            rules=("r1",),
        )
        return self.world.keyring.sign_ticket(claims), now + life

    def grant(self, request: int | None) -> str:
        self.sessions += 1
        session = f"{self.sessions:016x}"
        ticket, expires = self.ticket(session, 10 + self.sessions)
        self.client_plane.grant(request, session, SEGMENT, ticket, [CONNECTOR], [self.world.keyring.relay_id], expires)
        return session

    def dial(self, proxy: str, host: str = NAME, port: int | None = None) -> socket.socket:
        """A SOCKS5 connection (RFC 1928), its request sent and its answer not yet read."""
        where, at = proxy.rsplit(":", 1)
        local = socket.create_connection((where, int(at)), timeout=PATIENCE)
        self.sockets.append(local)
        local.sendall(b"\x05\x01\x00")
        assert local.recv(2) == b"\x05\x00"
        name = host.encode()
        local.sendall(b"\x05\x01\x00\x03" + bytes([len(name)]) + name + (port or self.echo.port).to_bytes(2, "big"))
        return local

    def records(self) -> list[dict[str, Any]]:
        lines: list[dict[str, Any]] = []
        for file in sorted((self.room / "journal" / CONNECTOR).glob("*.jsonl")):
            lines += [json.loads(line) for line in file.read_text().splitlines()]
        return lines


def answered(local: socket.socket) -> int:
    head = local.recv(10)
    return head[1] if len(head) > 1 else -1


def exchange_bytes(local: socket.socket, data: bytes) -> bytes:
    local.sendall(data)
    got = b""
    while len(got) < len(data):
        chunk = local.recv(65536)
        assert chunk, "the flow ended early"
        got += chunk
    return got


@pytest.fixture
def net(tmp_path: Path) -> Iterator[Net]:
    world = World()
    exchange, connector, client = world.exchange(), world.agent("connector", CONNECTOR), Host()
    chain, key = world.identity("client", CLIENT)
    client.core.set_identity("client", chain, key)
    client.core.set_trust(world.keyring.roots_pem())
    exchange.core.open_journal(str(tmp_path / "journal"))
    server = exchange.core.serve("127.0.0.1:0", links=True, carriers=True)
    relays = [(world.keyring.relay_id, server.address)]
    link = connector.core.dial_link(server.address, role="connector")
    plane = connector.core.connector(spool=str(tmp_path / "spool"), link=link)
    connector.expect(_core.LinkUp)
    client.core.dial_link(server.address, role="client")
    client.expect(_core.LinkUp)
    echo = Echo()
    net = Net(world, exchange, server, connector, plane, client, client.core.client(), _core.thumbprint(chain), echo, tmp_path)
    plane.assign(net.segment())
    plane.snapshot(10, [])
    plane.set_relays(relays)
    net.client_plane.set_relays(relays)
    net.client_plane.set_catalogue(
        json.dumps(
            [
                {
                    "id": SEGMENT,
                    "name": "echo",
                    "hosts": [NAME],
                    "ports": [{"first": echo.port, "last": echo.port}],
                    "protocol": "tcp",
                }
            ]
        ).encode()
    )
    yield net
    for local in net.sockets:
        local.close()
    for host in (client, connector, exchange):
        host.core.shutdown()
    echo.close()


@pytest.fixture
def proxy(net: Net) -> str:
    return net.client_plane.serve_socks("127.0.0.1:0")


def test_a_flow_is_asked_for_once_carried_and_recorded(net: Net, proxy: str) -> None:
    local = net.dial(proxy)
    wanted = net.client.expect(_core.SessionWanted)
    assert (wanted.host, wanted.port, wanted.protocol) == (NAME, net.echo.port, "tcp")
    session = net.grant(wanted.request)
    assert answered(local) == 0
    assert exchange_bytes(local, b"hello") == b"hello"
    second = net.dial(proxy)
    assert answered(second) == 0
    assert exchange_bytes(second, b"x" * 300_000) == b"x" * 300_000
    for flow in (local, second):
        flow.shutdown(socket.SHUT_WR)
        assert flow.recv(10) == b"bye"
        assert flow.recv(10) == b""
    assert not [event for event in net.client.events() if isinstance(event, _core.SessionWanted)]
    while sum(record["kind"] == "close" for record in net.records()) < 2:
        net.exchange.expect(_core.RecordsWritten)
    records = net.records()
    assert [record["kind"] for record in records].count("open") == 2
    closes = {record["in"]: record for record in records if record["kind"] == "close"}
    assert set(closes) == {5, 300_000}
    close = closes[300_000]
    assert (close["out"], close["code"], close["session"], close["principal"]) == (300_003, "ok", session, "user:alice")
    assert (close["host"], close["port"], close["segment"], close["device"]) == (NAME, net.echo.port, SEGMENT, CLIENT)
    assert [record["n"] for record in records] == list(range(records[0]["n"], records[0]["n"] + len(records)))


def test_the_last_records_leave_before_the_connector_stops(net: Net, proxy: str) -> None:
    local = net.dial(proxy)
    net.grant(net.client.expect(_core.SessionWanted).request)
    assert answered(local) == 0
    net.connector.core.shutdown()
    opened, closed = net.records()
    assert (opened["kind"], closed["kind"]) == ("open", "close")
    assert closed["code"] == "stopped"


def test_what_is_not_visible_is_like_what_does_not_exist(net: Net, proxy: str) -> None:
    hidden, missing = net.dial(proxy, "secret.lab.internal", 80), net.dial(proxy, NAME, net.echo.port + 1)
    assert answered(hidden) == answered(missing) != 0
    assert not [event for event in net.client.events() if isinstance(event, _core.SessionWanted)]


def test_a_refused_request_refuses_its_flows(net: Net, proxy: str) -> None:
    local = net.dial(proxy)
    net.client_plane.refuse(net.client.expect(_core.SessionWanted).request, "denied_by_default")
    assert answered(local) != 0
    assert net.echo.accepted == 0


def test_a_revoked_session_resets_busy_and_idle_flows_before_the_verb_returns(net: Net, proxy: str) -> None:
    idle = net.dial(proxy)
    session = net.grant(net.client.expect(_core.SessionWanted).request)
    assert answered(idle) == 0
    busy = net.dial(proxy)
    assert answered(busy) == 0
    assert exchange_bytes(busy, b"y" * 1000) == b"y" * 1000
    assert net.connector_plane.revoke(100, [session]) == 2
    assert net.connector.core.stats()["flows_reset"] >= 0
    for flow in (idle, busy):
        with suppress(ConnectionResetError):
            assert flow.recv(10) == b""
    assert net.connector_plane.revoke(100, [session]) == 0


def test_a_snapshot_ends_what_it_omits(net: Net, proxy: str) -> None:
    local = net.dial(proxy)
    session = net.grant(net.client.expect(_core.SessionWanted).request)
    assert answered(local) == 0
    assert net.connector_plane.snapshot(50, [session]) == 0
    assert exchange_bytes(local, b"z") == b"z"
    assert net.connector_plane.snapshot(51, []) == 1


def test_case_18_a_ticket_opens_its_segment_and_port_only(net: Net, proxy: str) -> None:
    net.connector_plane.assign(net.segment(ports=[{"first": 1, "last": 1}]))
    local = net.dial(proxy)
    net.grant(net.client.expect(_core.SessionWanted).request)
    assert answered(local) != 0
    assert net.echo.accepted == 0


def test_case_54_loopback_is_refused_unless_spelled_out(net: Net, proxy: str) -> None:
    net.connector_plane.assign(net.segment(allow=[]))
    local = net.dial(proxy)
    net.grant(net.client.expect(_core.SessionWanted).request)
    assert answered(local) != 0
    assert net.echo.accepted == 0


def test_connect_carries_a_socket(net: Net) -> None:
    ours, theirs = socket.socketpair()
    flow = net.client_plane.connect(NAME, net.echo.port, theirs.detach())
    net.grant(net.client.expect(_core.SessionWanted).request)
    with ours:
        ours.sendall(b"through a socket")
        assert ours.recv(16, socket.MSG_WAITALL) == b"through a socket"
        ours.shutdown(socket.SHUT_WR)
        assert ours.recv(16, socket.MSG_WAITALL) == b"bye"
    ended = net.client.expect(_core.FlowEnded)
    assert (ended.flow, ended.code) == (flow, "ok")


def test_probe_and_status_answer(net: Net, proxy: str) -> None:
    net.connector_plane.probe(SEGMENT)
    probe = net.connector.expect(_core.ProbeDone)
    assert (probe.segment, probe.healthy, probe.code) == (SEGMENT, True, "ok")
    with pytest.raises(_core.CoreError) as refused:
        net.connector_plane.probe("00000000000000a9")
    assert refused.value.code == "not_found"
    local = net.dial(proxy)
    session = net.grant(net.client.expect(_core.SessionWanted).request)
    assert answered(local) == 0
    status = json.loads(net.connector_plane.status())
    assert (status["flows"], status["tunnels"]) == (1, 1)
    assert [entry["session"] for entry in status["sessions"]] == [session]
    assert json.loads(net.client_plane.status())["flows"] == 1
    local.close()
    assert net.connector.expect(_core.SessionsIdle).sessions == [session]


def test_a_compromised_ticket_key_and_a_revoked_device_end_flows(net: Net, proxy: str) -> None:
    local = net.dial(proxy)
    net.grant(net.client.expect(_core.SessionWanted).request)
    assert answered(local) == 0
    net.connector.core.set_ticket_keys({"other": bytes(32)})
    with suppress(ConnectionResetError):
        assert local.recv(10) == b""
    net.connector.core.set_ticket_keys(net.world.keyring.ticket_verification_keys())
    again = net.dial(proxy)
    with suppress(AssertionError):
        net.grant(net.client.expect(_core.SessionWanted, patience=2).request)
    assert answered(again) == 0
    net.connector.core.set_trust(net.world.keyring.roots_pem(), [CLIENT])
    with suppress(ConnectionResetError):
        assert again.recv(10) == b""


def test_settings_that_do_not_exist_are_refused(net: Net) -> None:
    for attempt in (
        lambda: net.client.core.client(settings={"speed": 1}),
        lambda: net.connector.core.connector(spool="x", link=99),
        lambda: net.client_plane.forward("127.0.0.1:0", "not a host", 1),
        lambda: net.client_plane.forward("192.0.2.1:0", NAME, 1),
        lambda: net.client_plane.connect(NAME, 1, -1),
        lambda: net.client_plane.connect(NAME, 1, os.open("/dev/null", os.O_RDWR)),
        lambda: net.connector_plane.set_relays([("zz", "127.0.0.1:1")]),
        lambda: net.connector_plane.assign(b"{}"),
    ):
        with pytest.raises(_core.CoreError):
            attempt()
