"""Calendar arithmetic over Unix seconds and the IANA time zone database (RFC 6557); no clock is read here."""

import calendar
import functools
import zoneinfo
from datetime import UTC, date, datetime, timedelta

from cloister.model.documents import Conditions, Hours

DAYS = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")
RAW_CLOCK_HORIZON = 60  # seconds: how long a decision stands whose raw expression may read the clock
_DAY = 86400
_FIRST_WEEKDAY = 3  # 1970-01-01 was a Thursday


def day_and_minute(now: int, zone: str = "UTC") -> tuple[str, int]:
    """Weekday and minute of the day on the wall clocks of a zone."""
    if zone == "UTC":
        days, seconds = divmod(now, _DAY)
        return DAYS[(days + _FIRST_WEEKDAY) % 7], seconds // 60
    local = datetime.fromtimestamp(now, zone_of(zone))
    return DAYS[local.weekday()], local.hour * 60 + local.minute


@functools.lru_cache(maxsize=1024)
def zone_of(name: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(name)


def minute_of(time: str) -> int:
    """`09:30` as minutes since midnight."""
    return int(time[:2]) * 60 + int(time[3:])


@functools.lru_cache(maxsize=4096)
def seconds_of(instant: str) -> int:
    """`2026-12-31T18:00:00Z` as Unix seconds."""
    return calendar.timegm(datetime.strptime(instant, "%Y-%m-%dT%H:%M:%S%z").utctimetuple())


def next_change(conditions: Conditions, signed_in_at: int | None, now: int) -> int | None:
    """The first second after `now` at which a structured condition may change by the clock alone."""
    moments: list[int] = []
    if conditions.signed_in_within is not None and signed_in_at is not None:
        moments.append(signed_in_at + conditions.signed_in_within + 1)
    if conditions.hours is not None:
        moments.extend(_boundaries(conditions.hours, now))
    moments.extend(seconds_of(instant) for instant in (conditions.after, conditions.before) if instant is not None)
    return min((moment for moment in moments if moment > now), default=None)


def _boundaries(hours: Hours, now: int) -> tuple[int, ...]:
    """Opening, closing and midnight, when another day of the week begins, of today and tomorrow; and the whole hours of a day on which clocks change."""
    today = datetime.fromtimestamp(now, zone_of(hours.zone)).date()
    moments, changes_clocks = _boundaries_on(today, hours.start, hours.until, hours.zone)
    if changes_clocks:
        return *moments, now - now % 900 + 900  # offsets change at quarters of an hour
    return moments


@functools.lru_cache(maxsize=4096)
def _boundaries_on(today: date, start: str, until: str, zone_name: str) -> tuple[tuple[int, ...], bool]:
    """The same for every moment of a day, besides whether clocks change on it."""
    zone = zone_of(zone_name)
    times = (0, minute_of(start), minute_of(until))
    days = (today, today + timedelta(days=1))
    moments = tuple(moment for day in days for minute in times for moment in _instants(day, minute, zone))
    return moments, _changes_clocks(today, zone)


def _instants(day: date, minute: int, zone: zoneinfo.ZoneInfo) -> list[int]:
    """When the wall clock shows this: once, or twice where an hour is repeated. A time that is skipped is taken as by either offset."""
    local = datetime(day.year, day.month, day.day, minute // 60, minute % 60, tzinfo=zone)
    return [int(local.replace(fold=fold).timestamp()) for fold in (0, 1)]


def _changes_clocks(day: date, zone: zoneinfo.ZoneInfo) -> bool:
    start = datetime(day.year, day.month, day.day, tzinfo=UTC)
    return (start - timedelta(days=1)).astimezone(zone).utcoffset() != (start + timedelta(days=2)).astimezone(zone).utcoffset()
