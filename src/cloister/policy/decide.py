"""The decision: pure, from a compiled policy, facts, a target and the time."""

from dataclasses import dataclass, replace
from typing import cast

from cloister import _core
from cloister.model.decision import Decision, Verdict
from cloister.model.documents import Conditions, Rule
from cloister.model.facts import Facts, SignIn, Target
from cloister.model.ids import RuleId, SegmentId
from cloister.model.reasons import Code
from cloister.policy.aging import reads_sign_in
from cloister.policy.cedar import CLOCK_LEEWAY, question_of, reads_clock
from cloister.policy.clock import RAW_CLOCK_HORIZON, next_change
from cloister.policy.compile import Answer, CompiledPolicy, CompiledRule
from cloister.policy.inputs import inputs_of

MAX_KNOWN = 65_536  # answers that are kept; beyond, all are forgotten


def decide(policy: CompiledPolicy, facts: Facts, target: Target, now: int) -> Decision:
    """Whether this principal may reach this target now. Never raises for what was asked: what cannot be decided is denied."""
    settled = _decide_without_rules(policy, facts, target)
    return settled if isinstance(settled, Decision) else _decide_by_rules(policy, settled, now)


@dataclass(frozen=True, slots=True)
class _Question:
    """What is left to the rules."""

    facts: Facts
    segment: SegmentId
    rules: list[CompiledRule]


def _decide_without_rules(policy: CompiledPolicy, facts: Facts, target: Target) -> Decision | _Question:
    """Switches and disabled principals first; then what is not visible does not exist."""
    code = closed_gate(facts)
    if code is not None:
        return Decision("deny", code, policy.generation)
    segment = policy.find(target)
    rules = policy.rules_for(facts.principal, segment, facts.actor) if segment is not None else []
    if segment is None or not any(rule.permits for rule in rules):
        return Decision("deny", Code.NOT_FOUND, policy.generation)
    if segment in facts.switches.segments:
        return Decision("deny", Code.KILL_SWITCH, policy.generation, segment, visible=True)
    return _Question(facts, segment, rules)


def closed_gate(facts: Facts) -> Code | None:
    """Why this principal on this device reaches nothing at all, or None. It says nothing about any segment."""
    switches, device, principal, actor = facts.switches, facts.device, facts.principal, facts.actor
    if switches.everything:
        return Code.KILL_SWITCH
    if principal.disabled or (actor is not None and actor.disabled):
        return Code.USER_DISABLED
    if device is not None and device.revoked:
        return Code.DEVICE_REVOKED
    if principal.id in switches.principals or (actor is not None and actor.id in switches.principals):
        return Code.KILL_SWITCH
    if device is not None and device.id in switches.devices:
        return Code.KILL_SWITCH
    return None


def _decide_by_rules(policy: CompiledPolicy, question: _Question, now: int) -> Decision:
    answer = _ask(policy, question, question.facts, now)
    if answer.allowed:
        return _allowed(policy, question, answer, now)
    way = None
    if not answer.failed:
        way = next((code for code, facts in _ways(question, now) if _ask(policy, question, facts, now).allowed), None)
    return _denied(policy, question, answer, now, way)


def _denied(policy: CompiledPolicy, question: _Question, answer: Answer, now: int, way: Code | None) -> Decision:
    """`way` is what the principal could do to be allowed, if anything."""
    verdict: Verdict = "deny"
    if answer.failed:
        code, rules = Code.EVALUATION_ERROR, answer.erring
    elif way is not None:
        verdict, code = "step_up" if way is Code.STEP_UP_REQUIRED else "deny", way
        rules = answer.determining or _permits(question)
    elif answer.determining:
        code, rules = Code.FORBIDDEN_BY_RULE, answer.determining
    else:
        code, rules = Code.CONDITION_FAILED, _permits(question)
    return Decision(verdict, code, policy.generation, question.segment, True, rules, _expiry(question, now))


def _allowed(policy: CompiledPolicy, question: _Question, answer: Answer, now: int) -> Decision:
    session, idle = _limits([rule.rule for rule in question.rules if rule.permits and rule.id in answer.determining])
    expires_at = _expiry(question, now)
    return Decision("allow", Code.OK, policy.generation, question.segment, True, answer.determining, expires_at, session, idle)


def _limits(permits: list[Rule]) -> tuple[int | None, int | None]:
    """Of a session, and of its idle time. Any one permit is enough, so what one of them does not limit is not limited."""
    limits = [permit.limits for permit in permits if permit.limits is not None]
    if len(limits) < len(permits):
        return None, None
    return _most_generous([limit.session for limit in limits]), _most_generous([limit.idle for limit in limits])


def _most_generous(limits: list[int | None]) -> int | None:
    known = [limit for limit in limits if limit is not None]
    return max(known) if known and len(known) == len(limits) else None


def _permits(question: _Question) -> tuple[RuleId, ...]:
    return tuple(rule.id for rule in question.rules if rule.permits)


def _ways(question: _Question, now: int) -> list[tuple[Code, Facts]]:
    """What the principal could do, nearest first, with the facts that it would make: a person signs in again, somebody approves, or both."""
    facts = question.facts
    approved = facts.approvals | {(rule.id, question.segment) for rule in question.rules if rule.rule.approval is not None}
    signs_in = facts.principal.kind == "user" and facts.actor is None
    ways: list[tuple[Code, Facts]] = []
    if signs_in:
        ways.append((Code.STEP_UP_REQUIRED, _strengthened(facts, now)))
    if approved != facts.approvals:
        ways.append((Code.APPROVAL_REQUIRED, replace(facts, approvals=approved)))
        if signs_in:
            ways.append((Code.STEP_UP_REQUIRED, replace(_strengthened(facts, now), approvals=approved)))
    return ways


def _strengthened(facts: Facts, now: int) -> Facts:
    """The same facts with only the sign-in made as good as it can be."""
    issuer = facts.sign_in.issuer if facts.sign_in is not None else "local"
    return replace(facts, sign_in=SignIn(now, "hardware", issuer), signed_out=False)


def _ask(policy: CompiledPolicy, question: _Question, facts: Facts, now: int) -> Answer:
    """The rules in question, asked about these facts."""
    answer = _known(policy, question, facts, now)
    return replace(answer, allowed=False, determining=()) if facts.signed_out and answer.allowed else answer


def _known(policy: CompiledPolicy, question: _Question, facts: Facts, now: int) -> Answer:
    """What Cedar says, or said when it was asked the same of this policy."""
    inputs = inputs_of(facts, question.segment, [rule.rule for rule in question.rules], now)
    ids = [rule.id for rule in question.rules]
    key = None if inputs is None else (*ids, *inputs)
    answer = None if key is None else policy.answers.get(key)
    if answer is None:
        answer = read_answer(policy.cedar.decide(question_of(facts, question.segment, now, policy.zones), ids))
        if key is not None and not answer.failed:  # what nobody could ask says nothing of who asks the same and can
            if len(policy.answers) > MAX_KNOWN:
                policy.answers.clear()
            policy.answers[key] = answer
    return answer


def read_answer(answer: "_core.PolicyAnswer") -> Answer:
    allowed, determining, errors = answer
    return Answer(
        allowed=allowed and not errors,
        determining=cast("tuple[RuleId, ...]", tuple(determining)),
        erring=tuple(RuleId(id) for id, _ in errors if id),
        failed=bool(errors),
    )


def _expiry(question: _Question, now: int) -> int | None:
    facts = question.facts
    signed_in_at = facts.sign_in.at if facts.sign_in is not None else None
    moments: list[int | None] = []
    for rule in question.rules:
        conditions = rule.rule.when
        if rule.changes_by_clock and conditions is not None:
            moments.append(_next_change(conditions, signed_in_at, now))
            if signed_in_at is not None and reads_sign_in(conditions):
                moments.append(signed_in_at - CLOCK_LEEWAY)  # one that seems to lie in the future counts from then on
        if facts.until:
            moments.extend(facts.until.get(aging) for aging in rule.ages)
    return min((moment for moment in moments if moment is not None and moment > now), default=None)


def _next_change(conditions: Conditions, signed_in_at: int | None, now: int) -> int | None:
    moment = next_change(conditions, signed_in_at, now)
    if conditions.expression is not None and reads_clock(conditions.expression):
        horizon = now + RAW_CLOCK_HORIZON
        return horizon if moment is None else min(moment, horizon)
    return moment
