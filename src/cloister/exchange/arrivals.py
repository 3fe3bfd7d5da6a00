"""After a start clients may be back before the connectors that serve them. What they ask for then waits for the first of these, for a moment."""

from collections.abc import Callable
from dataclasses import dataclass

from cloister.exchange.links import LiveLink
from cloister.exchange.state import State
from cloister.model.documents import Segment
from cloister.model.messages.from_agent import WantSession

GRACE_SECONDS = 8.0  # less than a client waits for its answer
MAX_WAITING = 500
MAX_OF_CLIENT = 16


@dataclass(frozen=True, slots=True)
class Waiting:
    link: LiveLink
    message: WantSession
    groups: set[str]


class Arrivals:
    """Nothing is decided here: what waited is asked again, so that whatever changed meanwhile counts."""

    def __init__(self, state: State, clock: Callable[[], float]) -> None:
        self._state = state
        self._clock = clock
        self._until = 0.0
        self._expected: set[str] = set()  # connector groups
        self._waiting: dict[tuple[int, int], Waiting] = {}  # by link and ref

    def begin(self) -> None:
        """The exchange has started: each group that has connectors may bring one now."""
        connectors = (agent for agent in self._state.agents.values() if agent.role == "connector" and agent.confirmed)
        self._expected = {agent.connector_group for agent in connectors if agent.connector_group and agent.revoked_at is None}
        self._until = self._clock() + GRACE_SECONDS

    def hold(self, link: LiveLink, message: WantSession, segment: Segment) -> bool:
        """Whether this waits. Beyond the bounds, and for what nobody is expected for, the answer is given at once."""
        if self._clock() >= self._until or len(self._waiting) >= MAX_WAITING:
            return False
        groups = self._state.group_ids(segment) & self._expected
        if not groups or sum(number == link.number for number, _ in self._waiting) >= MAX_OF_CLIENT:
            return False
        self._waiting[link.number, message.ref] = Waiting(link, message, groups)
        return True

    def forget(self, link: LiveLink, ref: int) -> None:
        self._waiting.pop((link.number, ref), None)

    def arrived(self, group: str | None) -> list[Waiting]:
        """The first connector of a group is here: what waited for it."""
        if group not in self._expected:
            return []
        self._expected.discard(group)
        return self._take(lambda waiting: group in waiting.groups)

    def take_overdue(self, now: float) -> list[Waiting]:
        """What has waited in vain."""
        return self._take(lambda _: True) if now >= self._until else []

    def _take(self, fits: Callable[[Waiting], bool]) -> list[Waiting]:
        taken = {key: waiting for key, waiting in self._waiting.items() if fits(waiting)}
        self._waiting = {key: waiting for key, waiting in self._waiting.items() if key not in taken}
        return list(taken.values())
