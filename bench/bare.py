"""The part of the exchange that grants and revokes, without sockets: real state, book, sessions, revoker, relays and verifier over a wire that is a callable.

For measuring what a session request costs, and for running thousands of random programs against the real logic.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from cloister import _core
from cloister.exchange.book import SessionBook
from cloister.exchange.directory import Directory
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.persist import SessionWriter
from cloister.exchange.relays import RelaySet
from cloister.exchange.revoke import Revoker
from cloister.exchange.sessions import Sessions
from cloister.exchange.settings import Settings
from cloister.exchange.state import Generations, Library, State, make_library
from cloister.exchange.verify import Verifier
from cloister.exchange.writer import Writer
from cloister.store.service import Store
from cloister.store.types import Agent, AgentRole, StoredDocument
from cloister.telemetry.decisions import DecisionLog
from cloister.trust.keyring import Keyring
from cloister.trust.types import Identity

Send = Callable[[int, bytes], bool]


class _Wire:
    """The core as the switchboard sees it."""

    def __init__(self, send: Send) -> None:
        self.send = send


def library_of(documents: Iterable[Mapping[str, Any]], generation: int = 1) -> Library:
    """Documents under ids made of their names, so that another library of the same names has the same ids."""
    stored = [
        StoredDocument(id_of(document["kind"], document["name"]), document["kind"], document["name"], document, generation, 0)
        for document in documents
    ]
    return make_library(stored, generation)


def id_of(kind: str, name: str) -> str:
    """16 hexadecimal digits, readable enough in a failure."""
    return f"{kind[0]}{name}".encode().hex()[-16:].zfill(16)


class Bare:
    def __init__(
        self,
        directory: Path,
        keyring: Keyring,
        library: Library,
        clock: Callable[[], float],
        send: Send,
        *,
        store: Store | None = None,
        writer: Writer | None = None,
        session_writer: SessionWriter | None = None,
        reserve: Callable[[int], int],
        log: DecisionLog,
    ) -> None:
        self.settings = Settings(data=directory)
        self.state = State(keyring=keyring, library=library)
        self.book = SessionBook()
        self.switchboard = Switchboard(cast("_core.Core", _Wire(send)))
        kept, written = cast("Store", store), cast("Writer", writer)
        self.relays = RelaySet(self.switchboard, kept, written, clock)
        self.generations = Generations(reserve)
        self.directory = Directory(self.settings, self.state, self.book, self.switchboard)
        patience = self.settings.acknowledgement_seconds
        self.revoker = Revoker(self.book, self.switchboard, self.relays, self.generations, kept, written, clock, patience)
        self.sessions = Sessions(
            self.settings,
            self.state,
            self.book,
            self.switchboard,
            self.directory,
            self.relays,
            self.revoker,
            self.generations,
            session_writer or SessionWriter(kept, written),
            log,
            clock,
        )
        self.verifier = Verifier(
            self.state, self.book, self.sessions, self.switchboard, self.directory, self.relays, self.generations, clock
        )
        self._links = 0

    def add_agent(self, role: AgentRole, name: str, *, principal: str | None = None, group: str | None = None) -> Agent:
        agent = Agent(
            id=id_of("agent", name),
            role=role,
            hostname=name,
            public_key="",
            key_thumbprint=f"{name:A<43}",
            enrolled_at=0,
            enrolled_by="",
            principal=principal,
            connector_group=group,
        )
        self.state.agents[agent.id] = agent
        return agent

    def link_up(self, agent: Agent) -> LiveLink:
        """A ready link of this agent."""
        self._links += 1
        identity = Identity(self.state.keyring.trust_domain, agent.role, agent.id)
        link = LiveLink(self._links, identity, agent.key_thumbprint, 1 << 40, "192.0.2.1:1", 0.0, "greeting")
        self.switchboard.add(link)
        self.switchboard.make_ready(link)
        return link

    def link_down(self, link: LiveLink) -> None:
        """As the exchange does it when a link is gone."""
        self.switchboard.remove(link.number)
        if link.role == "connector":
            self.revoker.connector_lost(link.agent)


def rule(name: str, group: str, segments: Sequence[str], **fields: Any) -> dict[str, Any]:
    who, what = {"groups": [group]}, {"segments": list(segments)}
    return {"kind": "rule", "name": name, "effect": "permit", "who": who, "what": what, **fields}
