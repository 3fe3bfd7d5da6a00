"""Laws of the PROXY v2 header."""

import socket
import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.exchange.api.proxy import MAX_HEADER_BYTES, SIGNATURE, Header, Peer, ProxyHeaderError, read_header


def _header(command: int, family: int, body: bytes) -> bytes:
    return SIGNATURE + struct.pack("!BBH", command, family, len(body)) + body


V4 = _header(0x21, 0x11, socket.inet_aton("192.0.2.7") + socket.inet_aton("192.0.2.1") + struct.pack("!HH", 1234, 443))
V6 = _header(0x21, 0x21, socket.inet_pton(socket.AF_INET6, "2001:db8::7") * 2 + struct.pack("!HH", 1234, 443))


@pytest.mark.parametrize(("data", "host"), [(V4, "192.0.2.7"), (V6, "2001:db8::7")])
def test_peer_is_the_one_that_the_header_names(data: bytes, host: str) -> None:
    assert read_header(data + b"GET / HTTP/1.1") == Header(Peer(host, 1234), len(data))


def test_local_connection_has_no_peer() -> None:
    assert read_header(_header(0x20, 0, b"")) == Header(None, 16)


@pytest.mark.parametrize("end", range(len(V4)))
def test_part_of_a_header_asks_for_more(end: int) -> None:
    assert read_header(V4[:end]) is None


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\r\n",
        _header(0x11, 0x11, V4[16:]),
        _header(0x22, 0x11, V4[16:]),
        _header(0x21, 0x12, V4[16:]),
        _header(0x21, 0x31, V4[16:]),
        _header(0x21, 0x11, V4[16:-1]),
        _header(0x21, 0x21, V4[16:]),
        SIGNATURE + struct.pack("!BBH", 0x21, 0x11, MAX_HEADER_BYTES),
    ],
)
def test_case_48_anything_else_is_refused(data: bytes) -> None:
    with pytest.raises(ProxyHeaderError):
        read_header(data)


@given(st.binary(max_size=600))
def test_reading_never_fails_otherwise(data: bytes) -> None:
    for prefix in (b"", SIGNATURE, SIGNATURE + b"\x21\x11"):
        try:
            header = read_header(prefix + data)
        except ProxyHeaderError:
            continue
        assert header is None or header.length <= len(prefix + data)
