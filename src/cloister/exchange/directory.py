"""Who serves what, right now: connectors by segment, their health, and the whole sets that connectors and clients are sent."""

from collections.abc import Iterator
from dataclasses import dataclass, field

from cloister.exchange.book import SessionBook
from cloister.exchange.facts import principal_of
from cloister.exchange.links import LiveLink, Switchboard
from cloister.exchange.placement import Candidate
from cloister.exchange.settings import Settings
from cloister.exchange.state import State
from cloister.model.documents import Segment, to_assignment, to_visible
from cloister.model.ids import SegmentId
from cloister.model.messages.common import Visible
from cloister.model.messages.from_exchange import Assignments, Catalogue, PostureAsk
from cloister.model.overlap import more_specific


@dataclass(slots=True)
class Rendered:
    """What one round of publishing has made already: segments by id, catalogues by principal and the program that acts for it, what is asked of devices."""

    segments: dict[str, Visible] = field(default_factory=dict)
    catalogues: dict[tuple[str, str | None], Catalogue] = field(default_factory=dict)
    asks: dict[str | None, PostureAsk] = field(default_factory=dict)  # by principal


class Directory:
    def __init__(self, settings: Settings, state: State, book: SessionBook, switchboard: Switchboard) -> None:
        self._settings = settings
        self._state = state
        self._book = book
        self._switchboard = switchboard

    def candidates(self, segment_id: str) -> list[Candidate]:
        """Connectors that serve this segment and whose link is up."""
        segment = self._state.parsed.get(segment_id)
        return (
            [self._candidate(link, segment_id, segment) for link in self._serving(segment)] if isinstance(segment, Segment) else []
        )

    def is_healthy(self, segment: Segment, segment_id: str) -> bool:
        """Whether some connector can serve it, as far as is known."""
        return any(self._candidate(link, segment_id, segment).healthy is not False for link in self._serving(segment))

    def serves(self, connector: str, segment_id: str) -> bool:
        agent, segment = self._state.agents.get(connector), self._state.parsed.get(segment_id)
        return agent is not None and isinstance(segment, Segment) and agent.connector_group in self._state.group_ids(segment)

    def assignments(self, connector: str, generation: int) -> Assignments:
        """The segments of this connector's group, and the more specific ones that other groups serve."""
        agent = self._state.agents[connector]
        segments = self._state.segments()
        served = {id for id, segment in segments.items() if agent.connector_group in self._state.group_ids(segment)}
        elsewhere = more_specific(segments, served)
        listed = [to_assignment(id, segments[id]) for id in sorted(served)]
        listed += [to_assignment(id, segments[id]).model_copy(update={"elsewhere": True}) for id in sorted(elsewhere)]
        return Assignments(generation=generation, segments=listed)

    def catalogue(self, client: str, generation: int, cache: Rendered) -> Catalogue:
        """What this client's principal may know of."""
        agent = self._state.agents[client]
        key = (agent.principal or "", agent.actor)
        known = cache.catalogues.get(key)
        if known is None:
            ids = sorted(self._visible_ids(*key))
            suffixes = sorted(self._state.suffixes() | set(self._settings.private_suffixes))
            visible = [shown for id in ids if (shown := self._visible(id, cache)) is not None]
            known = cache.catalogues[key] = Catalogue(generation=generation, segments=visible, suffixes=suffixes)
        return known

    def _visible_ids(self, principal_id: str, actor_id: str | None) -> list[SegmentId]:
        principal = principal_of(self._state.library, principal_id)
        actor = None if actor_id is None else principal_of(self._state.library, actor_id)
        if principal is None or (actor_id is not None and actor is None):
            return []
        return self._state.policy.visible(principal, actor)

    def _visible(self, id: str, cache: Rendered) -> Visible | None:
        segment = self._state.parsed.get(id)
        if id not in cache.segments and isinstance(segment, Segment):
            cache.segments[id] = to_visible(id, segment, healthy=self.is_healthy(segment, id))
        return cache.segments.get(id)

    def _serving(self, segment: Segment | None) -> Iterator[LiveLink]:
        if segment is None:
            return
        groups = self._state.group_ids(segment)
        for link in self._switchboard.of_role("connector"):
            agent = self._state.agents.get(link.agent)
            if agent is not None and agent.connector_group in groups and not self._state.is_switched_off(agent):
                yield link

    def _candidate(self, link: LiveLink, segment_id: str, segment: Segment | None) -> Candidate:
        report = link.health.get(segment_id)
        healthy = True if segment is not None and segment.health is None else (None if report is None else report.healthy)
        if segment is not None and segment.health is None and report is not None:
            healthy = report.healthy
        return Candidate(link.agent, healthy, link.draining, self._book.load(link.agent), 0 if report is None else report.rtt_us)
