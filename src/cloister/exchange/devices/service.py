"""Devices: takes what clients report and what others push, keeps where clients are, and has the sessions decided again that can read it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from cloister.exchange.book import SessionBook
from cloister.exchange.devices.places import Places
from cloister.exchange.errors import Refusal
from cloister.exchange.evidence import Evidence
from cloister.exchange.links import LiveLink
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.identity.posture.report import LEEWAY, REFUSED, judge_report
from cloister.model.messages.from_agent import Posture
from cloister.model.posture import MAX_AGE, OWN_KINDS, OWN_REPORT
from cloister.model.reasons import Code
from cloister.store.types import Actor, EvidenceRow, Subject

REPORT_SECONDS = 0.2  # between two reports of one client that are acted on; of several in between the last one counts
RESERVED_SOURCES = OWN_KINDS | {OWN_REPORT, "exchange", "risk", "signal", "signals"}


@dataclass(frozen=True, slots=True)
class Pushed:
    """One fact from outside."""

    name: str
    value: str
    observed_at: int | None
    seconds: int  # how long it counts from now on


@dataclass(slots=True)
class _Reporter:
    next_at: float
    waiting: Posture | None = None


class Devices:
    def __init__(self, state: State, book: SessionBook, verifier: Verifier, evidence: Evidence, clock: Callable[[], float]) -> None:
        self._state = state
        self._book = book
        self._verifier = verifier
        self._evidence = evidence
        self._clock = clock
        self._reporters: dict[str, _Reporter] = {}

    # ------------------------------------------------------------ reports

    def report(self, client: str, message: Posture) -> None:
        """In force when this returns, or `REPORT_SECONDS` after the one before."""
        now = self._clock()
        reporter = self._reporters.setdefault(client, _Reporter(now))
        if now < reporter.next_at:
            reporter.waiting = message
            return
        self._take(client, reporter, message, now)

    def on_tick(self, now: float) -> None:
        for client, reporter in list(self._reporters.items()):
            if now < reporter.next_at:
                continue
            if reporter.waiting is not None:
                self._take(client, reporter, reporter.waiting, now)
            else:
                del self._reporters[client]

    def _take(self, client: str, reporter: _Reporter, message: Posture, now: float) -> None:
        reporter.next_at, reporter.waiting = now + REPORT_SECONDS, None
        subject, at = Subject("agent", client), int(now)
        report = judge_report(message.facts, at)
        rows = [
            EvidenceRow(subject, OWN_REPORT, name, value, observed_at, observed_at + MAX_AGE)
            for name, (value, observed_at) in report.facts.items()
        ]
        rows += [EvidenceRow(subject, OWN_REPORT, REFUSED + name, why, at, at + MAX_AGE) for name, why in report.refused.items()]
        self._evidence.report(subject, rows, OWN_REPORT, Code.POSTURE_FAILED)

    # ------------------------------------------------------------ facts from outside

    async def push(self, actor: Actor, subject: Subject, source: str, facts: Sequence[Pushed]) -> None:
        """Everything that `source` says of this device or client from now on."""
        self.check_source(source)
        now = int(self._clock())
        rows: dict[str, EvidenceRow] = {}
        for fact in facts:
            at = now if fact.observed_at is None else fact.observed_at
            if fact.name in rows:
                raise Refusal(Code.ARGUMENT_INVALID, f"the fact `{fact.name}` is there twice")
            if at > now + LEEWAY or at < 0:
                raise Refusal(Code.ARGUMENT_INVALID, f"the fact `{fact.name}` is dated in the future", "compare the clocks")
            rows[fact.name] = EvidenceRow(subject, source, fact.name, fact.value, at, at + fact.seconds)
        await self._evidence.put(
            actor, subject, list(rows.values()), Code.POSTURE_FAILED, whole=source, action=f"{subject.kind}.set_facts"
        )

    def check_source(self, source: str) -> None:
        """Names of sources that are somebody else's: what clients say themselves, and what signals say."""
        if source in RESERVED_SOURCES or self._state.find("signal-transmitter", source) is not None:
            raise Refusal(Code.ARGUMENT_INVALID, f"`{source}` is no source from outside", "choose another name")

    # ------------------------------------------------------------ where clients are

    def client_is_up(self, link: LiveLink, came_from: str | None) -> None:
        """`came_from` is the address that this client was last seen at. Who moved to other networks, or made a second place, is decided again."""
        agent = self._state.agents[link.agent]
        networks = self._state.library.networks
        if networks.names_of(came_from) != networks.names_of(agent.last_address):
            self._verifier.check(self._book.of_client(agent.id), Code.OUTSIDE_NETWORK)
        if agent.principal is not None:
            self._moving(agent.principal, lambda places, principal: places.up(principal, agent.id, agent.last_address or ""))

    def link_is_gone(self, link: LiveLink) -> None:
        agent = self._state.agents.get(link.agent)
        if link.role == "client" and agent is not None and agent.principal is not None:
            self._moving(agent.principal, lambda places, principal: places.down(principal, link.agent))

    def signed_in(self, principal: str, address: str, agent: str | None = None) -> None:
        now = int(self._clock())
        self._moving(principal, lambda places, who: places.signed_in(who, address, agent, now))

    def _moving(self, principal: str, move: Callable[[Places, str], None]) -> None:
        places, networks, now = self._state.places, self._state.library.networks, int(self._clock())
        before, _ = places.count(principal, networks, now)
        move(places, principal)
        after, _ = places.count(principal, networks, now)
        if before != after:
            self._verifier.check(self._book.of_principal(principal), Code.CONDITION_FAILED)
