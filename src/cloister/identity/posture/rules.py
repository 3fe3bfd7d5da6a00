"""Whether a device fulfils a posture profile: a pure function of the profile, the facts and the time. What is absent, refused, too old or dated in the
future has failed, and so has what cannot be compared."""

from collections.abc import Iterable, Mapping

from cloister.identity.posture.report import LEEWAY, REFUSED
from cloister.identity.posture.types import Facts, Observed, Outcome
from cloister.model.posture import OWN_REPORT, OWNER, PostureProfile, Requirement, default_age, fact_of, read_version


def evaluate(profile: PostureProfile, facts: Facts, now: int) -> Outcome:
    failed: dict[str, str] = {}
    ends: list[int] = []
    for key, requirement in profile.require.items():
        name = fact_of(key, requirement)
        fact = facts.get((requirement.source, name))
        end = None if fact is None else end_of(fact, requirement, name)
        why = _unusable(fact, end, now, facts.get((requirement.source, REFUSED + name)))
        if fact is not None and not why:
            why = mismatch(requirement, fact.value)
            if end is not None:
                ends.append(end)
        if why:
            failed[key] = why
    return Outcome(failed, min(ends, default=None))


def end_of(fact: Observed, requirement: Requirement, name: str) -> int | None:
    """The first second at which this fact does not count any more. Facts from outside end when their source says, and sooner if the profile says so."""
    ends = [] if fact.expires_at is None else [fact.expires_at]
    if requirement.max_age is not None:
        ends.append(fact.observed_at + requirement.max_age)
    elif requirement.source == OWN_REPORT and name != OWNER:
        ends.append(fact.observed_at + default_age(name))
    return min(ends, default=None)


def _unusable(fact: Observed | None, end: int | None, now: int, refused: Observed | None) -> str:
    if fact is None:
        return refused.value if refused is not None and _counts(refused, refused.expires_at, now) else "is not reported"
    if fact.observed_at > now + LEEWAY:
        return "is dated in the future"
    return "is too old" if end is not None and end <= now else ""


def _counts(fact: Observed, end: int | None, now: int) -> bool:
    return fact.observed_at <= now + LEEWAY and (end is None or end > now)


def fresh(facts: Facts, now: int) -> tuple[Mapping[str, str], int | None]:
    """What rules read as `posture`: facts that count now, by the name that rules use (those of other sources are called `source/name`), and when the
    first of them is too old.
    """
    found: dict[str, str] = {}
    ends: list[int] = []
    for (source, name), fact in facts.items():
        end = fact.expires_at
        if source == OWN_REPORT and name != OWNER:
            limit = fact.observed_at + default_age(name)
            end = limit if end is None else min(end, limit)
        if name.startswith(REFUSED) or not _counts(fact, end, now):
            continue
        found[name if source == OWN_REPORT else f"{source}/{name}"] = fact.value
        if end is not None:
            ends.append(end)
    return found, min(ends, default=None)


def mismatch(requirement: Requirement, value: str) -> str:
    """Why this value does not do; empty if it does."""
    wanted = _wanted(requirement)
    if wanted is not None:
        return "" if value in wanted else f"is {_shown(value)}, not {_choice(wanted)}"
    if requirement.file is not None:
        return "" if _is_digest(value) else f"is {_shown(value)}"
    given = read_version(value)
    bound = read_version(requirement.at_least or requirement.at_most or "")
    if given is None or bound is None:
        return f"is {_shown(value)}, which is no version"
    if requirement.at_least is not None:
        return "" if given >= bound else f"is {_shown(value)}, below `{requirement.at_least}`"
    return "" if given <= bound else f"is {_shown(value)}, above `{requirement.at_most}`"


def _wanted(requirement: Requirement) -> tuple[str, ...] | None:
    """The values that would do, if they can be listed."""
    if requirement.process is not None:
        return ("running",)
    if requirement.certificate is not None:
        return ("valid",)
    if requirement.file is not None and requirement.file.sha256 is not None:
        return (requirement.file.sha256,)
    return (requirement.is_,) if requirement.is_ is not None else requirement.one_of or None


def _is_digest(value: str) -> bool:
    return len(value) == 64 and all(character in "0123456789abcdef" for character in value)


def _shown(value: str) -> str:
    return f"`{value if len(value) <= 64 else value[:61] + '...'}`"


def _choice(values: Iterable[str]) -> str:
    listed = [_shown(value) for value in values]
    return " or ".join([", ".join(listed[:-1]), listed[-1]] if len(listed) > 1 else listed)


def tell_shortfall(profile: str, outcome: Outcome) -> str:
    """`managed`: `disk.encrypted` is not reported."""
    told = [f"`{key}` {why}" for key, why in list(outcome.failed.items())[:MAX_TOLD]]
    more = len(outcome.failed) - len(told)
    return f"`{profile}`: " + ", ".join(told) + (f" and {more} more" if more else "")


MAX_TOLD = 5
