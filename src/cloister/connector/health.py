"""Which segments to probe when, and what to report. Pure: time and chance are passed in."""

from collections.abc import Iterable
from dataclasses import dataclass
from random import Random

from cloister.model.messages.common import Assignment, HealthCheck, SegmentHealth

MAX_RUNNING = 16  # probes at once
JITTER = 0.1  # of the interval, either way
FIRST_WITHIN = 1.0  # seconds after the assignment
RECHECK_AFTER = 1.0  # seconds after a first failure: one lost packet is no outage
FAILURES = 2  # in a row make a segment unhealthy
LOST_AFTER = 10.0  # seconds beyond its time limit after which a probe counts as failed


@dataclass(slots=True)
class _Checked:
    check: HealthCheck
    due: float
    started: float | None = None
    failures: int = 0
    known: SegmentHealth | None = None


class HealthSchedule:
    def __init__(self, random: Random) -> None:
        self._random = random
        self._segments: dict[str, _Checked] = {}

    def assign(self, segments: Iterable[Assignment], now: float) -> None:
        """Replace what is checked; what is known of a segment whose check stays the same stays known."""
        previous = self._segments
        self._segments = {}
        for segment in segments:
            if segment.health is None:
                continue
            kept = previous.get(segment.id)
            if kept is None or kept.check != segment.health:
                kept = _Checked(segment.health, now + FIRST_WITHIN * self._random.random())
            self._segments[segment.id] = kept

    def start_due(self, now: float) -> list[str]:
        """Segments to probe now; they count as running until `finish`."""
        for segment, checked in self._segments.items():
            if checked.started is not None and now > checked.started + checked.check.timeout + LOST_AFTER:
                self.finish(segment, SegmentHealth(segment=segment, healthy=False, code="dial_timeout"), now)
        room = MAX_RUNNING - sum(1 for checked in self._segments.values() if checked.started is not None)
        waiting = sorted((c.due, s) for s, c in self._segments.items() if c.started is None and c.due <= now)
        starting = [segment for _, segment in waiting[:room]]
        for segment in starting:
            self._segments[segment].started = now
        return starting

    def finish(self, segment: str, result: SegmentHealth, now: float) -> bool:
        """Take a probe's answer; True if what is to be reported changed."""
        checked = self._segments.get(segment)
        if checked is None:
            return False  # no longer assigned
        checked.started = None
        checked.failures = 0 if result.healthy else checked.failures + 1
        is_first_failure = not result.healthy and checked.failures < FAILURES
        interval = min(RECHECK_AFTER, checked.check.interval) if is_first_failure else float(checked.check.interval)
        checked.due = now + interval * (1 + JITTER * (2 * self._random.random() - 1))
        if is_first_failure and checked.known is not None and checked.known.healthy:
            return False
        changed = checked.known is None or (checked.known.healthy, checked.known.code) != (result.healthy, result.code)
        checked.known = result
        return changed

    def next_due(self) -> float | None:
        """When to call `start_due` again, or None if nothing is to be checked."""
        times = [c.due if c.started is None else c.started + c.check.timeout + LOST_AFTER + JITTER for c in self._segments.values()]
        return min(times, default=None)

    def report(self) -> list[SegmentHealth]:
        """All that is known, whole set."""
        return [checked.known for checked in self._segments.values() if checked.known is not None]
