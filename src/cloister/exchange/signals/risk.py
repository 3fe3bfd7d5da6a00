"""Risk scores of users and devices: shown with what they are made of, set by an administrator for a while, or by another source."""

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.evidence import Evidence
from cloister.exchange.signals.standing import OVERRIDE, OWN_REPORT, RISK, SIGNAL, counting, risk_parts
from cloister.exchange.state import State
from cloister.identity.signals.risk import (
    Contribution,
    Override,
    next_change,
    print_contribution,
    read_contribution,
    score,
)
from cloister.model.reasons import Code
from cloister.store.types import Actor, EvidenceRow, Subject

Kind = Literal["user", "device"]
RESERVED = frozenset({OWN_REPORT, "local", "exchange", "administrator"})


@dataclass(frozen=True, slots=True)
class Part:
    """What one source says; `left` is what counts of it now."""

    source: str
    left: float
    contribution: Contribution


@dataclass(frozen=True, slots=True)
class Standing:
    score: int
    changes_at: int | None
    override: Override | None
    reason: str
    parts: tuple[Part, ...]


class RiskScores:
    def __init__(self, state: State, evidence: Evidence, clock: Callable[[], float]) -> None:
        self._state = state
        self._evidence = evidence
        self._clock = clock

    def show(self, kind: Kind, name: str) -> Standing:
        now = int(self._clock())
        rows = [row for row in self._rows(self._subject(kind, name)) if row.expires_at is None or row.expires_at > now]
        given, override = risk_parts(rows)
        parts = tuple(
            Part(self._source(row.source), one.left(now), one)
            for row in rows
            if row.source != OVERRIDE
            for one in [read_contribution(row.value, row.observed_at, row.expires_at)]
        )
        reasons = [row.value.partition(" ")[2] for row in rows if row.source == OVERRIDE]
        return Standing(score(given, override, now), next_change(given, override, now), override, "".join(reasons), parts)

    async def override(self, actor: Actor, kind: Kind, name: str, points: int, seconds: int, reason: str) -> None:
        """The score is this, whatever anybody says, until `seconds` have passed."""
        subject, now = self._subject(kind, name), int(self._clock())
        row = EvidenceRow(subject, OVERRIDE, RISK, f"{points} {reason}", now, now + seconds)
        await self._put(actor, row, {"score": points, "seconds": seconds, "reason": reason})

    async def contribute(self, actor: Actor, kind: Kind, name: str, source: str, said: Contribution) -> None:
        """What another source says: it adds to what the others say, and fades as it asks."""
        if source in RESERVED:
            raise Refusal(Code.ARGUMENT_INVALID, f"`{source}` is no name for a source of risk", "choose another one")
        subject, now = self._subject(kind, name), int(self._clock())
        said = dataclasses.replace(said, at=now)
        row = EvidenceRow(subject, source, RISK, print_contribution(said), now, said.ends)
        await self._put(actor, row, {"score": said.score, "source": source})

    async def clear(self, actor: Actor, kind: Kind, name: str, source: str | None) -> None:
        """What this source says, or everything that counts towards the score, does not count any more."""
        subject = self._subject(kind, name)
        sources = [row.source for row in self._rows(subject) if source in (None, self._source(row.source))]
        if source is not None and not sources:
            raise Refusal(Code.NOT_FOUND, f"`{source}` says nothing of the risk of the {kind} `{name}`")
        for one in sources or [OVERRIDE]:
            await self._evidence.withdraw(actor, subject, one, [RISK], Code.RISK_TOO_HIGH, action="risk.clear")

    async def _put(self, actor: Actor, row: EvidenceRow, detail: dict[str, object]) -> None:
        await self._evidence.put(actor, row.subject, [row], Code.RISK_TOO_HIGH, action="risk.set", detail=detail)

    def _rows(self, subject: Subject) -> list[EvidenceRow]:
        rows = counting(self._state.evidence.of(subject).values(), self._state.documents)
        return [row for row in rows if row.name == RISK and row.source != OWN_REPORT]

    def _subject(self, kind: Kind, name: str) -> Subject:
        document = self._state.find(kind, name)
        if document is None:
            raise not_found(kind, name)
        return Subject(kind, document.id)

    def _source(self, source: str) -> str:
        """As people know it: a transmitter by the name of its document."""
        if source == OVERRIDE:
            return "override"
        return f"signals/{self._state.name_of(source.removeprefix(SIGNAL))}" if source.startswith(SIGNAL) else source
