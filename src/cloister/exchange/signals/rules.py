"""From an event to what is recorded. Pure: what was said before is handed in, what is said now comes out."""

from collections.abc import Callable, Mapping

from cloister.exchange.signals.standing import (
    ASSURANCE,
    COMPLIANCE,
    RAISES,
    RISK,
    SIGN_INS_BEFORE,
    SIGNAL,
    STRENGTH_BEFORE,
)
from cloister.exchange.signals.types import Concerned, Outcome, Plan, Transmitter
from cloister.identity.signals.events import CAEP, RISC
from cloister.identity.signals.risk import Contribution, print_contribution
from cloister.identity.signals.types import (
    AssuranceChange,
    ClaimsChange,
    ComplianceChange,
    CredentialChange,
    RiskChange,
    SecurityEvent,
    SessionRevoked,
    StreamUpdated,
    Unknown,
    Verification,
)
from cloister.store.types import EvidenceRow, Subject

Said = Callable[[Subject], Mapping[tuple[str, str], EvidenceRow]]


def is_about_device(event: SecurityEvent) -> bool:
    return isinstance(event.what, ComplianceChange) or (isinstance(event.what, RiskChange) and event.what.about == "DEVICE")


def without_subject(event: SecurityEvent, transmitter: Transmitter) -> Outcome | None:
    """What becomes of an event whoever it is about; None: that depends on its subject."""
    match event.what:
        case Unknown():
            return "unknown_type"
        case Verification() | StreamUpdated():
            return "stream"
        case _:
            name = event.type.removeprefix(CAEP)
            if event.type.startswith(RISC):
                name = "session-revoked"
            return None if name in transmitter.document.events else "not_taken"


def plan(event: SecurityEvent, transmitter: Transmitter, concerned: Concerned | None, said: Said) -> Plan:
    if concerned is None:
        return Plan("unknown_subject")
    document, source = transmitter.document, SIGNAL + transmitter.id
    people = [Subject("agent", id) for id in concerned.agents] if concerned.agents is not None else _whole(concerned)
    user = [] if concerned.user is None else [Subject("user", concerned.user)]
    device = [] if concerned.device is None else [Subject("device", concerned.device)]
    expires: int | None = None
    ends_tokens: str | None = None
    match event.what:
        case SessionRevoked():
            name, value, subjects = SIGN_INS_BEFORE, "revoked", people
            ends_tokens = concerned.user if concerned.agents is None and concerned.device is None else None
        case CredentialChange(credential, change):
            name, value, subjects = STRENGTH_BEFORE, f"{credential} {change}"[:256], user or people
        case ClaimsChange(claims) if claims.keys() & set(document.sign_in_claims):
            name, value, subjects = SIGN_INS_BEFORE, "claims", user or people
        case AssuranceChange(namespace, level) if namespace == document.assurance.namespace and level in document.assurance.levels:
            strength = document.assurance.levels[level]
            name, value = ASSURANCE, strength + (RAISES if document.assurance.raises else "")
            subjects = people if concerned.agents is not None else user
        case ComplianceChange(is_compliant):
            name, value, subjects = COMPLIANCE, "compliant" if is_compliant else "not-compliant", device
            lasts = None if document.devices is None else document.devices.lasts
            expires = event.at + lasts if is_compliant and lasts is not None else None
        case RiskChange(about, level) if about in ("USER", "DEVICE"):
            risk = document.risk
            worth = {"LOW": risk.low, "MEDIUM": risk.medium, "HIGH": risk.high}[level]
            name, value = RISK, print_contribution(Contribution(worth, event.at, risk.decay, risk.half_life))
            subjects = user if about == "USER" else device
        case _:
            return Plan("without_meaning")
    if not subjects:
        return Plan("unknown_subject")
    rows = [EvidenceRow(subject, source, name, value, event.at, expires) for subject in subjects]
    news = tuple(
        row for row in rows if (known := said(row.subject).get((source, name))) is None or known.observed_at <= row.observed_at
    )
    return Plan("acted" if news else "superseded", news, ends_tokens if news else None, is_about_risk=name == RISK)


def _whole(concerned: Concerned) -> list[Subject]:
    if concerned.user is not None:
        return [Subject("user", concerned.user)]
    return [] if concerned.device is None else [Subject("device", concerned.device)]
