"""What bench-revocation says of what it measured: a limit missed and a part that failed are both seen, and lose nothing of the rest."""

import json
from pathlib import Path

from bench.figures import P99, Figure, Report


def test_a_figure_is_reached_up_to_its_limits() -> None:
    quick = [0.01] * 199
    assert Figure("a", [*quick, P99]).reached
    assert Figure("a", [*quick, 2 * P99]).reached  # one in two hundred is the maximum, not the 99th percentile
    assert not Figure("a", [*quick[:197], *[2 * P99] * 3]).reached
    assert not Figure("a", [*quick, 4.0]).reached
    assert not Figure("a", [0.2] * 200).reached
    assert Figure("a", [0.2] * 200, p50_limit=0).reached


def test_a_part_that_fails_is_told_and_the_others_are_kept(tmp_path: Path) -> None:
    report = Report(tmp_path / "results" / "found.json")
    report.add(Figure("first", [0.01]))
    with report.surviving("second"):
        _fail()
    report.add(Figure("third", [5.0]))
    report.note("users", 7)
    found = json.loads(report.path.read_text())
    assert [figure["name"] for figure in found["figures"]] == ["first", "third"]
    assert found["figures"][1]["times"] == [5.0]
    assert (found["missed"], found["failed"], found["notes"]) == (["third"], {"second": "OSError: no route"}, {"users": 7})


def _fail() -> None:
    raise OSError("no route")
