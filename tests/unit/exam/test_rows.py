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
        ({"scenario": "F-5", "scenario_title": "Compliance improves between requests"}, False),
    ],
)
def test_rows_that_speak_of_an_open_session_are_told(fields: dict[str, Any], during: bool) -> None:
    assert read_row(record(**fields)).during_session is during


def test_a_folder_without_rows_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="no JSON file"):
        read_folder(tmp_path)


def test_rows_are_found_in_every_file_and_folder_below(tmp_path: Path) -> None:
    (tmp_path / "one" / "two").mkdir(parents=True)
    (tmp_path / "one" / "two" / "a.json").write_text(json.dumps([record()]))
    (tmp_path / "b.json").write_bytes(b"\xef\xbb\xbf" + json.dumps({"records": [record(demo_id=" X-1.1  b ")]}).encode())
    assert sorted(row.id for row in read_folder(tmp_path)) == ["X-1.1 a", "X-1.1 b"]


@pytest.mark.parametrize(
    "text", ['{"records": [', '{"rows": []}', '"row"', '{"records": [1]}', '{"records": [{"demo_id": 5}]}', '{"records": [{}]}']
)
def test_what_is_not_in_the_form_is_not_understood_and_the_other_rows_are_read(tmp_path: Path, text: str) -> None:
    (tmp_path / "a.json").write_text(text)
    (tmp_path / "b.json").write_text(json.dumps([record()]))
    bad, good = read_folder(tmp_path)
    assert bad.problems
    assert bad.applies
    assert not good.problems


def test_a_row_that_stands_twice_is_not_understood_the_second_time(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(json.dumps([record(), record(demo_id="X-1.1  a")]))
    first, second = read_folder(tmp_path)
    assert first.problems == ()
    assert second.problems == ("`X-1.1 a` stands more than once",)


def test_case_and_spaces_make_no_other_value() -> None:
    row = read_row(
        record(subject_location="On-Prem ", auth_user="a+", requested_access="rss1", user_profile=" e1", outcome="Allow")
    )
    assert row.problems == ()
    assert (row.get("subject_location"), row.get("auth_user"), row.get("user_profile")) == ("on_prem", "A+", "E1")


def test_an_empty_field_is_not_determined_and_a_remark_asks_nothing() -> None:
    row = read_row(record(auth_user="", endpoint_status="---", note="seen", source="somewhere"))
    assert row.problems == ()
    assert set(row.inputs) == {"outcome"}


@pytest.mark.parametrize("applies", ["yes", 0, 1, "false"])
def test_whether_a_row_applies_is_said_plainly_or_it_is_not_understood(applies: object) -> None:
    row = read_row(record(applies=applies))
    assert row.applies
    assert row.problems == (f"value `{applies}` of `applies` is not known",)


def test_all_outcomes_of_the_tables_that_apply_are_known() -> None:
    assert {
        value for row in read_folder(NIST) if row.applies for key, value in row.inputs.items() if key.startswith("outcome")
    } <= set(OUTCOMES)
    assert {"outcome", "outcome_real", "outcome_hostile"} <= INPUTS.keys()
