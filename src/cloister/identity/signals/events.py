"""From verified claims to one event: Security Event Tokens (RFC 8417) as the Shared Signals Framework 1.0 profiles them, CAEP 1.0. Pure.

A token is read once, and what is read is what is done. Times that lie ahead are taken as now: nobody voids a sign-in that has not happened yet.
"""

import math
from collections.abc import Mapping
from typing import Any, Final

from cloister.identity.signals.subjects import read_subject
from cloister.identity.signals.types import (
    AssuranceChange,
    ClaimsChange,
    ComplianceChange,
    CredentialChange,
    EventRefused,
    Happening,
    PushError,
    RiskChange,
    SecurityEvent,
    SessionRevoked,
    StreamUpdated,
    Unknown,
    Verification,
)
from cloister.identity.tokens.types import LEEWAY, Expected, TokenRefused, VerifiedClaims
from cloister.model.reasons import Code

CAEP: Final = "https://schemas.openid.net/secevent/caep/event-type/"
RISC: Final = "https://schemas.openid.net/secevent/risc/event-type/"
SSF: Final = "https://schemas.openid.net/secevent/ssf/event-type/"
TYPES: Final = frozenset({"secevent+jwt"})
REQUIRED: Final = frozenset({"iat", "jti", "events"})
MAX_ID = 256
MAX_STATE = 1024
MAX_CLAIMS = 64

_ERRORS: Mapping[Code, PushError] = {
    Code.TOKEN_ISSUER: "invalid_issuer",
    Code.TOKEN_AUDIENCE: "invalid_audience",
    Code.TOKEN_KEY_UNKNOWN: "invalid_key",
    Code.TOKEN_SIGNATURE: "invalid_key",
    Code.TOKEN_ALGORITHM: "invalid_key",
}


def expected(issuer: str, audience: str, algorithms: frozenset[str]) -> Expected:
    """What a token of this transmitter must be. Tokens of other types never count as events, and events never as anything else (case 17)."""
    return Expected(issuer, frozenset({audience}), algorithms, TYPES, LEEWAY, REQUIRED)


def refusal_of(error: TokenRefused) -> EventRefused:
    return EventRefused(_ERRORS.get(error.code, "invalid_request"), error.code, error.message)


def read_event(claims: VerifiedClaims, max_age: int, now: int) -> SecurityEvent:
    """The one event of a token that is at most `max_age` seconds old. Raises EventRefused."""
    id = claims.text("jti")
    if id is None or not 0 < len(id) <= MAX_ID or not id.isprintable():
        raise _refused("`jti` is not a short line of text")
    if claims.issued_at <= now - max_age:
        raise EventRefused("invalid_request", Code.TOKEN_EXPIRED, f"the token is older than `{max_age}` s")
    events = claims.claims.get("events")
    if not isinstance(events, dict) or len(events) != 1:
        raise _refused("`events` has not exactly one event")
    [(type, body)] = events.items()
    if not isinstance(body, dict) or len(type) > MAX_ID or not type.isprintable():
        raise _refused("the event is not an object")
    what = _happening(type, body)
    subject = None if isinstance(what, Verification | StreamUpdated | Unknown) else read_subject(_subject(claims, body))
    return SecurityEvent(id, claims.issued_at, type, _instant(body, claims.issued_at, now), subject, what)


def _subject(claims: VerifiedClaims, body: Mapping[str, Any]) -> Any:
    """`sub_id` of the token; transmitters of early drafts put `subject` into the event. Both at once must say the same."""
    outer, inner = claims.claims.get("sub_id"), body.get("subject")
    if outer is not None and inner is not None and outer != inner:
        raise _refused("`sub_id` and `subject` name different subjects")
    if outer is None and inner is None:
        raise _refused("the token names no subject")
    return outer if outer is not None else inner


def _instant(body: Mapping[str, Any], issued_at: int, now: int) -> int:
    value = body.get("event_timestamp", issued_at)
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or value < 0:
        raise _refused("`event_timestamp` is not an instant")
    return min(int(value), now) if value < 1 << 53 else now


def _happening(type: str, body: Mapping[str, Any]) -> Happening:
    match type:
        case t if t in (CAEP + "session-revoked", RISC + "sessions-revoked"):
            return SessionRevoked()
        case t if t == CAEP + "credential-change":
            return CredentialChange(_word(body, "credential_type"), _word(body, "change_type"))
        case t if t == CAEP + "device-compliance-change":
            return ComplianceChange(_one_of(body, "current_status", ("compliant", "not-compliant")) == "compliant")
        case t if t == CAEP + "assurance-level-change":
            return AssuranceChange(_word(body, "namespace"), _word(body, "current_level"))
        case t if t == CAEP + "token-claims-change":
            claims = body.get("claims")
            if not isinstance(claims, dict) or not 0 < len(claims) <= MAX_CLAIMS:
                raise _refused(f"`claims` does not hold between one and `{MAX_CLAIMS}` claims")
            return ClaimsChange(claims)
        case t if t == CAEP + "risk-level-change":
            level = _one_of(body, "current_level", ("LOW", "MEDIUM", "HIGH"))
            return RiskChange(_word(body, "principal"), level)  # type: ignore[arg-type]
        case t if t == SSF + "verification":
            return Verification(_optional(body, "state"))
        case t if t == SSF + "stream-updated":
            return StreamUpdated(_one_of(body, "status", ("enabled", "paused", "disabled")), _optional(body, "reason"))
        case _:
            return Unknown()


def _word(body: Mapping[str, Any], name: str) -> str:
    value = body.get(name)
    if not isinstance(value, str) or not 0 < len(value) <= MAX_ID or not value.isprintable():
        raise _refused(f"`{name}` is not a short line of text")
    return value


def _one_of(body: Mapping[str, Any], name: str, words: tuple[str, ...]) -> str:
    value = _word(body, name)
    if value not in words:
        raise _refused(f"`{name}` is none of {', '.join(f'`{word}`' for word in words)}")
    return value


def _optional(body: Mapping[str, Any], name: str) -> str:
    """For people: what is not a text is left out."""
    value = body.get(name, "")
    return value[:MAX_STATE] if isinstance(value, str) and value.isprintable() else ""


def _refused(message: str) -> EventRefused:
    return EventRefused("invalid_request", Code.TOKEN_CLAIM, message)
