"""What of a rule's verdict may change without anybody doing something: the sign-in that grows old, the clock, and facts that age. Pure."""

from cloister.model.documents import Conditions, Rule
from cloister.model.facts import Aging


def reads_sign_in(conditions: Conditions) -> bool:
    """Whether the verdict of these may depend on the sign-in."""
    return (
        conditions.expression is not None
        or conditions.strength is not None
        or conditions.signed_in_within is not None
        or bool(conditions.issuers)
    )


def ages_of(rule: Rule) -> frozenset[Aging]:
    """Which of the facts that age the verdict of this rule may depend on."""
    conditions = rule.when
    found: set[Aging] = {"approvals"} if rule.approval is not None else set()
    if conditions is None:
        return frozenset(found)
    if conditions.expression is not None:
        return frozenset[Aging](("posture", "risk", "approvals", "places"))
    if conditions.posture or conditions.profiles:
        found.add("posture")
    if conditions.risk is not None:
        found.add("risk")
    if conditions.one_place:
        found.add("places")
    return frozenset(found)


def changes_by_clock(conditions: Conditions) -> bool:
    """Whether the verdict of these may change while nothing but the clock does."""
    return (
        reads_sign_in(conditions) or conditions.hours is not None or conditions.after is not None or conditions.before is not None
    )
