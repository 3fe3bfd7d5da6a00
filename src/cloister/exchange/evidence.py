"""Evidence: what agents report, others push and signals say about devices and people. The one way in which such facts change: committed, then put
in force, and exactly the sessions that can read them are decided again."""

from collections.abc import Callable, Iterable, Mapping, Sequence

from sqlalchemy import Connection

from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.changes import Changes
from cloister.exchange.errors import Refusal
from cloister.exchange.facts import borrowers_of
from cloister.exchange.state import State
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.model.reasons import Code
from cloister.store import evidence as evidence_rows
from cloister.store.service import Store
from cloister.store.types import Actor, EvidenceRow, Subject

MAX_PER_SUBJECT = 512
MAX_VALUE = 1024  # characters


class Evidence:
    def __init__(
        self,
        state: State,
        book: SessionBook,
        verifier: Verifier,
        changes: Changes,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._book = book
        self._verifier = verifier
        self._changes = changes
        self._store = store
        self._writer = writer
        self._clock = clock

    async def put(
        self,
        actor: Actor | None,
        subject: Subject,
        rows: Sequence[EvidenceRow],
        cause: Code,
        *,
        whole: str | None = None,
        action: str = "evidence.put",
        detail: Mapping[str, object] | None = None,
        also: Callable[[Connection], None] | None = None,
    ) -> None:
        """Record `rows`, all about `subject`. With `whole` (a source) they are everything that this source says of it: what it said before and does not
        say now is withdrawn. `actor` writes an audit row; an agent's own reports (None) are bookkeeping. `cause` is told to whoever loses a session.
        `also` is done in the transaction of a change that has an actor; `detail` joins its audit row.
        """
        self._check(subject, rows, whole)
        gone = [] if whole is None else self._unsaid(subject, rows, whole)
        if actor is None:

            def note() -> None:
                with self._store.note() as connection:
                    evidence_rows.delete_evidence(connection, subject, whole or "", gone)
                    evidence_rows.put_evidence(connection, rows)

            await self._writer.run(note)
        else:
            told = {"set": sorted({row.name for row in rows}), "withdrawn": sorted(gone), **(detail or {})}
            entry = self._changes.entry(actor, action, f"{subject.kind} {subject.id}", told)

            def change() -> None:
                with self._store.change(entry) as made:
                    evidence_rows.delete_evidence(made.connection, subject, whole or "", gone)
                    evidence_rows.put_evidence(made.connection, rows)
                    if also is not None:
                        also(made.connection)

            await self._writer.run(change)
        self._state.evidence.replace(subject, rows, [(whole or "", name) for name in gone])
        self._verifier.check(self.sessions_of(subject), cause)

    def report(self, subject: Subject, rows: Sequence[EvidenceRow], source: str, cause: Code) -> None:
        """An agent's report of itself, whole set: in force when this returns, so that what the agent sends next is judged by it; written down behind
        that. What a crash loses the agent reports again.
        """
        self._check(subject, rows, source)
        gone = self._unsaid(subject, rows, source)

        def note() -> None:
            with self._store.note() as connection:
                evidence_rows.delete_evidence(connection, subject, source, gone)
                evidence_rows.put_evidence(connection, rows)

        self._writer.start(note)
        self._state.evidence.replace(subject, rows, [(source, name) for name in gone])
        self._verifier.check(self.sessions_of(subject), cause)

    async def withdraw(
        self, actor: Actor, subject: Subject, source: str, names: Sequence[str], cause: Code, *, action: str = "evidence.withdraw"
    ) -> None:
        """What this source said under these names does not count any more."""
        entry = self._changes.entry(actor, action, f"{subject.kind} {subject.id}", {"withdrawn": sorted(names), "source": source})

        def change() -> None:
            with self._store.change(entry) as made:
                evidence_rows.delete_evidence(made.connection, subject, source, names)

        await self._writer.run(change)
        self._state.evidence.replace(subject, (), [(source, name) for name in names])
        self._verifier.check(self.sessions_of(subject), cause)

    def sessions_of(self, subject: Subject) -> list[LiveSession]:
        """The sessions whose decision may read evidence about this subject."""
        match subject.kind:
            case "agent":
                return self._of([subject.id, *borrowers_of(self._state, lambda lender: lender.id == subject.id)])
            case "device":
                of_device = self._of_clients(lambda client: self._state.agents[client].device == subject.id)
                return [*of_device, *self._of(borrowers_of(self._state, lambda lender: lender.device == subject.id))]
            case "user":
                acting = self._of_clients(lambda client: self._state.agents[client].actor == subject.id)
                return [*self._book.of_principal(subject.id), *acting]

    def _of_clients(self, concerned: Callable[[str], bool]) -> list[LiveSession]:
        return self._of([client for client in self._book.clients() if client in self._state.agents and concerned(client)])

    def _of(self, clients: Iterable[str]) -> list[LiveSession]:
        return [session for client in clients for session in self._book.of_client(client)]

    def _check(self, subject: Subject, rows: Sequence[EvidenceRow], whole: str | None) -> None:
        if any(row.subject != subject or (whole is not None and row.source != whole) for row in rows):
            raise ValueError("evidence about one subject is put at a time, and a whole set has one source")
        if any(len(row.value) > MAX_VALUE for row in rows):
            raise Refusal(Code.TOO_LARGE, f"a fact has at most `{MAX_VALUE}` characters")
        said = {(row.source, row.name) for row in rows}
        kept = self._state.evidence.of(subject).keys() if whole is None else {}.keys()
        for source in {row.source for row in rows}:  # each its own room: nobody's talk keeps another from being heard
            if sum(of == source for of, _ in kept | said) > MAX_PER_SUBJECT:
                raise Refusal(Code.LIMIT_REACHED, f"a source says at most `{MAX_PER_SUBJECT}` facts of one {subject.kind}")

    def _unsaid(self, subject: Subject, rows: Iterable[EvidenceRow], source: str) -> list[str]:
        said = {row.name for row in rows}
        return [name for of, name in self._state.evidence.of(subject) if of == source and name not in said]
