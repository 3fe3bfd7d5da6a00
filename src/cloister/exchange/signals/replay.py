"""Events that were taken already, per transmitter: bounded, and still nothing is ever taken twice. A machine without I/O.

When there is no room the event that was issued first is forgotten, and from then on nothing counts that was not issued after it.
"""

import hashlib
import heapq
from collections.abc import Iterable
from dataclasses import dataclass, field

from cloister.store.signals import SeenEvent

MAX_SEEN = 20_000


@dataclass(slots=True)
class _Seen:
    issued: dict[str, int] = field(default_factory=dict)
    oldest: list[tuple[int, str]] = field(default_factory=list)  # a heap
    floor: int = -1


class SeenEvents:
    def __init__(self, rows: Iterable[SeenEvent] = (), bound: int = MAX_SEEN) -> None:
        self._bound = bound
        self._of: dict[str, _Seen] = {}
        for row in rows:
            self.add(row)
        for seen in self._of.values():
            if len(seen.issued) >= bound:  # some may have been forgotten before the start
                seen.floor = max(seen.floor, seen.oldest[0][0])

    def knows(self, transmitter: str, id: str) -> bool:
        seen = self._of.get(transmitter)
        return seen is not None and hash_of(id) in seen.issued

    def is_forgotten(self, transmitter: str, issued_at: int) -> bool:
        """Whether it is from a time of which not everything is remembered."""
        seen = self._of.get(transmitter)
        return seen is not None and issued_at <= seen.floor

    def room_for(self, event: SeenEvent) -> list[str]:
        """The ids that are forgotten when this one is added, which may be its own."""
        seen = self._of.get(event.transmitter)
        if seen is None or event.id in seen.issued or len(seen.issued) < self._bound:
            return []
        return [min(seen.oldest[0], (event.issued_at, event.id))[1]]

    def add(self, event: SeenEvent) -> None:
        seen = self._of.setdefault(event.transmitter, _Seen())
        if event.id in seen.issued:
            return
        seen.issued[event.id] = event.issued_at
        heapq.heappush(seen.oldest, (event.issued_at, event.id))
        while len(seen.issued) > self._bound:
            issued_at, id = heapq.heappop(seen.oldest)
            del seen.issued[id]
            seen.floor = max(seen.floor, issued_at)

    def transmitters(self) -> list[str]:
        return list(self._of)

    def keep(self, transmitters: Iterable[str]) -> None:
        """Forget those whose documents are gone."""
        kept = set(transmitters)
        for transmitter in [known for known in self._of if known not in kept]:
            del self._of[transmitter]


def hash_of(id: str) -> str:
    return hashlib.sha256(id.encode()).hexdigest()
