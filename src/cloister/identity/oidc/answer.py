"""What an ID token must say (OpenID Connect Core 1.0 §3.1.3.7) once its signature, issuer, audience and time were verified, and who that is."""

import hmac

from cloister.identity.oidc.request import Wish
from cloister.identity.people import Person, line, read_groups, strength_of
from cloister.identity.tokens.types import LEEWAY, Expected, TokenRefused, VerifiedClaims
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code

MAX_TOKEN_AGE = 600
MAX_SESSION = 256


def expected_of(provider: IdentityProvider) -> Expected:
    return Expected(provider.issuer, frozenset({provider.client_id or ""}), frozenset(provider.algorithms))


def read_person(provider: IdentityProvider, claims: VerifiedClaims, nonce: str | None, wish: Wish, now: int) -> Person:
    """Who signed in. `nonce` is None for the device grant, whose token is bound by its code alone. Raises TokenRefused."""
    said = claims.text("nonce")
    if nonce is not None and (said is None or not hmac.compare_digest(said.encode(), nonce.encode())):
        raise TokenRefused(Code.TOKEN_CLAIM, "the token belongs to another sign-in: its `nonce` differs")
    azp = claims.claims.get("azp")
    if (azp is not None or len(claims.audience) > 1) and azp != provider.client_id:
        raise TokenRefused(Code.TOKEN_AUDIENCE, "the token was given to another client: its `azp` differs")
    if "events" in claims.claims:
        raise TokenRefused(Code.TOKEN_TYPE, "this is no ID token")
    if claims.issued_at < now - MAX_TOKEN_AGE:
        raise TokenRefused(Code.TOKEN_EXPIRED, "the token was made too long ago")
    amr = claims.claims.get("amr", [])
    if not isinstance(amr, list) or not all(isinstance(item, str) for item in amr):
        raise TokenRefused(Code.TOKEN_CLAIM, "the token's `amr` is not a list of texts")
    session = claims.text("sid")
    if session is not None and len(session) > MAX_SESSION:
        raise TokenRefused(Code.TOKEN_CLAIM, "the token's `sid` is too long")
    return Person(
        provider=provider.name,
        issuer=provider.issuer,
        subject=claims.subject,
        at=_signed_in_at(claims, wish, now),
        strength=strength_of(provider, claims.text("acr"), amr),
        username=line(claims.text(provider.username)),
        display=line(claims.text(provider.display)),
        groups=_groups(provider, claims),
        session=session,
        vouched_at=min(claims.issued_at, now),
    )


def _signed_in_at(claims: VerifiedClaims, wish: Wish, now: int) -> int:
    """`auth_time`; it must be there, and young enough, where an age was asked for (case 12)."""
    value = claims.claims.get("auth_time")
    if value is None and wish.max_age is None:
        return 0
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 < value <= now + LEEWAY:
        raise TokenRefused(Code.TOKEN_CLAIM, "the token does not say when the person signed in: the provider must send `auth_time`")
    if wish.max_age is not None and value < now - wish.max_age - LEEWAY:
        raise TokenRefused(Code.TOKEN_EXPIRED, "the person signed in at the provider too long ago")
    return min(int(value), now)


def _groups(provider: IdentityProvider, claims: VerifiedClaims) -> tuple[str, ...] | None:
    """None where no claim is configured. A claim that is configured and absent means that the person is in none."""
    if provider.groups is None:
        return None
    name = provider.groups.claim
    elsewhere = claims.claims.get("_claim_names")  # OpenID Connect Core 1.0 §5.6.2; `hasgroups` is Microsoft Entra's
    if (isinstance(elsewhere, dict) and name in elsewhere) or (name == "groups" and claims.claims.get("hasgroups") is True):
        raise TokenRefused(Code.TOKEN_CLAIM, f"the token only says where `{line(name)}` are: let the provider send fewer")
    listed = claims.texts(name)
    if listed is None and name in claims.claims:
        raise TokenRefused(Code.TOKEN_CLAIM, f"the token's `{line(name)}` is not a list of texts")
    return read_groups(listed)
