"""A model of what races with revocation: clients that ask and keep every ticket, connectors that honour them, links that come and go, a slow store, a clock.

The exchange's side is the real one (bench/bare.py). The connector's side is its authority in few lines, as crates/core/src/grants.rs has it:

* a ticket is for the connectors that it names, until it expires (with leeway and, while the link is down, its continuity);
* before the first snapshot nothing is honoured; what a snapshot of the ticket's generation or later does not list is over;
* what was revoked is over for good; a ticket that is newer than the snapshot counts only while the link is up.

**Survivor**: a ticket that a connector honours although policy does not allow its session, while nobody is on the way to end it: the exchange does not
wait for this connector's confirmation any more, and no relay blocks the pair.
"""

import base64
import json
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bench.bare import Bare, id_of, library_of, rule

from cloister.exchange.book import LEEWAY, LiveSession
from cloister.exchange.links import LiveLink
from cloister.exchange.persist import SessionWriter
from cloister.exchange.state import Library
from cloister.exchange.writer import Writer
from cloister.model.messages.from_agent import Idle, WantSession
from cloister.model.messages.from_exchange import FromExchange, Refused, Revoke, Session, Snapshot, read_from_exchange
from cloister.model.reasons import Code
from cloister.store.types import KillSwitch
from cloister.telemetry.decisions import DecisionLog
from cloister.trust.keyring import Keyring

USERS, SEGMENTS, CONNECTORS = ("ada", "bob"), ("s0", "s1"), ("c0", "c1")
PAIRS = [(user, segment) for user in USERS for segment in SEGMENTS]
Allowed = frozenset[tuple[str, str]]


def documents(allowed: Allowed) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = [{"kind": "connector-group", "name": "g", "suffixes": ["lab"]}]
    for user in USERS:
        found += [{"kind": "user", "name": user}, {"kind": "group", "name": f"of-{user}", "users": [user]}]
    for name in SEGMENTS:
        found.append({"kind": "segment", "name": name, "hosts": [f"{name}.lab"], "ports": [1], "groups": ["g"]})
    return found + [rule(f"{user}-{segment}", f"of-{user}", [segment]) for user, segment in sorted(allowed)]


class Libraries:
    """Every policy that a program can have, compiled once."""

    def __init__(self) -> None:
        sets = [frozenset(pair for at, pair in enumerate(PAIRS) if mask >> at & 1) for mask in range(1 << len(PAIRS))]
        self.of: dict[Allowed, Library] = {allowed: library_of(documents(allowed)) for allowed in sets}


@dataclass(frozen=True)
class Ticket:
    session: str
    client: str
    segment: str
    connectors: tuple[str, ...]
    expires: int
    generation: int


@dataclass
class Connector:
    id: str
    up: bool = False
    snapshot: int | None = None
    listed: frozenset[str] = frozenset()
    revoked: set[str] = field(default_factory=set)
    queue: deque[FromExchange] = field(default_factory=deque)

    def take(self, message: FromExchange) -> int | None:
        """Put it in force; the generation to confirm, if any."""
        match message:
            case Snapshot(generation=generation, sessions=sessions):
                if self.snapshot is None or generation >= self.snapshot:
                    self.snapshot, self.listed = generation, frozenset(sessions)
                return generation
            case Revoke(generation=generation, sessions=sessions):
                self.revoked.update(sessions)
                return generation
            case _:
                return None

    def honours(self, ticket: Ticket, now: float) -> bool:
        if self.id not in ticket.connectors or now > ticket.expires + LEEWAY or self.snapshot is None:
            return False
        if ticket.session in self.revoked:
            return False
        return ticket.session in self.listed if ticket.generation <= self.snapshot else self.up


class SlowStore:
    """The writer of sessions: what waits for a batch happens when the program says so."""

    def __init__(self) -> None:
        self.waiting: deque[Callable[[bool], None]] = deque()

    def put(self, session: LiveSession, then: Callable[[bool], None] | None = None) -> None:
        if then is not None:
            self.waiting.append(then)


class NoWriter:
    """Rows are not what this is about."""

    def start(self, work: Callable[[], object]) -> None:
        pass


class NoLog:
    def decided(self, *_: object) -> None:
        pass


class Race:
    """One world, in which a program is run step by step."""

    def __init__(self, keyring: Keyring, libraries: Libraries) -> None:
        self.now = 1_800_000_000.0
        self.generation = 1
        self._libraries = libraries
        self.allowed: Allowed = frozenset(PAIRS)
        self.store = SlowStore()
        self.bare = Bare(
            Path("unused"),
            keyring,
            libraries.of[self.allowed],
            lambda: self.now,
            self._send,
            writer=cast("Writer", NoWriter()),
            session_writer=cast("SessionWriter", self.store),
            reserve=self._reserve,
            log=cast("DecisionLog", NoLog()),
        )
        group = id_of("connector-group", "g")
        self.connectors = {
            agent.id: Connector(agent.id) for agent in (self.bare.add_agent("connector", name, group=group) for name in CONNECTORS)
        }
        self.clients = {user: self.bare.add_agent("client", f"of-{user}", principal=id_of("user", user)).id for user in USERS}
        self.links: dict[str, LiveLink] = {}
        self.tickets: list[Ticket] = []  # everything that was ever sent to a client: a thief keeps them all
        self.confirmations: deque[tuple[str, int]] = deque()
        self.unanswered: set[tuple[str, int]] = set()  # client, ref
        self._ref = 0
        for agent in [*self.connectors, *self.clients.values()]:
            self.link_up(agent)

    def _reserve(self, count: int) -> int:
        self.generation += count
        return self.generation

    def _send(self, link: int, body: bytes) -> bool:
        known = self.bare.switchboard.get(link)
        if known is None:
            return False
        message = read_from_exchange(body)
        if known.agent in self.connectors:
            self.connectors[known.agent].queue.append(message)
        elif isinstance(message, Session):
            self.tickets.append(self._ticket(message, known.agent))
        if isinstance(message, Session | Refused) and message.ref is not None:
            self.unanswered.discard((known.agent, message.ref))
        return True

    def _ticket(self, message: Session, client: str) -> Ticket:
        claims = claims_of(message.ticket)
        return Ticket(message.session, client, message.segment, tuple(claims["con"]), claims["exp"], claims["gen"])

    # ------------------------------------------------------------ steps

    def step(self, dice: random.Random) -> None:
        steps: list[tuple[Callable[[random.Random], None], int]] = [
            (self.want, 8),
            (self.store_batch, 6),
            (self.change_policy, 4),
            (self.switch, 1),
            (self.deliver, 6),
            (self.confirm, 4),
            (self.pass_time, 3),
            (self.idle, 1),
            (self.flap, 2),
            (self.snapshots, 1),
        ]
        (chosen,) = dice.choices([step for step, _ in steps], [weight for _, weight in steps])
        chosen(dice)

    def want(self, dice: random.Random) -> None:
        user, segment = dice.choice(PAIRS)
        if link := self.links.get(self.clients[user]):
            self._ref += 1
            self.unanswered.add((link.agent, self._ref))
            self.bare.sessions.want(link, WantSession(ref=self._ref, host=f"{segment}.lab", port=1, protocol="tcp"))

    def store_batch(self, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 3)):
            if self.store.waiting:
                self.store.waiting.popleft()(True)

    def change_policy(self, dice: random.Random) -> None:
        """A rule comes or goes; exactly the sessions of its segment are decided again, as changes of documents have it."""
        pair = dice.choice(PAIRS)
        self.allowed ^= {pair}
        self.bare.state.library = self._libraries.of[self.allowed]
        self.bare.generations.advance()
        self.bare.verifier.check(self.bare.book.of_segment(id_of("segment", pair[1])), Code.POLICY_CHANGED)

    def switch(self, dice: random.Random) -> None:
        user = id_of("user", dice.choice(USERS))
        if self.bare.state.kill_switches.pop(user, None) is None:
            self.bare.state.kill_switches[user] = KillSwitch(user, "user", user, "drill", int(self.now), "admin")
            self.bare.verifier.check(self.bare.book.of_principal(user), Code.KILL_SWITCH)

    def deliver(self, dice: random.Random) -> None:
        connector = self.connectors[dice.choice(list(self.connectors))]
        for _ in range(dice.randint(1, 3)):
            if connector.queue and (generation := connector.take(connector.queue.popleft())) is not None:
                self.confirmations.append((connector.id, generation))

    def confirm(self, dice: random.Random) -> None:
        for _ in range(dice.randint(1, 3)):
            if self.confirmations:
                self.bare.revoker.confirmed(*self.confirmations.popleft())

    def pass_time(self, dice: random.Random) -> None:
        """A moment, half of a ticket's life, or longer than a ticket lives."""
        self.now += dice.choice([0.1, 0.4, 151, 151, 340])
        self.bare.revoker.on_tick(self.now)
        self.bare.sessions.on_tick(self.now)
        self.bare.relays.expire(self.now)

    def idle(self, dice: random.Random) -> None:
        client = self.clients[dice.choice(USERS)]
        if link := self.links.get(client):
            self.bare.sessions.idle(link, Idle(sessions=[session.id for session in self.bare.book.of_client(client)]))

    def flap(self, dice: random.Random) -> None:
        agent = dice.choice([*self.connectors, *self.clients.values()])
        self.link_down(agent) if agent in self.links else self.link_up(agent)

    def snapshots(self, _: random.Random) -> None:
        for connector in self.connectors:
            self.bare.revoker.send_snapshot(connector)

    # ------------------------------------------------------------ links

    def link_up(self, agent: str) -> None:
        self.links[agent] = self.bare.link_up(self.bare.state.agents[agent])
        if agent in self.connectors:
            self.connectors[agent].up = True
            self.bare.revoker.send_snapshot(agent)
        else:
            self.bare.sessions.client_is_back(agent)

    def link_down(self, agent: str) -> None:
        """What was on the way is lost, in both directions."""
        if agent in self.connectors:
            self.connectors[agent].up = False
            self.connectors[agent].queue.clear()
            self.confirmations = deque(item for item in self.confirmations if item[0] != agent)
        self.unanswered = {asked for asked in self.unanswered if asked[0] != agent}
        self.bare.link_down(self.links.pop(agent))
        if agent in self.connectors:
            self.bare.sessions.place_again(self.bare.book.of_connector(agent))

    # ------------------------------------------------------------ the laws

    def settle(self) -> set[tuple[str, int]]:
        """The store catches up; what is still unanswered then never will be."""
        while self.store.waiting:
            self.store.waiting.popleft()(True)
        return self.unanswered

    def survivors(self) -> list[tuple[Ticket, str]]:
        return [
            (ticket, connector.id)
            for ticket in self.tickets
            for connector in self.connectors.values()
            if not self._is_allowed(ticket)
            and connector.honours(ticket, self.now)
            and not self._is_being_ended(ticket, connector.id)
        ]

    def _is_allowed(self, ticket: Ticket) -> bool:
        """What policy says, without asking the exchange."""
        user = next(user for user, client in self.clients.items() if client == ticket.client)
        segment = next(name for name in SEGMENTS if id_of("segment", name) == ticket.segment)
        return (user, segment) in self.allowed and id_of("user", user) not in self.bare.state.kill_switches

    def _is_being_ended(self, ticket: Ticket, connector: str) -> bool:
        """The confirmation is awaited, within the exchange's patience, or the relays refuse the pair."""
        awaited = any(
            item.connector == connector and ticket.client in item.pairs and item.deadline + 0.5 > self.now
            for item in self.bare.revoker._pending
        )
        block = self.bare.relays._blocks.get((ticket.client, connector))
        return awaited or (block is not None and not block.cleared)


def claims_of(token: str) -> dict[str, Any]:
    body = token.split(".")[1]
    claims: dict[str, Any] = json.loads(base64.urlsafe_b64decode(body + "=" * (-len(body) % 4)))
    return claims
