"""A transmitter, and what becomes of one of its events."""

from dataclasses import dataclass, field
from typing import Literal

from cloister.model.transmitters import SignalTransmitter
from cloister.store.types import EvidenceRow, Subject

Outcome = Literal[
    "acted",
    "duplicate",  # taken before: acknowledged again
    "superseded",  # something newer was said already
    "not_taken",  # the document does not list this kind of event
    "unknown_type",
    "unknown_subject",  # nobody here whom the transmitter may speak of, or more than one
    "without_meaning",  # a level, claim or principal that changes nothing here
    "stream",  # about the stream itself
]


@dataclass(frozen=True, slots=True)
class Transmitter:
    id: str
    document: SignalTransmitter

    @property
    def name(self) -> str:
        return self.document.name


@dataclass(frozen=True, slots=True)
class Concerned:
    """Whom an event is about, by ids of documents and agents. `agents` is set where a session, or a user on one device, is named."""

    user: str | None = None
    device: str | None = None
    agents: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True)
class Plan:
    """What is recorded of whom. `ends_tokens`: the API tokens of this user end too."""

    outcome: Outcome
    rows: tuple[EvidenceRow, ...] = ()
    ends_tokens: str | None = None
    is_about_risk: bool = False

    @property
    def subjects(self) -> list[Subject]:
        return list(dict.fromkeys(row.subject for row in self.rows))


@dataclass(slots=True)
class Stream:
    """How a transmitter's stream fares, since the start of this process: for people."""

    taken: int = 0
    refused: int = 0
    last_taken_at: int | None = None
    last_refused_at: int | None = None
    last_refusal: str = ""
    status: str = "enabled"
    verified_at: int | None = None
    polled_at: int | None = None
    poll_error: str = ""
    second: int = 0
    taken_in_second: int = 0
    waiting: dict[str, int] = field(default_factory=dict)  # by source

    def note_taken(self, now: int) -> None:
        self.taken_in_second = self.taken_in_second + 1 if self.second == now else 1
        self.second = self.last_taken_at = now
        self.taken += 1
