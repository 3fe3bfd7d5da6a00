"""From state to what a decision reads, at one instant. Pure."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace

from cloister.exchange.signals.standing import counting, posture_of, risk_of, sign_in_of
from cloister.exchange.state import Judged, Library, State
from cloister.identity.posture.rules import evaluate, fresh, tell_shortfall
from cloister.identity.posture.types import Observed, Seen
from cloister.model.documents import Device, Rule, User
from cloister.model.facts import NO_SWITCHES, Aging, DeviceFacts, Facts, Principal, SignIn, Switches
from cloister.model.ids import DeviceId, RuleId, SegmentId, UserId, WorkloadId
from cloister.model.posture import OWN_REPORT, OWNER
from cloister.model.programs import Workload
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import REASONS, Code
from cloister.store.types import AccessRequest, Agent, EvidenceRow, Subject

MAX_REASON = 256  # characters of an administrator's reason


def principal_of(library: Library, id: str | None) -> Principal | None:
    """The user or workload with this id, None if it is gone."""
    document = library.parsed.get(id or "")
    match document:
        case User():
            groups = library.membership.groups_of("user", document.name)
            return Principal("user", UserId(id or ""), document.name, groups, document.disabled)
        case Workload():
            groups = library.membership.groups_of("workload", document.name)
            return Principal("workload", WorkloadId(id or ""), document.name, groups, document.disabled)
        case _:
            return None


def facts_of(state: State, agent: Agent, now: int) -> Facts | None:
    """What is known of the principal that this client acts for; None if nobody: a connector, or a user or acting program that was deleted."""
    facts = _own_facts_of(state, agent, now)
    if facts is None or agent.delegation is None:
        return facts
    lender = lender_of(state, agent)
    lent = None if lender is None else _own_facts_of(state, lender, now)
    return None if lent is None else _as_lent(facts, lent)


def lender_of(state: State, agent: Agent) -> Agent | None:
    """The client over which a person lent access to this program."""
    delegation = state.delegations.get(agent.delegation or "")
    return None if delegation is None else state.agents.get(delegation.agent)


def borrowers_of(state: State, lends: Callable[[Agent], bool]) -> list[str]:
    """The programs that act on a word given over one of these clients: what stops the client stops them."""
    words = {row.id for row in state.delegations.values() if (lender := state.agents.get(row.agent)) is not None and lends(lender)}
    return [agent.id for agent in state.agents.values() if agent.delegation in words] if words else []


def _as_lent(facts: Facts, lent: Facts) -> Facts:
    """A person's word goes no further than the client that it was given over: signed out, switched off or disabled, it lets nobody in (attack case 96)."""
    device, of_lender, switches = facts.device, lent.device, facts.switches
    if device is None or of_lender is None:
        return facts
    if of_lender.id in lent.switches.devices:
        switches = replace(switches, devices=switches.devices | {device.id})
    device = replace(device, revoked=device.revoked or of_lender.revoked)
    return replace(facts, device=device, switches=switches, signed_out=facts.signed_out or lent.signed_out)


def _own_facts_of(state: State, agent: Agent, now: int) -> Facts | None:
    principal = principal_of(state.library, agent.principal)
    actor = None if agent.actor is None else principal_of(state.library, agent.actor)
    if principal is None or agent.role != "client" or (agent.actor is not None and actor is None):
        return None
    places, fewer_at = state.places.count(principal.id, state.library.networks, now)
    of_device = _counting(state, _subjects(agent))
    of_user = _counting(state, [Subject("user", principal.id)])
    sign_in, signed_out = sign_in_of(agent, [*of_device, *of_user])
    until: dict[Aging, int] = {}
    device = device_of(state, agent, now, until)
    if fewer_at is not None:
        until["places"] = fewer_at
    return Facts(
        principal,
        device,
        None if sign_in is None else _as_known_now(state.library, principal, sign_in),
        _switches_of(state, agent, device),
        actor,
        networks=state.library.networks.names_of(agent.last_address),
        places=places,
        risk=risk_of(of_user, of_device, now, until),
        approvals=_approvals_of(state, principal, now, until),
        signed_out=signed_out,
        until=until,
    )


def _as_known_now(library: Library, principal: Principal, sign_in: SignIn) -> SignIn:
    """A provider that is another one by now, under the same name, vouches for no sign-in of before (case 7)."""
    provider = library.parsed.get(library.names.get(("identity-provider", sign_in.issuer), ""))
    user = library.parsed.get(principal.id)
    is_another = isinstance(provider, IdentityProvider) and isinstance(user, User) and user.issuer != provider.issuer
    return replace(sign_in, issuer="") if is_another else sign_in


def facts_anywhere(state: State, id: str | None, now: int) -> Facts | None:
    """What is known of a user or workload on no client in particular; None if it is gone."""
    principal = principal_of(state.library, id)
    if principal is None:
        return None
    until: dict[Aging, int] = {}
    risk = risk_of(_counting(state, [Subject("user", principal.id)]), [], now, until)
    approvals = _approvals_of(state, principal, now, until)
    return Facts(principal, switches=_switches_of(state), risk=risk, approvals=approvals, until=until)


def _approvals_of(state: State, principal: Principal, now: int, until: dict[Aging, int]) -> frozenset[tuple[RuleId, SegmentId]]:
    """What is approved for this principal now. An approval ends with the right of whoever gave it (attack case 96)."""
    given = [request for request in state.requests.of(principal.id) if request.state == "approved" and request.until > now]
    valid = [request for request in given if may_approve(state.library, request, request.decided_by)]
    if valid:
        until["approvals"] = min(request.until for request in valid)
    return frozenset((RuleId(request.rule), SegmentId(request.segment)) for request in valid)


def may_approve(library: Library, request: AccessRequest, user: str | None) -> bool:
    """Whether this user is, now, one of those who approve for the rule that is asked for; never oneself."""
    rule, approver = library.parsed.get(request.rule), principal_of(library, user)
    if not isinstance(rule, Rule) or rule.approval is None or approver is None or approver.kind != "user" or approver.disabled:
        return False
    return approver.id != request.principal and not approver.groups.isdisjoint(rule.approval.approvers)


def switched_off_because(state: State, agent: Agent, segment: str | None) -> str:
    """The administrator's own words for the kill switch that stops this client (at this segment), widest scope first; empty without one."""
    aims = {
        "all": "",
        "user": agent.principal,
        "device": agent.device,
        "agent": agent.id,
        "segment": segment,
        "session": f"{agent.id}/{segment}",
    }
    order = list(aims)
    hits = [switch for switch in state.kill_switches.values() if switch.scope in aims and switch.target == aims[switch.scope]]
    first = min(hits, key=lambda switch: (order.index(switch.scope), switch.created_at, switch.id), default=None)
    return "" if first is None else words_of_switch(first.reason)


def words_of_switch(reason: str) -> str:
    """What a person is told of a kill switch; stored reasons may be older than the check that they are one line of text."""
    line = "".join(character if character.isprintable() else " " for character in reason)[:MAX_REASON]
    return f"{REASONS[Code.KILL_SWITCH].message}: {line}"


def device_of(state: State, agent: Agent, now: int, until: dict[Aging, int]) -> DeviceFacts:
    """A client that no device document groups is a device of its own, without labels. `until` is told when its posture is next different."""
    document = state.parsed.get(agent.device or "")
    revoked = agent.revoked_at is not None or not agent.confirmed or _is_past(agent.vouched_until, now)
    judged = _judge(state, agent, now)
    if judged.until is not None:
        until["posture"] = judged.until
    id, name, labels = DeviceId(agent.id), agent.hostname, NO_LABELS
    if isinstance(document, Device):
        id, name, labels = DeviceId(agent.device or ""), document.name, document.labels
        revoked = revoked or document.disabled
    return DeviceFacts(id, name, labels, judged.posture, judged.profiles, revoked, judged.shortfalls)


def _judge(state: State, agent: Agent, now: int) -> Judged:
    """Once for all sessions of a client, until something is reported, changed or too old."""
    changes = tuple(map(state.evidence.changes_of, _subjects_of_facts(state, agent)))
    basis = (state.library.profiles, agent.device, owner_of(state, agent), changes)
    known = state.judged.get(agent.id)
    if known is not None and known.basis == basis and known.at <= now and (known.until is None or now < known.until):
        return known
    evidence = evidence_of(state, agent, now)
    posture, stale = fresh(evidence, now)
    outcomes = {profile.name: evaluate(profile, evidence, now) for profile in state.library.profiles}
    ends = [end for end in (stale, *(outcome.until for outcome in outcomes.values())) if end is not None]
    judged = Judged(
        basis,
        now,
        min(ends, default=None),
        posture,
        frozenset(name for name, outcome in outcomes.items() if outcome.holds),
        {name: tell_shortfall(name, outcome) for name, outcome in outcomes.items() if not outcome.holds},
    )
    if len(state.judged) >= MAX_JUDGED:
        state.judged.clear()
    state.judged[agent.id] = judged
    return judged


MAX_JUDGED = 100_000
NO_LABELS: Mapping[str, str] = {}


def evidence_of(state: State, agent: Agent, now: int) -> dict[tuple[str, str], Observed]:
    """What is known of a client's device by source and name: of its device document, then of the client itself, and whose device it is."""
    found: dict[tuple[str, str], Observed] = {}
    for subject in _subjects_of_facts(state, agent):
        found.update(posture_of(state.evidence.of(subject).values(), state.documents))
    found[OWN_REPORT, OWNER] = Seen(owner_of(state, agent), now)
    return found


def owner_of(state: State, agent: Agent) -> str:
    """Whether the device is the principal's, as a fact."""
    document = state.parsed.get(agent.device or "")
    owner = document.owner if isinstance(document, Device) else None
    if owner is None:
        return "none"
    principal = state.parsed.get(agent.principal or "")
    return "self" if isinstance(principal, User) and principal.name == owner else "other"


def _is_past(until: int | None, now: int) -> bool:
    return until is not None and until <= now


def _subjects(agent: Agent) -> list[Subject]:
    own = Subject("agent", agent.id)
    return [own] if agent.device is None else [Subject("device", agent.device), own]


def _subjects_of_facts(state: State, agent: Agent) -> list[Subject]:
    """Without a device whose document is gone: nobody could take back any more what was said of it."""
    return [subject for subject in _subjects(agent) if subject.kind == "agent" or subject.id in state.documents]


def _counting(state: State, subjects: Iterable[Subject]) -> list[EvidenceRow]:
    return counting((row for subject in subjects for row in state.evidence.of(subject).values()), state.documents)


def _switches_of(state: State, agent: Agent | None = None, device: DeviceFacts | None = None) -> Switches:
    switches = state.kill_switches.values()
    if not switches:
        return NO_SWITCHES
    devices = {switch.target for switch in switches if switch.scope in ("device", "agent")}
    segments = {switch.target for switch in switches if switch.scope == "segment"}
    if agent is not None and device is not None:
        pairs = [switch.target.partition("/") for switch in switches if switch.scope == "session"]
        segments |= {segment for client, _, segment in pairs if client == agent.id}
        devices |= {device.id} if not devices.isdisjoint({agent.id, agent.device}) else set()
    return Switches(
        everything=any(switch.scope == "all" for switch in switches),
        principals=frozenset(switch.target for switch in switches if switch.scope == "user"),
        devices=frozenset(devices),
        segments=frozenset(segments),
    )
