"""The same person signs in again for a client that is signed in already. Who completes it must be that very person, and it must bring what was asked."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal
from cloister.exchange.signin.rules import merged
from cloister.exchange.signin.types import Provider
from cloister.exchange.state import State
from cloister.identity.oidc.request import Wish
from cloister.identity.people import Person, values_for
from cloister.model.documents import Strength
from cloister.model.facts import STRENGTHS
from cloister.model.messages.from_exchange import SignedIn
from cloister.model.reasons import Code
from cloister.store import agents as agent_rows
from cloister.store.types import Actor, Agent

Put = Callable[[Agent], None]
Needed = Callable[[Agent], Strength]


class StepUps:
    """`needed` says how strong a sign-in would answer what the client asked; `put` puts a changed agent in force."""

    def __init__(self, state: State, changes: Changes, needed: Needed, put: Put, clock: Callable[[], float]) -> None:
        self._state = state
        self._changes = changes
        self._needed = needed
        self._put = put
        self._clock = clock
        self._going_on: set[str] = set()

    @contextmanager
    def begin(self, agent: Agent) -> Iterator[Strength]:
        """How strong it must be. One at a time for a client."""
        if agent.id in self._going_on:
            raise Refusal(Code.CONFLICT, "a sign-in of this client is going on already", "finish it in the browser")
        self._going_on.add(agent.id)
        try:
            needed, held = self._needed(agent), agent.sign_in_strength
            yield needed if STRENGTHS[needed] >= STRENGTHS[held] else held
        finally:
            self._going_on.discard(agent.id)

    def wish(self, provider: Provider, wanted: Strength) -> Wish:
        """Right now, and as strong as wanted where the provider can be asked for that."""
        return Wish(values_for(provider.document, wanted), 0)

    async def finish(
        self, id: str, provider: Provider, person: Person, user: str | None, wanted: Strength, ref: int, source: str
    ) -> SignedIn:
        agent = self._served(id)
        actor = Actor(f"user:{self._state.name_of(agent.principal)}", source)
        if user is None or user != agent.principal or provider.name != agent.sign_in_issuer:
            raise Refusal(Code.SIGN_IN_MISMATCH, "another person signed in than the one that this device is signed in for")
        if STRENGTHS[person.strength] < STRENGTHS[wanted]:
            raise Refusal(
                Code.STEP_UP_REQUIRED,
                f"that was a sign-in of strength `{person.strength}`, and `{wanted}` is needed",
                "use a second factor or a security key at the provider",
            )
        now, lasts = int(self._clock()), provider.document.strength_lasts
        changed = merged(agent, person, lasts, now)
        detail = {"strength": person.strength, "provider": provider.name}
        entry = self._changes.entry(actor, "agent.step_up", id, detail)
        await self._changes.commit(entry, lambda change: agent_rows.set_sign_in(change, changed), lambda: self._served(id))
        changed = merged(self._served(id), person, lasts, now)  # read again: whatever else was said of it meanwhile stands
        self._put(changed)
        return SignedIn(ref=ref, at=changed.signed_in_at or 0, strength=changed.sign_in_strength)

    def _served(self, id: str) -> Agent:
        agent = self._state.agents.get(id)
        if agent is None or agent.revoked_at is not None or not self._state.is_active_principal(agent.principal):
            raise Refusal(Code.AGENT_REVOKED)
        return agent
