"""Laws of links: two cores, real TLS, real sockets on loopback."""

import ipaddress
import json
import os
import signal
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from tests.unit.core.cores import Host, World

from cloister import _core

CLIENT = "00000000000000d1"
CONNECTOR = "00000000000000c1"
HOUR = timedelta(hours=1)


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture
def exchange(world: World) -> Iterator[Host]:
    with world.exchange() as host:
        yield host


def serve(host: Host, address: str = "127.0.0.1:0", **settings: dict[str, int]) -> _core.Server:
    return host.core.serve(address, links=True, carriers=False, **settings)


def test_messages_pass_both_ways_and_the_peer_is_the_proved_one(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with world.agent("client", CLIENT) as client:
        link = client.core.dial_link(server.address, role="client")
        up = client.expect(_core.LinkUp)
        assert up.agent == f"spiffe://{world.keyring.trust_domain}/control/{world.keyring.control_id}"
        served = exchange.expect(_core.LinkUp)
        assert served.agent == f"spiffe://{world.keyring.trust_domain}/client/{CLIENT}"
        assert served.not_after is not None
        assert served.not_after > time.time()
        assert (len(served.fingerprint or ""), len(served.thumbprint or "")) == (64, 43)
        for n in range(100):
            assert client.core.send(link, json.dumps({"n": n}).encode())
        assert [json.loads(exchange.expect(_core.LinkMessage).body)["n"] for _ in range(100)] == list(range(100))
        assert exchange.core.send(served.link, b'{"back":1}')
        assert client.expect(_core.LinkMessage).body == b'{"back":1}'
        assert exchange.core.stats()["links"] == 1
        client.core.close_link(link, "stopped")
        assert client.expect(_core.LinkDown).retry_in is None
        assert exchange.expect(_core.LinkDown).reason == "stopped"
        assert not exchange.core.send(served.link, b"{}")


def test_a_lost_link_comes_back_with_its_number(world: World) -> None:
    with world.agent("client", CLIENT) as client:
        first = world.exchange()
        address = serve(first).address
        link = client.core.dial_link(address, role="client")
        assert client.expect(_core.LinkUp).link == link
        first.core.shutdown()
        down = client.expect(_core.LinkDown)
        assert down.link == link
        assert down.retry_in is not None
        assert not client.core.send(link, b"{}")
        with world.exchange() as second:
            serve(second, address)
            assert client.expect(_core.LinkUp).link == link
            second.expect(_core.LinkUp)


def test_delays_between_attempts_grow_and_differ(world: World) -> None:
    with socket.socket() as reserved, world.agent("client", CLIENT) as client:
        reserved.bind(("127.0.0.1", 0))  # bound and not listening: refused at once
        client.core.dial_link(f"127.0.0.1:{reserved.getsockname()[1]}", role="client")
        delays = [client.expect(_core.LinkDown).retry_in or 0.0 for _ in range(4)]
        assert all(delay <= bound for delay, bound in zip(delays, (0.2, 0.4, 0.8, 1.6), strict=True))
        assert len(set(delays)) == 4


def test_redial_keeps_the_number_and_shows_the_new_leaf(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with world.agent("client", CLIENT) as client:
        link = client.core.dial_link(server.address, role="client")
        client.expect(_core.LinkUp)
        before = exchange.expect(_core.LinkUp)
        world.equip(client, "client", CLIENT)
        assert client.core.send(link, b"{}")  # a new identity ends nothing
        exchange.expect(_core.LinkMessage)
        client.core.redial(link, "replaced")
        assert client.expect(_core.LinkDown).retry_in == 0
        assert client.expect(_core.LinkUp).link == link
        assert exchange.expect(_core.LinkUp).fingerprint != before.fingerprint


def test_case_25_a_leaf_of_the_wrong_role_gets_no_link(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with world.agent("control", "00000000000000e1") as fake, pytest.raises(_core.CoreError) as refused:
        fake.core.dial_link(server.address, role="control")
    assert refused.value.code == "role_mismatch"


def test_an_agent_of_another_exchange_gets_no_link(world: World, exchange: Host) -> None:
    server = serve(exchange)
    foreign = World()
    with Host() as client:
        client.core.set_identity("client", *foreign.identity("client", CLIENT))
        client.core.set_trust(world.keyring.roots_pem())
        client.core.dial_link(server.address, role="client")
        assert client.expect(_core.LinkDown).reason in ("root_mismatch", "handshake_failed")
    with Host() as client:
        foreign.equip(client, "client", CLIENT)
        client.core.dial_link(server.address, role="client")
        assert client.expect(_core.LinkDown).reason == "root_mismatch"
    assert not [event for event in exchange.events() if isinstance(event, _core.LinkMessage)]


def test_a_revoked_agent_loses_its_link_and_gets_no_other(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with world.agent("client", CLIENT) as client, world.agent("client", "00000000000000d2") as other:
        client.core.dial_link(server.address, role="client")
        client.expect(_core.LinkUp)
        other_link = other.core.dial_link(server.address, role="client")
        other.expect(_core.LinkUp)
        exchange.core.set_trust(world.keyring.roots_pem(), [CLIENT])
        assert client.expect(_core.LinkDown).reason == "agent_revoked"
        assert client.expect(_core.LinkDown).reason == "agent_revoked"
        assert other.core.send(other_link, b"{}")


def test_drop_agent_ends_the_link(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with world.agent("client", CLIENT) as client:
        client.core.dial_link(server.address, role="client")
        client.expect(_core.LinkUp)
        exchange.expect(_core.LinkUp)
        assert server.drop_agent(CLIENT) == 1
        assert server.drop_agent("00000000000000d2") == 0
        assert exchange.expect(_core.LinkDown).reason == "agent_revoked"


def test_enrolment_pins_the_root_and_carries_messages(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with Host() as new:
        link = new.core.dial_link(server.address, role=None, root_sha256=world.keyring.root_sha256)
        new.expect(_core.LinkUp)
        served = exchange.expect(_core.LinkUp)
        assert (served.agent, served.fingerprint, served.thumbprint, served.not_after) == (None, None, None, None)
        assert new.core.send(link, b'{"type":"enrol_by_key"}')
        assert exchange.expect(_core.LinkMessage).body == b'{"type":"enrol_by_key"}'
        exchange.core.close_link(served.link, "key_invalid")
        down = new.expect(_core.LinkDown)
        assert (down.reason, down.retry_in) == ("key_invalid", None)


def test_enrolment_with_the_wrong_root_sends_nothing(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with Host() as new:
        link = new.core.dial_link(server.address, role=None, root_sha256=World().keyring.root_sha256)
        assert not new.core.send(link, b'{"secret":1}')
        down = new.expect(_core.LinkDown)
        assert (down.reason, down.retry_in) == ("root_mismatch", None)
        assert not new.core.send(link, b'{"secret":1}')
    assert not [event for event in exchange.events() if isinstance(event, _core.LinkMessage)]


def test_a_server_without_tls_hears_a_client_hello_and_nothing_more(world: World) -> None:
    with socket.create_server(("127.0.0.1", 0)) as recorder, Host() as new:
        link = new.core.dial_link(f"127.0.0.1:{recorder.getsockname()[1]}", role=None, root_sha256=world.keyring.root_sha256)
        connection, _ = recorder.accept()
        with connection:
            heard = connection.recv(65536)
            new.core.send(link, b'{"secret":1}')
            connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
            while chunk := connection.recv(65536):
                heard += chunk
        assert b"secret" not in heard
        assert heard[0] == 22  # a TLS handshake record
        assert new.expect(_core.LinkDown).reason == "handshake_failed"


def test_links_are_bounded(world: World, exchange: Host) -> None:
    server = exchange.core.serve("127.0.0.1:0", links=True, carriers=False, limits={"links": 2})
    agents = [world.agent("client", f"00000000000000d{n}") for n in range(3)]
    try:
        for agent in agents[:2]:
            agent.core.dial_link(server.address, role="client")
            exchange.expect(_core.LinkUp)
        agents[2].core.dial_link(server.address, role="client")
        agents[2].expect(_core.LinkDown)
        assert exchange.core.stats()["links"] == 2
    finally:
        for agent in agents:
            agent.core.shutdown()


class Proxy:
    """An HTTP proxy for one CONNECT (RFC 9110 §9.3.6) that wants a user and a password (RFC 7617), inside TLS if it has a context."""

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self.tls = tls
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"127.0.0.1:{self.listener.getsockname()[1]}"
        self.heads: list[bytes] = []
        self.thread = threading.Thread(target=self.serve)
        self.thread.start()

    def serve(self) -> None:
        connection, _ = self.listener.accept()
        if self.tls is not None:
            try:
                connection = self.tls.wrap_socket(connection, server_side=True)
            except ssl.SSLError:
                return
        with connection, connection.makefile("rb") as reader:
            head = b"".join(iter(reader.readline, b"\r\n"))
            self.heads.append(head)
            if b"proxy-authorization: Basic dXNlcjpwOnc=" not in head:
                connection.sendall(b"HTTP/1.1 407 Proxy Authentication Required\r\n\r\n")
                return
            host, port = head.split()[1].decode().rsplit(":", 1)
            with socket.create_connection((host, int(port))) as onward:
                connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n")
                pump = threading.Thread(target=copy, args=(onward, connection))
                pump.start()
                copy(connection, onward)
                pump.join()

    def close(self) -> None:
        self.thread.join()
        self.listener.close()


def copy(source: socket.socket, sink: socket.socket) -> None:
    with suppress(OSError):
        while chunk := source.recv(65536):
            sink.sendall(chunk)
        sink.shutdown(socket.SHUT_WR)


def test_a_link_goes_through_a_proxy_that_asks_for_a_password(world: World, exchange: Host) -> None:
    server, proxy = serve(exchange), Proxy()
    with world.agent("client", CLIENT) as client:
        client.core.set_proxy(f"http://user:p%3Aw@{proxy.address}")
        link = client.core.dial_link(server.address, role="client")
        client.expect(_core.LinkUp)
        assert client.core.send(link, b"{}")
        exchange.expect(_core.LinkMessage)
        [head] = proxy.heads
        assert head.startswith(f"CONNECT {server.address} HTTP/1.1\r\n".encode())
    proxy.close()


def make_certificate(directory: Path) -> tuple[ssl.SSLContext, Path]:
    """A proxy's own certificate for 127.0.0.1, and the file that vouches for it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "proxy")])
    names = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    now = datetime.now(UTC)
    builder = x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now - HOUR, now + HOUR)
    certificate = builder.add_extension(names, critical=False).sign(key, SHA256())
    trusted, private = directory / "proxy.pem", directory / "proxy.key"
    trusted.write_bytes(certificate.public_bytes(Encoding.PEM))
    private.write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(trusted, private)
    return context, trusted


def test_a_link_goes_through_a_proxy_inside_tls(
    world: World, exchange: Host, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    context, trusted = make_certificate(tmp_path)
    server, proxy = serve(exchange), Proxy(context)
    monkeypatch.setenv("SSL_CERT_FILE", str(trusted))
    with world.agent("client", CLIENT) as client:
        client.core.set_proxy(f"https://user:p%3Aw@{proxy.address}")
        link = client.core.dial_link(server.address, role="client")
        client.expect(_core.LinkUp)
        assert client.core.send(link, b"{}")
        exchange.expect(_core.LinkMessage)
    proxy.close()
    assert len(proxy.heads) == 1


def test_a_proxy_inside_tls_that_nobody_vouches_for_is_told_nothing(world: World, exchange: Host, tmp_path: Path) -> None:
    server, proxy = serve(exchange), Proxy(make_certificate(tmp_path)[0])
    with world.agent("client", CLIENT) as client:
        client.core.set_proxy(f"https://user:p%3Aw@{proxy.address}")
        client.core.dial_link(server.address, role="client")
        assert client.expect(_core.LinkDown).reason == "proxy_refused"  # not the exchange's root, which nobody has seen yet
    proxy.close()
    assert proxy.heads == []


def test_exempt_destination_is_dialled_without_the_proxy(world: World, exchange: Host) -> None:
    server = serve(exchange)
    with world.agent("client", CLIENT) as client:
        client.core.set_proxy("http://127.0.0.1:9", "localhost, 127.0.0.0/8")
        client.core.dial_link(server.address, role="client")
        client.expect(_core.LinkUp)


def test_a_proxy_that_refuses_is_named(world: World, exchange: Host) -> None:
    server, proxy = serve(exchange), Proxy()
    with world.agent("client", CLIENT) as client:
        client.core.set_proxy(f"http://user:wrong@{proxy.address}")
        client.core.dial_link(server.address, role="client")
        assert client.expect(_core.LinkDown).reason == "proxy_refused"
    proxy.close()


CHILD = """
import sys, time
from cloister import _core
address, chain, key, roots = sys.stdin.read().split("\\0")
core = _core.Core()
core.set_identity("connector", chain, key)
core.set_trust(roots)
core.dial_link(address, role="connector")
time.sleep(60)
"""


def test_case_49_a_stopped_peer_is_noticed_within_fifteen_seconds(world: World, exchange: Host) -> None:
    server = serve(exchange)
    child = subprocess.Popen(
        [sys.executable, "-c", CHILD],
        stdin=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(_core.__file__ or "").parent.parent)},
    )
    try:
        assert child.stdin is not None
        child.stdin.write("\0".join([server.address, *world.identity("connector", CONNECTOR), world.keyring.roots_pem()]))
        child.stdin.close()
        exchange.expect(_core.LinkUp, patience=30)
        child.send_signal(signal.SIGSTOP)
        begun = time.monotonic()
        down = exchange.expect(_core.LinkDown, patience=15)
        assert down.reason == "peer_silent"
        assert time.monotonic() - begun > 5
    finally:
        child.kill()
        child.wait()


def test_unknown_settings_are_refused_with_a_code(world: World, exchange: Host) -> None:
    for attempt in (
        lambda: exchange.core.serve("127.0.0.1:0", links=True, carriers=False, limits={"linkz": 1}),
        lambda: exchange.core.serve("localhost", links=True, carriers=False),
        lambda: exchange.core.serve("127.0.0.1:0", links=True, carriers=False, web_chain_pem="x"),
        lambda: exchange.core.dial_link("nowhere", role="client"),
        lambda: exchange.core.dial_link("127.0.0.1:1", role="client", root_sha256="00" * 32),
        lambda: exchange.core.dial_link("127.0.0.1:1", role=None, root_sha256="00"),
        lambda: exchange.core.close_link(1, "because"),
        lambda: exchange.core.set_trust("no certificate"),
        lambda: exchange.core.set_trust(world.keyring.roots_pem(), ["zz"]),
        lambda: exchange.core.set_ticket_keys({"k": b"short"}),
        lambda: exchange.core.set_proxy("socks5://user:password@host:1"),
        lambda: exchange.core.set_identity("client", "x", "y"),
        lambda: _core.Core(threads=0),
    ):
        with pytest.raises(_core.CoreError) as refused:
            attempt()
        assert refused.value.code == "argument_invalid"
        assert "password" not in str(refused.value).replace("user:password@host:port", "")
