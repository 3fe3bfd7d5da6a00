"""Addresses and names that no segment may reach unless it spells them out: the same rules as `crates/core/src/address.rs`.

The connector judges what it dials; here the same judgement refuses a document while its author is still looking.
"""

import ipaddress

from cloister.model.hosts import Address, address_of

_METADATA = frozenset({"169.254.169.254", "100.100.100.200", "100.100.2.136", "100.100.2.138", "168.63.129.16", "192.0.0.192"})
_METADATA_V6 = tuple(
    ipaddress.IPv6Network(n) for n in ("fd00:ec2::/32", "fd20:ce::254/128", "fd00:c1::a9fe:a9fe/128", "fd00:42::42/128")
)
_CONTROL_PLANE = frozenset({"10.96.0.1", "10.43.0.1"})
_V4 = tuple(
    (ipaddress.IPv4Network(network), why)
    for network, why in (
        ("0.0.0.0/8", "unspecified"),
        ("127.0.0.0/8", "loopback"),
        ("169.254.0.0/16", "link_local"),
        ("255.255.255.255/32", "broadcast"),
        ("224.0.0.0/4", "multicast"),
        ("192.0.0.0/24", "reserved"),
        ("192.88.99.0/24", "reserved"),
        ("240.0.0.0/4", "reserved"),
    )
)
_NAT64 = ipaddress.IPv6Network("64:ff9b::/96")
_EMBEDDED = tuple(
    ipaddress.IPv6Network(n) for n in ("::/96", "::ffff:0:0/96", "::ffff:0:0:0/96", "64:ff9b:1::/48", "2002::/16", "2001::/32")
)
_USABLE_V6 = (ipaddress.IPv6Network("2000::/3"), ipaddress.IPv6Network("fc00::/7"))
_LOOPBACK_NAMES = frozenset(
    {"ip6-localhost", "ip6-loopback", "loopback", "localhost6", "localhost6.localdomain6", "localhost4", "localhost4.localdomain4"}
)
_METADATA_NAMES = frozenset(
    {
        "metadata",
        "metadata.google.internal",
        "metadata.goog",
        "metadata.aliyun.internal",
        "instance-data",
        "instance-data.ec2.internal",
    }
)
_CONTROL_NAMESPACES = frozenset({"kube-system", "kube-public", "kube-node-lease"})


def forbidden_address(address: Address) -> str | None:
    """Why no segment may reach this address unless spelled out (`loopback`, `link_local`, `metadata`, …), or None."""
    return _forbidden_v4(address) if isinstance(address, ipaddress.IPv4Address) else _forbidden_v6(address)


def forbidden_name(name: str) -> str | None:
    """Why this canonical name is this host, a metadata service or a cluster's control plane whatever it resolves to, or None."""
    labels = name.split(".")
    if labels[-1] == "localhost" or (labels[0] == "localhost" and "localdomain" in labels) or name in _LOOPBACK_NAMES:
        return "loopback"
    if name in _METADATA_NAMES or name.endswith(".metadata.google.internal"):
        return "metadata"
    return "control_plane" if _is_api_server(labels) else None


def is_beyond_wildcards(name: str) -> bool:
    """Names that a wildcard never covers: they are listed exactly or not reached."""
    return forbidden_name(name) is not None or not _CONTROL_NAMESPACES.isdisjoint(name.split("."))


def forbidden_host(host: str) -> str | None:
    address = address_of(host)
    return forbidden_name(host) if address is None else forbidden_address(address)


def _forbidden_v4(address: ipaddress.IPv4Address) -> str | None:
    if str(address) in _METADATA:
        return "metadata"
    if str(address) in _CONTROL_PLANE:
        return "control_plane"
    return next((why for network, why in _V4 if address in network), None)


def _forbidden_v6(address: ipaddress.IPv6Address) -> str | None:
    if int(address) == 0:
        return "unspecified"
    if int(address) == 1:
        return "loopback"
    if address in _NAT64:
        return _forbidden_v4(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    if _embeds_ipv4(address):
        return "embedded_ipv4"
    if any(address in network for network in _METADATA_V6):
        return "metadata"
    if address.is_link_local:
        return "link_local"
    if address.is_multicast:
        return "multicast"
    if address in ipaddress.IPv6Network("2001::/23"):
        return "reserved"
    return None if any(address in network for network in _USABLE_V6) else "reserved"


def _embeds_ipv4(address: ipaddress.IPv6Address) -> bool:
    """The forms of RFC 4291 §2.5.5, 2765, 8215, 3056, 4380, and ISATAP (RFC 5214 §6.1) with any setting of its u and g bits."""
    isatap = (int(address) >> 32) & 0xFFFFFFFF
    return any(address in network for network in _EMBEDDED) or (isatap & 0xFCFFFFFF) == 0x00005EFE


def _is_api_server(labels: list[str]) -> bool:
    if labels == ["kubernetes"]:
        return True
    pairs = [at for at in range(len(labels) - 1) if labels[at : at + 2] == ["kubernetes", "default"]]
    return any(at + 2 == len(labels) or labels[at + 2] == "svc" for at in pairs)
