"""Durations: written `30s`, `15m`, `8h` or `7d`; kept as whole seconds."""

import re

_UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
_DURATION = re.compile(r"([0-9]{1,9})([smhd])")


class DurationError(ValueError):
    """The value is no duration; the message says what to write."""


def parse_duration(value: object) -> int:
    """Seconds from `15m` (text) or from a number of seconds that was parsed before."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _DURATION.fullmatch(value) if isinstance(value, str) else None
    if not match:
        raise DurationError(f"`{str(value)[:40]}` is no duration: write a number and a unit, such as `30s`, `15m`, `8h` or `7d`")
    return int(match[1]) * _UNITS[match[2]]


def print_duration(seconds: int) -> str:
    for unit in ("d", "h", "m"):
        if seconds and seconds % _UNITS[unit] == 0:
            return f"{seconds // _UNITS[unit]}{unit}"
    return f"{seconds}s"
