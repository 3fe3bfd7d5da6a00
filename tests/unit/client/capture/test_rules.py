"""What capture writes, as text: only numbers and addresses that were parsed get in."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.client.capture import rules
from cloister.client.capture.rules import Owner, Pools
from cloister.client.errors import ClientError

OWNER = Owner(1000)
POOLS = Pools(rules.ipaddress.IPv4Network("100.64.0.0/16"), rules.ipaddress.IPv6Network("fd64:5e6:ca9e::/64"))
PORTS = {"tcp4": 4000, "udp4": 4001, "tcp6": 4002, "udp6": 4003}


def test_ruleset_replaces_the_table_in_one_transaction() -> None:
    pairs = rules.parse_pairs([("100.64.0.1", "tcp", 80, 90), ("fd64:5e6:ca9e::1", "udp", 53, 53)])
    text = rules.write_ruleset(OWNER, POOLS, PORTS, pairs)
    assert text.startswith("table inet cloister_1000\ndelete table inet cloister_1000\ntable inet cloister_1000 {\n")
    assert "elements = { 100.64.0.1 . tcp . 80-90 }" in text
    assert "elements = { fd64:5e6:ca9e::1 . udp . 53-53 }" in text
    assert "elements" not in rules.write_ruleset(OWNER, POOLS, PORTS, ())


def test_ruleset_without_ipv6_sockets_takes_no_ipv6() -> None:
    text = rules.write_ruleset(OWNER, POOLS, {"tcp4": 4000, "udp4": 4001}, ())
    assert "tproxy ip to 127.0.0.1:4000" in text
    assert "tproxy ip6" not in text


@pytest.mark.parametrize(
    "pair",
    [
        ("100.64.0.1; flush ruleset", "tcp", 1, 2),
        ("a.internal", "tcp", 1, 2),
        ("100.64.0.1", "tcp }", 1, 2),
        ("100.64.0.1", "icmp", 1, 2),
        ("100.64.0.1", "tcp", 0, 2),
        ("100.64.0.1", "tcp", 2, 1),
        ("100.64.0.1", "tcp", 1, 65536),
    ],
)
def test_case_72_pair_that_is_no_pair_is_refused(pair: tuple[str, str, int, int]) -> None:
    with pytest.raises(ValueError):
        rules.parse_pairs([pair])


def test_pairs_are_bounded() -> None:
    pair = ("100.64.0.1", "tcp", 1, 1)
    assert len(rules.parse_pairs([pair] * rules.MAX_PAIRS)) == rules.MAX_PAIRS
    with pytest.raises(ValueError, match="more than"):
        rules.parse_pairs([pair] * (rules.MAX_PAIRS + 1))


@pytest.mark.parametrize("uid", [-1, 0xFFFFFFFF, 1 << 40])
def test_owner_is_a_user_id(uid: int) -> None:
    with pytest.raises(ValueError):
        Owner(uid)


def test_owners_share_no_name_and_no_number() -> None:
    owners = [Owner(uid) for uid in (0, 1, 1000, 1001, 65534)]
    for attribute in ("mark", "table", "nameserver"):
        assert len({getattr(owner, attribute) for owner in owners}) == len(owners)


def test_routing_rules_hold_for_packets_that_begin_here() -> None:
    for command in rules.write_routes(OWNER, POOLS):
        if "rule" in command:
            assert command[command.index("iif") + 1] == "lo"


# ------------------------------------------------------------------ pools


def networks(*texts: str) -> list[rules.Network]:
    return [rules.ipaddress.ip_network(text) for text in texts]


def test_case_74_free_pool_stays_and_taken_pool_moves() -> None:
    assert rules.choose_pools("100.64.0.0/16", "fd64::/64", networks("10.0.0.0/8", "100.65.0.0/16")).moved is None
    moved = rules.choose_pools("100.64.0.0/16", "fd64::/64", networks("100.64.3.0/24", "100.65.0.1/32", "fd64::/48"))
    assert str(moved.v4) == "100.66.0.0/16"
    assert not moved.v6.subnet_of(rules.ipaddress.IPv6Network("fd64::/48"))
    assert moved.moved is not None
    assert "100.64.3.0/24" in moved.moved


def test_case_74_when_nothing_is_free_the_person_is_told() -> None:
    with pytest.raises(ClientError, match="no /16"):
        rules.choose_pools("100.64.0.0/16", "fd64::/64", networks("100.64.0.0/10"))


@pytest.mark.parametrize(
    ("v4", "v6"),
    [
        ("10.0.0.0/16", "fd64::/64"),
        ("100.64.0.0/9", "fd64::/64"),
        ("100.64.0.0/31", "fd64::/64"),
        ("100.64.0.0/16", "2001:db8::/64"),
        ("x", "y"),
    ],
)
def test_pool_outside_its_space_is_refused(v4: str, v6: str) -> None:
    with pytest.raises(ClientError):
        rules.choose_pools(v4, v6, [])


def test_networks_in_use_leave_out_the_owners_own_and_defaults() -> None:
    addresses = json.dumps([{"ifname": "eth0", "addr_info": [{"local": "192.0.2.7", "prefixlen": 24}]}])
    routes = json.dumps(
        [
            {"dst": "default", "gateway": "192.0.2.1"},
            {"dst": "100.64.0.0/16", "type": "local", "table": str(OWNER.mark)},
            {"dst": "100.66.0.0/16", "table": "52"},
            {"dst": "203.0.113.9"},
        ]
    )
    taken = rules.taken_networks(addresses, routes, OWNER)
    assert sorted(map(str, taken)) == ["100.66.0.0/16", "192.0.2.0/24", "203.0.113.9/32"]


# ------------------------------------------------------------------ resolver file


def test_resolver_file_asks_the_client_only_and_keeps_what_is_harmless() -> None:
    previous = "nameserver 192.0.2.53\nnameserver 2001:db8::53\nsearch lab.example corp.example\noptions ndots:2 rotate edns0\n"
    text = rules.write_resolver(previous, OWNER)
    assert text.splitlines()[1:] == [f"nameserver {OWNER.nameserver}", "search lab.example corp.example", "options ndots:2 edns0"]
    assert rules.read_nameservers(previous) == ["192.0.2.53", "2001:db8::53"]
    assert rules.written_for(text) == 1000
    assert rules.written_for(previous) is None


@pytest.mark.parametrize(
    "line",
    ["search $(reboot)", "search a;b", "nameserver 1.2.3.4 extra", "nameserver fe80::1%eth0", "options ndots:9999", "options `x`"],
)
def test_case_72_hostile_resolver_lines_are_left_out(line: str) -> None:
    text = rules.write_resolver(line + "\n", OWNER)
    assert len(text.splitlines()) == 2
    assert rules.read_nameservers(line) == []


@given(st.text(max_size=400))
def test_resolver_file_of_any_text_has_only_lines_of_its_grammar(previous: str) -> None:
    for line in rules.write_resolver(previous, OWNER).splitlines()[2:]:
        word, *rest = line.split(" ")
        assert word in ("search", "options")
        assert all(part.isascii() and part.isprintable() and part for part in rest)
