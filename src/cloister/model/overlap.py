"""Which segment a destination belongs to, and which segments tie.

Of the segments that contain host, port and protocol, the one with the most specific host wins (an exact host, then the longest wildcard), then the
one with the narrowest range. Two that are equal in both tie: that is refused when saved, and belongs to nobody until then. The connector
and the client decide the same in `crates/core/src/segment.rs`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Generic, TypeVar

from cloister.model.addresses import is_beyond_wildcards
from cloister.model.documents import Protocol, Segment
from cloister.model.facts import Destination
from cloister.model.hosts import Host, address_of, parents
from cloister.model.ports import PortRange

K = TypeVar("K")

MAX_TIES = 100


@dataclass(frozen=True, slots=True)
class _Claim(Generic[K]):
    key: K
    ports: PortRange


class SegmentIndex(Generic[K]):
    """Segments under keys of the caller's choice (ids, names), by pattern and protocol: one look-up per label of a host."""

    def __init__(self, segments: Iterable[tuple[K, Segment]]) -> None:
        self._claims: dict[tuple[str, Protocol], list[_Claim[K]]] = {}
        for key, segment in segments:
            for pattern in segment.hosts:
                claims = self._claims.setdefault((pattern, segment.protocol), [])
                claims.extend(_Claim(key, ports) for ports in segment.ports)
        for claims in self._claims.values():
            claims.sort(key=lambda claim: claim.ports.width)

    def find(self, destination: Destination) -> K | None:
        """The segment that this destination belongs to; None for a tie too."""
        for pattern in patterns_of(destination.host):
            best: _Claim[K] | None = None
            for claim in self._claims.get((pattern, destination.protocol), ()):
                if best is not None and claim.ports.width > best.ports.width:
                    break
                if destination.port in claim.ports:
                    if best is not None and best.key != claim.key:
                        return None
                    best = claim
            if best is not None:
                return best.key
        return None

    def naming(self, host: Host) -> list[K]:
        """Every segment with a pattern that matches this host, whatever port and protocol, most specific first."""
        found: dict[K, None] = {}
        for pattern in patterns_of(host):
            for protocol in ("tcp", "udp"):
                found.update((claim.key, None) for claim in self._claims.get((pattern, protocol), ()))
        return list(found)


def patterns_of(host: Host) -> Iterable[str]:
    """The patterns that match a host, most specific first."""
    yield host
    if address_of(host) is None and not is_beyond_wildcards(host):
        for suffix in parents(host):
            yield f"*.{suffix}"


@dataclass(frozen=True, slots=True)
class Tie:
    """Two segments that claim `witness` equally."""

    first: str
    second: str
    witness: Destination


def find_ties(segments: Iterable[Segment]) -> list[Tie]:
    """Every pair of segments that tie, once, with one destination that both claim.

    Two claims tie only under the very same pattern and with ranges of the same width that meet, so the work is one sort per pattern and width.
    A destination that a narrower range decides is no witness. The list ends at `MAX_TIES`.
    """
    by_place: dict[tuple[str, Protocol], list[tuple[PortRange, str]]] = {}
    for segment in segments:
        for pattern in segment.hosts:
            by_place.setdefault((pattern, segment.protocol), []).extend((ports, segment.name) for ports in segment.ports)
    ties: dict[tuple[str, str], Tie] = {}
    for (place, protocol), claims in by_place.items():
        for first, second, port in _ties_of(claims):
            ties.setdefault((first, second), Tie(first, second, Destination(_witness(place), port, protocol)))
            if len(ties) >= MAX_TIES:
                return [ties[pair] for pair in sorted(ties)]
    return [ties[pair] for pair in sorted(ties)]


def _ties_of(claims: list[tuple[PortRange, str]]) -> Iterable[tuple[str, str, int]]:
    by_width: dict[int, list[tuple[PortRange, str]]] = {}
    for ports, name in claims:
        by_width.setdefault(ports.width, []).append((ports, name))
    narrower: list[PortRange] = []
    for width in sorted(by_width):
        ordered = sorted(by_width[width])
        decided = _merged(narrower)
        for at, (ports, name) in enumerate(ordered):
            for other, other_name in ordered[at + 1 :]:
                if other.first > ports.last:
                    break
                port = _first_outside(decided, other.first, ports.last) if other_name != name else None
                if port is not None:
                    yield min(name, other_name), max(name, other_name), port
        narrower.extend(ports for ports, _ in ordered)


def _merged(ranges: list[PortRange]) -> list[PortRange]:
    merged: list[PortRange] = []
    for ports in sorted(ranges):
        if merged and ports.first <= merged[-1].last + 1:
            merged[-1] = PortRange(merged[-1].first, max(merged[-1].last, ports.last))
        else:
            merged.append(ports)
    return merged


def _first_outside(decided: list[PortRange], first: int, last: int) -> int | None:
    """The first port of the range that no narrower range decides."""
    for ports in decided:
        if ports.first <= first <= ports.last:
            first = ports.last + 1
    return first if first <= last else None


def _witness(pattern: str) -> Host:
    return Host(pattern.replace("*.", "any.", 1))


def more_specific(segments: Mapping[K, Segment], own: Iterable[K]) -> set[K]:
    """The segments outside of `own` that can take destinations away from one of `own`: a connector that serves `own` must refuse these."""
    mine: dict[tuple[str, Protocol], list[Segment]] = {}
    inside = set(own)
    for key in inside:
        for pattern in segments[key].hosts:
            mine.setdefault((pattern, segments[key].protocol), []).append(segments[key])
    return {key for key, segment in segments.items() if key not in inside and _takes_from(segment, mine)}


def _takes_from(segment: Segment, mine: Mapping[tuple[str, Protocol], list[Segment]]) -> bool:
    return any(
        _meets(segment, other)
        for pattern in segment.hosts
        for covering in (pattern, *(f"*.{suffix}" for suffix in parents(pattern.removeprefix("*."))))
        for other in mine.get((covering, segment.protocol), ())
    )


def _meets(left: Segment, right: Segment) -> bool:
    return any(a.meets(b) for a in left.ports for b in right.ports)


def narrowed(old: Mapping[K, Segment], new: Mapping[K, Segment]) -> set[K]:
    """The segments that may have lost destinations, by their own document or to another one that takes them now: flows to these must end. A segment
    that only gained patterns and ranges, or changed in what else it says, is not among them.
    """
    changed = {key for key, segment in new.items() if key not in old or _reach(old[key]) != _reach(segment)}
    if not changed:
        return set()
    lost = {key for key in changed & old.keys() if not _keeps(new[key], old[key])}
    by_pattern: dict[tuple[str, Protocol], list[K]] = {}
    for key in old.keys() & new.keys():
        for pattern in old[key].hosts:
            by_pattern.setdefault((pattern, old[key].protocol), []).append(key)
    for key in changed:
        segment = new[key]
        for covering in {wide for pattern in segment.hosts for wide in _covering(pattern)}:
            others = by_pattern.get((covering, segment.protocol), ())
            lost.update(other for other in others if other != key and _meets(segment, old[other]))
    return lost


def _reach(segment: Segment) -> tuple[object, ...]:
    return set(segment.hosts), segment.ports, segment.protocol, set(segment.allow)


def _keeps(after: Segment, before: Segment) -> bool:
    """Whether it still has every pattern and every range, word for word: wider ones are less specific, and lose to others."""
    pairs = ((before.hosts, after.hosts), (before.ports, after.ports), (before.allow, after.allow))
    return after.protocol == before.protocol and all(set(mine) <= set(now) for mine, now in pairs)


def _covering(pattern: str) -> list[str]:
    """This pattern, and the wildcards that contain it."""
    return [pattern, *(f"*.{suffix}" for suffix in parents(pattern.removeprefix("*.")))]
