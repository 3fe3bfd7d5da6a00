import json

import pytest
from pydantic import ValidationError

from cloister.model.records import read_record, write_record

# As crates/core/src/record/format.rs writes them.
CLOSE = {
    "n": 1 << 52, "at": "2024-02-29T12:34:56.007Z", "kind": "close", "flow": "abababababababab", "session": "0000000000000051",
    "principal": "00000000000000aa", "segment": "00000000000000a1", "rules": ["r1"], "device": "00000000000000d1",
    "connector": "c1c1c1c1c1c1c1c1", "protocol": "tcp", "host": "jupyter.lab.internal", "port": 8888, "in": 0, "out": (1 << 64) - 1,
    "stages": {"ticket_us": 1, "resolve_us": 22, "dial_us": 333, "first_byte_us": 0}, "duration_us": 1_000_000, "code": "session_revoked",
    "leaf": "00ff",
}  # fmt: skip
GAP = {"n": 7, "at": "1970-01-01T00:00:00.000Z", "kind": "gap", "connector": "0101010101010101", "lost": 12, "code": "records_full"}


@pytest.mark.parametrize("line", [CLOSE, GAP])
def test_what_a_connector_writes_is_read_whole(line: dict[str, object]) -> None:
    record = read_record(json.dumps(line).encode())
    assert json.loads(write_record(record)) == {"rules": [], **line}


def test_a_newer_connector_may_write_more_and_a_broken_line_is_refused() -> None:
    assert read_record(json.dumps({**GAP, "colour": "red"}).encode()).lost == 12
    for line in (b"", b"{}", b'{"n": -1}', json.dumps({**GAP, "kind": "other"}).encode(), json.dumps(CLOSE).encode()[:-1]):
        with pytest.raises(ValidationError):
            read_record(line)


def test_a_line_stays_one_line() -> None:
    record = read_record(json.dumps({**CLOSE, "host": "a\nb\u2028"}).encode())
    assert b"\n" not in write_record(record)
