"""Sign-ins that providers have ended of late: one that was on its way meanwhile lets nobody in. A machine without I/O."""

from cloister.exchange.signin.machine import LIFE_SECONDS
from cloister.identity.oidc.logout import Logout
from cloister.identity.people import Person

KEEP_SECONDS = 2 * LIFE_SECONDS  # an attempt, and then the terminal that waits for it


class EndedSignIns:
    """By issuer, subject and session. None outlives the process, as no attempt does."""

    def __init__(self) -> None:
        self._ended: dict[tuple[str, str, str | None], tuple[int, float]] = {}

    def add(self, issuer: str, logout: Logout, now: float) -> None:
        self._ended = {key: entry for key, entry in self._ended.items() if entry[1] > now}
        self._ended[issuer, logout.subject, logout.session] = (logout.at, now + KEEP_SECONDS)

    def holds(self, person: Person) -> bool:
        """Whether this sign-in was ended: its session, or all of this person that the provider had vouched for by then."""
        subjects = (person.subject, "")
        if person.session is not None and any((person.issuer, subject, person.session) in self._ended for subject in subjects):
            return True
        at, _ = self._ended.get((person.issuer, person.subject, None), (-1, 0.0))
        return (person.vouched_at or person.at) <= at
