"""Scores age as they say, and the next change is told to the second."""

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cloister.identity.signals.risk import (
    DECAYS,
    Contribution,
    Override,
    next_change,
    print_contribution,
    read_contribution,
    score,
)

NOW = 1_800_000_000

contributions = st.builds(
    Contribution,
    st.integers(0, 100),
    st.integers(NOW - 5_000, NOW + 100),
    st.sampled_from(DECAYS),
    st.integers(60, 4_000),
    st.none() | st.integers(NOW - 100, NOW + 5_000),
)


@pytest.mark.parametrize(
    ("one", "after", "points"),
    [
        (Contribution(80, NOW), 10**8, 80),
        (Contribution(80, NOW, "exponential", 600), 0, 80),
        (Contribution(80, NOW, "exponential", 600), 600, 40),
        (Contribution(80, NOW, "exponential", 600), 1200, 20),
        (Contribution(80, NOW, "exponential", 600), 4800, 0),
        (Contribution(80, NOW, "linear", 600), 600, 40),
        (Contribution(80, NOW, "linear", 600), 1200, 0),
        (Contribution(80, NOW, ends=NOW + 60), 59, 80),
        (Contribution(80, NOW, ends=NOW + 60), 60, 0),
        (Contribution(80, NOW + 60, "linear", 600), 0, 80),
    ],
)
def test_a_contribution_fades_as_it_says(one: Contribution, after: int, points: int) -> None:
    assert score([one], None, NOW + after) == points


def test_sources_add_up_to_at_most_a_hundred() -> None:
    assert score([Contribution(30, NOW), Contribution(30, NOW)], None, NOW) == 60
    assert score([Contribution(90, NOW), Contribution(30, NOW)], None, NOW) == 100


def test_an_override_stands_until_it_expires_and_no_longer() -> None:
    given_, override = [Contribution(90, NOW)], Override(0, NOW + 60)
    assert score(given_, override, NOW + 59) == 0
    assert next_change(given_, override, NOW + 59) == NOW + 60
    assert score(given_, override, NOW + 60) == 90
    assert next_change(given_, override, NOW + 60) is None


@settings(max_examples=300)
@given(st.lists(contributions, max_size=4), st.none() | st.builds(Override, st.integers(0, 100), st.integers(NOW - 5, NOW + 500)))
def test_the_next_change_is_the_first_second_with_another_score(given_: list[Contribution], override: Override | None) -> None:
    now, change = score(given_, override, NOW), next_change(given_, override, NOW)
    until = NOW + 40_000 if change is None else change
    assert change is None or change > NOW
    assert all(score(given_, override, at) == now for at in range(NOW, until, max(1, (until - NOW) // 200)))
    if change is not None:
        assert score(given_, override, change - 1) == now
        assert score(given_, override, change) != now or (override is not None and change == override.ends)


@given(contributions)
def test_what_is_stored_is_read_back(one: Contribution) -> None:
    assert read_contribution(print_contribution(one), one.at, one.ends) == one


@pytest.mark.parametrize(
    "text", ["", "low", "-1", "101", "50 exponential", "50 exponential 0", "50 other 60", "5 none 1 2", "٣", "1e1"]
)
def test_what_cannot_be_read_counts_as_the_highest_risk(text: str) -> None:
    assert score([read_contribution(text, NOW, None)], None, NOW) == 100
