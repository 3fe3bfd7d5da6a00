"""What a new sign-in does to the one before. Pure (case 12)."""

import dataclasses

from cloister.identity.people import Person
from cloister.model.facts import STRENGTHS
from cloister.store.types import Agent


def merged(agent: Agent, person: Person, lasts: int, now: int) -> Agent:
    """The agent with its sign-in after this one.

    Strength and age always come from one and the same sign-in: a stronger one of before stays, with its own age, for as long as its provider's word lasts;
    after that the newer one counts, as weak as it is. So nothing strong is lowered by a refresh, and nothing weak makes a strong claim look fresh.
    """
    holds = agent.signed_in_at is not None and now - agent.signed_in_at < lasts
    if holds and STRENGTHS[person.strength] < STRENGTHS[agent.sign_in_strength]:
        return agent
    return dataclasses.replace(
        agent,
        signed_in_at=person.at,
        sign_in_strength=person.strength,
        sign_in_issuer=person.provider,
        sign_in_session=person.session or agent.sign_in_session,
        sign_in_vouched_at=person.vouched_at,
    )
