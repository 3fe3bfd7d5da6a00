"""Whether what vouched for a program still does: its issuer, the workload it is, the person's word, and time. Pure (case 96)."""

from cloister.exchange.programs.clusters import standing
from cloister.exchange.programs.delegations import is_standing
from cloister.exchange.programs.types import Lent, Program
from cloister.exchange.state import State
from cloister.identity.programs import mark_of
from cloister.model.programs import TokenIssuer, Workload
from cloister.store.types import Agent

Marks = dict[tuple[str | None, str | None, str | None, str | None], frozenset[str]]


def mark_of_program(state: State, program: Program, lent: Lent | None) -> str:
    """A digest of what the documents said when the program proved itself; `is_vouched` compares."""
    parsed = state.parsed
    for_by = None if lent is None or lent.by is None else parsed.get(lent.by)
    workload = parsed.get(program.workload or program.group or "")
    subject = program.claims.subject if program.workload is None else ""
    return mark_of(standing(state, program.issuer), workload, for_by, kid=program.kid, subject=subject)


def is_current(state: State, agent: Agent, now: float) -> bool:
    """What changes by time and by people's word: asked again all the time, so it looks at little."""
    if agent.vouched_until is not None and agent.vouched_until <= now:
        return False
    return agent.delegation is None or is_standing(state, agent.delegation, now)


def is_vouched(state: State, agent: Agent, marks: Marks) -> bool:
    """What changes with documents. `marks` remembers what was worked out for other agents of the same documents."""
    if agent.vouched_by is None:
        return True
    key = (agent.vouched_by, agent.actor or agent.principal, agent.connector_group, agent.vouched_for_by)
    if key not in marks:
        marks[key] = _possible(state, agent)
    return agent.vouched_mark in marks[key]


def _possible(state: State, agent: Agent) -> frozenset[str]:
    """Every mark that an enrolment on these documents could have now: by each key, and for connectors by each subject."""
    parsed, issuer = state.parsed, standing(state, agent.vouched_by)
    what = parsed.get((agent.connector_group if agent.role == "connector" else agent.actor or agent.principal) or "")
    for_by = parsed.get(agent.vouched_for_by or "")
    if issuer is None or issuer.disabled or what is None:
        return frozenset()
    if agent.vouched_for_by is not None and (not isinstance(for_by, TokenIssuer) or for_by.disabled or not for_by.people):
        return frozenset()
    kids: set[str | None] = {None}
    if issuer.keys is not None:
        kids |= {kid for key in issuer.keys.keys if isinstance(kid := key.get("kid"), str)}
    if isinstance(what, Workload):
        subjects: tuple[str, ...] = ("",)
    else:
        connectors = issuer.connectors
        subjects = connectors.subjects if connectors is not None and connectors.group == what.name else ()
    return frozenset(mark_of(issuer, what, for_by, kid=kid, subject=subject) for kid in kids for subject in subjects)
