"""Time windows on the wall clocks of zones, with days that skip an hour and days that have one twice."""

from datetime import UTC, datetime

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy.test_decide import policy_of, rule, verdict
from tests.unit.strategies import hours

from cloister.model.documents import Conditions, Hours
from cloister.model.reasons import Code
from cloister.policy.clock import day_and_minute, next_change

ALLOW, DENY = ("allow", Code.OK), ("deny", Code.CONDITION_FAILED)


def at(text: str) -> int:
    return int(datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp())


@pytest.mark.parametrize(
    ("window", "utc", "expected"),
    [
        # Berlin is an hour ahead of UTC in winter and two in summer.
        ('{from: "09:00", until: "17:00", zone: Europe/Berlin}', "2026-01-15T08:00:00", ALLOW),
        ('{from: "09:00", until: "17:00", zone: Europe/Berlin}', "2026-01-15T07:59:59", DENY),
        ('{from: "09:00", until: "17:00", zone: Europe/Berlin}', "2026-07-15T07:00:00", ALLOW),
        ('{from: "09:00", until: "17:00", zone: Europe/Berlin}', "2026-07-15T15:00:00", DENY),
        # 2026-03-29: 02:00 becomes 03:00. A window inside the hour that is skipped does not open; one around it is an hour shorter.
        ('{from: "02:15", until: "02:45", zone: Europe/Berlin}', "2026-03-29T01:15:00", DENY),
        ('{from: "01:30", until: "03:30", zone: Europe/Berlin}', "2026-03-29T00:59:59", ALLOW),
        ('{from: "01:30", until: "03:30", zone: Europe/Berlin}', "2026-03-29T01:29:59", ALLOW),
        ('{from: "01:30", until: "03:30", zone: Europe/Berlin}', "2026-03-29T01:30:00", DENY),
        # 2026-10-25: 03:00 becomes 02:00. The window inside the repeated hour is open twice.
        ('{from: "02:15", until: "02:45", zone: Europe/Berlin}', "2026-10-25T00:30:00", ALLOW),
        ('{from: "02:15", until: "02:45", zone: Europe/Berlin}', "2026-10-25T00:50:00", DENY),
        ('{from: "02:15", until: "02:45", zone: Europe/Berlin}', "2026-10-25T01:30:00", ALLOW),
        # The weekday is that of the zone, and a window over midnight belongs to the day it began on.
        ('{from: "00:00", until: "06:00", days: [mon], zone: Asia/Tokyo}', "2026-03-01T16:00:00", ALLOW),
        ('{from: "22:00", until: "06:00", days: [sun], zone: Asia/Tokyo}', "2026-03-01T16:00:00", ALLOW),
        ('{from: "22:00", until: "06:00", days: [mon], zone: Asia/Tokyo}', "2026-03-01T16:00:00", DENY),
    ],
)
def test_a_window_is_read_off_the_clocks_of_its_zone(window: str, utc: str, expected: tuple[str, Code]) -> None:
    assert verdict(policy_of(rule("permit", f"{{hours: {window}}}")), now=at(utc)) == expected


def is_open(window: Hours, now: int) -> bool:
    """The rule read aloud."""
    day, minute = day_and_minute(now, window.zone)
    days = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
    first, last = (int(time[:2]) * 60 + int(time[3:]) for time in (window.start, window.until))
    if first < last:
        return day in window.days and first <= minute < last
    yesterday = days[(days.index(day) - 1) % 7]
    return (day in window.days and minute >= first) or (yesterday in window.days and minute < last)


CHANGES_OF_CLOCKS = (
    "2026-03-08T00:00:00",
    "2026-03-29T00:00:00",
    "2026-04-04T10:00:00",
    "2026-10-03T10:00:00",
    "2026-10-25T00:00:00",
)


@settings(max_examples=300)
@given(hours, st.sampled_from(CHANGES_OF_CLOCKS), st.integers(0, 30 * 3600))
def test_nothing_changes_before_the_next_change_that_is_told(window: Hours, start: str, offset: int) -> None:
    now = at(start) + offset
    following = next_change(Conditions(hours=window), None, now)
    assert following is not None
    assert now < following <= now + 2 * 86400
    state = is_open(window, now)
    steps = range(now - now % 60 + 60, following, 60)
    assert all(is_open(window, moment) == state for moment in steps)


def test_a_zone_that_does_not_exist_is_refused() -> None:
    for zone in ("Europe/Atlantis", "../etc/passwd", "", "localtime\n"):
        with pytest.raises(ValueError, match="zone"):
            Hours(start="08:00", until="09:00", zone=zone)
    Hours(start="08:00", until="09:00", zone="Europe/Berlin")  # negative control
