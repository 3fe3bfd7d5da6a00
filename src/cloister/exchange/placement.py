"""Which connectors serve a session, best first. Pure."""

from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass

from cloister.model.reasons import Code

MAX_CONNECTORS = 3  # named by one ticket
STICKY_SLACK = 64  # sessions more than the least loaded that a connector may have and still keep its client


@dataclass(frozen=True, slots=True)
class Candidate:
    """A connector whose link is up and whose group serves the segment; `healthy` is what it last said of the segment, None if nothing yet."""

    id: str
    healthy: bool | None = None
    draining: bool = False
    sessions: int = 0
    rtt_us: int = 0


@dataclass(frozen=True, slots=True)
class Nowhere:
    """No connector can serve it; `unhealthy` if there are some and all say that the service is down."""

    unhealthy: bool

    @property
    def code(self) -> Code:
        return Code.SEGMENT_UNHEALTHY if self.unhealthy else Code.NO_CONNECTOR


def place(candidates: Iterable[Candidate], sticky: Collection[str] = ()) -> Sequence[str] | Nowhere:
    """Up to three connectors, best first. `sticky` are those that the client has tunnels to: kept while healthy and not overloaded."""
    every = list(candidates)
    usable = [candidate for candidate in every if candidate.healthy is not False]
    if not usable:
        return Nowhere(unhealthy=bool(every))
    least = min(candidate.sessions for candidate in usable)

    def cost(candidate: Candidate) -> tuple[bool, bool, bool, int, int, str]:
        kept = candidate.id in sticky and candidate.sessions <= least + STICKY_SLACK
        return candidate.draining, candidate.healthy is None, not kept, candidate.sessions, candidate.rtt_us, candidate.id

    return [candidate.id for candidate in sorted(usable, key=cost)[:MAX_CONNECTORS]]
