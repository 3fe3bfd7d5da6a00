"""Idle limits: connectors are told which sessions may not be quiet for how long, and say which are; a session that is quiet everywhere ends."""

from collections.abc import Iterable

from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.revoke import Revoker
from cloister.model.messages.from_agent import Quiet
from cloister.model.messages.from_exchange import Watch
from cloister.model.reasons import Code


class IdleLimits:
    def __init__(self, book: SessionBook, switchboard: Switchboard, revoker: Revoker) -> None:
        self._book = book
        self._switchboard = switchboard
        self._revoker = revoker
        self._untold: set[str] = set()  # connectors whose set has changed

    def changed(self, session: LiveSession) -> None:
        """The limit of this session, or the connectors that may serve it, are others now."""
        self._untold.update(session.audience)

    def connector_is_back(self, connector: str) -> None:
        self._untold.add(connector)

    def on_tick(self) -> None:
        """Tell each connector its whole set, once for all that changed since the last turn."""
        for connector in self._untold:
            link = self._switchboard.of_agent(connector)
            if link is not None:
                self._switchboard.send_whole(link, Watch(sessions=self._limits_of(connector)))
        self._untold.clear()

    def on_quiet(self, link: LiveLink, message: Quiet) -> None:
        """What a connector says of sessions that do not name it, or that have no limit, counts for nothing."""
        link.quiet = frozenset(message.sessions)
        named = (self._book.get(id) for id in message.sessions)
        over = [session for session in named if session is not None and session.idle_limit is not None and self._is_quiet(session)]
        self._revoker.revoke(over, Code.IDLE_LIMIT)

    def _limits_of(self, connector: str) -> dict[str, int]:
        sessions: Iterable[LiveSession] = self._book.of_connector(connector)
        return {session.id: session.idle_limit for session in sessions if session.idle_limit is not None}

    def _is_quiet(self, session: LiveSession) -> bool:
        """Every connector that may carry flows of it and can be asked says so; one that is away is not asked to keep a session alive."""
        links = [link for connector in session.audience if (link := self._switchboard.of_agent(connector)) is not None]
        return bool(links) and all(session.id in link.quiet for link in links)
