"""The attempts that are going on: bounded, found by id or by the state that a provider gives back."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from cloister.exchange.attempts import group_of
from cloister.exchange.errors import Refusal
from cloister.exchange.signin.machine import Attempt, digest
from cloister.exchange.signin.types import Provider
from cloister.identity.people import Person
from cloister.model.reasons import Code

MAX_ATTEMPTS = 4_096
MAX_PER_SOURCE = 64
CODE_LETTERS = "BCDFGHJKLMNPQRSTVWXZ"  # RFC 8628 §6.1: no vowels, nothing that reads as another

Finish = Callable[[Provider, Person], Awaitable[None]]


@dataclass(slots=True, eq=False)
class Pending:
    """An attempt, who waits for it, and what happens when it succeeds. `finish` raises `Refusal` if this person may not."""

    attempt: Attempt
    purpose: str
    finish: Finish
    is_awaited: Callable[[], bool]
    fail: Callable[[Refusal], None]
    states: set[str] = field(default_factory=set)


class PendingAttempts:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._by_id: dict[str, Pending] = {}
        self._by_state: dict[str, Pending] = {}

    def __len__(self) -> int:
        return len(self._by_id)

    def make_attempt(self, device: str, source: str, only: str) -> Attempt:
        """A new attempt with its own code. Raises Refusal beyond the bounds."""
        self.tidy()
        group = group_of(source)
        of_source = sum(group_of(pending.attempt.source) == group for pending in self._by_id.values())
        if len(self._by_id) >= MAX_ATTEMPTS or of_source >= MAX_PER_SOURCE:
            raise Refusal(Code.TOO_MANY_ATTEMPTS)
        letters = "".join(secrets.choice(CODE_LETTERS) for _ in range(8))
        return Attempt(secrets.token_urlsafe(24), f"{letters[:4]}-{letters[4:]}", device, source, self._clock(), only)

    def add(self, pending: Pending) -> None:
        self._by_id[pending.attempt.id] = pending

    def get(self, id: str) -> Pending | None:
        """An attempt that is still going on and that somebody waits for."""
        pending = self._by_id.get(id)
        if pending is None or pending.attempt.is_over(self._clock()) or not pending.is_awaited():
            return None
        return pending

    def remember_state(self, pending: Pending, state: str) -> None:
        """The one state by which this attempt can be found from now on."""
        self._forget_states(pending)
        key = digest(state)
        pending.states = {key}
        self._by_state[key] = pending

    def has_state(self, state: str) -> bool:
        pending = self._by_state.get(digest(state))
        return pending is not None and self.get(pending.attempt.id) is not None

    def take_state(self, state: str) -> Pending | None:
        """The attempt of this state. A state is found once (case 4)."""
        pending = self._by_state.pop(digest(state), None)
        return None if pending is None else self.get(pending.attempt.id)

    def drop(self, pending: Pending) -> None:
        self._by_id.pop(pending.attempt.id, None)
        self._forget_states(pending)

    def tidy(self) -> None:
        now = self._clock()
        for pending in list(self._by_id.values()):
            if pending.attempt.is_over(now) or not pending.is_awaited():
                self.drop(pending)
                pending.fail(Refusal(Code.SIGN_IN_EXPIRED))

    def end_all(self, refusal: Refusal) -> None:
        for pending in list(self._by_id.values()):
            self.drop(pending)
            pending.fail(refusal)

    def _forget_states(self, pending: Pending) -> None:
        for key in pending.states:
            self._by_state.pop(key, None)
