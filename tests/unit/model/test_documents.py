import json
from collections.abc import Callable

import pytest
from pydantic import ValidationError

from cloister.model.documents import (
    MAX_CONDITION,
    MAX_CONTINUITY,
    MAX_MEMBERS,
    Conditions,
    ConnectorGroup,
    Device,
    Group,
    Rule,
    Segment,
    User,
    What,
    Who,
    to_assignment,
    to_visible,
)
from cloister.model.durations import DurationError, parse_duration, print_duration
from cloister.model.fields import MAX_LABELS, MAX_LIST
from cloister.model.messages.common import Assignment, Visible
from cloister.model.parse import parse_documents, parse_fields
from cloister.model.ports import MAX_PORT, PortRange

BASE = {"kind": "segment", "name": "a", "hosts": ["a.lab"], "ports": [80], "groups": ["g"]}


def names(count: int) -> list[str]:
    return [f"n{number}" for number in range(count)]


@pytest.mark.parametrize(
    ("bound", "make"),
    [
        (MAX_LIST, lambda n: parse_fields({**BASE, "hosts": names(n)})),
        (MAX_LIST, lambda n: parse_fields({**BASE, "ports": [*range(1, 2 * n, 2)]})),
        (MAX_LIST, lambda n: parse_fields({**BASE, "groups": names(n)})),
        (MAX_LIST, lambda n: parse_fields({**BASE, "allow": [f"10.0.{number // 250}.{number % 250}" for number in range(n)]})),
        (MAX_LABELS, lambda n: parse_fields({**BASE, "labels": dict.fromkeys(names(n), "x")})),
        (MAX_LIST, lambda n: ConnectorGroup(name="a", suffixes=tuple(names(n)))),
        (MAX_LIST, lambda n: Who(users=tuple(names(n)))),
        (MAX_LIST, lambda n: Who(groups=tuple(names(n)))),
        (MAX_LIST, lambda n: Who(workloads=tuple(names(n)))),
        (MAX_LIST, lambda n: What(segments=tuple(names(n)))),
        (MAX_MEMBERS, lambda n: Group(name="a", users=tuple(names(n)))),
        (MAX_MEMBERS, lambda n: Group(name="a", workloads=tuple(names(n)))),
        (MAX_LIST, lambda n: Group(name="a", groups=tuple(names(n)))),
        (MAX_CONDITION, lambda n: Conditions(expression="x" * n)),
        (MAX_CONTINUITY, lambda n: parse_fields({**BASE, "mode": "last-known", "continuity": n})),
        (63, lambda n: Device(name="a" * n)),
        (128, lambda n: User(name="a" * n)),
        (256, lambda n: User(name="a", display="é" * n)),
        (63, lambda n: Device(name="a", labels={"k" * n: "x"})),
        (128, lambda n: Device(name="a", labels={"k": "x" * n})),
        (3600, lambda n: parse_fields({**BASE, "health": {"interval": n}})),
        (60, lambda n: parse_fields({**BASE, "health": {"timeout": n}})),
        (MAX_PORT, lambda n: parse_fields({**BASE, "ports": [n]})),
        (MAX_PORT, lambda n: parse_fields({**BASE, "health": {"port": n}})),
    ],
)
def test_what_can_grow_has_a_bound(bound: int, make: Callable[[int], object]) -> None:
    assert make(bound)
    with pytest.raises(ValueError):
        make(bound + 1)


def test_a_segment_becomes_what_connectors_and_clients_read() -> None:
    (segment,) = parse_documents(
        "{kind: segment, name: a, labels: {team: x}, hosts: [a.lab, '*.b.lab'], ports: [80, 90-99], protocol: udp, groups: [g], "
        "allow: [127.0.0.1], mode: last-known, continuity: 15m, health: {host: c.lab, port: 81, interval: 30s, timeout: 5s}}"
    ).documents
    assert isinstance(segment, Segment)
    assignment, visible = to_assignment("0" * 16, segment), to_visible("0" * 16, segment, healthy=False)
    assert json.loads(assignment.model_dump_json()) == {
        "id": "0" * 16,
        "hosts": ["a.lab", "*.b.lab"],
        "ports": [{"first": 80, "last": 80}, {"first": 90, "last": 99}],
        "protocol": "udp",
        "allow": ["127.0.0.1/32"],
        "strict": False,
        "health": {"host": "c.lab", "port": 81, "interval": 30, "timeout": 5},
        "elsewhere": False,
    }
    assert (visible.name, visible.healthy, visible.labels) == ("a", False, {"team": "x"})
    assert Assignment.model_validate_json(assignment.model_dump_json()) == assignment
    assert Visible.model_validate_json(visible.model_dump_json()) == visible
    assert to_assignment("0" * 16, segment.model_copy(update={"mode": "strict", "health": None})).strict


@pytest.mark.parametrize("part", [Who, What, Conditions])
def test_case_78_an_empty_list_of_requirements_is_refused(part: type[Who | What | Conditions]) -> None:
    with pytest.raises(ValidationError):
        part()
    for fields in ({"users": ()}, {"any": False}, {"any": None}, {"segments": ()}, {"labels": {}}, {"device": {}}):
        with pytest.raises(ValidationError):
            part.model_validate(fields)


def test_case_78_an_unknown_condition_is_refused() -> None:
    rule = {"kind": "rule", "name": "r", "effect": "permit", "who": {"any": True}, "what": {"any": True}}
    assert isinstance(parse_fields({**rule, "when": {"strength": "mfa"}}), Rule)
    for when in ({"strenght": "mfa"}, {"strength": "strong"}, {"strength": "mfa", "country": "ch"}, "", "  ", {}, [], 3, True):
        with pytest.raises(ValueError, match=r"when|strenght|strength|country|expression"):
            parse_fields({**rule, "when": when})


@pytest.mark.parametrize(
    ("text", "seconds"), [("30s", 30), ("15m", 900), ("8h", 28800), ("7d", 604800), ("0s", 0), ("90m", 5400), (10, 10)]
)
def test_a_duration_has_a_unit_and_prints_shortest(text: str | int, seconds: int) -> None:
    assert parse_duration(text) == seconds
    assert parse_duration(print_duration(seconds)) == seconds


def test_what_is_no_duration_is_refused() -> None:
    for text in ["", "10", "1.5h", "-1s", "1w", "1h30m", " 1h", "1 h", "1H", None, True, -1, 1.5, "9" * 10 + "s"]:
        with pytest.raises(DurationError):
            parse_duration(text)


def test_a_range_holds_both_its_ends() -> None:
    ports = PortRange(9000, 9010)
    assert [port in ports for port in (8999, 9000, 9010, 9011)] == [False, True, True, False]
    assert (ports.width, str(ports), str(PortRange(80, 80))) == (11, "9000-9010", "80")
    assert ports.meets(PortRange(9010, 9020))
    assert not ports.meets(PortRange(9011, 9020))
