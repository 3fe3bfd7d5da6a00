"""Sessions to the store in batches: while one batch is written, the next one gathers. What depends on it happens after its batch is in."""

import asyncio
import logging
from collections.abc import Callable

from cloister.exchange.book import LiveSession
from cloister.exchange.writer import Writer
from cloister.store import sessions as session_rows
from cloister.store.service import Store
from cloister.store.types import StoredSession

log = logging.getLogger("cloister.exchange")


class SessionWriter:
    def __init__(self, store: Store, writer: Writer) -> None:
        self._store = store
        self._writer = writer
        self._sessions: dict[str, LiveSession] = {}
        self._then: list[Callable[[bool], None]] = []
        self._task: asyncio.Task[None] | None = None

    def put(self, session: LiveSession, then: Callable[[bool], None] | None = None) -> None:
        """Store the session as it is when its batch starts, then call `then` on the event loop, with whether that worked. A session that ended is
        not stored.
        """
        self._sessions[session.id] = session
        if then is not None:
            self._then.append(then)
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._write())

    async def flush(self) -> None:
        while self._task is not None:
            await asyncio.shield(self._task)

    async def _write(self) -> None:
        try:
            while self._sessions or self._then:
                batch = [session.to_stored() for session in self._sessions.values() if not session.ended]
                then, self._then, self._sessions = self._then, [], {}
                stored = True
                try:
                    await self._writer.run(lambda batch=batch: self._store_batch(batch))  # type: ignore[misc]
                except Exception:
                    log.exception("sessions cannot be stored, so their tickets are not given out")
                    stored = False
                for action in then:
                    try:
                        action(stored)
                    except Exception:
                        log.exception("a client has no answer to what it asked")
        finally:
            self._task = None

    def _store_batch(self, batch: list[StoredSession]) -> None:
        with self._store.note() as connection:
            session_rows.put_sessions(connection, batch)
