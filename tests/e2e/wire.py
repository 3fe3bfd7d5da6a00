"""Reading captures: every TCP stream put together, every packet's addresses, and what is not TLS."""

import ipaddress
import struct
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from netlab import END_OF_CAPTURE

ETHERNET_IPV4, ETHERNET_IPV6, ETHERNET_ARP = 0x0800, 0x86DD, 0x0806
TCP, UDP = 6, 17
MAX_RECORD = 16384 + 256  # RFC 8446 §5.2
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Ends = tuple[Address, int, Address, int]


@dataclass
class Capture:
    """What crossed a leg. Streams are keyed by (from, port, to, port), one per direction."""

    raw: bytes
    addresses: set[Address] = field(default_factory=set)
    protocols: set[int] = field(default_factory=set)
    streams: dict[Ends, bytes] = field(default_factory=dict)


def read_capture(path: Path) -> Capture:
    raw = path.read_bytes()
    capture = Capture(raw[: raw.find(END_OF_CAPTURE)])
    parts: dict[Ends, dict[int, bytes]] = {}
    first: dict[Ends, int] = {}
    for packet in _packets(raw):
        if END_OF_CAPTURE in packet:
            break
        found = _network(packet)
        if found is None:
            continue
        source, target, protocol, payload = found
        capture.addresses |= {source, target}
        capture.protocols.add(protocol)
        if protocol != TCP:
            continue
        from_port, to_port, sequence, _, offset, flags = struct.unpack_from(">HHIIBB", payload)
        ends = (source, from_port, target, to_port)
        data = payload[(offset >> 4) * 4 :]
        if flags & 0x02:  # SYN: the stream begins with the next number
            first[ends] = sequence + 1
        if data and ends in first:
            parts.setdefault(ends, {})[(sequence - first[ends]) & 0xFFFFFFFF] = data
    for ends, pieces in parts.items():
        stream = bytearray()
        for at in sorted(pieces):
            if at > len(stream):
                break  # lost to the capture: what follows cannot be judged
            stream[at:] = pieces[at] if at + len(pieces[at]) > len(stream) else stream[at:]
        capture.streams[ends] = bytes(stream)
    return capture


def not_tls(stream: bytes) -> str | None:
    """None if the stream is TLS records from its first byte on (the last may be cut off), else what it is not."""
    at = 0
    while at < len(stream):
        kind, version, length = struct.unpack(">BHH", stream[at : at + 5].ljust(5, b"\0"))
        if len(stream) - at < 5:
            return None
        if kind not in (20, 21, 22, 23) or version not in (0x0301, 0x0303) or not 0 < length <= MAX_RECORD:
            return f"at byte {at}: `{stream[at : at + 16].hex()}` begins no TLS record"
        at += 5 + length
    return None


def _packets(raw: bytes) -> Iterator[bytes]:
    magic = raw[:4]
    order = {b"\xd4\xc3\xb2\xa1": "<", b"\xa1\xb2\xc3\xd4": ">"}[magic]
    at = 24
    while at + 16 <= len(raw):
        _, _, length, _ = struct.unpack_from(f"{order}IIII", raw, at)
        yield raw[at + 16 : at + 16 + length]
        at += 16 + length


def _network(packet: bytes) -> tuple[Address, Address, int, bytes] | None:
    """(from, to, protocol, payload) of an IP packet without extension headers."""
    (kind,) = struct.unpack_from(">H", packet, 12)
    body = packet[14:]
    if kind == ETHERNET_IPV4:
        header, (total,) = (body[0] & 15) * 4, struct.unpack_from(">H", body, 2)
        return ipaddress.IPv4Address(body[12:16]), ipaddress.IPv4Address(body[16:20]), body[9], body[header:total]
    if kind == ETHERNET_IPV6:
        (length,) = struct.unpack_from(">H", body, 4)
        return ipaddress.IPv6Address(body[8:24]), ipaddress.IPv6Address(body[24:40]), body[6], body[40 : 40 + length]
    return None
