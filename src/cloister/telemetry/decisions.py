"""The exchange's own records: one per decision, in the journal's form, in the directory `exchange`."""

import datetime
import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from cloister.model.decision import Decision
from cloister.model.facts import Destination, Facts
from cloister.model.records import Record, write_record

DIRECTORY = "exchange"
FILE_BYTES = 16 << 20
MAX_FILES = 64


@dataclass(frozen=True, slots=True)
class Outcome:
    """What was decided for whom. `destination` is what a client asked for; a session that stood is decided again by itself."""

    decision: Decision
    facts: Facts
    client: str
    destination: Destination | None = None
    session: str | None = None


class DecisionLog:
    """Appends lines without buffering: what was decided survives the death of the process. The oldest files go when there are too many."""

    def __init__(self, journal: Path, *, file_bytes: int = FILE_BYTES, max_files: int = MAX_FILES) -> None:
        self._directory = journal / DIRECTORY
        self._directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._file_bytes = file_bytes
        self._max_files = max_files
        self._next = _find_next(self._directory)
        self._descriptor = -1
        self._written = 0
        self._open()

    def decided(self, at: float, outcomes: Iterable[Outcome]) -> None:
        """These were decided at this moment; their lines are written at once."""
        timestamp, lines = _timestamp(at), list[bytes]()
        for outcome in outcomes:
            line = write_record(_record_of(outcome, self._next, timestamp)) + b"\n"
            if self._written + len(line) > self._file_bytes:
                self._append(lines)
                lines = []
                self.close()
                self._open()
            lines.append(line)
            self._written += len(line)
            self._next += 1
        self._append(lines)

    def close(self) -> None:
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _append(self, lines: list[bytes]) -> None:
        if lines:
            os.write(self._descriptor, b"".join(lines))

    def _open(self) -> None:
        path = self._directory / f"{self._next:020d}.jsonl"
        self._descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
        self._written = os.fstat(self._descriptor).st_size
        files = sorted(self._directory.glob("*.jsonl"))
        for old in files[: -self._max_files]:
            old.unlink()


def _find_next(directory: Path) -> int:
    """One more than the last whole line of the newest file."""
    for path in sorted(directory.glob("*.jsonl"), reverse=True):
        data = path.read_bytes()
        if not data.endswith(b"\n"):  # a line that the process died in
            data = data[: data.rfind(b"\n") + 1]
            os.truncate(path, len(data))
        first = int(path.stem)
        return first + data.count(b"\n")
    return 1


def _record_of(outcome: Outcome, number: int, timestamp: str) -> Record:
    decision, facts, destination = outcome.decision, outcome.facts, outcome.destination
    return Record(
        n=number,
        at=timestamp,
        kind="decision",
        code=decision.code,
        session=outcome.session,
        principal=facts.principal.id,
        actor=None if facts.actor is None else facts.actor.id,
        device=outcome.client,
        segment=decision.segment,
        rules=tuple(decision.rules),
        protocol=None if destination is None else destination.protocol,
        host=None if destination is None else destination.host,
        port=None if destination is None else destination.port,
    )


def _timestamp(at: float) -> str:
    return datetime.datetime.fromtimestamp(at, datetime.UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
