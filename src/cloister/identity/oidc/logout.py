"""Logout tokens (OpenID Connect Back-Channel Logout 1.0 §2.4, §2.6): what they must say once their signature, issuer and audience were verified."""

from dataclasses import dataclass

from cloister.identity.tokens.types import Expected, TokenRefused, VerifiedClaims
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code

EVENT = "http://schemas.openid.net/event/backchannel-logout"
TYPES = frozenset({"logout+jwt", "jwt", ""})  # the first is what the standard advises; older providers send the others
MAX_AGE = 300
MAX_ID = 256


@dataclass(frozen=True, slots=True)
class Logout:
    """Ends the sign-ins of this session at the provider if there is one, else all of this subject. `id` is spent once until `spent_until`."""

    id: str
    subject: str
    session: str | None
    at: int
    spent_until: int


def expected_of(provider: IdentityProvider) -> Expected:
    audiences = frozenset({provider.client_id or ""})
    return Expected(provider.issuer, audiences, frozenset(provider.algorithms), TYPES, required=frozenset({"iat", "jti", "events"}))


def read_logout(claims: VerifiedClaims, now: int) -> Logout:
    events = claims.claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(EVENT), dict):
        raise TokenRefused(Code.TOKEN_TYPE, "this is no logout token")
    if "nonce" in claims.claims:
        raise TokenRefused(Code.TOKEN_TYPE, "a logout token has no `nonce`: this is an ID token in disguise")
    if claims.issued_at < now - MAX_AGE:
        raise TokenRefused(Code.TOKEN_EXPIRED, "the logout token was made too long ago")
    id, session = claims.text("jti"), claims.text("sid")
    if not id or len(id) > MAX_ID or ("sid" in claims.claims and (not session or len(session) > MAX_ID)):
        raise TokenRefused(Code.TOKEN_CLAIM, "the logout token's `jti` or `sid` is not a short text")
    if session is None and not claims.subject:
        raise TokenRefused(Code.TOKEN_CLAIM, "the logout token names neither a session nor a person")
    return Logout(id, claims.subject, session, claims.issued_at, claims.issued_at + MAX_AGE + 60)
