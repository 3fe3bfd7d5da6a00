"""Revocation: to every connector that could still honour a ticket, to the client with the reason, and to the relays when a connector is silent."""

from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.links import Switchboard
from cloister.exchange.relays import RelaySet
from cloister.exchange.state import Generations
from cloister.exchange.writer import Writer
from cloister.model.messages.from_exchange import EndSession, Revoke, Snapshot
from cloister.model.reasons import REASONS, Code
from cloister.store import sessions as session_rows
from cloister.store.service import Store

SESSIONS_PER_MESSAGE = 10_000


@dataclass(slots=True)
class _Pending:
    """A connector that owes the confirmation of `generation`; `pairs` is what its silence cuts: client → until when."""

    connector: str
    generation: int
    deadline: float
    pairs: dict[str, int] = field(default_factory=dict)


class Revoker:
    def __init__(
        self,
        book: SessionBook,
        switchboard: Switchboard,
        relays: RelaySet,
        generations: Generations,
        store: Store,
        writer: Writer,
        clock: Callable[[], float],
        patience: float,
    ) -> None:
        self._book = book
        self._switchboard = switchboard
        self._relays = relays
        self._generations = generations
        self._store = store
        self._writer = writer
        self._clock = clock
        self._patience = patience
        self._pending: list[_Pending] = []
        self._gone: deque[str] = deque()  # sessions to be deleted from the store at the next tick
        self._deleting = False  # a deletion is on its way, and will take what is added before it begins

    def revoke(self, sessions: Iterable[LiveSession], code: Code, message: str = "") -> int:
        """End these sessions now. The cause is committed already: after a crash the start finds them not allowed, or not in the store."""
        ended = [session for session in sessions if not session.ended]
        if not ended:
            return 0
        now = self._clock()
        by_connector: dict[str, list[LiveSession]] = {}
        by_client: dict[str, list[str]] = {}
        for session in ended:
            for connector, until in session.audience.items():
                if until >= now:
                    by_connector.setdefault(connector, []).append(session)
            by_client.setdefault(session.client, []).append(session.id)
            self._book.remove(session)
        for connector, theirs in by_connector.items():
            self._tell_connector(connector, theirs, now)
        for client, ids in by_client.items():
            self._tell_client(client, ids, code, message)
        self._gone.extend(session.id for session in ended)
        return len(ended)

    def forget(self, sessions: Iterable[LiveSession]) -> None:
        """Sessions that nobody can use any more: their last ticket is past all leeway."""
        ids = [session.id for session in sessions]
        for id in ids:
            if session := self._book.get(id):
                self._book.remove(session)
        self._gone.extend(ids)

    def send_snapshot(self, connector: str) -> bool:
        """The whole set for this connector; tickets made later have a higher generation than it."""
        link = self._switchboard.of_agent(connector)
        if link is None:
            return False
        now = self._clock()
        ids = [session.id for session in self._book.of_connector(connector) if session.audience.get(connector, 0) >= now]
        generation = self._generations.current
        self._generations.advance()
        return self._switchboard.send(link, Snapshot(generation=generation, sessions=ids))

    def confirmed(self, connector: str, generation: int) -> None:
        """The connector has put everything up to `generation` in force. Numbers that were never issued confirm nothing."""
        if generation > self._generations.current:
            return
        self._pending = [item for item in self._pending if item.connector != connector or item.generation > generation]
        self._relays.reconciled(connector, generation)

    def next_deadline(self) -> float | None:
        return min((item.deadline for item in self._pending), default=None)

    def on_tick(self, now: float) -> None:
        self._start_deletion()
        late = [item for item in self._pending if item.deadline <= now]
        if late:
            self._pending = [item for item in self._pending if item.deadline > now]
            for item in late:
                self._block(item)

    def connector_lost(self, connector: str) -> None:
        """Nobody will confirm any more: what is pending is cut now."""
        lost = [item for item in self._pending if item.connector == connector]
        self._pending = [item for item in self._pending if item.connector != connector]
        for item in lost:
            self._block(item)

    # ------------------------------------------------------------

    def _tell_connector(self, connector: str, sessions: Sequence[LiveSession], now: float) -> None:
        for start in range(0, len(sessions), SESSIONS_PER_MESSAGE):
            part = sessions[start : start + SESSIONS_PER_MESSAGE]
            generation = self._generations.advance()
            pending = _Pending(connector, generation, now + self._patience)
            for session in part:
                until = session.audience[connector]
                pending.pairs[session.client] = max(until, pending.pairs.get(session.client, 0))
            message = Revoke(generation=generation, sessions=[session.id for session in part])
            if self._switchboard.send_to(connector, message):
                self._pending.append(pending)
            else:
                self._block(pending)

    def _block(self, item: _Pending) -> None:
        for client, until in item.pairs.items():
            self._relays.block(client, item.connector, item.generation, until)

    def _tell_client(self, client: str, ids: list[str], code: Code, message: str) -> None:
        reason = REASONS[code]
        self._switchboard.send_to(
            client, EndSession(sessions=ids, code=code, message=(message or reason.message)[:1024], remedy=reason.remedy)
        )

    def _start_deletion(self) -> None:
        """All that has gathered by the time when the writer comes to it, in one transaction."""
        if self._gone and not self._deleting:
            self._deleting = True
            self._writer.start(self._delete_gone)

    def _delete_gone(self) -> None:
        """On the writer's thread."""
        self._deleting = False
        ids = [self._gone.popleft() for _ in range(len(self._gone))]
        with self._store.note() as connection:
            session_rows.delete_sessions(connection, ids)
