"""PROXY protocol v2 (haproxy's proxy-protocol.txt, section 2.2) on the private socket: the one source of a peer's address.

`X-Forwarded-For` and its like are never read (case 48).
"""

import ipaddress
import struct
from dataclasses import dataclass

SIGNATURE = b"\r\n\r\n\0\r\nQUIT\n"
HEADER_BYTES = 16
MAX_HEADER_BYTES = HEADER_BYTES + 512


@dataclass(frozen=True, slots=True)
class Peer:
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Header:
    """`peer` is None for a LOCAL connection: the front's own."""

    peer: Peer | None
    length: int


class ProxyHeaderError(ValueError):
    """The connection does not start with a PROXY v2 header."""


def read_header(data: bytes) -> Header | None:
    """The header that `data` starts with; None while more bytes are needed."""
    if not data.startswith(SIGNATURE[: len(data)]):
        raise ProxyHeaderError("the connection does not start with a PROXY v2 header")
    if len(data) < HEADER_BYTES:
        return None
    command, family, length = struct.unpack_from("!BBH", data, len(SIGNATURE))
    total = HEADER_BYTES + length
    if command >> 4 != 2 or total > MAX_HEADER_BYTES:
        raise ProxyHeaderError("the PROXY header is of another version or too long")
    if len(data) < total:
        return None
    body = data[HEADER_BYTES:total]
    match command & 0xF, family:
        case 0, _:
            return Header(None, total)
        case 1, 0x11:
            return Header(_peer(body, 4), total)
        case 1, 0x21:
            return Header(_peer(body, 16), total)
        case _:
            raise ProxyHeaderError("the PROXY header names no TCP peer")


def _peer(body: bytes, size: int) -> Peer:
    if len(body) < 2 * size + 4:
        raise ProxyHeaderError("the PROXY header is cut short")
    (port,) = struct.unpack_from("!H", body, 2 * size)
    return Peer(str(ipaddress.ip_address(body[:size])), port)
