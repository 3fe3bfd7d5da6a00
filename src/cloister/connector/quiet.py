"""Which sessions carry no byte for too long. Pure: time and counters are passed in."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(slots=True)
class _Watched:
    limit: int
    total: int
    since: float  # when the total last changed


class QuietWatch:
    def __init__(self) -> None:
        self._watched: dict[str, _Watched] = {}
        self._told: frozenset[str] = frozenset()

    @property
    def interval(self) -> float | None:
        """Seconds between two looks; None if nothing is watched."""
        if not self._watched:
            return None
        return min(15.0, max(1.0, min(watched.limit for watched in self._watched.values()) / 30))

    def watch(self, limits: Mapping[str, int], now: float) -> None:
        """Replace what is watched (session → seconds); what is watched already keeps its past."""
        known = self._watched
        self._watched = {}
        for session, limit in limits.items():
            watched = known.get(session) or _Watched(limit, 0, now)
            watched.limit = limit
            self._watched[session] = watched

    def look(self, totals: Mapping[str, int], now: float) -> frozenset[str] | None:
        """Take the bytes of each session so far (a session that is missing has moved none since). The sessions that are quiet, or None if they are
        those of the last answer.
        """
        for session, watched in self._watched.items():
            total = totals.get(session, watched.total)
            if total != watched.total:
                watched.total, watched.since = total, now
        quiet = frozenset(session for session, watched in self._watched.items() if now - watched.since >= watched.limit)
        if quiet == self._told:
            return None
        self._told = quiet
        return quiet

    def forget_what_was_told(self) -> None:
        """A new link: the other side knows nothing."""
        self._told = frozenset()
