"""The switchboard: which links are up, whose they are, and how to send to them."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Literal

from cloister import _core
from cloister.model.messages.common import Message, SegmentHealth, write
from cloister.model.messages.from_agent import Hello
from cloister.model.reasons import Code
from cloister.store.types import AgentRole
from cloister.trust.types import Identity

WINDOW_SECONDS = 10.0
Stage = Literal["enrolment", "greeting", "answering", "held", "ready"]


@dataclass(slots=True, eq=False)
class LiveLink:
    """One connection of an agent. Who it is comes from the leaf that was proved in its handshake and from nowhere else."""

    number: int
    identity: Identity | None
    thumbprint: str | None
    not_after: int
    address: str
    since: float
    stage: Stage
    deadline: float | None = None
    hello: Hello | None = None
    boot: str = ""
    draining: bool = False
    advertised: str | None = None
    messages: int = 0  # in the window that started at `window`
    explanations: int = 0  # in the same window
    window: float = 0.0
    health: dict[str, SegmentHealth] = field(default_factory=dict)
    quiet: frozenset[str] = frozenset()  # sessions that this connector says are idle
    sent: dict[str, bytes] = field(default_factory=dict)  # kind of whole-set message → what was last sent

    @property
    def agent(self) -> str:
        if self.identity is None:
            raise ValueError("an enrolment link has no agent")
        return self.identity.id

    @property
    def role(self) -> AgentRole:
        if self.identity is None or self.identity.role == "control":
            raise ValueError("this link is nobody's that is served")
        return self.identity.role

    def count_message(self, now: float) -> int:
        """Messages in this window, the one that just came included."""
        if now - self.window >= WINDOW_SECONDS:
            self.window, self.messages, self.explanations = now, 0, 0
        self.messages += 1
        return self.messages

    def count_explanation(self) -> int:
        """Explanations that the peer asked for or caused in this window, this one included."""
        self.explanations += 1
        return self.explanations

    @property
    def source(self) -> str:
        """The peer's address without its port."""
        return self.address.rpartition(":")[0].strip("[]") or self.address


class Switchboard:
    """Links by number, and ready links by agent."""

    def __init__(self, core: _core.Core) -> None:
        self._core = core
        self.on_unready: Callable[[LiveLink], None] = lambda _link: None  # an agent has no ready link any more
        self._links: dict[int, LiveLink] = {}
        self._ready: dict[str, LiveLink] = {}
        self._by_role: dict[str, dict[str, LiveLink]] = {}  # of those that are ready
        self._unready: dict[int, LiveLink] = {}

    def __len__(self) -> int:
        return len(self._links)

    def __iter__(self) -> Iterator[LiveLink]:
        return iter(list(self._links.values()))

    def unready(self) -> list[LiveLink]:
        """Links that have not been welcomed: the only ones with deadlines."""
        return list(self._unready.values())

    def unready_of(self, agent: str) -> int:
        """How many links show this agent's leaf and have not been welcomed."""
        return sum(link.identity is not None and link.agent == agent for link in self._unready.values())

    def get(self, number: int) -> LiveLink | None:
        return self._links.get(number)

    def of_agent(self, agent: str) -> LiveLink | None:
        """The agent's one ready link."""
        return self._ready.get(agent)

    def is_ready(self, link: LiveLink) -> bool:
        return link.identity is not None and self._ready.get(link.agent) is link

    def of_role(self, role: AgentRole) -> list[LiveLink]:
        return list(self._by_role.get(role, {}).values())

    def add(self, link: LiveLink) -> None:
        self._links[link.number] = self._unready[link.number] = link

    def make_ready(self, link: LiveLink) -> None:
        link.stage, link.deadline = "ready", None
        self._unready.pop(link.number, None)
        self._ready[link.agent] = link
        self._by_role.setdefault(link.role, {})[link.agent] = link

    def remove(self, number: int) -> LiveLink | None:
        link = self._links.pop(number, None)
        self._unready.pop(number, None)
        if link is not None and link.identity is not None and self._ready.get(link.agent) is link:
            del self._ready[link.agent]
            del self._by_role[link.role][link.agent]
            self.on_unready(link)
        return link

    def send(self, link: LiveLink, message: Message) -> bool:
        """False if the link is down or cannot take more; the core then closes it and a LinkDown follows."""
        return self._core.send(link.number, write(message))

    def send_whole(self, link: LiveLink, message: Message, *, always: bool = False) -> bool:
        """Send a whole-set message unless this link has the very same already, its generation apart."""
        kind = type(message).__name__
        content = message.model_dump_json(exclude={"generation"}).encode()
        if not always and link.sent.get(kind) == content:
            return True
        link.sent[kind] = content
        return self.send(link, message)

    def send_to(self, agent: str, message: Message) -> bool:
        link = self._ready.get(agent)
        return link is not None and self.send(link, message)

    def broadcast(self, make: Callable[[AgentRole], Message | None]) -> None:
        """Send every ready link the message of its role."""
        messages: dict[str, Message | None] = {}
        for link in list(self._ready.values()):
            role = link.role
            if role not in messages:
                messages[role] = make(role)
            if (message := messages[role]) is not None:
                self.send_whole(link, message)

    def close(self, link: LiveLink, reason: Code) -> None:
        """End the link; it counts as gone at once."""
        self.remove(link.number)
        self._core.close_link(link.number, reason)
