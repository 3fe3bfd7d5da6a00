"""What somebody outside can see and reach: nothing that listens, nothing but TLS, no name and no address of a service."""

import ipaddress
import socket
from collections.abc import Iterator

import pytest
from netlab import permitted
from town import PERSON, Town, echo, town
from wire import UDP, not_tls, read_capture

pytestmark = pytest.mark.skipif(permitted() is not None, reason=permitted() or "")

MARK = b"only-the-two-ends-may-read-this"


@pytest.fixture(scope="module")
def place() -> Iterator[Town]:
    with town("outside", captured=("laptop", "cluster")) as place:
        place.add_service("open", 7001, echo)
        place.add_service("open", 7002, echo)  # the same host, another port, no rule
        place.permit("open-7001")
        place.deployment.up(place.laptop, PERSON)
        place.deployment.wait_until_served(place.laptop, PERSON, ["open-7001"])
        yield place


def exchange_bytes(place: Town, text: bytes = MARK) -> bytes:
    """Through the client's capture, by name, as any program would."""
    address = resolve(place, "open.lab.internal")
    with place.laptop.dial(address, 7001, timeout=15) as flow:
        flow.sendall(text)
        flow.shutdown(socket.SHUT_WR)
        return flow.makefile("rb").read()


def resolve(place: Town, name: str) -> str:
    """As a program on the laptop resolves it."""
    return place.laptop.run("getent", "ahostsv4", name).stdout.split()[0]


def test_a_name_leads_to_the_service_and_half_close_survives(place: Town) -> None:
    assert exchange_bytes(place) == MARK


def test_a_name_resolves_to_a_synthetic_address_only(place: Town) -> None:
    text = place.laptop.run("getent", "ahosts", "open.lab.internal").stdout
    assert text
    for line in text.splitlines():
        address = ipaddress.ip_address(line.split()[0])
        assert address in ipaddress.ip_network("100.64.0.0/10" if address.version == 4 else "fc00::/7")


def test_connector_process_has_no_listening_socket(place: Town) -> None:
    (pid,) = place.deployment.connector_pids
    assert place.lab.cluster.listening(pid) == []
    assert place.lab.cluster.listening() == []
    assert place.lab.inet.listening(place.deployment.exchange.pid), "the exchange listens: so the look finds what there is"


def test_scan_of_the_cluster_from_outside_finds_no_open_port(place: Town) -> None:
    assert place.lab.inet.scan(place.lab.cluster.address) == []
    assert 7443 in place.lab.laptop.scan(place.lab.inet.address, "7400-7500"), (
        "the exchange is found: so the scan finds what there is"
    )


def test_second_segment_on_the_same_host_stays_closed(place: Town) -> None:
    address = resolve(place, "open.lab.internal")
    with pytest.raises(OSError), place.laptop.dial(address, 7002, timeout=5) as flow:
        flow.sendall(MARK)
        assert flow.recv(64) == b"", "bytes came back from a port that no rule names"
        raise ConnectionResetError
    assert exchange_bytes(place) == MARK


def test_both_outside_legs_carry_only_tls_and_no_name_or_address_of_a_service(place: Town) -> None:
    assert exchange_bytes(place) == MARK
    legs = place.end_captures()
    service = ipaddress.ip_address(place.addresses["open.lab.internal"])
    for path in legs.values():
        capture = read_capture(path)
        assert capture.streams
        for ends, stream in capture.streams.items():
            assert not_tls(stream) is None, ends
        assert UDP not in capture.protocols
        assert service not in capture.addresses
        for secret in (MARK, b"open.lab", str(service).encode(), service.packed, b"lab-internal", b"town"):
            assert secret not in capture.raw, secret


def test_a_capture_would_show_a_service_that_is_reached_in_the_clear(place: Town) -> None:
    listener = place.lab.inet.inside(lambda: socket.create_server((place.lab.inet.address, 7009)))
    with listener, place.lab.capture("laptop", "clear") as path, place.laptop.dial(place.lab.inet.address, 7009) as flow:
        flow.sendall(MARK)
        accepted, _ = listener.accept()
        with accepted:
            assert accepted.recv(64) == MARK
    capture = read_capture(path)
    assert MARK in capture.raw
    assert any(not_tls(stream) for stream in capture.streams.values())
