"""When to look at what, and when to report it, as a machine: events in, a report out, no I/O, time passed in (seconds of the exchange's clock)."""

from dataclasses import dataclass, field

from cloister.client.posture.types import GROUPS, Collected, Group
from cloister.model.messages.common import MAX_POSTURE_FACTS
from cloister.model.messages.from_agent import Posture, PostureFact
from cloister.model.posture import UPDATES, Asked, asked_by

EVERY: dict[Group, float] = {"watched": 2.0, "plain": 30.0, "updates": 900.0}
CALM = 5.0  # seconds before what nobody asked for is looked at: short commands need not
REPORTS_PER_AGE = 4  # reports within the shortest age that counts
SHORTEST_INTERVAL = 5.0
LONGEST_INTERVAL = 120.0


@dataclass(slots=True)
class _GroupState:
    collected: Collected = field(default_factory=Collected)
    observed_at: float = 0.0
    next_at: float = 0.0
    is_busy: bool = False
    is_known: bool = False  # collected since it was last asked for anew


class Reporter:
    """The facts of each group are replaced as a whole: what was there and is not now is not reported any more."""

    def __init__(self, now: float) -> None:
        self.asked: Asked = asked_by(())
        self._groups = {group: _GroupState(next_at=now + CALM) for group in GROUPS}
        self._is_up = False
        self._sent: dict[str, str] | None = None
        self._send_again_at = 0.0

    # ------------------------------------------------------------ events

    def on_up(self) -> None:
        """A new link: the exchange is told everything, as soon as there is something."""
        self._is_up, self._sent = True, None

    def on_down(self) -> None:
        self._is_up = False

    def on_asked(self, asked: Asked, now: float) -> None:
        """Look at once at what is asked for now."""
        self.asked = asked
        for group, state in self._groups.items():
            if self._is_wanted(group):
                state.next_at, state.is_known = now, False
            elif group != "plain":
                state.collected, state.is_known = Collected(), False  # nobody asks for it any more
        self._send_again_at = min(self._send_again_at, now + self._interval())

    def due(self, now: float) -> list[Group]:
        """The groups to collect now; each is busy until `on_collected`."""
        found: list[Group] = []
        for group, state in self._groups.items():
            if not state.is_busy and now >= state.next_at and (self._is_wanted(group) or group == "plain"):
                state.is_busy = True
                found.append(group)
        return found

    def on_collected(self, group: Group, asked: Asked, collected: Collected, now: float) -> None:
        """`asked` is what was asked for when it began."""
        state = self._groups[group]
        state.is_busy = False
        state.is_known = asked is self.asked or group == "plain"
        if not state.is_known:
            state.next_at = now  # of what was asked before
            return
        state.collected, state.observed_at, state.next_at = collected, now, now + EVERY[group]

    def report(self, now: float) -> Posture | None:
        """What to send now: everything, if there is news or the last report gets old."""
        if not self._is_up or not self.is_complete:
            return None
        facts = self._facts()
        told = {fact.name: str(fact.value) for fact in facts}
        if not facts or (told == self._sent and now < self._send_again_at):
            return None
        self._sent, self._send_again_at = told, now + self._interval()
        return Posture(facts=facts)

    # ------------------------------------------------------------ state

    @property
    def is_complete(self) -> bool:
        """Whether everything that is asked for has been looked at, but for what takes seconds."""
        return all(state.is_known for group, state in self._groups.items() if group != "updates" and self._is_wanted(group))

    @property
    def unreadable(self) -> dict[str, str]:
        return {name: why for state in self._groups.values() for name, why in state.collected.unreadable.items()}

    def facts(self) -> list[PostureFact]:
        """What would be reported now."""
        return self._facts()

    def _facts(self) -> list[PostureFact]:
        return [
            PostureFact(name=name, value=value, observed_at=int(state.observed_at))
            for state in self._groups.values()
            for name, value in state.collected.facts.items()
        ][:MAX_POSTURE_FACTS]

    def _is_wanted(self, group: Group) -> bool:
        match group:
            case "watched":
                return bool(self.asked.processes or self.asked.files or self.asked.certificates)
            case "plain":
                return bool(self.asked)
            case "updates":
                return UPDATES in self.asked.facts

    def _interval(self) -> float:
        return max(SHORTEST_INTERVAL, min(LONGEST_INTERVAL, self.asked.shortest / REPORTS_PER_AGE))
