"""What a client reports of its own device, taken apart one fact at a time: garbage in one says nothing about another (case 87)."""

from collections.abc import Iterable

from cloister.identity.posture.types import Report
from cloister.model.messages.from_agent import PostureFact
from cloister.model.posture import MAX_AGE, MAX_FACT_VALUE, is_own_name

LEEWAY = 30  # seconds that the clock of a device may be ahead

REFUSED = "!"
"""Before the name of a fact that was refused: no fact's own name begins so. Its value is why."""


def judge_report(facts: Iterable[PostureFact], now: int) -> Report:
    """Every fact is good or refused with a reason that says what is wrong with it; nothing is repaired."""
    good: dict[str, tuple[str, int]] = {}
    refused: dict[str, str] = {}
    for fact in facts:
        why = _why_not(fact, now)
        if fact.name in good or fact.name in refused:
            good.pop(fact.name, None)
            why = "is reported twice"
        if why:
            refused[fact.name] = why
        elif isinstance(fact.value, str) and isinstance(fact.observed_at, int):
            good[fact.name] = (fact.value, fact.observed_at)
    return Report(good, refused)


def _why_not(fact: PostureFact, now: int) -> str:
    value, at = fact.value, fact.observed_at
    if not is_own_name(fact.name):
        return "is not for clients to report"
    if value is None:
        return "has no value"
    if not isinstance(value, str):
        return "is not text"
    if not value:
        return "is empty"
    if len(value) > MAX_FACT_VALUE:
        return f"is longer than {MAX_FACT_VALUE} characters"
    if not value.isprintable():
        return "is not one line of printable characters"
    if isinstance(at, bool) or not isinstance(at, int):
        return "has no time"
    if at > now + LEEWAY:
        return "is dated in the future"
    if at <= now - MAX_AGE:
        return "is too old"
    return ""
