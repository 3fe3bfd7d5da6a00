"""What evidence of security events and risk says at one instant: whether a sign-in still counts and how strong it is, and the scores. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Final

from cloister.identity.signals.risk import Contribution, Override, next_change, read_contribution, score
from cloister.model.facts import NO_RISK, STRENGTHS, Aging, Risk, SignIn
from cloister.store.signals import SOURCE
from cloister.store.types import Agent, EvidenceRow, StoredDocument, Strength

SIGNAL: Final = SOURCE
"""Sources of this form are transmitters, by the id of their document; no other source has a colon. When the document goes, its word does not count."""
OVERRIDE: Final = "override:administrator"
OWN_REPORT: Final = "client"

RISK: Final = "risk"
COMPLIANCE: Final = "compliance"
SIGN_INS_BEFORE: Final = "sign-ins-before"
STRENGTH_BEFORE: Final = "strength-before"
ASSURANCE: Final = "assurance"
RAISES: Final = " raises"

Rows = Sequence[EvidenceRow]


def counting(rows: Iterable[EvidenceRow], documents: Mapping[str, StoredDocument]) -> list[EvidenceRow]:
    """Without what transmitters said whose document is gone."""
    return [row for row in rows if not row.source.startswith(SIGNAL) or row.source.removeprefix(SIGNAL) in documents]


def posture_of(rows: Iterable[EvidenceRow], documents: Mapping[str, StoredDocument]) -> dict[tuple[str, str], EvidenceRow]:
    """Facts of a device by source and name, as rules call them: a transmitter is `signals/<name>`. Without what is no fact, or whose transmitter is gone."""
    found: dict[tuple[str, str], EvidenceRow] = {}
    for row in rows:
        if row.source.startswith(SIGNAL):
            transmitter = documents.get(row.source.removeprefix(SIGNAL))
            if transmitter is not None and row.name == COMPLIANCE:
                found[f"signals/{transmitter.name}", row.name] = row
        elif row.source == OWN_REPORT or (row.name != RISK and ":" not in row.source):
            found[row.source, row.name] = row
    return found


def is_voided(rows: Iterable[EvidenceRow], documents: Mapping[str, StoredDocument], since: int) -> bool:
    """Whether a sign-in of this second was ended from outside. One in the very second of the event is taken as older."""
    return _is_ended(_said_by_signals(counting(rows, documents)), since)


def sign_in_of(agent: Agent, rows: Rows) -> tuple[SignIn | None, bool]:
    """The sign-in as it counts now, and whether it was ended from outside. `rows` are about the agent, its device and its user.

    A sign-in in the very second of the event is taken as older. Where nobody knows when the person signed in, two questions have two answers:
    a provider that vouched after it ended all sign-ins means another one, so what counts is when it vouched; but it may still speak of a
    sign-in with a credential that is gone since, so what lowers a strength counts always, and what raises it never for what may be newer.
    """
    since = _vouched_since(agent)
    said = _said_by_signals(rows)
    if _is_ended(said, since):
        return None, True
    if agent.signed_in_at is None:
        return None, False
    sign_in = SignIn(agent.signed_in_at, agent.sign_in_strength, agent.sign_in_issuer)
    for row in sorted(said, key=lambda row: row.observed_at):
        if row.observed_at >= sign_in.at:
            sign_in = replace(sign_in, strength=_strength_after(sign_in.strength, row, is_newer=0 < since <= row.observed_at))
    return sign_in, False


def _said_by_signals(rows: Iterable[EvidenceRow]) -> list[EvidenceRow]:
    return [row for row in rows if row.source.startswith(SIGNAL)]


def _is_ended(said: Rows, since: int) -> bool:
    return any(row.name == SIGN_INS_BEFORE and since <= row.observed_at for row in said)


def _vouched_since(agent: Agent) -> int:
    """Since when somebody vouches for the sign-in, 0 if that is unknown. Without one, the enrolment is what is older or newer."""
    if agent.signed_in_at is None:
        return agent.sign_in_vouched_at or agent.enrolled_at
    return agent.signed_in_at or agent.sign_in_vouched_at or 0


def _strength_after(strength: Strength, row: EvidenceRow, *, is_newer: bool) -> Strength:
    """`is_newer`: the row surely is newer than the sign-in."""
    match row.name:
        case name if name == STRENGTH_BEFORE:
            return "password"
        case name if name == ASSURANCE:
            said = row.value.removesuffix(RAISES)
            found: Strength = next((known for known in STRENGTHS if known == said), "password")
            return found if (row.value.endswith(RAISES) and is_newer) or STRENGTHS[found] < STRENGTHS[strength] else strength
        case _:
            return strength


def risk_of(user: Rows, device: Rows, now: int, until: dict[Aging, int]) -> Risk:
    """The scores. `until` is told when one of them is next another one by the clock."""
    parts = [risk_parts(rows) for rows in (user, device)]
    if not any(given or override for given, override in parts):
        return NO_RISK
    changes = [next_change(given, override, now) for given, override in parts]
    if any(change is not None for change in changes):
        until["risk"] = min(change for change in changes if change is not None)
    return Risk(*(score(given, override, now) for given, override in parts))


def risk_parts(rows: Iterable[EvidenceRow]) -> tuple[list[Contribution], Override | None]:
    """What counts towards a score. What a client says of itself never does."""
    given: list[Contribution] = []
    override: Override | None = None
    for row in rows:
        if row.name != RISK or row.source == OWN_REPORT:
            continue
        if row.source == OVERRIDE:
            one = read_contribution(row.value.split(" ", 1)[0], row.observed_at, None)
            override = Override(one.score, row.expires_at or row.observed_at)
        else:
            given.append(read_contribution(row.value, row.observed_at, row.expires_at))
    return given, override
