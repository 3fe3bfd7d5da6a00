"""Why: one sentence and what to do next for the person, every rule and what failed for the administrator."""

from dataclasses import dataclass
from typing import Literal

from cloister import _core
from cloister._core import PolicySet
from cloister.model.decision import Decision
from cloister.model.facts import Facts, Target
from cloister.model.ids import SegmentId
from cloister.model.reasons import Code, reason
from cloister.policy.cedar import print_conditions, question_of, segment_of
from cloister.policy.compile import CompiledPolicy, CompiledRule
from cloister.policy.decide import decide

Held = Literal["held", "failed", "error"]
MAX_ALONE = 1_000  # rules whose conditions are kept parsed; beyond, all are forgotten


@dataclass(frozen=True, slots=True)
class ConditionOutcome:
    """One condition of a rule: the field of `when` it comes from, as Cedar, and how it came out."""

    field: str
    expression: str
    outcome: Held
    detail: str = ""  # the error


@dataclass(frozen=True, slots=True)
class RuleOutcome:
    """A rule whose who and what name the principal and the segment. It applies if all of its conditions hold."""

    id: str
    name: str
    effect: Literal["permit", "forbid"]
    conditions: tuple[ConditionOutcome, ...]

    @property
    def applies(self) -> bool:
        return all(condition.outcome == "held" for condition in self.conditions)


@dataclass(frozen=True, slots=True)
class Explanation:
    """`message` and `remedy` are for the person who asked and say nothing of what is not visible. `cause` and `rules` are for administrators:
    `cause` is the true code where the person is told `not_found`.
    """

    decision: Decision
    message: str
    remedy: str
    cause: Code
    segment: str  # name, empty if there is none
    rules: tuple[RuleOutcome, ...]
    failed: tuple[str, ...] = ()  # the fields of `when` that lack, of the permit that lacks least


def explain(policy: CompiledPolicy, facts: Facts, target: Target, now: int) -> Explanation:
    """The decision with its reasons."""
    decision = decide(policy, facts, target, now)
    segment = policy.find(target)
    rules = policy.rules_for(facts.principal, segment, facts.actor) if segment is not None else []
    outcomes = tuple(_outcome(policy, rule, facts, segment, now) for rule in rules if segment is not None)
    told, failed = reason(decision.code), _lacking(decision, outcomes)
    return Explanation(
        decision=decision,
        message=told.message + (SIGNED_OUT if facts.signed_out and decision.code in _TOLD else _particulars(decision.code, failed)),
        remedy=told.remedy,
        cause=_cause(decision, segment is not None, rules),
        segment=policy.segments[segment].name if segment is not None else "",
        rules=outcomes,
        failed=tuple(condition.field for condition in failed),
    )


def _cause(decision: Decision, exists: bool, rules: list[CompiledRule]) -> Code:  # noqa: FBT001
    if decision.code != Code.NOT_FOUND or not exists:
        return decision.code
    return Code.FORBIDDEN_BY_RULE if rules else Code.DENIED_BY_DEFAULT


_FIELDS = {
    "signed_in_within": "the sign-in is too old",
    "strength": "the sign-in is not strong enough",
    "hours": "it is outside of the permitted hours",
    "after": "it is too early",
    "before": "the permission has ended",
    "device": "the device is not one of the permitted ones",
    "posture": "the device does not fulfil `{detail}`",
    "profiles": "the device does not fulfil the posture profile {detail}",
    "issuers": "the sign-in came from another identity provider than `{detail}`",
    "networks": "it is not permitted from the network that this device is in",
    "risk": "the risk score is too high",
    "one_place": "you are signed in at two places at once",
    "approval": "somebody has to approve it first",
    "expression": "a condition of the rule does not hold",
}


SIGNED_OUT = ": the sign-in was ended by your identity provider or security system"
_TOLD = frozenset({Code.CONDITION_FAILED, Code.STEP_UP_REQUIRED, Code.APPROVAL_REQUIRED})


def _lacking(decision: Decision, outcomes: tuple[RuleOutcome, ...]) -> list[ConditionOutcome]:
    """What failed: of the permits, since any one of them would do, of the one that lacks least."""
    if decision.code not in _TOLD:
        return []
    permits = [outcome for outcome in outcomes if outcome.effect == "permit" and not outcome.applies]
    if not permits:
        return []
    nearest = min(permits, key=lambda outcome: sum(condition.outcome != "held" for condition in outcome.conditions))
    return [condition for condition in nearest.conditions if condition.outcome != "held"]


def _particulars(code: Code, failed: list[ConditionOutcome]) -> str:
    """In words; empty if there is nothing to say that the code itself does not say."""
    told = [condition for condition in failed if (code, condition.field) != (Code.APPROVAL_REQUIRED, "approval")]
    if not told:
        return ""
    return ": " + ", ".join(_FIELDS[condition.field].format(detail=condition.detail) for condition in told)


def _outcome(policy: CompiledPolicy, rule: CompiledRule, facts: Facts, segment: SegmentId, now: int) -> RuleOutcome:
    """Each condition evaluated alone, as a permit of its own."""
    conditions = print_conditions(rule.rule.when)
    if rule.rule.approval is not None:
        conditions.append(("approval", f'context.approvals.contains("{rule.id}")'))
    outcomes: list[ConditionOutcome] = []
    if conditions:
        cedar = _alone(policy, rule, segment, [text for _, text in conditions])
        question = question_of(facts, segment, now, policy.zones)
        for at, (field, text) in enumerate(conditions):
            outcomes.append(_condition(rule, facts, field, text, cedar.decide(question, [str(at)])))
    return RuleOutcome(rule.id, rule.rule.name, rule.rule.effect, tuple(outcomes))


def _alone(policy: CompiledPolicy, rule: CompiledRule, segment: SegmentId, texts: list[str]) -> PolicySet:
    """Parsed once: that costs a hundred times what a question does."""
    known = policy.alone.get((rule.id, segment))
    if known is None:
        alone = {str(at): f"permit(principal, action, resource)\nwhen {{\n{text}\n}};" for at, text in enumerate(texts)}
        known = PolicySet(alone, [segment_of(segment, policy.segments[segment])])
        if len(policy.alone) >= MAX_ALONE:
            policy.alone.clear()
        policy.alone[rule.id, segment] = known
    return known


def _condition(rule: CompiledRule, facts: Facts, field: str, text: str, answer: "_core.PolicyAnswer") -> ConditionOutcome:
    allowed, _, errors = answer
    if errors:
        return ConditionOutcome(field, text, "error", str(errors))
    held: Held = "held" if allowed else "failed"
    return ConditionOutcome(field, text, held, _detail(rule, facts, field) if held == "failed" else "")


def _detail(rule: CompiledRule, facts: Facts, field: str) -> str:
    """What of it failed, by name."""
    conditions = rule.rule.when
    if conditions is None:
        return ""
    match field:
        case "posture":
            return _failed_posture(rule, facts)
        case "profiles":
            return _failed_profiles(conditions.profiles, facts)
        case "issuers":
            return ", ".join(conditions.issuers)
        case _:
            return ""


def _failed_posture(rule: CompiledRule, facts: Facts) -> str:
    """The posture facts that are absent or differ, by name (attack case 87)."""
    wanted = rule.rule.when.posture if rule.rule.when is not None else {}
    has = facts.device.posture if facts.device is not None else {}
    return ", ".join(key for key, value in wanted.items() if has.get(key) != value)


def _failed_profiles(wanted: tuple[str, ...], facts: Facts) -> str:
    """The posture profiles that do not hold, each with the facts that it lacks."""
    device = facts.device
    holds = device.profiles if device is not None else frozenset()
    why = device.shortfalls if device is not None else {}
    return "; ".join(why.get(name, f"`{name}`") for name in wanted if name not in holds)
