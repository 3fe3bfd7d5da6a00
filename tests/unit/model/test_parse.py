import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.model import parse, tree
from cloister.model.documents import KINDS, Rule, Segment
from cloister.model.parse import MAX_ERRORS, parse_documents
from cloister.model.ports import PortRange
from cloister.model.reasons import Code

SEGMENT = """kind: segment
name: jupyter-research
hosts: [jupyter.lab.internal, "*.nb.lab.internal"]
ports: [8888, 9000-9010]
protocol: tcp
groups: [cluster-a]        # connector groups that can serve it
labels: {team: research}
allow: []                  # otherwise forbidden addresses spelled out
mode: strict
health: {port: 8888, interval: 10s}
"""


def errors_of(text: str | bytes) -> list[str]:
    return [str(error) for error in parse_documents(text, "f").errors]


def test_a_segment_becomes_canonical_values() -> None:
    (segment,) = parse_documents(SEGMENT).documents
    assert isinstance(segment, Segment)
    assert segment.ports == (PortRange(8888, 8888), PortRange(9000, 9010))
    assert segment.health is not None
    assert (segment.health.interval, segment.health.timeout) == (10, 3)
    assert segment.continuity == 0


def test_every_error_of_every_document_comes_at_once_with_its_place() -> None:
    text = """kind: segment
name: Jupyter Research
hosts: [127.1, "*.nb.lab.internal"]
ports: [0, 90-80, 65536]
protocl: tcp
groups: []
health: {prot: 8888, interval: 10x}
---
kind: rool
name: x
---
kind: rule
name: x
effect: allow
who: {}
what: 3
"""
    assert errors_of(text) == [
        "f:2:7: `Jupyter Research` is not a name: 1 to 63 of `a-z 0-9 . _ -`, beginning and ending with a letter or digit",
        "f:3:9: this is text in quotes, such as `jupyter.lab.internal`",
        "f:4:9: port `0` does not exist: ports are 1 to 65535",
        "f:4:12: the range `90-80` is reversed: write `80-90`",
        "f:4:19: port `65536` does not exist: ports are 1 to 65535",
        "f:6:9: `groups` is empty",
        "f:7:32: `10x` is no duration: write a number and a unit, such as `30s`, `15m`, `8h` or `7d`",
        "f:7:10: `prot` is no field here: did you mean `port`?",
        "f:5:1: `protocl` is no field here: did you mean `protocol`?",
        f"f:9:7: `rool` is no kind of document: it is one of {', '.join(f'`{kind}`' for kind in KINDS)}",
        "f:14:9: `allow` is not possible for `effect`: write `permit` or `forbid`",
        "f:15:6: `who` names nobody: list `users`, `groups` or `workloads`, or write `any: true`",
        "f:16:7: `what` is a mapping: write `key: value`",
    ]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("ports: [0]", "port `0` does not exist: ports are 1 to 65535"),
        ("ports: [65536]", "port `65536` does not exist: ports are 1 to 65535"),
        ("ports: [-1]", "port `-1` does not exist: ports are 1 to 65535"),
        ("ports: [20-10]", "the range `20-10` is reversed: write `10-20`"),
        ("ports: [0-10]", "port `0` does not exist: ports are 1 to 65535"),
        ("ports: [10-20, 15]", "the ranges `10-20` and `15` overlap: write them as one"),
        ("ports: [10, 10]", "the ranges `10` and `10` overlap: write them as one"),
        ("ports: [any]", "`any` is no port: write a number such as `8888` or a range such as `9000-9010`"),
        ("ports: [true]", "`True` is no port: write a number such as `8888` or a range such as `9000-9010`"),
        ("ports: []", "`ports` is empty"),
        ("ports: 8888", "`ports` is a list: write `[…]`"),
        (
            "hosts: ['fe80::1%eth0']",
            "`fe80::1%eth0` is no host: an IPv6 address has no brackets and no zone, and a host is written without its port",
        ),
        ("hosts: [a.example, A.example]", "`a.example` is listed twice"),
        ("allow: [10.0.0.0/8]", "`10.0.0.0/8` is too wide for `allow`: spell out addresses, or networks of `/24` and narrower"),
        ("allow: [10.0.0.1/24]", "`10.0.0.1/24` is no address or network: 10.0.0.1/24 has host bits set"),
        ("allow: ['fe80::%eth0/64']", "`fe80::%eth0/64` has a zone: an interface of one machine means nothing on another"),
        ("mode: last-known", "`mode: last-known` needs `continuity`: how long flows may outlive the exchange, such as `15m`"),
        ("continuity: 15m", "`continuity` belongs to `mode: last-known`: a strict segment ends with its ticket"),
        ("health: {interval: 2h}", "`2h` is too large for `interval`: at most `1h`"),
        ("health: {timeout: 0s}", "`0s` is too small for `timeout`: at least `1s`"),
        ("health: {timeout: 90}", "`90` is too large for `timeout`: at most `60`"),
        ("labels: {team: 3}", "`team` is text: put it in quotes"),
    ],
)
def test_case_66_a_bad_field_is_refused_with_the_reason(line: str, message: str) -> None:
    fields = {"kind": "segment", "name": "a", "hosts": "[a.lab]", "ports": "[80]", "groups": "[g]"}
    key, _, value = line.partition(": ")
    fields[key] = value
    result = parse_documents("".join(f"{key}: {value}\n" for key, value in fields.items()))
    assert [error.message for error in result.errors] == [message]
    assert result.documents == ()


@pytest.mark.parametrize(
    ("text", "place", "word"),
    [
        ("kind: &a segment", (1, 7), "anchors"),
        ("kind: *a", (1, 7), "aliases"),
        ("&a {kind: *a}", (1, 1), "anchors"),
        ("!!python/object/apply:os.system ['true']", (1, 1), "tags"),
        ("kind: !!str segment", (1, 7), "tags"),
        ("kind: !x segment", (1, 7), "tags"),
        ("%YAML 1.1\n---\nkind: segment", (2, 1), "directives"),
        ("%TAG ! tag:x,2000:\n---\nkind: segment", (2, 1), "directives"),
        ("kind: group\nname: a\nkind: user", (3, 1), "stands here and in line 1"),
        ('{"kind": "group", "name": "a", "name": "b"}', (1, 32), "stands here and in line 1"),
        ("labels: {a: b, a: c}", (1, 16), "stands here and in line 1"),
        ("? [a]\n: b", (1, 3), "a key is one word"),
        ("kind: [", (1, 8), "no YAML"),
        ("kind: 'segment", (1, 15), "no YAML"),
        ("\tkind: segment", (1, 1), "no YAML"),
        ("kind: a\x00", (1, 8), "no YAML"),
        ("kind: \x1b[31m", (1, 7), "no YAML"),
    ],
)
def test_case_83_what_can_poison_a_file_is_refused_where_it_stands(text: str, place: tuple[int, int], word: str) -> None:
    (error,) = parse_documents(text).errors
    assert (error.line, error.column) == place
    assert word in error.message
    assert error.code == Code.DOCUMENT_MALFORMED


def test_case_83_a_byte_that_is_no_utf8_is_named() -> None:
    assert errors_of(b"kind: group\nname: \xff") == ["f:2:7: byte `0xff` is no UTF-8"]


def test_case_83_depth_is_bounded() -> None:
    def nested(depth: int) -> str:
        return "[" * depth + "]" * depth

    assert not any("nest" in error for error in errors_of(nested(tree.MAX_DEPTH)))
    assert any("nest" in error for error in errors_of(nested(tree.MAX_DEPTH + 1)))
    assert errors_of("[" * 100_000) == [f"f:1:{tree.MAX_DEPTH + 1}: values nest at most `{tree.MAX_DEPTH}` deep"]


def test_case_83_size_is_bounded() -> None:
    padding = "#" * (tree.MAX_BYTES - 1) + "\n"
    assert parse_documents(padding).errors == ()
    (error,) = parse_documents(padding + "\n").errors
    assert error.code == Code.TOO_LARGE


def test_case_83_a_text_and_the_number_of_values_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    assert errors_of("[" + "a" * tree.MAX_SCALAR + "]") == ["f:1:2: a document is a mapping with `kind` and `name`"]
    assert errors_of("[" + "a" * (tree.MAX_SCALAR + 1) + "]") == [f"f:1:2: a text has at most `{tree.MAX_SCALAR}` characters"]
    monkeypatch.setattr(tree, "MAX_NODES", 5)
    assert parse_documents("{kind: group, name: a}").errors == ()
    (error,) = parse_documents("{kind: group, name: a, users: []}").errors
    assert error.code == Code.TOO_LARGE


def test_the_number_of_documents_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(parse, "MAX_DOCUMENTS", 2)
    text = "[{kind: group, name: a}, {kind: group, name: b}"
    assert parse_documents(text + "]").errors == ()
    (error,) = parse_documents(text + ", {kind: group, name: c}]").errors
    assert error.code == Code.TOO_LARGE


def test_the_number_of_errors_is_bounded() -> None:
    assert len(parse_documents("---\n".join(["kind: x\n"] * (MAX_ERRORS + 5))).errors) == MAX_ERRORS


@pytest.mark.parametrize(
    "name", ["a b", 'a"b', "a'b", "$(id)", "`id`", "a%s", "-rf", "a\\nb", "../a", "a/b", "A", "é", "", "a" * 64, "a.", "a\\u202eb"]
)
def test_case_72_a_name_that_could_be_read_as_something_else_is_refused(name: str) -> None:
    for kind in ("segment", "device", "rule"):
        errors = parse_documents(
            f'kind: {kind}\nname: "{name}"' if "'" in name or "\\" in name else f"kind: {kind}\nname: '{name}'"
        ).errors
        assert any(error.path == ("name",) for error in errors), (kind, name)


def test_one_document_of_a_kind_has_a_name() -> None:
    assert errors_of("kind: group\nname: a\n---\nkind: user\nname: a\n---\nkind: group\nname: a") == [
        "f:8:7: the group `a` stands here and in line 1: write it once"
    ]


def test_words_that_other_yaml_readers_turn_into_values_stay_text() -> None:
    (rule,) = parse_documents("kind: rule\nname: no\neffect: permit\nwho: {users: [on, 0x10]}\nwhat: {segments: [1-2]}").documents
    assert isinstance(rule, Rule)
    assert (rule.name, rule.who.users, rule.what.segments) == ("no", ("on", "0x10"), ("1-2",))


def test_surrogates_come_in_pairs() -> None:
    assert errors_of('{"kind": "user", "name": "a", "display": "\\ud83d\\ude00"}') == []
    assert errors_of('{"kind": "user", "name": "a", "display": "\\ud83d"}') == ["f:1:42: half of a surrogate pair is no character"]


def test_nothing_but_comments_is_no_document() -> None:
    assert parse_documents("# nothing\n---\n---\n# more").documents == ()
    assert parse_documents("").errors == ()
    assert parse_documents(b"\xef\xbb\xbfkind: group\nname: a").documents[0].name == "a"


FRAGMENTS = [
    "kind", "name", "segment", "rule", ": ", ":", "- ", "\n", "\n  ", "\n\t", "{", "}", "[", "]", ",", "'", '"', "|", ">", "|-\n", "%YAML 1.2", "%", "&a ",
    "*a", "!!str ", "!", "? ", "---\n", "...\n", "#", "\\", "\\x", "\\U00110000", "\\UFFFFFFFF", "\\ud800", "~", "null", "1", "1e999", "0x", "<<", "@", "`",
    "\x00", "\x85", "\u2028", "\ufeff", "é", "\U0001f600", "hosts", "ports", "{kind: group, name: a}", "when", "true", "-", "=", "\r", "\r\n", "9" * 30,
]  # fmt: skip


@settings(max_examples=500)
@given(st.lists(st.sampled_from(FRAGMENTS), max_size=25).map("".join) | st.text(max_size=60) | st.binary(max_size=60))
def test_case_83_no_text_does_anything_but_parse_or_be_refused(text: str | bytes) -> None:
    result = parse_documents(text, "f")
    assert all(error.line >= 1 and error.column >= 1 for error in result.errors)
    for error in result.errors:
        assert error.message == "".join(c for c in error.message if c.isprintable()), error.message
