"""YAML (and so JSON) read into plain values that know where they stand. A small part of YAML, on purpose.

Anchors, aliases, tags, directives, merge keys and duplicate keys are refused; plain scalars are null, true, false, integers and decimals as in
JSON, everything else is text (`no`, `on`, `0x10` and `12:30` are text). Size, depth and number of values are bounded while reading.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError
from ruamel.yaml.events import (
    AliasEvent,
    DocumentStartEvent,
    Event,
    MappingEndEvent,
    MappingStartEvent,
    ScalarEvent,
    SequenceEndEvent,
    SequenceStartEvent,
)
from ruamel.yaml.reader import ReaderError

from cloister.model.hosts import shown

MAX_BYTES = 8 << 20
MAX_DEPTH = 16
MAX_NODES = 1_000_000
MAX_SCALAR = 64 << 10
MAX_DIGITS = 18

_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]*)")
_DECIMAL = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,3})?")
_WORDS = {"": None, "~": None, "null": None, "true": True, "false": False}


class TreeError(ValueError):
    """The text cannot be read, or is refused; `line` and `column` count from 1."""

    def __init__(self, message: str, line: int = 1, column: int = 1, *, too_large: bool = False) -> None:
        super().__init__(message)
        self.line = line
        self.column = column
        self.too_large = too_large


@dataclass(slots=True)
class Node:
    """A value with its place. `fields` or `items` hold what is inside; `keys` where each key stands."""

    line: int
    column: int
    scalar: str | int | float | bool | None = None
    fields: "dict[str, Node] | None" = None
    items: "list[Node] | None" = None
    keys: "dict[str, tuple[int, int]]" = field(default_factory=dict)

    def to_plain(self) -> Any:
        """Dictionaries, tuples and scalars."""
        if self.fields is not None:
            return {key: node.to_plain() for key, node in self.fields.items()}
        if self.items is not None:
            return tuple(node.to_plain() for node in self.items)
        return self.scalar

    def place(self, path: tuple[int | str, ...]) -> tuple[int, int]:
        """Where the last part of `path` that exists stands; a field stands where its value begins."""
        node = self
        for step in path:
            inner = node._step(step)
            if inner is None:
                return node.keys.get(str(step), (node.line, node.column))
            node = inner
        return node.line, node.column

    def key_place(self, path: tuple[int | str, ...]) -> tuple[int, int]:
        """Where the key of a field stands."""
        node = self
        for step in path[:-1]:
            node = node._step(step) or node
        return node.keys.get(str(path[-1]), self.place(path)) if path else self.place(path)

    def _step(self, step: int | str) -> "Node | None":
        if isinstance(step, int):
            return self.items[step] if self.items is not None and step < len(self.items) else None
        return self.fields.get(step) if self.fields is not None else None


def read_trees(text: str | bytes) -> Iterator[Node]:
    """The documents of a stream, one after the other; raises `TreeError` at the first thing that is refused."""
    events = _events(_decode(text))
    reader = _Reader()
    for event in events:
        root = reader.take(event)
        if root is not None:
            yield root


def resolve(text: str) -> str | int | float | bool | None:
    """What a plain scalar stands for."""
    if text in _WORDS:
        return _WORDS[text]
    if _INTEGER.fullmatch(text) and len(text) <= MAX_DIGITS:
        return int(text)
    if _DECIMAL.fullmatch(text) and len(text) <= 2 * MAX_DIGITS:
        return float(text)
    return text


def _decode(text: str | bytes) -> str:
    size = len(text)
    if size > MAX_BYTES:
        raise TreeError(f"the text has `{size}` bytes; at most `{MAX_BYTES}` are read", too_large=True)
    if isinstance(text, str):
        return text
    try:
        return text.decode()
    except UnicodeDecodeError as error:
        before = text[: error.start]
        line = before.count(b"\n") + 1
        column = len(before.rpartition(b"\n")[2].decode(errors="replace")) + 1
        raise TreeError(f"byte `0x{text[error.start]:02x}` is no UTF-8", line, column) from None


def _events(text: str) -> Iterator[Event]:
    """Events of ruamel's parser. What it cannot read it reports in several ways, some of them by accident (`"\\UFFFFFFFF"`)."""
    last = (1, 1)
    try:
        for event in YAML(typ="safe", pure=True).parse(text):
            last = event.end_mark.line + 1, event.end_mark.column + 1
            yield event
    except MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else last
        message = str(error.problem or error.context or "it cannot be read")
        raise TreeError(f"this is no YAML: {_one_line(message)}", line, column) from None
    except ReaderError as error:
        line, column = _reader_place(text, error.position)
        raise TreeError(f"this is no YAML: {_one_line(str(error))}", line, column) from None
    except Exception as error:  # noqa: BLE001 (somebody else's parser of hostile text: whatever it raises, the text was not read)
        raise TreeError(f"this is no YAML: {_one_line(str(error))}", *last) from None


def _reader_place(text: str, position: object) -> tuple[int, int]:
    """A character that YAML does not allow is reported by its offset."""
    if not isinstance(position, int):
        return 1, 1
    before = text[:position]
    return before.count("\n") + 1, len(before.rpartition("\n")[2]) + 1


def _one_line(text: str) -> str:
    return shown(text.splitlines()[0] if text else "unreadable").rstrip(".").replace("`", "'")


class _Reader:
    """Builds one tree after another from events; the stack is its own, so that depth is a number and not the interpreter's."""

    def __init__(self) -> None:
        self._stack: list[Node] = []
        self._pending: list[str | None] = []  # per open mapping: the key whose value comes next
        self._count = 0

    def take(self, event: Event) -> Node | None:
        match event:
            case AliasEvent():
                raise _refused("aliases (`*name`) are not read: write the value again", event)
            case DocumentStartEvent():
                if event.version or event.tags:
                    raise _refused("directives (`%YAML`, `%TAG`) are not read: leave them out", event)
            case MappingStartEvent():
                self._open(event, Node(*_place(event), fields={}))
            case SequenceStartEvent():
                self._open(event, Node(*_place(event), items=[]))
            case MappingEndEvent() | SequenceEndEvent():
                return self._close()
            case ScalarEvent():
                return self._scalar(event)
            case _:
                pass
        return None

    def _open(self, event: MappingStartEvent | SequenceStartEvent, node: Node) -> None:
        self._check(event)
        if self._expects_key():
            raise _refused("a key is one word, no list and no mapping", event)
        if len(self._stack) >= MAX_DEPTH:
            raise _refused(f"values nest at most `{MAX_DEPTH}` deep", event)
        self._stack.append(node)
        self._pending.append(None)

    def _close(self) -> Node | None:
        node = self._stack.pop()
        self._pending.pop()
        return self._put(node)

    def _scalar(self, event: ScalarEvent) -> Node | None:
        self._check(event)
        if len(event.value) > MAX_SCALAR:
            raise _refused(f"a text has at most `{MAX_SCALAR}` characters", event)
        event.value = _joined(event)
        if self._expects_key():
            self._key(event)
            return None
        plain = event.style in (None, "") and event.implicit[0]
        return self._put(Node(*_place(event), scalar=resolve(event.value) if plain else event.value))

    def _key(self, event: ScalarEvent) -> None:
        keys = self._stack[-1].keys
        if event.value in keys:
            line, _ = keys[event.value]
            raise _refused(f"the key `{shown(event.value)}` stands here and in line {line}: write it once", event)
        keys[event.value] = _place(event)
        self._pending[-1] = event.value

    def _expects_key(self) -> bool:
        return bool(self._stack) and self._stack[-1].fields is not None and self._pending[-1] is None

    def _put(self, node: Node) -> Node | None:
        if not self._stack:
            return node
        into = self._stack[-1]
        if into.items is not None:
            into.items.append(node)
        elif into.fields is not None:
            into.fields[self._pending[-1] or ""] = node
            self._pending[-1] = None
        return None

    def _check(self, event: ScalarEvent | MappingStartEvent | SequenceStartEvent) -> None:
        if event.anchor:
            raise _refused("anchors (`&name`) are not read: write the value again", event)
        if event.tag:
            raise _refused(f"tags (`{shown(str(event.tag))}`) are not read: leave it out", event)
        self._count += 1
        if self._count > MAX_NODES:
            line, column = _place(event)
            raise TreeError(f"the text holds more than `{MAX_NODES}` values", line, column, too_large=True)


def _joined(event: ScalarEvent) -> str:
    """JSON writes characters beyond the first plane as two escapes, which YAML leaves apart."""
    value: str = event.value
    if not any("\ud800" <= character <= "\udfff" for character in value):
        return value
    try:
        return value.encode("utf-16", "surrogatepass").decode("utf-16")
    except UnicodeDecodeError:
        raise _refused("half of a surrogate pair is no character", event) from None


def _place(event: Event) -> tuple[int, int]:
    mark = event.start_mark
    return mark.line + 1, mark.column + 1


def _refused(message: str, event: Event) -> TreeError:
    return TreeError(message, *_place(event))
