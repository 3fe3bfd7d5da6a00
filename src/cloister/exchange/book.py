"""The book of sessions: what is allowed right now, by every handle by which it can end. A machine without I/O."""

import heapq
import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

from cloister.store.types import StoredSession
from cloister.trust.types import MAX_TICKET_SECONDS

LEEWAY = 30  # seconds that verifiers grant (ARCHITECTURE.md, "Tickets")


@dataclass(slots=True, eq=False)
class LiveSession:
    """One (principal, client, segment) that is allowed until something changes. `decided_until` is when the decision must be made again."""

    id: str
    principal: str
    client: str
    segment: str
    opened_at: int
    rules: tuple[str, ...] = ()
    connectors: tuple[str, ...] = ()
    audience: dict[str, int] = field(default_factory=dict)  # connector → instant until which it may honour a ticket
    issued_at: int = 0
    ticket_expires: int = 0
    ends_at: int = 0
    decided_until: int | None = None
    limit: int | None = None  # seconds from its opening
    idle_limit: int | None = None  # seconds without a byte
    idle: bool = False
    ended: bool = False

    def to_stored(self) -> StoredSession:
        return StoredSession(
            self.id,
            self.principal,
            self.client,
            self.segment,
            self.rules,
            self.connectors,
            dict(self.audience),
            self.opened_at,
            self.ticket_expires,
            self.ends_at,
            self.idle,
        )


def session_from(stored: StoredSession) -> LiveSession:
    return LiveSession(
        id=stored.id,
        principal=stored.principal,
        client=stored.client,
        segment=stored.segment,
        opened_at=stored.opened_at,
        rules=stored.rules,
        connectors=stored.connectors,
        audience=dict(stored.audience),
        ticket_expires=stored.ticket_expires,
        issued_at=stored.ticket_expires - MAX_TICKET_SECONDS,
        ends_at=stored.ends_at,
        idle=stored.idle,
    )


class SessionBook:
    """Sessions by id, client, connector, segment and principal, and a queue of what is due."""

    def __init__(self) -> None:
        self._by_id: dict[str, LiveSession] = {}
        self._by_client: dict[str, dict[str, LiveSession]] = {}  # client → segment → session
        self._by_connector: dict[str, dict[str, LiveSession]] = {}
        self._by_segment: dict[str, dict[str, LiveSession]] = {}
        self._by_principal: dict[str, dict[str, LiveSession]] = {}
        self._led: Counter[str] = Counter()  # connector → sessions whose first choice it is
        self._due: list[tuple[float, int, str]] = []
        self._count = 0

    def __len__(self) -> int:
        return len(self._by_id)

    def __iter__(self) -> Iterator[LiveSession]:
        return iter(list(self._by_id.values()))

    def get(self, id: str) -> LiveSession | None:
        return self._by_id.get(id)

    def find(self, client: str, segment: str) -> LiveSession | None:
        return self._by_client.get(client, {}).get(segment)

    def of_client(self, client: str) -> list[LiveSession]:
        return list(self._by_client.get(client, {}).values())

    def of_connector(self, connector: str) -> list[LiveSession]:
        return list(self._by_connector.get(connector, {}).values())

    def of_segment(self, segment: str) -> list[LiveSession]:
        return list(self._by_segment.get(segment, {}).values())

    def of_principal(self, principal: str) -> list[LiveSession]:
        return list(self._by_principal.get(principal, {}).values())

    def principals(self) -> list[str]:
        return list(self._by_principal)

    def clients(self) -> list[str]:
        return list(self._by_client)

    def count_of_connector(self, connector: str) -> int:
        """Sessions that a snapshot for this connector lists."""
        return len(self._by_connector.get(connector, ()))

    def load(self, connector: str) -> int:
        """Sessions whose first choice it is."""
        return self._led[connector]

    def count_of_client(self, client: str) -> int:
        return len(self._by_client.get(client, ()))

    def add(self, session: LiveSession) -> None:
        if session.id in self._by_id or self.find(session.client, session.segment):
            raise ValueError(f"the session `{session.id}` is in the book already")
        self._by_id[session.id] = session
        self._by_client.setdefault(session.client, {})[session.segment] = session
        self._by_segment.setdefault(session.segment, {})[session.id] = session
        self._by_principal.setdefault(session.principal, {})[session.id] = session
        for connector in session.audience:
            self._by_connector.setdefault(connector, {})[session.id] = session
        self._led.update(session.connectors[:1])

    def ticket_made(self, session: LiveSession, connectors: Iterable[str], issued: int, expires: int, continuity: int) -> None:
        """A ticket for these connectors goes out: whoever honours one is in the audience until it cannot any more."""
        self._led.subtract(session.connectors[:1])
        session.connectors = tuple(connectors)
        self._led.update(session.connectors[:1])
        session.issued_at, session.ticket_expires = issued, expires
        session.ends_at = max(session.ends_at, expires + continuity + LEEWAY)
        for connector in session.connectors:
            session.audience[connector] = expires + continuity + LEEWAY
            self._by_connector.setdefault(connector, {})[session.id] = session
        for connector in [connector for connector, until in session.audience.items() if until < issued]:
            del session.audience[connector]
            _drop(self._by_connector, connector, session.id)

    def remove(self, session: LiveSession) -> None:
        session.ended = True
        if self._by_id.pop(session.id, None) is None:
            return
        self._led.subtract(session.connectors[:1])
        _drop(self._by_client, session.client, session.segment)
        _drop(self._by_segment, session.segment, session.id)
        _drop(self._by_principal, session.principal, session.id)
        for connector in session.audience:
            _drop(self._by_connector, connector, session.id)

    def schedule(self, session: LiveSession, at: float) -> None:
        """Look at this session again at that time. Early and doubled looks are harmless."""
        self._count += 1
        heapq.heappush(self._due, (at, self._count, session.id))

    def take_due(self, now: float, limit: int = 100) -> list[LiveSession]:
        due: dict[str, LiveSession] = {}
        while self._due and self._due[0][0] <= now and len(due) < limit:
            _, _, id = heapq.heappop(self._due)
            if session := self._by_id.get(id):
                due[id] = session
        return list(due.values())

    def next_due(self) -> float:
        """When somebody is to be looked at next; too early where that session is gone."""
        return self._due[0][0] if self._due else math.inf


def _drop(index: dict[str, dict[str, LiveSession]], key: str, inner: str) -> None:
    entries = index.get(key)
    if entries is not None:
        entries.pop(inner, None)
        if not entries:
            del index[key]
