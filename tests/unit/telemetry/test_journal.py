"""Laws of the exchange's decision log and of queries over the journal."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.model.decision import Decision
from cloister.model.facts import Destination, Facts, Principal
from cloister.model.hosts import parse_host
from cloister.model.ids import Generation, SegmentId, UserId
from cloister.model.reasons import Code
from cloister.model.records import Record, read_record, write_record
from cloister.telemetry.decisions import DIRECTORY, DecisionLog, Outcome
from cloister.telemetry.journal import CursorMalformed, Filter, query

FACTS = Facts(Principal("user", UserId("a" * 16), "ada"))
DECISION = Decision("allow", Code.OK, Generation(1), SegmentId("b" * 16), visible=True)
OUTCOME = Outcome(DECISION, FACTS, "c" * 16, Destination(parse_host("x.internal"), 80))


def _write(journal: Path, connector: str, first: int, records: list[Record], tail: bytes = b"") -> None:
    (journal / connector).mkdir(exist_ok=True)
    (journal / connector / f"{first}.jsonl").write_bytes(b"".join(write_record(record) + b"\n" for record in records) + tail)


def _at(second: int) -> str:
    return f"2026-01-01T00:{second // 60:02}:{second % 60:02}.000Z"


def test_log_goes_on_numbering_after_a_restart_and_a_torn_line(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path)
    for second in range(3):
        log.decided(second, [OUTCOME])
    log.close()
    path = next((tmp_path / DIRECTORY).glob("*.jsonl"))
    with path.open("ab") as file:
        file.write(b'{"n": 4, "at": "20')
    log = DecisionLog(tmp_path)
    log.decided(9, [OUTCOME])
    log.close()
    assert [entry.record.n for entry in query(tmp_path, Filter(), 10).entries] == [4, 3, 2, 1]


def test_log_is_bounded(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, file_bytes=1000, max_files=3)
    for second in range(100):
        log.decided(second, [OUTCOME])
    log.close()
    files = list((tmp_path / DIRECTORY).glob("*.jsonl"))
    assert len(files) <= 3
    assert all(path.stat().st_size <= 1000 for path in files)
    assert query(tmp_path, Filter(), 1).entries[0].record.n == 100


def test_what_is_decided_at_once_is_numbered_and_bounded_like_what_is_not(tmp_path: Path) -> None:
    log = DecisionLog(tmp_path, file_bytes=1000, max_files=100)
    log.decided(1, [])
    log.decided(2, [OUTCOME] * 50)
    log.decided(3, [OUTCOME])
    log.close()
    files = sorted((tmp_path / DIRECTORY).glob("*.jsonl"))
    assert all(path.stat().st_size <= 1000 for path in files)
    numbers = [[read_record(line).n for line in path.read_bytes().splitlines()] for path in files]
    assert [number for inside in numbers for number in inside] == list(range(1, 52))
    assert [inside[0] for inside in numbers] == [int(path.stem) for path in files]


def test_file_of_another_form_is_passed_over(tmp_path: Path) -> None:
    _write(tmp_path, "a" * 16, 1, [Record(n=1, at=_at(1), kind="open", code="ok")], tail=b'not json\n{"n":2}\n{"n":3,"at":')
    (tmp_path / "stray").write_text("x")
    assert [entry.record.n for entry in query(tmp_path, Filter(), 10).entries] == [1]


@given(
    st.lists(
        st.tuples(st.sampled_from(["a", "b", "c"]), st.integers(0, 100), st.sampled_from(["ok", "dial_refused"])), max_size=40
    ),
    st.integers(1, 7),
)
def test_pages_together_are_every_record_once_newest_first(rows: list[tuple[str, int, str]], limit: int) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as directory:
        journal = Path(directory)
        by_connector: dict[str, list[Record]] = {}
        for name, second, code in sorted(rows, key=lambda row: row[1]):
            records = by_connector.setdefault(name, [])
            records.append(Record(n=len(records) + 1, at=_at(second), kind="open", code=code))
        for name, records in by_connector.items():
            for start in range(0, len(records), 5):
                _write(journal, name, start + 1, records[start : start + 5])
        found: list[tuple[str, int]] = []
        times: list[str] = []
        cursor: str | None = None
        while True:
            page = query(journal, Filter(code="ok"), limit, cursor)
            found += [(entry.source, entry.record.n) for entry in page.entries]
            times += [entry.record.at for entry in page.entries]
            assert len(page.entries) <= limit
            cursor = page.cursor
            if cursor is None:
                break
        wanted = {(name, record.n) for name, records in by_connector.items() for record in records if record.code == "ok"}
        assert len(found) == len(set(found))
        assert set(found) == wanted
        assert times == sorted(times, reverse=True)


def test_work_of_one_page_is_bounded_and_the_rest_is_reached_by_the_cursor(tmp_path: Path) -> None:
    for first in (1, 11, 21):
        _write(tmp_path, "a", first, [Record(n=first + i, at=_at(first + i), kind="open", code="ok") for i in range(10)])
    found, cursor = [], None
    for _ in range(10):
        page = query(tmp_path, Filter(principal="nobody" if not found else None), 100, cursor, scan_bytes=1)
        found += [entry.record.n for entry in page.entries] or [0]
        cursor = page.cursor
        if cursor is None:
            break
    assert cursor is None
    assert [n for n in found if n] == [*range(20, 10, -1), *range(10, 0, -1)]


@pytest.mark.parametrize("cursor", ["", "x", "2026-01-01T00:00:00Z~../../etc~1", "2026-01-01T00:00:00Z~a~99999999999999999999"])
def test_made_up_cursor_is_refused(tmp_path: Path, cursor: str) -> None:
    with pytest.raises(CursorMalformed):
        query(tmp_path, Filter(), 1, cursor)


def test_time_filter_includes_its_start_and_not_its_end(tmp_path: Path) -> None:
    _write(tmp_path, "a", 1, [Record(n=i, at=_at(i), kind="open", code="ok") for i in range(1, 6)])
    found = query(tmp_path, Filter(since=_at(2), until=_at(4)), 10).entries
    assert [entry.record.n for entry in found] == [3, 2]
