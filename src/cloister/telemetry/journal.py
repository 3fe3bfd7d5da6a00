"""Queries over the journal: newest first, filtered, in pages of bounded work.

One directory per connector (and one for the exchange's decisions), files `<first n>.jsonl` of numbered lines (ARCHITECTURE.md).
"""

import heapq
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import ValidationError

from cloister.model.records import Record, read_record

MAX_LINE = 1 << 16
SCAN_BYTES = 64 << 20  # read for one page at most
_CURSOR = re.compile(r"([0-9TZ:.+-]{20,35})~([0-9a-z]{1,32})~([0-9]{1,19})")


@dataclass(frozen=True, slots=True)
class Filter:
    """What a record must have; None asks nothing. Times are RFC 3339 text in UTC, `since` included, `until` not."""

    principal: str | None = None
    device: str | None = None
    segment: str | None = None
    session: str | None = None
    connector: str | None = None
    code: str | None = None
    kind: str | None = None
    since: str | None = None
    until: str | None = None

    def admits(self, record: Record) -> bool:
        for name in ("principal", "device", "segment", "session", "connector", "code", "kind"):
            wanted = getattr(self, name)
            if wanted is not None and getattr(record, name) != wanted:
                return False
        return (self.since is None or record.at >= self.since) and (self.until is None or record.at < self.until)


@dataclass(frozen=True, slots=True)
class Entry:
    source: str  # the connector's id, or `exchange`
    record: Record


@dataclass(frozen=True, slots=True)
class Page:
    """`cursor` continues after the last entry looked at; None at the end."""

    entries: list[Entry]
    cursor: str | None


class CursorMalformed(ValueError):
    """The cursor is not one that a page gave."""


def query(journal: Path, wanted: Filter, limit: int, cursor: str | None = None, scan_bytes: int = SCAN_BYTES) -> Page:
    """One page. Lines that cannot be read (the last one may be half-written) are passed over."""
    position = None if cursor is None else _read_cursor(cursor)
    budget = _Budget(scan_bytes)
    streams = [_walk(path, position, budget, wanted.since) for path in sorted(journal.glob("*")) if path.is_dir()]
    entries: list[Entry] = []
    last: tuple[str, str, int] | None = None
    for key, record in heapq.merge(*streams, key=lambda item: item[0], reverse=True):
        if len(entries) >= limit:
            return Page(entries, _write_cursor(last))
        last = key
        if wanted.admits(record):
            entries.append(Entry(key[1], record))
    return Page(entries, _write_cursor(last) if budget.is_spent else None)


@dataclass(slots=True)
class _Budget:
    left: int

    @property
    def is_spent(self) -> bool:
        return self.left <= 0


def _walk(
    directory: Path, position: tuple[str, str, int] | None, budget: _Budget, since: str | None
) -> Iterator[tuple[tuple[str, str, int], Record]]:
    """Records of one directory before `position`, newest first; the keys never rise, whatever the clock did."""
    ceiling: str | None = None
    for path in sorted(directory.glob("*.jsonl"), key=_first_number, reverse=True):
        if budget.is_spent:
            return
        if position is not None and _is_past(path, position):
            continue
        data = path.read_bytes()
        budget.left -= len(data)
        for line in reversed(data.splitlines()):
            record = _parse(line)
            if record is None:
                continue
            ceiling = record.at if ceiling is None else min(ceiling, record.at)
            key = (ceiling, directory.name, record.n)
            if since is not None and ceiling < since:
                return
            if position is None or key < position:
                yield key, record


def _is_past(path: Path, position: tuple[str, str, int]) -> bool:
    """Whether an earlier page has shown everything in this file: its first line tells, so that the file need not be read again."""
    with path.open("rb") as file:
        first = _parse(file.readline(MAX_LINE))
    return first is not None and (first.at, path.parent.name, first.n) >= position


def _first_number(path: Path) -> int:
    return int(path.stem) if path.stem.isdigit() else -1


def _parse(line: bytes) -> Record | None:
    if len(line) > MAX_LINE:
        return None
    try:
        return read_record(line)
    except ValidationError:
        return None


def _read_cursor(text: str) -> tuple[str, str, int]:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise CursorMalformed("the cursor is not one that a page gave")
    return match[1], match[2], int(match[3])


def _write_cursor(key: tuple[str, str, int] | None) -> str | None:
    return None if key is None else f"{key[0]}~{key[1]}~{key[2]}"
