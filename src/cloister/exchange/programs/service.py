"""Programs come, prove themselves anew, and go: with what vouched for them, at once."""

import dataclasses
from collections.abc import Callable

from cloister.exchange.administration import Administration
from cloister.exchange.attempts import Attempts, Noting
from cloister.exchange.book import SessionBook
from cloister.exchange.enrol import Enrolment, vouching_fields
from cloister.exchange.errors import Refusal
from cloister.exchange.links import LiveLink
from cloister.exchange.programs.delegations import Delegations
from cloister.exchange.programs.proofs import Proofs
from cloister.exchange.programs.types import Spent
from cloister.exchange.programs.vouching import Marks, is_current, is_vouched
from cloister.exchange.settings import Settings
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.model.messages.from_agent import Delegate, EndDelegation, EnrolByToken, Prove
from cloister.model.messages.from_exchange import Delegated, DelegationEnded, Enrolled, Proved
from cloister.model.reasons import Code
from cloister.store import agents as agent_rows
from cloister.store import programs as program_rows
from cloister.store.service import Change, Store
from cloister.store.types import Actor, Agent, AuditEntry, Presented


class Programs:
    def __init__(
        self,
        settings: Settings,
        state: State,
        book: SessionBook,
        verifier: Verifier,
        enrolment: Enrolment,
        administration: Administration,
        proofs: Proofs,
        delegations: Delegations,
        noting: Noting,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._limits = settings.limits
        self._state = state
        self._book = book
        self._verifier = verifier
        self._enrolment = enrolment
        self._administration = administration
        self._proofs = proofs
        self._delegations = delegations
        self._noting = noting
        self._store = store
        self._writer = writer
        self._clock = clock
        limits = settings.limits
        self._attempts = Attempts(limits.attempts_per_source, limits.attempts_per_source, limits.attempts_in_all)
        delegations.on_ended = self.end_stale
        administration.on_agents_ended = self.end_stale

    # ------------------------------------------------------------ come

    async def enrol(self, request: EnrolByToken, source: str) -> Enrolled:
        """Role, principal and group come from the proofs; the request adds a public key and a host name for people (case 23)."""
        if not self._attempts.allows(source, source, self._clock()):
            raise Refusal(Code.TOO_MANY_ATTEMPTS)
        self._enrolment.check_room()
        key = self._enrolment.read_key(request.csr)
        try:
            vouched = await self._proofs.vouch(request.token, request.subject_token)
        except Refusal:
            self._attempts.failed(source, source, self._clock())
            raise
        enrolled = await self._enrolment.by_program(
            vouched, key, request.hostname, source, lambda change, thumbprint: self._spend(change, vouched.spent, thumbprint)
        )
        self._check_again(enrolled.agent)
        return enrolled

    async def prove(self, link: LiveLink, request: Prove) -> Proved:
        """The same program, for the same person, vouched for anew. Anything else changes nothing, and is in the audit."""
        try:
            return await self._prove(link, request)
        except Refusal as refusal:
            detail = self._noting.detail(link.source, self._clock())
            if detail is not None:
                actor = Actor(f"agent:{link.agent}", link.source)
                entry = AuditEntry(int(self._clock()), actor, "agent.prove", "", detail, refusal.code)
                await self._writer.run(lambda: self._store.record(entry))
            raise

    async def _prove(self, link: LiveLink, request: Prove) -> Proved:
        agent = self._state.agents[link.agent]
        if agent.vouched_by is None:
            raise Refusal(Code.MESSAGE_UNEXPECTED, "this agent was not enrolled by a token")
        known = None
        if agent.delegation is not None and agent.actor is not None:
            known = self._delegations.lend(agent.delegation, agent.actor)
        vouched = await self._proofs.vouch(request.token, request.subject_token, known=known)
        agent = self._state.agents[link.agent]
        if agent.revoked_at is not None or _who(agent) != (vouched.role, vouched.principal, vouched.actor, vouched.group):
            raise Refusal(Code.PROOF_ENDED, "the token speaks of another program than this one")
        is_older = agent.vouched_until is not None and vouched.until < agent.vouched_until
        until = agent.vouched_until if is_older and agent.vouched_mark == vouched.mark else vouched.until
        fields = vouching_fields(vouched) | {"vouched_until": until}
        renewed = dataclasses.replace(agent, **fields)
        entry = AuditEntry(int(self._clock()), Actor(vouched.name, link.source), "agent.prove", agent.id)

        def work() -> None:
            with self._store.change(entry) as change:
                self._spend(change, vouched.spent, agent.key_thumbprint)
                agent_rows.set_vouched(change.connection, renewed)

        await self._writer.run(work)
        self._state.agents[agent.id] = dataclasses.replace(self._state.agents[agent.id], **fields)
        self._check_again(agent.id)
        self._verifier.check(self._book.of_client(agent.id), Code.POLICY_CHANGED)
        return Proved(until=renewed.vouched_until or 0)

    def _check_again(self, id: str) -> None:
        """Documents may have changed while the proof was being written down: the sweep did not know it yet."""
        agent = self._state.agents[id]
        if agent.revoked_at is None and is_current(self._state, agent, self._clock()) and is_vouched(self._state, agent, {}):
            return
        self._administration.end_programs([agent], Code.PROOF_ENDED)
        raise Refusal(Code.PROOF_ENDED)

    def _spend(self, change: Change, spent: tuple[Spent, ...], thumbprint: str) -> None:
        """A token is bound to the first key that it is presented for. Raised inside the change, which then never was."""
        if program_rows.count_presented(change.connection) + len(spent) > self._limits.presented_tokens:
            raise Refusal(Code.LIMIT_REACHED)
        for token in spent:
            if not program_rows.present(change, Presented(token.id, thumbprint, token.expires_at)):
                raise Refusal(Code.TOKEN_REPLAYED)

    # ------------------------------------------------------------ lend

    async def delegate(self, link: LiveLink, request: Delegate) -> Delegated:
        made, text = await self._delegations.make(self._state.agents[link.agent], request.workload, request.seconds, link.source)
        return Delegated(ref=request.ref, id=made.id, delegation=text, expires=made.expires_at)

    async def end_delegation(self, link: LiveLink, request: EndDelegation) -> DelegationEnded:
        await self._delegations.end_own(self._state.agents[link.agent], request.id, link.source)
        return DelegationEnded(ref=request.ref, id=request.id)

    # ------------------------------------------------------------ go

    def left(self, agent: Agent) -> None:
        """A program that says goodbye will not come back: its next start enrols anew. Connectors come back."""
        if agent.vouched_by is not None and agent.role == "client" and agent.revoked_at is None:
            self._administration.end_programs([agent], Code.STOPPED)

    def end_stale(self) -> None:
        """Time and people's word; often, so it looks at little."""
        now = self._clock()
        gone = [agent for agent in self._living() if not is_current(self._state, agent, now)]
        self._administration.end_programs(gone, Code.PROOF_ENDED)

    def end_unvouched(self) -> None:
        """After documents changed, and at the start."""
        marks: Marks = {}
        now = self._clock()
        gone = [
            agent
            for agent in self._living()
            if not is_current(self._state, agent, now) or not is_vouched(self._state, agent, marks)
        ]
        self._administration.end_programs(gone, Code.PROOF_ENDED)

    def _living(self) -> list[Agent]:
        return [agent for agent in self._state.agents.values() if agent.vouched_by is not None and agent.revoked_at is None]


def _who(agent: Agent) -> tuple[str, str | None, str | None, str | None]:
    return agent.role, agent.principal, agent.actor, agent.connector_group
