"""Which sessions a change can affect: those for which something that their decision reads is different.

`basis_of` is everything that a decision reads besides the clock, as a value. Two equal bases at one time give one decision (apart from the
generation), so a session whose basis stays need not be decided again. `touched_segments` narrows a change of documents to the segments
whose sessions are worth comparing.
"""

from collections.abc import Hashable, Iterable
from dataclasses import dataclass
from typing import Generic, TypeVar

from cloister.model.documents import Approval, Limits
from cloister.model.facts import Facts, Principal
from cloister.model.ids import SegmentId
from cloister.model.reasons import Code
from cloister.policy.aging import reads_sign_in
from cloister.policy.compile import CompiledPolicy, CompiledRule
from cloister.policy.decide import closed_gate

K = TypeVar("K", bound=Hashable)


@dataclass(frozen=True, slots=True)
class Basis:
    """What a decision reads. Parts that no applicable rule reads are left out, so that their changes do not count."""

    gate: Code | None
    segment: str  # digest of the whole document: hosts, ports and groups matter to whoever serves it
    switched_off: bool
    rules: tuple[tuple[str, str, Approval | None, Limits | None], ...]  # id, text, and what Cedar does not see
    reads: tuple[Hashable, ...]


@dataclass(frozen=True, slots=True)
class Held(Generic[K]):
    """A session under the caller's key, with the facts it was decided on and those of now."""

    key: K
    segment: SegmentId
    before: Facts
    after: Facts


def affected(old: CompiledPolicy, new: CompiledPolicy, sessions: Iterable[Held[K]]) -> list[K]:
    """The sessions that must be decided again after a change of documents, of facts, or of both."""
    return [
        session.key
        for session in sessions
        if basis_of(old, session.before, session.segment) != basis_of(new, session.after, session.segment)
    ]


def basis_of(policy: CompiledPolicy, facts: Facts, segment: SegmentId) -> Basis:
    rules = policy.rules_for(facts.principal, segment, facts.actor) if segment in policy.segments else []
    return Basis(
        gate=closed_gate(facts),
        segment=policy.digest_of(segment),
        switched_off=segment in facts.switches.segments,
        rules=tuple((rule.id, rule.text, rule.rule.approval, rule.rule.limits) for rule in rules),
        reads=_reads(facts, rules),
    )


def touched_segments(old: CompiledPolicy, new: CompiledPolicy) -> frozenset[SegmentId]:
    """The segments that changed, came or went, or that a changed rule names: sessions to all others keep their basis if their facts do."""
    touched = {id for id in old.segments.keys() | new.segments.keys() if old.digest_of(id) != new.digest_of(id)}
    for id in old.rules.keys() | new.rules.keys():
        before, after = old.rules.get(id), new.rules.get(id)
        if before is None or after is None or before.differs_from(after) or old.segments_of(id) != new.segments_of(id):
            touched.update(old.segments_of(id))
            touched.update(new.segments_of(id))
    return frozenset(touched)


def touched_by_principal(policy: CompiledPolicy, before: Principal, after: Principal) -> frozenset[SegmentId]:
    """The segments that a principal loses or gains rules for, for instance by a change of groups."""
    return frozenset(
        segment
        for segment in {*policy.named_for(before), *policy.named_for(after)}
        if policy.rules_for(before, segment) != policy.rules_for(after, segment)
    )


def _reads(facts: Facts, rules: list[CompiledRule]) -> tuple[Hashable, ...]:
    conditions = [rule.rule.when for rule in rules if rule.rule.when is not None]
    raw = any(condition.expression is not None for condition in conditions)
    principal, device = facts.principal, facts.device
    reads: list[Hashable] = []
    if raw:
        reads.append(("principal", principal.kind, principal.id, principal.name, principal.groups))
        reads.append(("device", device.id if device else None, device.name if device else None))
        reads.append(("actor", facts.actor))
    # Step-up is refused to workloads and asks how strong the sign-in is, so a rule on the sign-in reads the kind too.
    if any(map(reads_sign_in, conditions)):
        reads.append(("sign_in", facts.sign_in, principal.kind, facts.actor is None))
    if raw or any(condition.device for condition in conditions):
        reads.append(("labels", tuple(sorted(device.labels.items())) if device else None))
    if raw or any(condition.posture for condition in conditions):
        reads.append(("posture", tuple(sorted(device.posture.items())) if device else None))
    if raw or any(condition.profiles for condition in conditions):
        reads.append(("profiles", device.profiles if device else None))
    if raw or any(condition.networks for condition in conditions):
        reads.append(("networks", facts.networks))
    if facts.signed_out:  # whether a new sign-in would help depends on who asks
        reads.append(("signed_out", principal.kind, facts.actor is None))
    aging = {aging for rule in rules for aging in rule.ages}
    if "risk" in aging:
        reads.append(("risk", facts.risk))
    if "places" in aging:
        reads.append(("places", facts.places))
    if "approvals" in aging:
        # An approval that is missing can be asked for, in person or with a stronger sign-in: then the kind of the principal is read too.
        reads.append(("approvals", facts.approvals, principal.kind, facts.actor is None))
    reads.append(("until", tuple(sorted((aging_, facts.until.get(aging_)) for aging_ in aging))))
    return tuple(reads)
