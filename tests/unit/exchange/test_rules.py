"""Laws of the pure parts: placement, attempts."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.exchange.attempts import MAX_TRACKED, WINDOW_SECONDS, Attempts, Counter
from cloister.exchange.placement import MAX_CONNECTORS, STICKY_SLACK, Candidate, Nowhere, place

candidates = st.lists(
    st.builds(
        Candidate,
        id=st.text("abcdefgh", min_size=1, max_size=3),
        healthy=st.sampled_from([True, False, None]),
        draining=st.booleans(),
        sessions=st.integers(0, 200),
        rtt_us=st.integers(0, 1000),
    ),
    unique_by=lambda candidate: candidate.id,
    max_size=8,
)

TABLE = [
    ("healthy before unknown", [Candidate("a", None), Candidate("b", True, sessions=9)], (), ["b", "a"]),
    ("staying before draining", [Candidate("a", True, draining=True), Candidate("b", None)], (), ["b", "a"]),
    ("least loaded first", [Candidate("a", True, sessions=2), Candidate("b", True, sessions=1)], (), ["b", "a"]),
    ("nearest of equals", [Candidate("a", True, rtt_us=9), Candidate("b", True, rtt_us=5)], (), ["b", "a"]),
    ("sticky while not overloaded", [Candidate("a", True, sessions=STICKY_SLACK), Candidate("b", True)], ("a",), ["a", "b"]),
    ("not sticky beyond", [Candidate("a", True, sessions=STICKY_SLACK + 1), Candidate("b", True)], ("a",), ["b", "a"]),
    ("not sticky to the draining", [Candidate("a", True, draining=True), Candidate("b", True)], ("a",), ["b", "a"]),
    ("never the unhealthy", [Candidate("a", False), Candidate("b", True)], ("a",), ["b"]),
]


@pytest.mark.parametrize(("every", "sticky", "expected"), [row[1:] for row in TABLE], ids=[row[0] for row in TABLE])
def test_best_connector_comes_first(every: list[Candidate], sticky: tuple[str, ...], expected: list[str]) -> None:
    assert place(every, sticky) == expected


def test_nowhere_says_whether_anybody_was_there() -> None:
    assert place([]) == Nowhere(unhealthy=False)
    assert place([Candidate("a", False)]) == Nowhere(unhealthy=True)


@given(candidates, st.sets(st.text("abcdefgh", min_size=1, max_size=3)))
def test_placement_is_bounded_distinct_and_does_not_depend_on_order(every: list[Candidate], sticky: set[str]) -> None:
    placed = place(every, sticky)
    assert placed == place(list(reversed(every)), sticky)
    if isinstance(placed, Nowhere):
        assert not any(candidate.healthy is not False for candidate in every)
    else:
        assert 1 <= len(set(placed)) == len(placed) <= MAX_CONNECTORS


def test_attempts_are_capped_by_account_by_source_and_in_all() -> None:
    attempts = Attempts(per_account=2, per_source=3, in_all=5)
    for account, source in (("a", "1"), ("a", "1")):
        assert attempts.allows(account, source, 0)
        attempts.failed(account, source, 0)
    assert not attempts.allows("a", "2", 0)
    assert attempts.allows("b", "1", 0)
    attempts.failed("b", "1", 0)
    assert not attempts.allows("c", "1", 0)
    for source in ("3", "4"):
        attempts.failed("x" + source, source, 0)
    assert not attempts.allows("fresh", "9", 0)
    assert attempts.allows("a", "1", WINDOW_SECONDS)


def test_counter_forgets_the_least_recent_beyond_its_bound() -> None:
    counter = Counter(1)
    for number in range(MAX_TRACKED + 1):
        counter.add(str(number), 0)
    assert counter.allows("0", 1)
    assert not counter.allows("1", 1)
