"""The verdict of the benchmark: medians, ratios, targets."""

import pytest
from bench import report


def samples(cloister: dict[str, float], haproxy: dict[str, float], measure: str) -> report.Samples:
    return {"cloister": {measure: [cloister]}, "haproxy": {measure: [haproxy]}}


def test_medians_are_taken_per_field_over_repetitions() -> None:
    repetitions = [{"p50_us": value, "count": 1.0} for value in (9.0, 1.0, 4.0)]
    assert report.medians({"plain": {"pingpong_1": repetitions}}) == {"plain": {"pingpong_1": {"p50_us": 4.0, "count": 1.0}}}


def test_a_measure_without_samples_is_left_out() -> None:
    assert report.medians({"plain": {"idle": []}}) == {"plain": {}}


@pytest.mark.parametrize(("ours", "reached"), [(0.65, True), (0.651, False)])
def test_a_ratio_at_its_limit_is_reached_and_beyond_it_is_missed(ours: float, reached: bool) -> None:
    figures = report.judge(report.medians(samples({"p50_us": ours}, {"p50_us": 1.0}, "pingpong_1")))
    assert [figure.reached for figure in figures] == [reached]


@pytest.mark.parametrize(("ours", "reached"), [(2.0, True), (1.99, False)])
def test_more_is_better_where_the_target_is_a_floor(ours: float, reached: bool) -> None:
    figures = report.judge(report.medians(samples({"per_second": ours}, {"per_second": 1.0}, "pingpong_64")))
    assert [figure.reached for figure in figures] == [reached]


def test_an_absolute_target_needs_no_baseline() -> None:
    (figure,) = report.judge({"cloister": {"idle": {"kib_per_flow": 14.5}}})
    assert (figure.value, figure.reached, figure.baseline) == (14.5, False, None)


def test_a_figure_without_its_baseline_is_not_judged() -> None:
    assert report.judge({"cloister": {"connect_32": {"per_second": 1.0}}}) == []


def test_every_target_of_the_relay_compares_with_the_middle_process() -> None:
    relay = [target for target in report.TARGETS if "relay" in target.name]
    assert len(relay) == len(report.BULKS)
    assert {(target.field, target.over) for target in relay} == {("cpu_middle_per_gb", "cpu_middle_per_gb")}
