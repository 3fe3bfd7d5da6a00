"""What a client is asked to look at: the posture profiles and facts that rules about its principal read. Nothing else of a device is asked for."""

from cloister.exchange.facts import principal_of
from cloister.exchange.state import State
from cloister.model.documents import to_fields
from cloister.model.messages.common import MAX_POSTURE_FACTS, MAX_POSTURE_PROFILES
from cloister.model.messages.from_exchange import PostureAsk
from cloister.model.posture import FACTS
from cloister.policy.compile import CompiledRule
from cloister.store.types import Agent

NOTHING = PostureAsk(profiles=[])


def ask_of(state: State, agent: Agent) -> PostureAsk:
    """Profiles by name; beyond the bound none: what is not asked for is not reported, and fails."""
    library = state.library
    principal = principal_of(library, agent.principal)
    if principal is None:
        return NOTHING
    rules = state.policy.rules_naming(principal)
    names, facts = _read_by(rules)
    chosen = [profile for profile in library.profiles if names is None or profile.name in names]
    return PostureAsk(
        profiles=[to_fields(profile) for profile in chosen[:MAX_POSTURE_PROFILES]],
        facts=sorted(facts)[:MAX_POSTURE_FACTS],
    )


def _read_by(rules: list[CompiledRule]) -> tuple[set[str] | None, set[str]]:
    """Names of profiles (None: an expression may read any of them), and facts."""
    names: set[str] = set()
    facts: set[str] = set()
    every = False
    for rule in rules:
        when = rule.rule.when
        if when is None:
            continue
        names.update(when.profiles)
        facts.update(fact for fact in when.posture)
        if when.expression is not None:
            every = every or "profiles" in when.expression
            facts.update(fact for fact in FACTS if fact in when.expression)
    return (None if every else names), facts
