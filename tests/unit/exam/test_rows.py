"""Reading the examination's rows: nothing is skipped, and what is not understood says so."""

import json
from pathlib import Path
from typing import Any

import pytest

from exam.rows import INPUTS, OUTCOMES, read_folder, read_row

NIST = Path(__file__).parents[2] / "data" / "nist-1800-35d"


def record(**fields: Any) -> dict[str, Any]:
    return {"demo_id": "X-1.1 a", "scenario": "X-1", "outcome": "allow", "applies": True, **fields}


def test_every_row_of_the_tables_is_read_and_understood() -> None:
    rows = read_folder(NIST)
    assert len(rows) == 1387
    assert sum(row.applies for row in rows) == 1086
    assert [row.id for row in rows if row.problems] == []
    assert all(row.why_not for row in rows if not row.applies)


def test_174_rows_differ_in_more_than_place() -> None:
    assert sum(row.applies and row.distinct for row in read_folder(NIST)) == 174


@pytest.mark.parametrize(
    ("field", "value"),
    [("user_mood", "A+"), ("auth_user", "B+"), ("endpoint_compliant", "yes"), ("endpoint_compliant", 1), ("outcome", "maybe")],
)
def test_an_unknown_key_or_value_is_told_with_its_name(field: str, value: object) -> None:
    row = read_row(record(**{field: value}))
    assert len(row.problems) == 1
    assert f"`{field}`" in row.problems[0]


def test_a_row_without_an_outcome_is_a_problem() -> None:
    given = record()
    del given["outcome"]
    assert read_row(given).problems == ("there is no outcome",)


def test_what_is_not_determined_is_left_out() -> None:
    assert "auth_user" not in read_row(record(auth_user=None)).inputs


def test_a_row_applies_unless_it_says_no() -> None:
    given = record()
    del given["applies"]
    assert read_row(given).applies
    assert not read_row(record(applies=False)).applies


@pytest.mark.parametrize(
    ("fields", "during"),
    [
        ({"scenario": "F-4"}, True),
        ({"outcome": "terminate"}, True),
        ({"outcome": "limit", "desired_outcome": "Change to Access Limited"}, True),
        ({"outcome": "limit", "desired_outcome": "Access Limited"}, False),
    ],
)
def test_rows_that_speak_of_an_open_session_are_told(fields: dict[str, Any], during: bool) -> None:
    assert read_row(record(**fields)).during_session is during


def test_a_folder_without_rows_or_with_a_row_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no JSON file"):
        read_folder(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"records": [record(), record()]}))
    with pytest.raises(ValueError, match="more than once"):
        read_folder(tmp_path)
    (tmp_path / "a.json").write_text(json.dumps({"rows": []}))
    with pytest.raises(ValueError, match="no `records`"):
        read_folder(tmp_path)


def test_all_outcomes_of_the_tables_that_apply_are_known() -> None:
    assert {
        value for row in read_folder(NIST) if row.applies for key, value in row.inputs.items() if key.startswith("outcome")
    } <= set(OUTCOMES)
    assert {"outcome", "outcome_real", "outcome_hostile"} <= INPUTS.keys()
