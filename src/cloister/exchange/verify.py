"""Continuous verification: after each committed change, exactly the sessions that it can touch are decided again, and everybody is sent
the sets that changed. Runs in slices, so that a change that touches everything does not hold up the revocation of one session."""

import asyncio
from collections.abc import Callable, Iterable
from collections.abc import Set as AbstractSet

from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.devices.asks import NOTHING, ask_of
from cloister.exchange.directory import Directory, Rendered
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.relays import RelaySet
from cloister.exchange.sessions import Sessions
from cloister.exchange.state import Generations, State
from cloister.model.messages.from_exchange import Trust
from cloister.model.reasons import Code
from cloister.store.types import Agent, AgentRole
from cloister.trust.certificates import LEAF_SECONDS, base64url

SLICE = 100  # decisions, or clients, between two turns of the loop
MAX_CONTINUITY_SECONDS = 86400


class Verifier:
    def __init__(
        self,
        state: State,
        book: SessionBook,
        sessions: Sessions,
        switchboard: Switchboard,
        directory: Directory,
        relays: RelaySet,
        generations: Generations,
        clock: Callable[[], float],
    ) -> None:
        self._state = state
        self._book = book
        self._sessions = sessions
        self._switchboard = switchboard
        self._directory = directory
        self._relays = relays
        self._generations = generations
        self._clock = clock
        self._stale = asyncio.Event()
        self._stale_all = False
        self._stale_principals: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # ------------------------------------------------------------ sessions

    def check(self, sessions: Iterable[LiveSession], cause: Code) -> None:
        """Decide these again. The first slice is decided before this returns; the rest follows in turns."""
        remaining = sorted(sessions, key=lambda session: session.client)  # so that a client is told once of all of its own
        first, rest = remaining[:SLICE], remaining[SLICE:]
        self._check_slice(first, cause)
        if rest:
            task = asyncio.get_running_loop().create_task(self._check_rest(rest, cause))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)
        self._sessions.answer_open_questions()

    def end(self, sessions: Iterable[LiveSession], cause: Code) -> None:
        """These are over whatever the rules say: what they were decided for is not there any more."""
        self._sessions.end(sessions, cause)

    async def settled(self) -> None:
        """Until every change made so far has had its effect."""
        while self._tasks:
            await asyncio.gather(*self._tasks)
        self.set_stale()
        await self.publish()

    def _check_slice(self, sessions: list[LiveSession], cause: Code) -> None:
        self._sessions.recheck_all(sessions, cause)

    async def _check_rest(self, sessions: list[LiveSession], cause: Code) -> None:
        for start in range(0, len(sessions), SLICE):
            await asyncio.sleep(0)
            self._check_slice(sessions[start : start + SLICE], cause)

    def replace_connector(self, connector: str) -> None:
        """A connector is gone or takes no more: sessions that use it first get a ticket for others, in slices."""
        task = asyncio.get_running_loop().create_task(self._replace(connector))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self.set_stale()

    async def _replace(self, connector: str) -> None:
        sessions = [session for session in self._book.of_connector(connector) if session.connectors[:1] == (connector,)]
        for start in range(0, len(sessions), SLICE):
            self._sessions.place_again(sessions[start : start + SLICE])
            await asyncio.sleep(0)

    # ------------------------------------------------------------ sets

    def set_stale(self) -> None:
        """What connectors or clients see may have changed."""
        self._stale_all = True
        self._stale.set()

    def set_stale_for(self, principals: AbstractSet[str]) -> None:
        """What the clients of these see may have changed, and nothing else."""
        if principals:
            self._stale_principals |= principals
            self._stale.set()

    async def run(self) -> None:
        """Publish whenever something is stale; rests in between, so that a burst of changes is one round."""
        while True:
            await self._stale.wait()
            await self.publish()
            await asyncio.sleep(0.05)

    async def publish(self) -> None:
        """Connectors first: they must know a segment before a client is told of it."""
        everybody, principals = self._stale_all, self._stale_principals
        self._stale.clear()
        self._stale_all, self._stale_principals = False, set()
        if everybody:
            for link in self._switchboard.of_role("connector"):
                self.send_assignments(link)
            await asyncio.sleep(0)
        clients = self._switchboard.of_role("client")
        if not everybody:
            clients = [link for link in clients if principals & {(agent := self._state.agents[link.agent]).principal, agent.actor}]
        cache = Rendered()
        for count, link in enumerate(clients):
            if count % SLICE == SLICE - 1:
                await asyncio.sleep(0)
            if self._switchboard.of_agent(link.agent) is link:
                self.send_catalogue(link, cache)

    def send_assignments(self, link: LiveLink) -> None:
        self._switchboard.send_whole(link, self._directory.assignments(link.agent, self._generations.current))

    def send_catalogue(self, link: LiveLink, cache: Rendered | None = None) -> None:
        """And before it what the client is asked to report: a client that is asked nothing is told nothing."""
        cache = cache or Rendered()
        agent = self._state.agents[link.agent]
        ask = cache.asks.get(agent.principal)
        if ask is None:
            ask = cache.asks[agent.principal] = ask_of(self._state, agent)
        if ask != NOTHING or "PostureAsk" in link.sent:
            self._switchboard.send_whole(link, ask)
        message = self._directory.catalogue(link.agent, self._generations.current, cache)
        self._switchboard.send_whole(link, message)

    def publish_trust(self) -> None:
        self._switchboard.broadcast(self.trust)

    def publish_relays(self) -> None:
        message = self._relays.message()
        self._switchboard.broadcast(lambda role: None if role == "relay" else message)

    def trust(self, role: AgentRole) -> Trust:
        """Trust anchors, ticket keys, and the revoked agents that this one could still meet: clients are told of nobody's clients."""
        keyring = self._state.keyring
        keys = {kid: base64url(key) for kid, key in keyring.ticket_verification_keys().items()}
        revoked = [agent.id for agent in self.revoked_agents() if not (role == agent.role == "client")]
        return Trust(roots=keyring.roots_pem(), ticket_keys=keys, revoked_agents=revoked)

    def revoked_agents(self) -> list[Agent]:
        """Those revoked so recently that somebody could still accept their leaf."""
        horizon = self._clock() - 2 * LEAF_SECONDS - MAX_CONTINUITY_SECONDS
        since = min(authority.since for authority in self._state.keyring.authorities)  # no older leaf verifies at all
        agents = self._state.agents.values()
        return [agent for agent in agents if agent.revoked_at is not None and agent.revoked_at > max(horizon, since)]
