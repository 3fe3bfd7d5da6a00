"""A path that swallows packets, with no reset and no end: whoever has a connection over it notices within 15 seconds and goes on elsewhere."""

import contextlib
import socket
import time
from collections.abc import Callable, Iterator

import pytest
from lab import wait_for
from netlab import Host, permitted
from town import PERSON, Town, echo, town

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")

NOTICED = 15.0
"""Seconds until the silence is noticed (DESIGN §3)."""
RELAYS = 7444
LINKS = 7443

SWALLOW = """
table inet silence {{
    chain input {{ type filter hook input priority -100; ip saddr {address} tcp sport {port} counter drop; }}
    chain output {{ type filter hook output priority -100; ip daddr {address} tcp dport {port} counter drop; }}
}}
"""


@pytest.fixture(scope="module")
def place() -> Iterator[Town]:
    with town("silence", own_relays=True) as place:
        place.add_service("quiet", 7001, echo)
        place.permit("quiet-7001")
        yield place


@pytest.fixture(scope="module")
def door(place: Town) -> tuple[str, int]:
    host, _, port = place.deployment.forward(place.laptop, PERSON, "quiet.lab.internal:7001").rpartition(":")
    place.deployment.wait_until_served(place.laptop, PERSON, ["quiet-7001"])
    return host, int(port)


def established(host: Host, port: int) -> set[tuple[str, str]]:
    """(local, peer) of the connections that this host has dialled to that port."""
    lines = host.run("ss", "-tnH", "state", "established", f"( dport = :{port} )").stdout.splitlines()
    return {(fields[2], fields[3]) for fields in map(str.split, lines)}


@contextlib.contextmanager
def silence(host: Host, peer: str) -> Iterator[None]:
    """Inside, packets between the host and `peer` (address:port) are dropped both ways."""
    address, _, port = peer.rpartition(":")
    host.run("nft", "-f", "-", input=SWALLOW.format(address=address, port=port))
    try:
        yield
    finally:
        host.run("nft", "delete", "table", "inet", "silence")


def gone(host: Host, port: int, before: set[tuple[str, str]]) -> Callable[[], bool]:
    return lambda: not before & established(host, port)


def say(flow: socket.socket, text: bytes) -> bytes:
    flow.sendall(text)
    return flow.recv(len(text), socket.MSG_WAITALL)


@pytest.mark.parametrize("busy", [False, True], ids=["idle", "busy"])
def test_client_leaves_a_silent_carrier_and_its_flow_loses_nothing(place: Town, door: tuple[str, int], busy: bool) -> None:
    with place.laptop.dial(*door) as flow:
        flow.settimeout(30)
        assert say(flow, b"before") == b"before"
        carriers = established(place.laptop, RELAYS)
        (peer,) = {peer for _, peer in carriers}
        with silence(place.laptop, peer):
            began = time.monotonic()
            if busy:
                flow.sendall(b"during")
            wait_for(gone(place.laptop, RELAYS, carriers), "the silent carrier's end", NOTICED + 1)
            assert time.monotonic() - began < NOTICED
            if busy:
                assert flow.recv(6, socket.MSG_WAITALL) == b"during"
            assert say(flow, b"after") == b"after", "over the other relay"
            assert peer not in {peer for _, peer in established(place.laptop, RELAYS)}


def test_connector_leaves_silent_parked_carriers(place: Town) -> None:
    parked = established(place.lab.cluster, RELAYS)
    peer = f"{place.lab.relay.address}:{RELAYS}"
    silent = {carrier for carrier in parked if carrier[1] == peer}
    assert silent
    with silence(place.lab.cluster, peer):
        began = time.monotonic()
        wait_for(gone(place.lab.cluster, RELAYS, silent), "the end of silent parked carriers", NOTICED + 1)
        assert time.monotonic() - began < NOTICED
        assert established(place.lab.cluster, RELAYS) & (parked - silent), "those at the other relay stay"
    wait_for(lambda: any(at == peer for _, at in established(place.lab.cluster, RELAYS)), "carriers at that relay again", 60)


@pytest.mark.parametrize("of", ["laptop", "cluster"])
def test_agents_leave_a_silent_link(place: Town, of: str) -> None:
    host = place.lab.hosts[of]
    links = established(host, LINKS)
    ((_, peer),) = links
    with silence(host, peer):
        began = time.monotonic()
        wait_for(gone(host, LINKS, links), "the silent link's end", NOTICED + 1)
        assert time.monotonic() - began < NOTICED
    wait_for(lambda: established(host, LINKS), "a new link", 60)
