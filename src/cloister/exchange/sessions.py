"""Sessions: asked for, granted, renewed while in use, ended when nothing allows them any more."""

import dataclasses
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from cloister.exchange.arrivals import Arrivals, Waiting
from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.directory import Directory
from cloister.exchange.facts import facts_of, switched_off_because
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.persist import SessionWriter
from cloister.exchange.placement import Nowhere, place
from cloister.exchange.relays import RelaySet
from cloister.exchange.revoke import Revoker
from cloister.exchange.settings import Settings
from cloister.exchange.state import Generations, State
from cloister.model.decision import Decision
from cloister.model.documents import Protocol, Segment, Strength
from cloister.model.facts import STRENGTHS, Destination, Facts, Principal, SignIn
from cloister.model.hosts import Host, HostError, parse_host
from cloister.model.ids import SegmentId
from cloister.model.messages.from_agent import Explain, Idle, WantSession
from cloister.model.messages.from_exchange import Explained, Refused, Session
from cloister.model.overlap import patterns_of
from cloister.model.reasons import PENDING_SECONDS, REASONS, Code
from cloister.policy.decide import decide
from cloister.policy.explain import explain
from cloister.store.types import Agent
from cloister.telemetry.decisions import DecisionLog, Outcome
from cloister.trust.types import TicketClaims

DUE_PER_TURN = 100  # sessions that the clock has looked at between two turns of the loop
RETRY_SECONDS = 2.0  # a session that could not be renewed is looked at again
QUESTIONS_PER_CLIENT = 64
QUESTIONS_AT_ONCE = 64  # that are decided again at every change; more of them
QUESTION_SECONDS = 0.0005  # apart for each, so that whoever asks much and changes much takes no more than a part of the loop
EXPLAINED_TO_LINK = 100  # answers in ten seconds that say to one client what failed; beyond, the reason alone
EXPLAINED = 100  # sessions ended within a second that are each told what failed; beyond, the reason alone


@dataclass(frozen=True, slots=True)
class _Question:
    """What a client asked and may still get: it was refused, but the person can do something about it."""

    link: LiveLink
    message: WantSession
    until: float
    code: Code


class Sessions:
    def __init__(
        self,
        settings: Settings,
        state: State,
        book: SessionBook,
        switchboard: Switchboard,
        directory: Directory,
        relays: RelaySet,
        revoker: Revoker,
        generations: Generations,
        writer: SessionWriter,
        log: DecisionLog,
        clock: Callable[[], float],
    ) -> None:
        self._settings = settings
        self._state = state
        self._book = book
        self._switchboard = switchboard
        self._directory = directory
        self._relays = relays
        self._revoker = revoker
        self._generations = generations
        self._writer = writer
        self._log = log
        self._clock = clock
        self.on_limit: Callable[[LiveSession], None] = lambda _: None
        self.arrivals = Arrivals(state, clock)
        self._questions: dict[tuple[int, int], _Question] = {}  # by link and ref
        self._answered_at, self._owes_answers = 0.0, False
        self._explained, self._explained_at = 0, 0  # how many in which second

    # ------------------------------------------------------------ from clients

    def want(self, link: LiveLink, message: WantSession) -> None:
        """Decide; answer with a session or with the reason. What is not visible answers like what does not exist. A question that a stronger
        sign-in or an approval would answer stays open: it is decided again whenever something changes.
        """
        self._questions.pop((link.number, message.ref), None)
        self.arrivals.forget(link, message.ref)
        self._want(link, message, None)

    def _want(self, link: LiveLink, message: WantSession, asked: _Question | None) -> None:
        """`asked` is the question if it was refused before: it is answered again only if the answer is another one."""
        now = int(self._clock())
        agent = self._state.agents[link.agent]
        facts = facts_of(self._state, agent, now)
        try:
            destination = Destination(parse_host(message.host), message.port, message.protocol)
        except HostError as error:
            self._refuse(link, message.ref, Code.HOST_MALFORMED, str(error))
            return
        if facts is None:
            self._refuse(link, message.ref, Code.NOT_FOUND)
            return
        decision = decide(self._state.policy, facts, destination, now)
        if asked is not None and decision.code is asked.code:
            self._questions[link.number, message.ref] = asked
            return
        self._log.decided(self._clock(), [Outcome(decision, facts, agent.id, destination)])
        if not decision.allowed or decision.segment is None:
            self._turn_down(link, message, facts, decision, asked)
            return
        self._grant(link, message, agent, facts, decision, decision.segment, now)

    def _turn_down(self, link: LiveLink, message: WantSession, facts: Facts, decision: Decision, asked: _Question | None) -> None:
        if decision.may_follow:
            until = self._clock() + PENDING_SECONDS if asked is None else asked.until
            mine = [key for key in self._questions if key[0] == link.number]
            if len(mine) >= QUESTIONS_PER_CLIENT:
                del self._questions[mine[0]]
            self._questions[link.number, message.ref] = _Question(link, message, until, decision.code)
        is_told = decision.code not in _EXPLAINED or link.count_explanation() <= EXPLAINED_TO_LINK
        why = self._why(link.agent, facts, decision, decision.segment)[0] if is_told else ""
        self._refuse(link, message.ref, decision.code, why)

    def _why(self, client: str, facts: Facts, decision: Decision, segment: str | None) -> tuple[str, frozenset[str]]:
        """What failed, in words, for a person who may know of the segment, and the conditions that did; empty: the reason of the code says it all."""
        if decision.code is Code.KILL_SWITCH:
            agent = self._state.agents.get(client)
            return "" if agent is None else switched_off_because(self._state, agent, segment), frozenset()
        if decision.segment is None or not decision.visible or decision.code not in _EXPLAINED:
            return "", frozenset()
        explanation = explain(self._state.policy, facts, decision.segment, int(self._clock()))
        return explanation.message, frozenset(explanation.failed)

    def answer_open_questions(self) -> None:
        """Something changed: what was refused until then may be allowed now."""
        now, many = self._clock(), len(self._questions)
        self._owes_answers = many > QUESTIONS_AT_ONCE and abs(now - self._answered_at) < many * QUESTION_SECONDS
        if self._owes_answers:
            return
        self._answered_at = now
        for key, question in list(self._questions.items()):
            del self._questions[key]
            if question.until > now and self._switchboard.of_agent(question.link.agent) is question.link:
                self._want(question.link, question.message, question)

    def connector_is_up(self, connector: str) -> None:
        self._ask_again(self.arrivals.arrived(self._state.agents[connector].connector_group))

    def _ask_again(self, waited: Iterable[Waiting]) -> None:
        for waiting in waited:
            if self._switchboard.of_agent(waiting.link.agent) is waiting.link:
                self._want(waiting.link, waiting.message, None)

    def needed_strength(self, agent: Agent) -> Strength:
        """The weakest sign-in, made right now, that would answer every question of this client that waits for one."""
        now = int(self._clock())
        facts = facts_of(self._state, agent, now)
        waiting = [q.message for q in self._questions.values() if q.link.agent == agent.id and q.code is Code.STEP_UP_REQUIRED]
        if facts is None:
            return agent.sign_in_strength
        for strength in STRENGTHS:
            better = dataclasses.replace(facts, sign_in=SignIn(now, strength, agent.sign_in_issuer))
            asked = [Destination(parse_host(message.host), message.port, message.protocol) for message in waiting]
            if not any(decide(self._state.policy, better, to, now).code is Code.STEP_UP_REQUIRED for to in asked):
                return strength
        return agent.sign_in_strength

    def idle(self, link: LiveLink, message: Idle) -> None:
        """The client stops using sessions. Only its own: anything else changes nothing (case 40)."""
        for id in message.sessions:
            session = self._book.get(id)
            if session is not None and session.client == link.agent and not session.idle:
                session.idle = True
                self._writer.put(session)

    def explain(self, link: LiveLink, message: Explain) -> None:
        if link.count_explanation() > EXPLAINED_TO_LINK:
            self._refuse(link, message.ref, Code.TOO_MANY_ATTEMPTS)
            return
        self._switchboard.send(link, self.explain_for(self._state.agents[link.agent], message))

    def explain_for(self, agent: Agent, message: Explain) -> Explained:
        """The decision in words. Without a port: the first port of the segment that the name belongs to."""
        now = int(self._clock())
        facts = facts_of(self._state, agent, now)
        try:
            host = parse_host(message.host)
        except HostError as error:
            return _explained(message.ref, Code.HOST_MALFORMED, str(error))
        if facts is None:
            return _explained(message.ref, Code.NOT_FOUND)
        port = message.port or self.first_port(host, message.protocol, facts.principal, facts.actor)
        explanation = explain(self._state.policy, facts, Destination(host, port, message.protocol), now)
        decision = explanation.decision
        off = switched_off_because(self._state, agent, decision.segment) if decision.code is Code.KILL_SWITCH else ""
        if not decision.visible:
            return _explained(message.ref, decision.code, off)
        unserved = self.why_unserved(decision)
        told = None if unserved is None else REASONS[unserved]
        return Explained(
            ref=message.ref,
            visible=True,
            allowed=decision.allowed,
            code=unserved or decision.code,
            message=(told.message if told else off or explanation.message)[:1024],
            remedy=(told.remedy if told else explanation.remedy)[:1024],
            rules=self._state.policy.rule_names(decision.rules),
            segment=explanation.segment,
        )

    def why_unserved(self, decision: Decision) -> Code | None:
        """Why what is allowed cannot be reached now; None if it can, or is not allowed."""
        if not decision.allowed or decision.segment is None:
            return None
        placed = place(self._directory.candidates(decision.segment))
        return placed.code if isinstance(placed, Nowhere) else None

    def first_port(self, host: Host, protocol: Protocol, principal: Principal | None, actor: Principal | None = None) -> int:
        """For a question without a port: the first port of a segment that names this host, of one that is visible if there is such a one; 1 if there
        is none.
        """
        patterns, policy = set(patterns_of(host)), self._state.policy
        named = {id: one for id, one in policy.segments.items() if one.protocol == protocol and patterns & set(one.hosts)}

        def is_visible(id: SegmentId) -> bool:
            return principal is not None and any(rule.permits for rule in policy.rules_for(principal, id, actor))

        chosen = next(filter(is_visible, named), next(iter(named), None))
        return 1 if chosen is None else named[chosen].ports[0].first

    # ------------------------------------------------------------ by the clock

    def client_is_back(self, client: str) -> None:
        now = self._clock()
        for session in self._book.of_client(client):
            self._book.schedule(session, now)

    def on_tick(self, now: float) -> float:
        """Renew what is in use at half-life, decide again what the clock may have changed, forget what has ended and what nobody waits for. Returns when
        more is due, which is not after `now` where it is more than one turn takes.
        """
        for key in [key for key, question in self._questions.items() if question.until <= now]:
            del self._questions[key]
        if self._owes_answers:
            self.answer_open_questions()
        self._ask_again(self.arrivals.take_overdue(now))
        due = self._book.take_due(now, DUE_PER_TURN)
        over = [session for session in due if now >= session.ends_at]
        going_on = [session for session in due if now < session.ends_at]
        outdated = [session for session in going_on if session.decided_until is not None and now >= session.decided_until]
        self.recheck_all(outdated, Code.SESSION_EXPIRED)
        for session in going_on:
            if not session.ended and not session.idle and now >= self._half_life(session):
                self._renew(session, int(now))
            self._schedule(session, now)
        self._revoker.forget(over)
        return self._book.next_due()

    def recheck(self, session: LiveSession, cause: Code) -> bool:
        """Decide again; revoke if it is not allowed any more. `cause` is what the client is told if the decision itself says less."""
        self.recheck_all([session], cause)
        return not session.ended

    def end(self, sessions: Iterable[LiveSession], cause: Code) -> None:
        """Without a decision: the client may ask anew, and is answered by what holds then."""
        self._revoker.revoke(list(sessions), cause)

    def recheck_all(self, sessions: Iterable[LiveSession], cause: Code) -> None:
        """The same for many, with one message per connector and client."""
        live = [session for session in sessions if not session.ended]
        now = self._clock()
        ended: dict[tuple[Code, str], list[LiveSession]] = {}
        outcomes: list[Outcome] = []
        for session, (facts, decision) in zip(live, self._judge(live), strict=True):
            if decision is not None and decision.allowed:
                self._keep(session, decision)
                if session.limit is None or now < session.opened_at + session.limit:
                    continue
                ended.setdefault((Code.SESSION_LIMIT, ""), []).append(session)
                continue
            why, failed = "", frozenset[str]()
            if facts is not None and decision is not None:
                outcomes.append(Outcome(decision, facts, session.client, session=session.id))
                if decision.code is Code.KILL_SWITCH or self._may_explain(int(now)):
                    why, failed = self._why(session.client, facts, decision, session.segment)
            ended.setdefault((self._code(decision, cause, failed), why), []).append(session)
        self._log.decided(now, outcomes)
        for (code, why), theirs in ended.items():
            self._revoker.revoke(theirs, code, why)

    def _may_explain(self, now: int) -> bool:
        """An explanation costs as much as twenty decisions."""
        if now != self._explained_at:
            self._explained, self._explained_at = 0, now
        self._explained += 1
        return self._explained <= EXPLAINED

    def _keep(self, session: LiveSession, decision: Decision) -> None:
        """What a decision that allows says of the session: by which rules, until when, within which limits."""
        session.rules = tuple(decision.rules)
        session.limit = decision.session_limit
        if session.idle_limit != decision.idle_limit:
            session.idle_limit = decision.idle_limit
            self.on_limit(session)
        ends = None if session.limit is None else session.opened_at + session.limit
        agent = self._state.agents.get(session.client)
        vouched = None if agent is None else agent.vouched_until
        before = session.decided_until
        session.decided_until = min((at for at in (decision.expires_at, ends, vouched) if at is not None), default=None)
        if session.decided_until is not None and (before is None or session.decided_until < before):
            self._book.schedule(session, session.decided_until)  # it was to be looked at later, or not at all

    def _judge(self, sessions: Sequence[LiveSession]) -> list[tuple[Facts | None, Decision | None]]:
        """Facts and decision of each; None for a session whose principal is gone."""
        now = int(self._clock())
        of_client = {client: self._facts_of_client(client, now) for client in {session.client for session in sessions}}
        facts = [
            known if known is not None and known.principal.id == session.principal else None
            for session in sessions
            for known in [of_client[session.client]]
        ]
        return [
            (known, None if known is None else decide(self._state.policy, known, SegmentId(session.segment), now))
            for session, known in zip(sessions, facts, strict=True)
        ]

    def _facts_of_client(self, client: str, now: int) -> Facts | None:
        agent = self._state.agents.get(client)
        return None if agent is None else facts_of(self._state, agent, now)

    def place_again(self, sessions: Iterable[LiveSession]) -> None:
        """A connector went away or changed its mind: give sessions in use a ticket for those that are there."""
        now = int(self._clock())
        for session in sessions:
            if not session.idle and not session.ended and not self._renew(session, now):
                self._book.schedule(session, now + RETRY_SECONDS)

    # ------------------------------------------------------------

    def _grant(
        self, link: LiveLink, message: WantSession, agent: Agent, facts: Facts, decision: Decision, segment_id: str, now: int
    ) -> None:
        segment, ref = self._state.parsed[segment_id], message.ref
        placed = self._place(segment_id, agent.id)
        if isinstance(placed, Nowhere) or not isinstance(segment, Segment):
            code = placed.code if isinstance(placed, Nowhere) else Code.NO_CONNECTOR
            if isinstance(segment, Segment) and code is Code.NO_CONNECTOR and self.arrivals.hold(link, message, segment):
                return
            self._refuse(link, ref, code)
            return
        session = self._book.find(agent.id, segment_id)
        if session is None:
            limits = self._settings.limits
            full = len(self._book) >= limits.sessions or self._book.count_of_client(agent.id) >= limits.sessions_per_client
            if full or self._book.count_of_connector(placed[0]) >= limits.sessions_per_connector:
                self._refuse(link, ref, Code.LIMIT_REACHED)
                return
            session = LiveSession(secrets.token_hex(8), facts.principal.id, agent.id, segment_id, now)
            self._book.add(session)
        session.idle = False
        self._keep(session, decision)
        self._send_ticket(link, message, agent, segment, session, placed, now)
        self._schedule(session, now)

    def _renew(self, session: LiveSession, now: int) -> bool:
        """A new ticket for a session in use, after a new decision. False if it could not be made now."""
        link = self._switchboard.of_agent(session.client)
        agent = self._state.agents.get(session.client)
        segment = self._state.parsed.get(session.segment)
        if link is None or agent is None or not isinstance(segment, Segment):
            return False
        if not self.recheck(session, Code.POLICY_CHANGED):
            return True
        placed = self._place(session.segment, session.client, session.connectors)
        if isinstance(placed, Nowhere):
            return False
        self._send_ticket(link, None, agent, segment, session, placed, now)
        return True

    def _send_ticket(
        self,
        link: LiveLink,
        asked: WantSession | None,
        agent: Agent,
        segment: Segment,
        session: LiveSession,
        connectors: Iterable[str],
        now: int,
    ) -> None:
        expires = now + self._settings.ticket_seconds
        if session.decided_until is not None:
            expires = max(now + 1, min(expires, session.decided_until))
        served_by = set(session.audience)
        self._book.ticket_made(session, connectors, now, expires, segment.continuity)
        if session.idle_limit is not None and served_by != session.audience.keys():
            self.on_limit(session)
        claims = TicketClaims(
            issuer=self._state.keyring.trust_domain,
            token_id=secrets.token_hex(8),
            session=session.id,
            principal=session.principal,
            client=session.client,
            segment=session.segment,
            connectors=session.connectors,
            key_thumbprint=agent.key_thumbprint,
            issued=now,
            expires=expires,
            generation=self._generations.current,
            continuity=segment.continuity,
            rules=session.rules,
        )
        message = Session(
            ref=None if asked is None else asked.ref,
            session=session.id,
            segment=session.segment,
            ticket=self._state.keyring.sign_ticket(claims),
            expires=expires,
            connectors=list(session.connectors),
            relays=self._relays.ids(),
        )
        self._writer.put(session, lambda stored: self._deliver(link, asked, session, message, stored=stored))

    def _deliver(self, link: LiveLink, asked: WantSession | None, session: LiveSession, message: Session, *, stored: bool) -> None:
        """Whoever asked has an answer, also where the session ended while it was stored: what is true now."""
        if stored and not session.ended:
            self._switchboard.send(link, message)
        elif asked is None or self._switchboard.of_agent(link.agent) is not link:
            return
        elif stored:
            self._want(link, asked, None)
        else:
            self._refuse(link, asked.ref, Code.INTERNAL)

    def _place(self, segment: str, client: str, keep: Iterable[str] = ()) -> list[str] | Nowhere:
        sticky = set(keep) or {connector for other in self._book.of_client(client) for connector in other.connectors[:1]}
        placed = place(self._directory.candidates(segment), sticky)
        return placed if isinstance(placed, Nowhere) else list(placed)

    def _half_life(self, session: LiveSession) -> float:
        return (session.issued_at + session.ticket_expires) / 2

    def _schedule(self, session: LiveSession, now: float) -> None:
        if session.ended:
            return
        due = [float(session.ends_at)]
        if session.decided_until is not None:
            due.append(float(session.decided_until))
        if not session.idle and self._switchboard.of_agent(session.client) is not None:
            due.append(self._half_life(session))
        self._book.schedule(session, max(min(due), now + RETRY_SECONDS) if min(due) <= now else min(due))

    def _refuse(self, link: LiveLink, ref: int, code: Code, message: str = "") -> None:
        reason = REASONS[code]
        text = (message or reason.message)[:1024]
        self._switchboard.send(link, Refused(ref=ref, code=code, message=text, remedy=reason.remedy))

    def _code(self, decision: Decision | None, cause: Code, failed: frozenset[str]) -> Code:
        """The decision's own code where it says more than the cause. A condition that failed is told by what made it fail: by the cause if that says it,
        else by the kind of the conditions that fail now.
        """
        told = {Code.KILL_SWITCH, Code.STEP_UP_REQUIRED, Code.USER_DISABLED, Code.DEVICE_REVOKED}
        if decision is None:
            return cause
        if decision.code is Code.APPROVAL_REQUIRED:
            return Code.APPROVAL_EXPIRED  # it was approved: the session exists
        if cause is Code.SIGNAL_RECEIVED and decision.code is Code.STEP_UP_REQUIRED:
            return cause  # why it ended; that a new sign-in helps is said when the flow is opened again
        vague = cause in (Code.POLICY_CHANGED, Code.SESSION_EXPIRED, Code.GROUP_CHANGED, Code.SEGMENT_CHANGED)
        if decision.code is Code.CONDITION_FAILED and vague:
            return next((code for fields, code in _CODES if failed and failed <= fields), decision.code)
        return decision.code if decision.code in told else cause


_CODES = (
    (frozenset({"posture", "profiles"}), Code.POSTURE_FAILED),
    (frozenset({"networks"}), Code.OUTSIDE_NETWORK),
    (frozenset({"risk"}), Code.RISK_TOO_HIGH),
)
"""What a session is told that ends because only conditions of one kind fail."""

_EXPLAINED = frozenset({Code.CONDITION_FAILED, Code.STEP_UP_REQUIRED, Code.APPROVAL_REQUIRED})


def _explained(ref: int, code: Code, message: str = "") -> Explained:
    reason = REASONS[code]
    text = (message or reason.message)[:1024]
    return Explained(ref=ref, visible=False, allowed=False, code=code, message=text, remedy=reason.remedy)
