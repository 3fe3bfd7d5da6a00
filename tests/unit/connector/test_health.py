from random import Random

from cloister.connector.health import FAILURES, LOST_AFTER, MAX_RUNNING, RECHECK_AFTER, HealthSchedule
from cloister.model.messages.common import Assignment, HealthCheck, PortRange, SegmentHealth


def _segment(number: int, check: HealthCheck | None = None) -> Assignment:
    return Assignment(
        id=f"{number:016x}", hosts=["a"], ports=[PortRange(first=1, last=1)], protocol="tcp", health=check or HealthCheck()
    )


def _result(number: int, *, healthy: bool, code: str = "ok") -> SegmentHealth:
    return SegmentHealth(segment=f"{number:016x}", healthy=healthy, rtt_us=5, code=code)


def _schedule() -> HealthSchedule:
    return HealthSchedule(Random(1))


def _probe(schedule: HealthSchedule, now: float) -> float:
    """Advance to the next due time and start; returns that time."""
    due = schedule.next_due()
    assert due is not None
    now = max(now, due)
    assert schedule.start_due(now)
    return now


def test_first_result_is_reported_at_once_either_way() -> None:
    for healthy in (True, False):
        schedule = _schedule()
        schedule.assign([_segment(1)], 0.0)
        now = _probe(schedule, 0.0)
        assert schedule.finish(_segment(1).id, _result(1, healthy=healthy), now)
        assert [h.healthy for h in schedule.report()] == [healthy]


def test_one_lost_packet_is_no_outage_two_are() -> None:
    schedule = _schedule()
    schedule.assign([_segment(1)], 0.0)
    now = _probe(schedule, 0.0)
    schedule.finish(_segment(1).id, _result(1, healthy=True), now)
    for failure in range(1, FAILURES + 1):
        before = now
        now = _probe(schedule, now)
        changed = schedule.finish(_segment(1).id, _result(1, healthy=False, code="dial_refused"), now)
        assert changed is (failure == FAILURES)
        if failure > 1:
            assert now - before <= RECHECK_AFTER * 1.2
    assert schedule.report()[0].code == "dial_refused"
    now = _probe(schedule, now)
    assert schedule.finish(_segment(1).id, _result(1, healthy=True), now)


def test_probes_at_once_are_bounded() -> None:
    schedule = _schedule()
    schedule.assign([_segment(n) for n in range(1, MAX_RUNNING + 2)], 0.0)
    assert len(schedule.start_due(10.0)) == MAX_RUNNING
    assert schedule.start_due(10.0) == []
    schedule.finish(_segment(1).id, _result(1, healthy=True), 10.0)
    assert len(schedule.start_due(10.0)) <= 1


def test_unanswered_probe_counts_as_failed_and_frees_its_place() -> None:
    schedule = _schedule()
    schedule.assign([_segment(1, HealthCheck(interval=3600, timeout=3))], 0.0)
    now = _probe(schedule, 0.0)
    schedule.start_due(now + 3 + LOST_AFTER + 1)
    assert [(h.healthy, h.code) for h in schedule.report()] == [(False, "dial_timeout")]


def test_segment_no_longer_assigned_is_forgotten() -> None:
    schedule = _schedule()
    schedule.assign([_segment(1)], 0.0)
    now = _probe(schedule, 0.0)
    schedule.assign([_segment(2)], now)
    assert not schedule.finish(_segment(1).id, _result(1, healthy=True), now)
    assert schedule.report() == []


def test_unchanged_check_keeps_what_is_known() -> None:
    schedule = _schedule()
    schedule.assign([_segment(1)], 0.0)
    now = _probe(schedule, 0.0)
    schedule.finish(_segment(1).id, _result(1, healthy=True), now)
    schedule.assign([_segment(1), _segment(2)], now)
    assert len(schedule.report()) == 1


def test_segment_without_check_is_not_probed() -> None:
    schedule = _schedule()
    schedule.assign([_segment(1).model_copy(update={"health": None})], 0.0)
    assert schedule.next_due() is None


def test_probes_spread_over_time() -> None:
    schedule = _schedule()
    schedule.assign([_segment(n) for n in range(1, 9)], 0.0)
    assert 0 < len(schedule.start_due(0.5)) < 8
