"""Laws of the public port as control sees it: parking, joins by ticket, cuts and blocks. The carriers' ends are Python's own TLS."""

import json
import socket
import ssl
import struct
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.unit.core.cores import PATIENCE, Host, World

from cloister import _core
from cloister.trust.types import Role, TicketClaims

CLIENT, OTHER_CLIENT = "00000000000000d1", "00000000000000d2"
CONNECTOR, OTHER_CONNECTOR = "00000000000000c1", "00000000000000c2"


@pytest.fixture(scope="module")
def world() -> World:
    return World()


@pytest.fixture(autouse=True)
def _carriers_are_closed() -> Iterator[None]:
    yield
    while Carrier.made:
        Carrier.made.pop().tls.close()


@pytest.fixture
def relay(world: World) -> Iterator[Host]:
    with world.exchange() as host:
        yield host


class Carrier:
    """One carrier from its TLS handshake to the hand-over."""

    made: ClassVar[list["Carrier"]] = []

    def __init__(self, world: World, address: str, role: Role, agent: str) -> None:
        context = ssl.create_default_context(cadata=world.keyring.roots_pem())
        context.check_hostname = False
        context.minimum_version = ssl.TLSVersion.TLSv1_3
        context.set_alpn_protocols(["cloister-carrier/1"])
        chain, key = world.identity(role, agent)
        self.thumbprint = _core.thumbprint(chain)
        with tempfile.TemporaryDirectory() as room:
            for name, text in (("chain", chain), ("key", key)):
                (Path(room) / name).write_text(text)
            context.load_cert_chain(Path(room) / "chain", Path(room) / "key")
        host, port = address.rsplit(":", 1)
        self.tls = context.wrap_socket(socket.create_connection((host, int(port)), timeout=PATIENCE))
        Carrier.made.append(self)

    def send(self, **frame: object) -> None:
        body = json.dumps(frame).encode()
        self.tls.sendall(struct.pack(">H", len(body)) + body)

    def receive(self) -> dict[str, Any]:
        head = self._exactly(2)
        frame: dict[str, Any] = json.loads(self._exactly(struct.unpack(">H", head)[0]))
        return frame

    def _exactly(self, count: int) -> bytes:
        got = b""
        while len(got) < count:
            chunk = self.tls.recv(count - len(got))
            if not chunk:
                raise EOFError
            got += chunk
        return got

    def wait_end(self) -> None:
        """Until the far side has ended the TCP connection."""
        with socket.socket(fileno=self.tls.detach()) as raw:
            raw.settimeout(PATIENCE)
            try:
                while raw.recv(65536):
                    pass
            except ConnectionError:
                pass


def ticket(world: World, carrier: Carrier, client: str = CLIENT, connectors: tuple[str, ...] = (CONNECTOR,), **edit: Any) -> str:
    now = int(time.time())
    fields: dict[str, Any] = {
        "issuer": world.keyring.trust_domain,
        "token_id": "j1",
        "session": "0000000000000051",
        "principal": "user:alice",
        "client": client,
        "segment": "00000000000000a1",
        "connectors": connectors,
        "key_thumbprint": carrier.thumbprint,
        "issued": now,
        "expires": now + 60,
        "generation": 1,
        "continuity": 0,
        "rules": ("r1",),
    }
    return world.keyring.sign_ticket(TicketClaims(**(fields | edit)))


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


def park(world: World, server: _core.Server, connector: str = CONNECTOR) -> Carrier:
    carrier = Carrier(world, server.address, "connector", connector)
    before = server.parked().get(connector, 0)
    carrier.send(t="park")
    until(lambda: server.parked().get(connector, 0) == before + 1)
    return carrier


def ask(world: World, server: _core.Server, client: str = CLIENT, connector: str | None = CONNECTOR, **edit: Any) -> Carrier:
    carrier = Carrier(world, server.address, "client", client)
    carrier.send(t="join", ticket=ticket(world, carrier, client, **edit), connector=connector, wrapped=False)
    return carrier


def join(world: World, server: _core.Server, client: str = CLIENT, connector: str | None = None) -> tuple[Carrier, Carrier]:
    parked = park(world, server)
    joining = ask(world, server, client, connector)
    assert parked.receive() == {"t": "go", "wrapped": False}
    parked.send(t="ready")
    assert joining.receive() == {"t": "go", "connector": CONNECTOR}
    return joining, parked


def serve(host: Host, **limits: int) -> _core.Server:
    return host.core.serve("127.0.0.1:0", links=False, carriers=True, limits=limits)


def test_a_join_by_ticket_is_counted_and_cut(world: World, relay: Host) -> None:
    server = serve(relay)
    joining, parked = join(world, server)
    until(lambda: relay.core.stats()["carriers_joined"] == 1)
    assert server.parked() == {}
    assert server.cut(OTHER_CLIENT) == 0
    assert server.cut(CLIENT, OTHER_CONNECTOR) == 0
    assert server.cut(CLIENT, CONNECTOR) == 1
    joining.wait_end()
    parked.wait_end()
    until(lambda: relay.core.stats()["carriers_joined"] == 0)


def test_carriers_of_different_threads_are_joined(world: World) -> None:
    with world.exchange(threads=3) as relay:
        server = serve(relay)
        pairs = [join(world, server) for _ in range(6)]
        until(lambda: relay.core.stats()["carriers_joined"] == 6)
        for joining, parked in pairs:
            with socket.socket(fileno=joining.tls.detach()) as near, socket.socket(fileno=parked.tls.detach()) as far:
                for sender, receiver in ((near, far), (far, near)):
                    sender.sendall(b"x" * 100_000)
                    receiver.settimeout(PATIENCE)
                    left = 100_000
                    while left:
                        left -= len(receiver.recv(left))


def test_a_blocked_pair_joins_again_after_unblock(world: World, relay: Host) -> None:
    server = serve(relay)
    joining, _ = join(world, server)
    server.block(CLIENT, CONNECTOR)
    joining.wait_end()
    spare = park(world, server)
    assert ask(world, server).receive() == {"t": "refuse", "code": "join_blocked"}
    server.unblock(CLIENT, CONNECTOR)
    again = ask(world, server)
    assert spare.receive()["t"] == "go"
    spare.send(t="ready")
    assert again.receive()["t"] == "go"


def test_control_is_asked_for_a_carrier_that_is_missing(world: World, relay: Host) -> None:
    server = serve(relay)
    joining = ask(world, server)
    assert relay.expect(_core.CarrierWanted).connector == CONNECTOR
    parked = Carrier(world, server.address, "connector", CONNECTOR)
    parked.send(t="park")
    assert parked.receive()["t"] == "go"
    parked.send(t="ready")
    assert joining.receive() == {"t": "go", "connector": CONNECTOR}


@pytest.mark.parametrize(
    ("client", "edit", "code"),
    [
        (CLIENT, {"issuer": "ffffffffffffffff.cloister"}, "ticket_audience"),
        (CLIENT, {"connectors": (OTHER_CONNECTOR,)}, "ticket_audience"),
        (OTHER_CLIENT, {"client": CLIENT}, "ticket_not_yours"),
        (CLIENT, {"key_thumbprint": "A" * 43}, "ticket_not_yours"),
        (CLIENT, {"issued": 1000, "expires": 1300}, "ticket_expired"),
    ],
)
def test_case_18_a_relay_takes_a_ticket_from_its_holder_only(
    world: World, relay: Host, client: str, edit: dict[str, Any], code: str
) -> None:
    server = serve(relay)
    park(world, server)
    carrier = Carrier(world, server.address, "client", client)
    token = ticket(world, carrier, **({"client": client} | edit))
    carrier.send(t="join", ticket=token, connector=CONNECTOR, wrapped=False)
    assert carrier.receive() == {"t": "refuse", "code": code}
    assert server.parked() == {CONNECTOR: 1}


def test_an_agent_that_is_dropped_or_revoked_loses_its_carriers(world: World, relay: Host) -> None:
    server = serve(relay)
    joining, parked = join(world, server)
    spare = park(world, server)
    assert server.drop_agent(CONNECTOR) == 2
    for carrier in (joining, parked, spare):
        carrier.wait_end()
    joining, parked = join(world, server)
    relay.core.set_trust(world.keyring.roots_pem(), [CLIENT])
    joining.wait_end()
    parked.wait_end()


def test_carriers_are_bounded(world: World, relay: Host) -> None:
    server = serve(relay, parked_per_connector=2)
    carriers = [park(world, server) for _ in range(2)]
    third = Carrier(world, server.address, "connector", CONNECTOR)
    third.send(t="park")
    with pytest.raises((EOFError, OSError)):
        third.receive()
    assert server.parked() == {CONNECTOR: 2}
    assert len(carriers) == 2


def test_draining_takes_no_more_and_lets_what_is_joined_go_on(world: World, relay: Host) -> None:
    server = serve(relay)
    join(world, server)
    server.drain()
    joining = ask(world, server)
    with pytest.raises((EOFError, OSError, AssertionError)):
        assert joining.receive() != {"t": "refuse", "code": "draining"}
    assert relay.core.stats()["carriers_joined"] == 1


def test_verbs_of_carriers_need_carriers(world: World, relay: Host) -> None:
    server = relay.core.serve("127.0.0.1:0", links=True, carriers=False)
    with pytest.raises(_core.CoreError):
        server.cut(CLIENT)
    assert server.parked() == {}
