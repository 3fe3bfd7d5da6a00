import pytest

from cloister.model.parse import parse_documents
from cloister.model.references import check_documents, find_circles

BASE = """
{kind: connector-group, name: lab, suffixes: [lab.internal], networks: [10.0.0.0/8]}
---
{kind: user, name: anna}
---
{kind: segment, name: a, hosts: [a.lab.internal], ports: [80], groups: [lab]}
---
"""


def errors_of(text: str) -> list[str]:
    result = parse_documents(BASE + text, "f")
    assert result.errors == ()
    return [str(error) for error in check_documents(result.documents, result.origins)]


def test_a_set_that_fits_has_no_errors() -> None:
    assert errors_of("{kind: rule, name: r, effect: permit, who: {users: [anna]}, what: {segments: [a]}}") == []


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ("{kind: rule, name: r, effect: permit, who: {users: [ana]}, what: {any: true}}", "f:8:53: there is no user `ana`"),
        ("{kind: rule, name: r, effect: permit, who: {groups: [x]}, what: {any: true}}", "f:8:54: there is no group `x`"),
        ("{kind: rule, name: r, effect: permit, who: {workloads: [x]}, what: {any: true}}", "f:8:57: there is no workload `x`"),
        ("{kind: rule, name: r, effect: permit, who: {any: true}, what: {segments: [a, b]}}", "f:8:78: there is no segment `b`"),
        ("{kind: group, name: g, users: [anna, x]}", "f:8:38: there is no user `x`"),
        ("{kind: group, name: g, groups: [x]}", "f:8:33: there is no group `x`"),
        ("{kind: segment, name: b, hosts: [b.lab.internal], ports: [80], groups: [x]}", "f:8:73: there is no connector group `x`"),
        ("{kind: segment, name: b, hosts: [b.example], ports: [80], groups: [lab]}", "f:8:34: the connector group `lab` may not claim `b.example`: add"),
        ("{kind: segment, name: b, hosts: ['*.internal'], ports: [80], groups: [lab]}", "f:8:34: the connector group `lab` may not claim `*.internal`"),
        ("{kind: segment, name: b, hosts: [xlab.internal], ports: [80], groups: [lab]}", "f:8:34: the connector group `lab` may not claim"),
        ("{kind: segment, name: b, hosts: [192.0.2.1], ports: [80], groups: [lab]}", "`lab` may not claim `192.0.2.1`: add a network that holds it"),
        ("{kind: segment, name: b, hosts: [a.lab.internal], ports: [80], groups: [lab]}", "the segments `a` and `b` claim `a.lab.internal` port `80` (tcp)"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused_where_it_stands(document: str, message: str) -> None:
    (error,) = errors_of(document)
    assert message in error


@pytest.mark.parametrize(
    "host", ["169.254.169.254", "127.0.0.1", "0.0.0.0", "224.0.0.1", "255.255.255.255", "::1", "fe80::1", "localhost"]
)
def test_case_66_an_address_that_nobody_may_reach_is_refused_unless_spelled_out(host: str) -> None:
    def text(allow: str) -> str:
        group = "{kind: connector-group, name: all, suffixes: ['*'], networks: [0.0.0.0/0, '::/0']}"
        return f"{group}\n---\n{{kind: segment, name: b, hosts: ['{host}'], ports: [80], groups: [all], allow: [{allow}]}}"

    (error,) = errors_of(text(""))
    assert f"`{host}` is forbidden" in error
    if host != "localhost":
        assert errors_of(text(f"'{host}'")) == []
        assert len(errors_of(text("192.0.2.1"))) == 1


def test_case_79_a_circle_of_groups_is_named() -> None:
    text = "{kind: group, name: a, groups: [b]}\n---\n{kind: group, name: b, groups: [c]}\n---\n{kind: group, name: c, groups: [a]}"
    (error,) = errors_of(text)
    assert error.startswith("f:8:32: ")  # where `a` names its members
    assert error.endswith("in a circle: `a` → `b` → `c` → `a`")


def test_circles_are_found_without_recursion() -> None:
    chain = {str(n): [str(n + 1)] for n in range(100_000)}
    assert list(find_circles(chain)) == []
    assert len(list(find_circles({**chain, "100000": ["0"]}))) == 1
    assert list(find_circles({"a": ["a"]})) == [("a",)]
    assert list(find_circles({"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": []})) == []
