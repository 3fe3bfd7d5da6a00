import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tools.segment_corpus import WORLDS, make_world

from cloister.model.documents import Segment
from cloister.model.facts import Destination
from cloister.model.hosts import Host, parse_host
from cloister.model.overlap import MAX_TIES, SegmentIndex, find_ties, more_specific, narrowed
from cloister.model.ports import parse_ports


def segment(name: str, hosts: Sequence[str], ports: Sequence[int | str], protocol: str = "tcp", **more: object) -> Segment:
    return Segment.model_validate(
        {"name": name, "hosts": tuple(hosts), "ports": tuple(ports), "protocol": protocol, "groups": ("g",), **more}
    )


def find(segments: Sequence[Segment], host: str, port: int, protocol: str = "tcp") -> str | None:
    return SegmentIndex((one.name, one) for one in segments).find(Destination(Host(host), port, protocol))


WORLD = [
    segment("all", ["*.lab"], ["1-65535"]),
    segment("web", ["*.lab"], ["8000-8999"]),
    segment("notebooks", ["*.nb.lab"], [8888]),
    segment("jupyter", ["jupyter.lab"], ["8000-8999"]),
    segment("admin", ["jupyter.lab"], [8443]),
    segment("names", ["jupyter.lab"], ["1-65535"], "udp"),
    segment("address", ["10.0.0.1"], [80]),
]


@pytest.mark.parametrize(
    ("host", "port", "protocol", "expected"),
    [
        ("x.lab", 22, "tcp", "all"),
        ("x.lab", 8500, "tcp", "web"),
        ("a.b.lab", 8500, "tcp", "web"),
        ("x.nb.lab", 8888, "tcp", "notebooks"),
        ("x.nb.lab", 8887, "tcp", "web"),  # the more specific host does not contain the port
        ("nb.lab", 8888, "tcp", "web"),  # a wildcard does not match its own name
        ("lab", 80, "tcp", None),
        ("jupyter.lab", 8500, "tcp", "jupyter"),
        ("jupyter.lab", 8443, "tcp", "admin"),  # two ports of one host, two segments
        ("jupyter.lab", 9000, "tcp", "all"),
        ("jupyter.lab", 8500, "udp", "names"),
        ("x.lab", 8500, "udp", None),
        ("10.0.0.1", 80, "tcp", "address"),
        ("10.0.0.1", 81, "tcp", None),
        ("x.kube-system.svc.lab", 80, "tcp", None),
    ],
)
def test_case_79_a_destination_belongs_to_the_most_specific_host_then_the_narrowest_range(
    host: str, port: int, protocol: str, expected: str | None
) -> None:
    assert find(WORLD, host, port, protocol) == expected
    assert find(WORLD[::-1], host, port, protocol) == expected


def test_a_wildcard_that_is_listed_reaches_no_control_plane_name_but_an_exact_host_does() -> None:
    assert find([segment("a", ["*.kube-system.svc"], [80])], "dns.kube-system.svc", 80) is None
    assert find([segment("a", ["dns.kube-system.svc"], [80])], "dns.kube-system.svc", 80) == "a"


def test_a_tie_belongs_to_nobody_and_is_named_with_a_witness() -> None:
    segments = [segment("a", ["x.lab", "*.lab"], ["80-90"]), segment("b", ["*.lab"], ["85-95"])]
    assert find(segments, "y.lab", 87) is None
    assert find(segments, "y.lab", 84) == "a"
    assert find(segments, "x.lab", 87) == "a"
    (tie,) = find_ties(segments)
    assert (tie.first, tie.second, tie.witness) == ("a", "b", Destination(Host("any.lab"), 85, "tcp"))


def test_a_tie_that_a_narrower_range_decides_is_none() -> None:
    segments = [segment("a", ["*.lab"], ["80-90"]), segment("b", ["*.lab"], ["90-100"]), segment("c", ["*.lab"], [90])]
    assert find_ties(segments) == []
    assert [(tie.first, tie.second) for tie in find_ties(segments[:2])] == [("a", "b")]


def test_the_witness_is_the_first_port_that_no_narrower_range_decides() -> None:
    segments = [segment("a", ["x.lab"], ["80-82"]), segment("b", ["x.lab"], ["80-82"]), segment("c", ["x.lab"], [80])]
    (tie,) = find_ties(segments)
    assert tie.witness.port == 81
    (tie,) = find_ties([*segments, segment("d", ["x.lab"], [81])])
    assert tie.witness.port == 82
    assert find_ties([*segments, segment("d", ["x.lab"], ["81-82"])]) == []


def test_protocols_widths_and_patterns_keep_segments_apart() -> None:
    assert find_ties(WORLD) == []
    assert find_ties([segment("a", ["x.lab"], [80]), segment("b", ["x.lab"], [80], "udp")]) == []


def test_the_list_of_ties_is_bounded() -> None:
    assert len(find_ties([segment(f"s{n}", ["x.lab"], [80]) for n in range(100)])) == MAX_TIES


hosts = st.sampled_from(["a.lab", "b.lab", "x.nb.lab", "*.lab", "*.nb.lab", "*.x.nb.lab", "10.0.0.1"])
ranges = st.tuples(st.integers(1, 6), st.integers(0, 3)).map(lambda pair: f"{pair[0]}-{pair[0] + pair[1]}")
segments = st.lists(
    st.tuples(st.lists(hosts, min_size=1, max_size=3, unique=True), ranges, st.sampled_from(["tcp", "udp"])), max_size=6
).map(lambda rows: [segment(f"s{at}", hosts, [ports], protocol) for at, (hosts, ports, protocol) in enumerate(rows)])
HOSTS = [
    "a.lab",
    "b.lab",
    "c.lab",
    "x.nb.lab",
    "y.nb.lab",
    "z.x.nb.lab",
    "lab",
    "10.0.0.1",
    "any.lab",
    "any.nb.lab",
    "any.x.nb.lab",
]


def claims(one: Segment, host: str, port: int) -> list[tuple[int, int]]:
    """Every way in which a segment contains a host and port, better ones larger: the rule of DESIGN §1, read aloud."""
    found = []
    for pattern in one.hosts:
        suffix = pattern.removeprefix("*")
        matches = host == pattern or (pattern.startswith("*.") and host.endswith(suffix))
        specific = 1000 if host == pattern else len(pattern.split("."))
        found.extend((specific, -ports.width) for ports in one.ports if matches and port in ports)
    return found


@settings(max_examples=300)
@given(segments)
def test_the_index_agrees_with_the_rule_read_aloud_and_every_tie_is_found(world: list[Segment]) -> None:
    tied = {(tie.first, tie.second) for tie in find_ties(world)}
    seen = set()
    for host in HOSTS:
        for port in range(1, 11):
            for protocol in ("tcp", "udp"):
                best = sorted(
                    ((max(found), one.name) for one in world if one.protocol == protocol and (found := claims(one, host, port))),
                    reverse=True,
                )
                winners = [name for claim, name in best if claim == best[0][0]]
                assert find(world, host, port, protocol) == (winners[0] if len(winners) == 1 else None)
                seen.update((first, second) for first in winners for second in winners if first < second)
    assert tied == seen
    for tie in find_ties(world):
        assert find(world, tie.witness.host, tie.witness.port, tie.witness.protocol) is None


@settings(max_examples=200)
@given(segments, st.sets(st.integers(0, 5)))
def test_a_connector_that_knows_its_own_and_the_more_specific_ones_decides_as_the_exchange_does(
    world: list[Segment], picks: set[int]
) -> None:
    by_name = {one.name: one for one in world}
    own = {name for at, name in enumerate(by_name) if at in picks}
    known = own | more_specific(by_name, own)
    for host in HOSTS:
        for port in range(1, 11):
            for protocol in ("tcp", "udp"):
                expected = find(world, host, port, protocol)
                found = find([by_name[name] for name in known], host, port, protocol)
                assert (found if found in own else None) == (expected if expected in own else None)


@settings(max_examples=200)
@given(segments, segments)
def test_a_segment_that_lost_a_destination_is_always_among_the_narrowed(before: list[Segment], after: list[Segment]) -> None:
    old, new = ({one.name: one for one in world} for world in (before, after))
    found = narrowed(old, new)
    assert found <= old.keys() & new.keys()
    for host in HOSTS:
        for port in range(1, 11):
            for protocol in ("tcp", "udp"):
                was, now = find(list(old.values()), host, port, protocol), find(list(new.values()), host, port, protocol)
                assert was == now or was not in new or was in found


def test_a_segment_that_only_gained_or_says_other_things_is_not_narrowed() -> None:
    old = {"s": segment("s", ["a.lab"], [80])}
    for same in (
        segment("s", ["a.lab"], [80], labels={"team": "x"}),
        segment("s", ["a.lab", "b.lab"], [80, "90-99"]),
    ):
        assert narrowed(old, {"s": same}) == set()
    assert narrowed(old, old | {"t": segment("t", ["b.lab"], [80])}) == set()
    assert narrowed(old, {}) == set()
    assert narrowed(old, {"s": segment("s", ["a.lab"], [81])}) == {"s"}


def test_ten_thousand_segments_are_checked_by_index() -> None:
    """A quadratic search would make fifty million comparisons; the bound is on look-ups, not on time."""
    many = [segment(f"s{n}", [f"s{n}.lab", f"*.s{n}.lab"], [80, "9000-9010"]) for n in range(10_000)]
    assert find_ties(many) == []
    assert find(many, "s77.lab", 9005) == "s77"
    assert parse_ports("9000-9010").width == 11


CORPUS = json.loads(Path("tests/data/segments.json").read_text())


@pytest.mark.parametrize("world", CORPUS, ids=range(len(CORPUS)))
def test_case_59_exchange_connector_and_client_find_one_segment(world: dict[str, Any]) -> None:
    """crates/core/tests/segments.rs holds the Rust side to the same file."""
    segments = [
        segment(one["id"], one["hosts"], [f"{ports['first']}-{ports['last']}" for ports in one["ports"]], one["protocol"])
        for one in world["segments"]
    ]
    for asked in world["destinations"]:
        assert find(segments, parse_host(asked["host"]), asked["port"], asked["protocol"]) == asked["segment"], asked


def test_the_corpus_of_segments_is_the_rule_read_aloud() -> None:
    assert [make_world(seed) for seed in range(WORLDS)] == CORPUS, "run `python tools/segment_corpus.py`"
    assert {bool(asked["segment"]) for world in CORPUS for asked in world["destinations"]} == {True, False}
