"""Rules as Cedar: the text of each rule, and facts as the core takes them. Pure text and values.

What rules may speak of is the core's schema (`crates/policy/src/schema.rs`). Facts that are missing fail: no sign-in has strength 0 and an age beyond
any bound, no device has no tags and no profile.
"""

import json
from collections.abc import Collection, Iterable, Mapping

from cloister import _core
from cloister.model.documents import Conditions, Hours, RiskBounds, Rule, Segment, What, Who
from cloister.model.facts import STRENGTHS, DeviceFacts, Facts, Principal, SignIn
from cloister.policy.clock import DAYS, day_and_minute, minute_of, seconds_of

NEVER = 1 << 40  # seconds: the age of a sign-in that did not happen
CLOCK_LEEWAY = 30  # seconds that a sign-in may seem to lie in the future
_CLOCK_WORDS = ("now", "weekday", "minute", "age", "clock")


def print_rule(rule: Rule, segments: Mapping[str, str], id: str = "") -> str:
    """One policy; `segments` maps names to ids, and a name that is not in it stands for nothing. `id` is the rule's: approvals are given to it."""
    clauses = [clause for clause in (print_who(rule.who, rule.effect), print_what(rule.what, segments)) if clause is not None]
    clauses.extend(clause for _, clause in print_conditions(rule.when))
    if rule.approval is not None:
        clauses.append(f"context.approvals.contains({_text(id)})")
    conditions = "".join(f"\nwhen {{\n{clause}\n}}" for clause in clauses)
    return f'{rule.effect}(principal, action == Action::"connect", resource){conditions};'


def print_who(who: Who, effect: str) -> str | None:
    """A permit speaks of people in person, or of the programs in `via` on their behalf; a forbid of the principal and of whoever acts for it."""
    named = None if who.any else _any(_named(who, effect))
    if who.via:
        acting = f"{_texts(who.via)}.contains(context.via)"
    elif effect == "permit":
        acting = 'context.via == ""'
    else:
        return named
    return acting if named is None else f"({named}) && {acting}"


def _named(who: Who, effect: str) -> list[str]:
    parts = []
    if who.users:
        parts.append(f"principal is User && {_texts(who.users)}.contains(principal.name)")
    if who.workloads:
        parts.append(f"principal is Workload && {_texts(who.workloads)}.contains(principal.name)")
    if who.groups:
        parts.append(f"principal in {_entities('Group', who.groups)}")
    if effect == "forbid" and who.workloads:
        parts.append(f"{_texts(who.workloads)}.contains(context.via)")
    if effect == "forbid" and who.groups:
        parts.append(f"context has actor && context.actor in {_entities('Group', who.groups)}")
    return parts


def print_what(what: What, segments: Mapping[str, str]) -> str | None:
    if what.any:
        return None
    parts = []
    ids = [segments[name] for name in what.segments if name in segments]
    if ids:
        parts.append(f"resource in {_entities('Segment', ids)}")
    if what.labels or what.owner is not None:
        tags = [_tags("resource", what.labels)] if what.labels else []
        parts.append(" && ".join([*tags, *([_owner(what.owner)] if what.owner is not None else [])]))
    return _any(parts)


def print_conditions(conditions: Conditions | None) -> list[tuple[str, str]]:
    """Each condition as (the field it comes from, one Cedar expression); all of them must hold."""
    if conditions is None:
        return []
    found = _sign_in_conditions(conditions) + _clock_conditions(conditions) + _place_conditions(conditions)
    if conditions.expression is not None:
        found.append(("expression", conditions.expression))
    return found


def _sign_in_conditions(conditions: Conditions) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if conditions.signed_in_within is not None:
        found.append(("signed_in_within", f"context.sign_in.age <= {conditions.signed_in_within}"))
    if conditions.strength is not None:
        found.append(("strength", f"context.sign_in.strength >= {STRENGTHS[conditions.strength]}"))
    if conditions.issuers:
        found.append(("issuers", f"{_texts(conditions.issuers)}.contains(context.sign_in.issuer)"))
    return found


def _clock_conditions(conditions: Conditions) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    if conditions.hours is not None:
        found.append(("hours", _hours(conditions.hours)))
    if conditions.after is not None:
        found.append(("after", f"context.now >= {seconds_of(conditions.after)}"))
    if conditions.before is not None:
        found.append(("before", f"context.now < {seconds_of(conditions.before)}"))
    return found


def _place_conditions(conditions: Conditions) -> list[tuple[str, str]]:
    """Conditions on the device, where it is, and how far it and its user are trusted now."""
    found: list[tuple[str, str]] = []
    if conditions.device:
        found.append(("device", _tags("context.device", conditions.device)))
    if conditions.posture:
        found.append(("posture", _tags("context.device.posture", conditions.posture)))
    if conditions.networks:
        found.append(("networks", f"context.networks.containsAny({_texts(conditions.networks)})"))
    if conditions.profiles:
        found.append(("profiles", f"context.device.profiles.containsAll({_texts(conditions.profiles)})"))
    if conditions.risk is not None:
        found.append(("risk", _risk(conditions.risk)))
    if conditions.one_place:
        found.append(("one_place", "context.places <= 1"))
    return found


def zones_of(rules: Iterable[Rule]) -> frozenset[str]:
    """The time zones whose clocks these rules read, besides UTC."""
    zones = {rule.when.hours.zone for rule in rules if rule.when is not None and rule.when.hours is not None}
    return frozenset(zones - {"UTC"})


def reads_clock(expression: str) -> bool:
    """Whether a raw expression may mention what changes by the clock alone; too often true is harmless."""
    return any(word in expression for word in _CLOCK_WORDS)


def question_of(facts: Facts, segment: str, now: int, zones: Collection[str] = ()) -> "_core.Question":
    """What one decision reads of the facts; `zones` are those whose clocks the rules read."""
    actor = facts.actor
    return (
        _principal(facts.principal),
        None if actor is None else _principal(actor),
        None if facts.device is None else _device(facts.device),
        segment,
        _sign_in(facts.sign_in, now),
        now,
        day_and_minute(now),
        {zone: day_and_minute(now, zone) for zone in zones},
        facts.networks,
        facts.places,
        (facts.risk.user, facts.risk.device),
        [rule for rule, approved in facts.approvals if approved == segment],
    )


def segment_of(id: str, segment: Segment) -> "_core.PolicySegment":
    return id, segment.name, segment.protocol, dict(segment.labels)


def _principal(principal: Principal) -> "_core.AskedPrincipal":
    return principal.kind, principal.id, principal.name, principal.groups


def _device(device: DeviceFacts) -> "_core.AskedDevice":
    return device.id, device.name, dict(device.labels), dict(device.posture), device.profiles


def _sign_in(sign_in: SignIn | None, now: int) -> tuple[int, int, str]:
    """Age, strength and issuer. A sign-in in the future is one that did not happen."""
    if sign_in is None or sign_in.at > now + CLOCK_LEEWAY:
        return NEVER, 0, ""
    return max(0, now - sign_in.at), STRENGTHS[sign_in.strength], sign_in.issuer


def _hours(hours: Hours) -> str:
    first, last = minute_of(hours.start), minute_of(hours.until)
    days = _texts(hours.days)
    tag = f"context.clock.getTag({_text(hours.zone)})"
    weekday, minute = ("context.weekday", "context.minute") if hours.zone == "UTC" else (f"{tag}.weekday", f"{tag}.minute")
    if first < last:
        window = f"{days}.contains({weekday}) && {minute} >= {first} && {minute} < {last}"
    else:
        next_days = _texts([DAYS[(DAYS.index(day) + 1) % 7] for day in hours.days])
        window = f"({days}.contains({weekday}) && {minute} >= {first}) || ({next_days}.contains({weekday}) && {minute} < {last})"
    return window if hours.zone == "UTC" else f"context.clock.hasTag({_text(hours.zone)}) && ({window})"


def _risk(bounds: RiskBounds) -> str:
    parts = []
    if bounds.user is not None:
        parts.append(f"context.risk.user < {bounds.user}")
    if bounds.device is not None:
        parts.append(f"context.risk.device < {bounds.device}")
    return " && ".join(parts)


def _tags(of: str, tags: Mapping[str, str]) -> str:
    return " && ".join(f"{of}.hasTag({_text(key)}) && {of}.getTag({_text(key)}) == {_text(value)}" for key, value in tags.items())


def _owner(label: str) -> str:
    return f"resource.hasTag({_text(label)}) && resource.getTag({_text(label)}) == principal.name"


def _any(parts: list[str]) -> str:
    return " || ".join(f"({part})" for part in parts) if parts else "false"


def _texts(values: Iterable[str]) -> str:
    return "[" + ", ".join(_text(value) for value in values) + "]"


def _entities(kind: str, ids: Iterable[str]) -> str:
    return "[" + ", ".join(f"{kind}::{_text(id)}" for id in ids) + "]"


def _text(value: str) -> str:
    """A Cedar string. Names and labels are plain ASCII by their grammar, where JSON and Cedar quote alike."""
    return json.dumps(value)
