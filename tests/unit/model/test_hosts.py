import ipaddress
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister import _core
from cloister.model.addresses import forbidden_address, forbidden_host, is_beyond_wildcards
from cloister.model.hosts import HostError, address_of, parse_host, parse_pattern

SSRF = json.loads(Path("tests/data/attacks/ssrf.json").read_text())["cases"]


@pytest.mark.parametrize(
    ("text", "canonical"),
    [
        ("jupyter.lab.internal", "jupyter.lab.internal"),
        ("Jupyter.LAB.internal.", "jupyter.lab.internal"),
        ("a", "a"),
        ("xn--bcher-kva.example", "xn--bcher-kva.example"),
        ("192.0.2.10", "192.0.2.10"),
        ("2001:db8::7", "2001:db8::7"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("1.example", "1.example"),
        ("a" * 63 + ".example", "a" * 63 + ".example"),
        (".".join(["a" * 61] * 4 + ["abcd"]), ".".join(["a" * 61] * 4 + ["abcd"])),  # 252 + dots
    ],
)
def test_case_59_the_corpus_of_accepted_forms(text: str, canonical: str) -> None:
    assert parse_host(text) == canonical


@pytest.mark.parametrize(
    "text",
    [
        "", ".", "..", "a..b", ".a", "a b", "a_b", "-a", "a-", "a" * 64, ".".join(["a" * 62] * 4 + ["ab"]), "*", "*.a", "a.*", "a/b", "a:80",
        "[::1]", "::1%lo", "user@host", "a%2eb", "bücher.example", "example。com", "127.1", "0x7f000001", "0177.0.0.1", "2130706433",
        "127.0.0.01", "1.2.3.256", "a.1", "a.0x1f", "\x00", "a\n", "a\t", "2001:DB8::1", "2001:db8:0::1", "::FFFF:1.2.3.4", "::ffff:c000:201",
        "10-0-0-1.ipv6-literal.net", "ipv6-literal.net", "a`b",
    ],
)  # fmt: skip
def test_case_75_what_has_no_canonical_form_is_refused(text: str) -> None:
    with pytest.raises(HostError) as refused:
        parse_host(text)
    assert "\n" not in str(refused.value)
    assert "\x00" not in str(refused.value)


def test_a_wildcard_stands_before_a_whole_name() -> None:
    assert parse_pattern("*.Lab.internal.") == "*.lab.internal"
    for text in ["*", "*lab.internal", "a.*.b", "*.*.b", "*.192.0.2.1", "*.", "**.a", "*.[::1]"]:
        with pytest.raises(HostError):
            parse_pattern(text)


@pytest.mark.parametrize("case", SSRF, ids=lambda case: ascii(case["text"])[:40])
def test_case_55_documents_and_connectors_read_one_language(case: dict[str, str]) -> None:
    _assert_same(case["text"])
    if case["must"] == "refuse" and case["kind"] == "host":
        try:
            host = parse_host(case["text"])
        except HostError:
            return
        assert forbidden_host(host) is not None


@given(st.text(st.sampled_from("aZ0129.-:x_*%[]f"), max_size=20) | st.ip_addresses().map(str) | st.text(max_size=12))
def test_both_parsers_agree_on_any_text(text: str) -> None:
    _assert_same(text)


def _assert_same(text: str) -> None:
    try:
        ours: str | None = parse_host(text)
    except HostError:
        ours = None
    try:
        theirs: str | None = _core.parse_host(text)
    except _core.CoreError:
        theirs = None
    except UnicodeEncodeError:  # a lone surrogate has no UTF-8
        theirs = None
    assert ours == theirs
    address = address_of(ours) if ours is not None else None
    if address is not None:
        assert forbidden_address(address) == _core.forbidden_address(str(ours))


EDGES = [
    "0.0.0.0", "0.255.255.255", "1.0.0.0", "126.255.255.255", "127.0.0.0", "127.255.255.255", "128.0.0.0", "169.253.255.255", "169.254.0.0",
    "169.254.169.254", "169.254.255.255", "169.255.0.0", "100.100.100.200", "100.100.100.201", "168.63.129.16", "192.0.0.0", "192.0.0.192",
    "192.0.0.255", "192.0.1.0", "192.88.99.1", "223.255.255.255", "224.0.0.0", "239.255.255.255", "240.0.0.0", "255.255.255.254",
    "255.255.255.255", "10.96.0.1", "10.96.0.2", "10.43.0.1", "10.0.0.1", "::", "::1", "::2", "::ffff:10.0.0.1", "64:ff9b::a00:1",
    "64:ff9b::7f00:1", "64:ff9b:1::1", "fe80::1", "febf::1", "fec0::1", "ff02::1", "fc00::1", "fdff::1", "fd00:ec2::254", "fd20:ce::254",
    "fd20:ce::253", "fd00:c1::a9fe:a9fe", "fd00:42::42", "2000::1", "2001::1", "2001:1ff::1", "2001:200::1", "2002::1", "2003::1", "3fff::1",
    "4000::1", "2001:db8::5efe:a00:1", "2001:db8::200:5efe:a00:1", "2001:db8::300:5efe:a00:1", "2001:db8::400:5efe:a00:1",
]  # fmt: skip


@pytest.mark.parametrize("text", EDGES)
def test_case_53_both_sides_forbid_the_same_addresses(text: str) -> None:
    assert forbidden_address(ipaddress.ip_address(text)) == _core.forbidden_address(text)


@given(st.ip_addresses())
def test_case_54_both_sides_forbid_the_same_addresses_anywhere(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> None:
    text = str(parse_host(str(address))) if address.version == 4 or address.ipv4_mapped is None else f"::ffff:{address.ipv4_mapped}"
    assert forbidden_address(address) == _core.forbidden_address(text)


@pytest.mark.parametrize(
    ("name", "beyond"),
    [
        ("kubernetes.default.svc.cluster.local", True),
        ("kubernetes.default", True),
        ("dns.kube-system.svc.cluster.local", True),
        ("metadata.google.internal", True),
        ("localhost", True),
        ("a.localhost", True),
        ("kubernetes-docs.web.svc.cluster.local", False),
        ("jupyter.research.svc.cluster.local", False),
        ("kubernetes.default.example", False),
    ],
)
def test_case_57_a_wildcard_leaves_the_control_plane_out(name: str, beyond: bool) -> None:
    assert is_beyond_wildcards(name) is beyond
