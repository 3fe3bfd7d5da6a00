"""Which live sessions a change of documents touches: no others are decided again. Pure."""

from cloister.exchange.book import LiveSession, SessionBook
from cloister.exchange.delta import Delta
from cloister.exchange.facts import borrowers_of, may_approve, principal_of
from cloister.exchange.state import Library, State
from cloister.model.documents import Device
from cloister.model.ids import SegmentId
from cloister.policy.affected import touched_segments
from cloister.policy.compile import CompiledPolicy
from cloister.store.types import AccessRequest

FACT_KINDS = frozenset({"network", "posture-profile", "identity-provider"})
"""Kinds of document that say what facts mean: rules name them in their conditions."""


def touched_sessions(state: State, book: SessionBook, old: Library, delta: Delta, principals: set[str]) -> list[LiveSession]:
    """Exactly the sessions whose decision reads something that is different now. `principals` are those that may be (`delta.touched_principals`)."""
    new = state.library
    if any(row.kind == "signal-transmitter" for row in delta.removed):
        return list(book)  # what it said of anybody does not count any more
    found: dict[str, LiveSession] = {}
    if not delta.is_of_leaves:
        for segment in touched_segments(old.policy, new.policy):
            found.update((session.id, session) for session in book.of_segment(segment))
        for segment in _segments_reading(old.policy, new.policy, _changed_facts(old, new)):
            found.update((session.id, session) for session in book.of_segment(segment))
    different = {id for id in principals if principal_of(old, id) != principal_of(new, id)}
    for principal in different:
        found.update((session.id, session) for session in book.of_principal(principal))
    for client in book.clients() if any(_is_workload(old, new, id) for id in different) else ():
        agent = state.agents.get(client)
        if agent is not None and agent.actor in different:
            found.update((session.id, session) for session in book.of_client(client))
    requests = (request for request in state.requests if request.decided_by in different or not delta.is_of_leaves)
    for principal in {request.principal for request in requests if _approver_changed(old, new, request)}:
        found.update((session.id, session) for session in book.of_principal(principal))
    devices = {
        row.id for row in (*delta.written, *delta.removed) if row.kind == "device" and _device(old, row.id) != _device(new, row.id)
    }
    if devices:
        own = [client for client in book.clients() if (agent := state.agents.get(client)) is not None and agent.device in devices]
        for client in (*own, *borrowers_of(state, lambda lender: lender.device in devices)):
            found.update((session.id, session) for session in book.of_client(client))
    return list(found.values())


def _changed_facts(old: Library, new: Library) -> set[str]:
    """The names of documents of such kinds that came, went or changed."""
    return {
        document.name
        for mine, other in ((old, new), (new, old))
        for id, document in mine.documents.items()
        if document.kind in FACT_KINDS and other.documents.get(id) != document
    }


def _segments_reading(old: CompiledPolicy, new: CompiledPolicy, names: set[str]) -> set[SegmentId]:
    """The segments of rules that may read one of these."""
    found: set[SegmentId] = set()
    for policy in (old, new) if names else ():
        for id, rule in policy.rules.items():
            when = rule.rule.when
            reads_any = when is not None and (when.expression is not None or when.one_place)  # places are named networks, too
            if when is not None and (reads_any or names & {*when.networks, *when.profiles, *when.issuers}):
                found.update(policy.segments_of(id))
    return found


def _approver_changed(old: Library, new: Library, request: AccessRequest) -> bool:
    if request.state != "approved":
        return False
    return may_approve(old, request, request.decided_by) != may_approve(new, request, request.decided_by)


def _is_workload(old: Library, new: Library, id: str) -> bool:
    document = new.documents.get(id) or old.documents.get(id)
    return document is not None and document.kind == "workload"


def _device(library: Library, id: str) -> Device | None:
    document = library.parsed.get(id)
    return document if isinstance(document, Device) else None
