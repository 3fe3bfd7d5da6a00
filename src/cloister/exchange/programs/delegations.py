"""A person's word that a program may act for them for a while: made over the person's own link, stored as a hash, revocable at once."""

import dataclasses
import re
import secrets
from collections.abc import Callable

from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.programs.types import Lent
from cloister.exchange.settings import Settings
from cloister.exchange.state import State
from cloister.model.reasons import Code
from cloister.store import programs as program_rows
from cloister.store.types import Actor, Agent, Delegation
from cloister.trust.passwords import hash_secret, make_secret, secret_fits

PREFIX = "cloister-delegation-1."
_FORM = re.compile(r"cloister-delegation-1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})", re.ASCII)


def is_delegation(text: str) -> bool:
    return text.startswith(PREFIX)


def is_standing(state: State, id: str, now: float) -> bool:
    """Whether a delegation still says something: not ended, and made over a client that is still served (case 96)."""
    delegation = state.delegations.get(id)
    if delegation is None or delegation.revoked_at is not None or delegation.expires_at <= now:
        return False
    agent = state.agents.get(delegation.agent)
    return agent is not None and agent.revoked_at is None and agent.confirmed and agent.principal == delegation.user


class Delegations:
    """`on_ended` is told after each revocation, so that what stood on it ends at once."""

    def __init__(self, settings: Settings, state: State, changes: Changes, clock: Callable[[], float]) -> None:
        self._limits = settings.limits
        self._state = state
        self._changes = changes
        self._clock = clock
        self.on_ended: Callable[[], None] = lambda: None

    async def make(self, agent: Agent, workload: str, seconds: int, source: str) -> tuple[Delegation, str]:
        """For a person in person: a program that acts for somebody lends nothing. The text is shown this once."""
        user = self._state.documents.get(agent.principal or "")
        if user is None or user.kind != "user" or agent.actor is not None:
            raise Refusal(Code.NOT_AUTHORISED, "only a person who is signed in lends access", "run `cloister login` first")
        if not 60 <= seconds <= self._limits.delegation_seconds:
            raise Refusal(Code.ARGUMENT_INVALID, f"a delegation lasts `60` to `{self._limits.delegation_seconds}` seconds")
        document = self._state.find("workload", workload)
        if document is None:
            raise Refusal(Code.REFERENCE_UNKNOWN, f"there is no workload `{workload}`", "ask your administrator for its name")
        now = int(self._clock())
        secret = make_secret()
        made = Delegation(secrets.token_hex(8), hash_secret(secret), user.id, document.id, agent.id, now, now + seconds)
        entry = self._changes.entry(Actor(f"user:{user.name}", source), "delegation.create", f"{made.id} to {workload}")
        forgotten: list[str] = []
        await self._changes.commit(
            entry,
            lambda change: program_rows.add_delegation(change, made, forgotten),
            lambda: forgotten.extend(self._making_room(user.id, now)),
        )
        for id in forgotten:
            self._state.delegations.pop(id, None)
        self._state.delegations[made.id] = made
        return made, f"{PREFIX}{made.id}.{secret}"

    def _making_room(self, user: str, now: int) -> list[str]:
        """Which of a person's ended delegations are forgotten for a new one: as many are kept as may stand. Raises Refusal if too many stand."""
        mine = [each for each in self._state.delegations.values() if each.user == user]
        standing = {each.id for each in mine if each.revoked_at is None and each.expires_at > now}
        most = self._limits.delegations_per_user
        if len(standing) >= most:
            message = f"there are `{len(standing)}` delegations already"
            raise Refusal(Code.LIMIT_REACHED, message, "end one with `cloister delegate --end ID`")
        over = sorted((each for each in mine if each.id not in standing), key=lambda each: (each.created_at, each.id))
        return [each.id for each in over[: max(0, len(over) - most)]]

    async def end_own(self, agent: Agent, id: str, source: str) -> None:
        """A person's own; those of others do not exist for them."""
        delegation = self._state.delegations.get(id)
        if delegation is None or delegation.user != agent.principal or agent.actor is not None:
            raise not_found("delegation", id)
        await self.revoke(Actor(f"user:{self._state.name_of(delegation.user)}", source), id)

    async def revoke(self, actor: Actor, id: str) -> None:
        if id not in self._state.delegations:
            raise not_found("delegation", id)
        now = int(self._clock())
        if self._state.delegations[id].revoked_at is None:
            entry = self._changes.entry(actor, "delegation.revoke", id)
            await self._changes.commit(entry, lambda change: program_rows.revoke_delegation(change, id, now))
            self._state.delegations[id] = dataclasses.replace(self._state.delegations[id], revoked_at=now)
        self.on_ended()

    def find(self, text: str, workload: str) -> Lent:
        """What a delegation lends to this program. Unknown, ended and another program's answer alike."""
        found = _FORM.fullmatch(text)
        delegation = None if found is None else self._state.delegations.get(found[1])
        if found is None or delegation is None or not secret_fits(delegation.secret_hash, found[2]):
            raise Refusal(Code.DELEGATION_INVALID)
        return self.lend(delegation.id, workload)

    def lend(self, id: str, workload: str) -> Lent:
        delegation = self._state.delegations.get(id)
        if delegation is None or delegation.workload != workload or not is_standing(self._state, id, self._clock()):
            raise Refusal(Code.DELEGATION_INVALID)
        if not self._state.is_active_principal(delegation.user):
            raise Refusal(Code.USER_DISABLED)
        agent = self._state.agents[delegation.agent]
        return Lent(
            user=delegation.user,
            until=delegation.expires_at,
            delegation=delegation.id,
            signed_in_at=agent.signed_in_at,
            strength=agent.sign_in_strength,
            sign_in_issuer=agent.sign_in_issuer,
            sign_in_vouched_at=agent.sign_in_vouched_at,
        )
