"""The one grammar of a destination host in documents; the connector's parser (`crates/core/src/host.rs`) reads the same language.

A host is a DNS name of letters, digits and hyphens (RFC 1123 §2.1), lower case, without a trailing dot, whose last label is no number in any
notation; or an IPv4 address of four plain decimals; or an IPv6 address exactly as RFC 5952 writes it, without brackets and zone.
A pattern is a host or `*.` before a name: it matches every name below, at any depth, and not the name itself.
"""

import ipaddress
import re
from collections.abc import Iterator
from typing import NewType

MAX_NAME = 253
MAX_LABEL = 63

Host = NewType("Host", str)
HostPattern = NewType("HostPattern", str)
Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

_LABEL = re.compile(r"[a-z0-9](?:[a-z0-9-]*[a-z0-9])?")
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")  # what inet_aton and the URL standard read as an IPv4 number
_IPV4 = re.compile(r"[0-9]{1,3}(?:\.[0-9]{1,3}){3}")
_IPV6 = re.compile(r"[0-9a-f:.]{2,45}")
_LITERALS = "ipv6-literal.net"  # names below it are addresses in disguise


class HostError(ValueError):
    """The text is not a host. The message holds the value and what to write instead."""


def parse_host(text: str) -> Host:
    """The canonical form of a name or an address."""
    if not text:
        raise HostError("a host is empty: write a name such as `jupyter.lab.internal`")
    if ":" in text:
        return Host(_parse_ipv6(text))
    if _IPV4.fullmatch(text):
        return Host(_parse_ipv4(text))
    return Host(_parse_name(text))


def parse_pattern(text: str) -> HostPattern:
    """The canonical form of a host or of `*.` before a name."""
    if not text.startswith("*"):
        return HostPattern(parse_host(text))
    if not text.startswith("*."):
        raise HostError(f"`{shown(text)}` has a `*` inside a label: a wildcard is `*.` before a whole name")
    return HostPattern("*." + _parse_name(text[2:]))


def address_of(host: str) -> Address | None:
    """The address that a canonical host or pattern is, None for a name."""
    try:
        return ipaddress.ip_address(host)
    except ValueError:
        return None


def parents(name: str) -> Iterator[str]:
    """The suffixes that a wildcard can name, longest first: of `a.b.c` these are `b.c` and `c`."""
    dot = name.find(".")
    while dot >= 0:
        yield name[dot + 1 :]
        dot = name.find(".", dot + 1)


def shown(text: str) -> str:
    """At most 80 printable characters of what was given, for a message."""
    return "".join(c if c.isprintable() and c != "`" else f"\\x{ord(c):02x}" for c in text[:80])


def _parse_ipv4(text: str) -> str:
    try:
        return str(ipaddress.IPv4Address(text))
    except ValueError:
        raise HostError(f"`{text}` is no IPv4 address: write four decimal numbers from 0 to 255, without leading zeros") from None


def _parse_ipv6(text: str) -> str:
    try:
        address = ipaddress.IPv6Address(text) if _IPV6.fullmatch(text) else None
    except ValueError:
        address = None
    if address is None:
        raise HostError(
            f"`{shown(text)}` is no host: an IPv6 address has no brackets and no zone, and a host is written without its port"
        )
    canonical = _print_ipv6(address)
    if canonical != text:
        raise HostError(f"`{text}` is not written as RFC 5952 says: write `{canonical}`")
    return canonical


def _print_ipv6(address: ipaddress.IPv6Address) -> str:
    """RFC 5952; IPv4-mapped addresses with dots (§5), which Python prints from 3.13 on."""
    return f"::ffff:{address.ipv4_mapped}" if address.ipv4_mapped is not None else str(address)


def _parse_name(text: str) -> str:
    name = text.removesuffix(".").lower() if text.isascii() else text
    if not name or len(name) > MAX_NAME:
        raise HostError(f"`{shown(text)}` is no name: a name has 1 to {MAX_NAME} characters")
    labels = name.split(".")
    for label in labels:
        if not _LABEL.fullmatch(label) or len(label) > MAX_LABEL:
            raise HostError(
                f"`{shown(text)}` is no name: a label has 1 to {MAX_LABEL} letters a-z, digits and inner hyphens "
                "(an international name is written in its `xn--` form)"
            )
    if _NUMBER.fullmatch(labels[-1]):
        raise HostError(f"`{shown(text)}` reads as a number: write an address as four plain decimals, such as `192.0.2.10`")
    if name == _LITERALS or name.endswith(f".{_LITERALS}"):
        raise HostError(f"`{shown(text)}` is an address in disguise: write the address itself")
    return name
