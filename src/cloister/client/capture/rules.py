"""What capture writes: packet filter rules, routes and the resolver file, as text. Pure.

The way of a captured packet: the owner's packet to a captured pair is marked in the output hook, routed to `lo` because of the mark, and
handed to the core's transparent socket where it comes in again. The pool on any other interface is dropped; the rest of the pool, and
everybody else's packets to it, are refused at once.
"""

import ipaddress
import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from cloister.client.errors import ClientError
from cloister.model.hosts import HostError, parse_host
from cloister.model.reasons import Code

Address = ipaddress.IPv4Address | ipaddress.IPv6Address
Network = ipaddress.IPv4Network | ipaddress.IPv6Network

MARK_BASE = 0x43000000
"""Marks and routing tables of this program; the owner's uid is in the lower 24 bits."""
PREFERENCE = 2107
"""Of the routing rules: before `main`, after `local`."""
SHARED_SPACE = ipaddress.IPv4Network("100.64.0.0/10")  # RFC 6598
MAX_PAIRS = 65536
MAX_RESOLVER_BYTES = 65536
OPEN_FLOWS = "open flows whose pair is captured no more, and what closed sockets still send"
RESOLVER_MARK = "# written by cloister for uid"


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose packets are captured; every name and number that capture uses follows from the uid."""

    uid: int

    def __post_init__(self) -> None:
        if not 0 <= self.uid < 0xFFFFFFFF:
            raise ValueError(f"`{self.uid}` is no user id")

    @property
    def mark(self) -> int:
        return MARK_BASE | (self.uid & 0xFFFFFF)

    @property
    def table(self) -> str:
        return f"cloister_{self.uid}"

    @property
    def nameserver(self) -> str:
        """Where this owner's client answers names; the port is 53, which resolver files cannot change."""
        return str(ipaddress.IPv4Address(int(ipaddress.IPv4Address("127.67.0.0")) + self.uid % 0xFFFF + 1))


@dataclass(frozen=True, slots=True)
class Pools:
    """Where synthetic addresses come from. `moved` says why they are not the ones asked for."""

    v4: ipaddress.IPv4Network
    v6: ipaddress.IPv6Network
    moved: str | None = None


@dataclass(frozen=True, slots=True)
class Pair:
    address: Address
    protocol: str
    first: int
    last: int


def parse_pairs(captured: Iterable[tuple[str, str, int, int]]) -> tuple[Pair, ...]:
    """What the core wants captured, sorted. Raises ValueError on anything that is no address, protocol or port range."""
    pairs = []
    for address, protocol, first, last in captured:
        if protocol not in ("tcp", "udp") or not 1 <= first <= last <= 65535:
            raise ValueError(f"`{protocol} {first}-{last}` is no port range of TCP or UDP")
        pairs.append(Pair(ipaddress.ip_address(address), protocol, first, last))
    if len(pairs) > MAX_PAIRS:
        raise ValueError(f"{len(pairs)} captured pairs are more than {MAX_PAIRS}")
    return tuple(sorted(pairs, key=lambda pair: (pair.address.version, pair.address, pair.protocol, pair.first)))


# ------------------------------------------------------------------ packet filter


def write_ruleset(owner: Owner, pools: Pools, ports: Mapping[str, int], pairs: Sequence[Pair]) -> str:
    """The whole table, to be loaded in one transaction in place of the one before. `ports`: the core's sockets (`tcp4`, `udp4`, `tcp6`, `udp6`)."""
    captured = "\n".join(_set(version, [pair for pair in pairs if pair.address.version == version]) for version in (4, 6))
    take = "\n".join(f"        {line}" for line in _take(owner, ports))
    return f"""table inet {owner.table}
delete table inet {owner.table}
table inet {owner.table} {{
{captured}
    chain mark_own {{
        type route hook output priority mangle; policy accept;
        meta skuid != {owner.uid} return
        meta skuid {owner.uid} ip daddr . meta l4proto . th dport @pairs4 meta mark set {owner.mark:#x} ct mark set {owner.mark:#x} accept
        meta skuid {owner.uid} ip6 daddr . meta l4proto . th dport @pairs6 meta mark set {owner.mark:#x} ct mark set {owner.mark:#x} accept
        ct mark {owner.mark:#x} meta l4proto tcp ct state established,related meta mark set {owner.mark:#x} comment "{OPEN_FLOWS}"
    }}
    chain refuse_rest {{
        type filter hook output priority filter; policy accept;
        meta mark {owner.mark:#x} accept
        ip daddr {pools.v4} meta l4proto tcp reject with tcp reset
        ip daddr {pools.v4} reject with icmpx port-unreachable
        ip6 daddr {pools.v6} meta l4proto tcp reject with tcp reset
        ip6 daddr {pools.v6} reject with icmpx port-unreachable
    }}
    chain take_captured {{
        type filter hook prerouting priority mangle; policy accept;
        iif != lo ip daddr {pools.v4} drop
        iif != lo ip6 daddr {pools.v6} drop
{take}
    }}
}}
"""


def write_removal(owner: Owner) -> str:
    """Takes the table away whether it is there or not."""
    return f"table inet {owner.table}\ndelete table inet {owner.table}\n"


def _set(version: int, pairs: Sequence[Pair]) -> str:
    members = ", ".join(f"{pair.address} . {pair.protocol} . {pair.first}-{pair.last}" for pair in pairs)
    elements = f" elements = {{ {members} }}" if members else ""
    return f"    set pairs{version} {{ type ipv{version}_addr . inet_proto . inet_service; flags interval;{elements} }}"


def _take(owner: Owner, ports: Mapping[str, int]) -> list[str]:
    lines = []
    for version, family, host in ((4, "ip", "127.0.0.1"), (6, "ip6", "[::1]")):
        for protocol in ("tcp", "udp"):
            port = ports.get(f"{protocol}{version}")
            if port is not None:
                lines.append(
                    f"iif lo meta mark {owner.mark:#x} meta l4proto {protocol} "
                    f"{family} daddr . meta l4proto . th dport @pairs{version} tproxy {family} to {host}:{port:d} accept"
                )
    return lines


# ------------------------------------------------------------------ routes


def write_routes(owner: Owner, pools: Pools, families: Sequence[int] = (4, 6)) -> list[list[str]]:
    """Arguments of `ip`: marked packets go to `lo`; the owner has a route to the pool even where there is no default route.

    `iif lo` in a rule means packets that begin here: forwarded ones never look into this table.
    """
    commands = []
    table, uids = str(owner.mark), f"{owner.uid}-{owner.uid}"
    for version in families:
        flag, pool, source = ("-4", str(pools.v4), "127.0.0.1") if version == 4 else ("-6", str(pools.v6), "::1")
        commands += [
            [flag, "route", "add", "local", "default", "dev", "lo", "table", table],
            [flag, "route", "add", "local", pool, "dev", "lo", "src", source, "table", table],
            [flag, "rule", "add", "preference", str(PREFERENCE), "iif", "lo", "fwmark", hex(owner.mark), "lookup", table],
            [flag, "rule", "add", "preference", str(PREFERENCE + 1), "iif", "lo", "to", pool, "uidrange", uids, "lookup", table],
        ]
    return commands


def rules_to_remove(owner: Owner, listed: str) -> int:
    """How many routing rules of this owner `ip -json rule show` lists."""
    return sum(str(rule.get("table")) == str(owner.mark) for rule in _objects(listed))


# ------------------------------------------------------------------ pools


def taken_networks(addresses: str, routes: str, owner: Owner) -> list[Network]:
    """Networks in use here, from `ip -json address show` and `ip -json route show table all`, without the owner's own."""
    taken: list[Network] = []
    for link in _objects(addresses):
        for entry in link.get("addr_info", []):
            taken += _network(f"{entry.get('local')}/{entry.get('prefixlen')}")
    for route in _objects(routes):
        if str(route.get("table")) != str(owner.mark):
            taken += _network(str(route.get("dst")))
    return [network for network in taken if network.prefixlen > 0]


def choose_pools(want4: str, want6: str, taken: Sequence[Network]) -> Pools:
    """The wanted pools if free, else the nearest free ones of the same size. Raises ClientError if there is none or the wish is malformed."""
    try:
        v4, v6 = ipaddress.IPv4Network(want4), ipaddress.IPv6Network(want6)
    except ValueError as error:
        raise ClientError(Code.ARGUMENT_INVALID, f"a pool is no network: {error}", "write it as `100.64.0.0/16`") from None
    if not v4.subnet_of(SHARED_SPACE) or not 16 <= v4.prefixlen <= 30:
        raise ClientError(Code.ARGUMENT_INVALID, f"`{v4}` is no pool", "choose a network of /16 to /30 inside of 100.64.0.0/10")
    if not v6.subnet_of(ipaddress.IPv6Network("fd00::/8")) or not 48 <= v6.prefixlen <= 120:
        raise ClientError(Code.ARGUMENT_INVALID, f"`{v6}` is no pool", "choose a network of /48 to /120 inside of fd00::/8")
    in_use = next((network for network in taken if network.version == 4 and v4.overlaps(network)), None)
    chosen4 = v4 if in_use is None else _free4(v4, taken)
    in_use6 = next((network for network in taken if network.version == 6 and v6.overlaps(network)), None)
    chosen6 = v6 if in_use6 is None else _free6(v6, taken)
    moved = [
        f"`{wanted}` overlaps `{network}`, which is in use here: names get addresses of `{chosen}`"
        for wanted, network, chosen in ((v4, in_use, chosen4), (v6, in_use6, chosen6))
        if network is not None
    ]
    return Pools(chosen4, chosen6, "; ".join(moved) or None)


def _free4(wanted: ipaddress.IPv4Network, taken: Sequence[Network]) -> ipaddress.IPv4Network:
    used = [network for network in taken if isinstance(network, ipaddress.IPv4Network)]
    for place, candidate in enumerate(SHARED_SPACE.subnets(new_prefix=wanted.prefixlen)):
        if not any(candidate.overlaps(network) for network in used):
            return candidate
        if place == 65536:
            break
    raise ClientError(Code.CONFLICT, f"no /{wanted.prefixlen} of {SHARED_SPACE} is free here", "choose a smaller pool")


def _free6(wanted: ipaddress.IPv6Network, taken: Sequence[Network]) -> ipaddress.IPv6Network:
    used = [network for network in taken if isinstance(network, ipaddress.IPv6Network)]
    for step in range(1, 65536):
        # another global identifier (RFC 4193 §3.1)
        candidate = ipaddress.IPv6Network((int(wanted.network_address) ^ (step << 80), wanted.prefixlen))
        if not any(candidate.overlaps(network) for network in used):
            return candidate
    raise ClientError(Code.CONFLICT, f"no /{wanted.prefixlen} near `{wanted}` is free here", "choose another pool")


def overlap(pools: Pools, taken: Sequence[Network]) -> str | None:
    """Told when a network that came up later overlaps a pool."""
    for pool in (pools.v4, pools.v6):
        for network in taken:
            if network.version == pool.version and network.overlaps(pool):
                return f"`{network}` came up here and overlaps the pool `{pool}`: restart the client to move it"
    return None


def _network(text: str) -> list[Network]:
    try:
        return [ipaddress.ip_network(text, strict=False)]
    except ValueError:
        return []  # `default` and the like


def _objects(text: str) -> list[dict[str, Any]]:
    found = json.loads(text or "[]")
    return [entry for entry in found if isinstance(entry, dict)] if isinstance(found, list) else []


# ------------------------------------------------------------------ resolver file


def read_nameservers(text: str) -> list[str]:
    """The addresses of `nameserver` lines that are addresses, without zones, in order (resolv.conf(5))."""
    found = []
    for line in text[:MAX_RESOLVER_BYTES].splitlines():
        words = line.split()
        if len(words) == 2 and words[0] == "nameserver":
            try:
                address = ipaddress.ip_address(words[1])
            except ValueError:
                continue
            if not (isinstance(address, ipaddress.IPv6Address) and address.scope_id):
                found.append(str(address))
    return found


def write_resolver(previous: str, owner: Owner) -> str:
    """A resolver file that asks this owner's client only. Search domains and harmless options stay; whatever is odd is left out."""
    lines = [f"{RESOLVER_MARK} {owner.uid}: the file before is put back when the client ends", f"nameserver {owner.nameserver}"]
    for line in previous[:MAX_RESOLVER_BYTES].splitlines():
        match line.split():
            case ["search" | "domain", *domains]:
                kept = [name for domain in domains if (name := _name(domain)) is not None]
                if kept:
                    lines.append("search " + " ".join(kept))
            case ["options", *options]:
                kept = [option for option in options if _is_harmless(option)]
                if kept:
                    lines.append("options " + " ".join(kept))
            case _:
                pass
    return "\n".join(lines) + "\n"


def written_for(text: str) -> int | None:
    """The uid that a resolver file was written for by this program, None if it is not ours."""
    first = text[:200].split("\n", 1)[0]
    uid = first.removeprefix(RESOLVER_MARK).split(":")[0].strip()
    return int(uid) if first.startswith(RESOLVER_MARK) and uid.isascii() and uid.isdigit() else None


def _name(text: str) -> str | None:
    try:
        return parse_host(text)
    except HostError:
        return None


def _is_harmless(option: str) -> bool:
    name, _, value = option.partition(":")
    if name in ("ndots", "timeout", "attempts"):
        return value.isascii() and value.isdigit() and len(value) <= 2
    return option in ("edns0", "single-request", "single-request-reopen", "use-vc")
