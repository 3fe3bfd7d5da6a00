"""The report counts every row once, and the exit code follows it."""

import json
from pathlib import Path

import pytest

from exam.examine import Verdict
from exam.report import by_scenario, print_report, write_report

VERDICTS = [
    Verdict("X-1.1 a", "X-1", passed=True, notes=("odd",)),
    Verdict("X-1.1 b", "X-1", passed=False, why="full opened"),
    Verdict("Y-1.1 a", "Y-1", passed=None, why="network admission"),
]


def test_rows_are_counted_by_scenario() -> None:
    assert by_scenario(VERDICTS) == {"X-1": {"pass": 1, "fail": 1}, "Y-1": {"not-applicable": 1}}


def test_every_row_is_in_the_json_with_its_result(tmp_path: Path) -> None:
    write_report(tmp_path / "build" / "exam.json", VERDICTS, 1.0)
    written = json.loads((tmp_path / "build" / "exam.json").read_text())
    assert [row["result"] for row in written["rows"]] == ["pass", "fail", "not-applicable"]
    assert written["total"] == {"pass": 1, "fail": 1, "not-applicable": 1}


def test_failures_remarks_and_reasons_are_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    print_report(VERDICTS, tmp_path / "exam.json", 1.0)
    printed = capsys.readouterr().out
    assert "X-1.1 b: fail: full opened" in printed
    assert "X-1.1 a: pass, with a remark: odd" in printed
    assert "1 rows: network admission" in printed
    assert "1 passed, 1 failed, 1 do not apply" in printed
