"""Where a client is, as far as the exchange can see: the named networks that hold its address, and its place."""

import ipaddress
from collections.abc import Iterable

from cloister.model.posture import Network

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
MAX_REMEMBERED = 16_384
NOWHERE = ""
"""The place of an address that cannot be read. It is one place like any other."""


def read_address(text: str | None) -> Address | None:
    """An address with or without a port: `192.0.2.7:5000`, `[2001:db8::7]:5000`, `2001:db8::7`. IPv4 inside IPv6 (RFC 4291 §2.5.5.2) is IPv4."""
    if not text:
        return None
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        address = ipaddress.ip_address(text.partition("%")[0])
    except ValueError:
        return None
    if isinstance(address, ipaddress.IPv6Address) and address.ipv4_mapped is not None:
        return address.ipv4_mapped
    return address


class NetworkIndex:
    """Over one set of `network` documents. Immutable but for what it remembers of addresses it was asked about."""

    def __init__(self, networks: Iterable[Network] = ()) -> None:
        self._ranges = [
            (ipaddress.ip_network(text), network.name)
            for network in sorted(networks, key=lambda network: network.name)
            for text in network.networks
        ]
        self._known: dict[str, tuple[frozenset[str], str]] = {}

    def names_of(self, address: str | None) -> frozenset[str]:
        """The named networks that hold this address."""
        return self._look_up(address)[0]

    def place_of(self, address: str | None) -> str:
        """The narrowest named network (of equal ones the first by name), else the /24 or /48 around it: a household, an office, a site."""
        return self._look_up(address)[1]

    def _look_up(self, text: str | None) -> tuple[frozenset[str], str]:
        key = text or ""
        known = self._known.get(key)
        if known is None:
            if len(self._known) >= MAX_REMEMBERED:
                self._known.clear()
            known = self._known[key] = self._find(read_address(text))
        return known

    def _find(self, address: Address | None) -> tuple[frozenset[str], str]:
        if address is None:
            return frozenset(), NOWHERE
        holding = [(network.prefixlen, name) for network, name in self._ranges if address in network]
        if holding:
            _, name = min(holding, key=lambda found: (-found[0], found[1]))
            return frozenset(name for _, name in holding), f"network {name}"
        width = 24 if address.version == 4 else 48
        return frozenset(), str(ipaddress.ip_network((address, width), strict=False))
