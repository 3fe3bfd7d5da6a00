"""JWT (RFC 7519, with the advice of RFC 8725): signature first, then issuer, audience and time, then the claims. Pure: `now` is handed in."""

import math
from typing import Any

from cloister.identity.strict_json import NotStrict, read_object
from cloister.identity.tokens.jws import open_jws
from cloister.identity.tokens.keys import KeySet
from cloister.identity.tokens.types import MADE_BY_VERIFY, Expected, TokenRefused, VerifiedClaims
from cloister.model.hosts import shown
from cloister.model.reasons import Code

MAX_SUBJECT = 255
MAX_AUDIENCES = 64
PLAIN = frozenset({"", "jwt"})
LATEST = 1 << 53  # beyond, a number of seconds is not exact in JSON


def verify(token: str, keys: KeySet, expected: Expected, now: int) -> VerifiedClaims:
    """The claims of a token that `expected.issuer` made for one of `expected.audiences` and that is good at `now`. Raises TokenRefused."""
    if not expected.audiences or not expected.algorithms:
        raise ValueError("a verification without audiences or algorithms would accept anything")
    header, payload = open_jws(token, keys, expected.algorithms)
    kind = header.get("typ", "")
    kind = kind.lower().removeprefix("application/") if isinstance(kind, str) else None
    if kind not in (PLAIN if expected.types is None else expected.types):
        raise TokenRefused(Code.TOKEN_TYPE, "the token is of another type than is accepted here")
    try:
        claims = read_object(payload)
    except NotStrict as error:
        raise TokenRefused(Code.TOKEN_MALFORMED, f"the token's claims are {error}") from None
    return _check(claims, expected, now)


def _check(claims: dict[str, Any], expected: Expected, now: int) -> VerifiedClaims:
    issuer = claims.get("iss", "" if expected.issuer is None else None)
    if not isinstance(issuer, str) or (expected.issuer is not None and issuer != expected.issuer):
        raise TokenRefused(Code.TOKEN_ISSUER, "the token is of another issuer")
    audience = _audience(claims)
    if expected.audiences.isdisjoint(audience):
        wanted = " or ".join(f"`{shown(each)}`" for each in sorted(expected.audiences))
        raise TokenRefused(Code.TOKEN_AUDIENCE, f"the token is for `{shown(audience[0])}`, and not for {wanted}")
    for name in sorted(expected.required):
        if name not in claims:
            raise TokenRefused(Code.TOKEN_CLAIM, f"the token has no `{name}`")
    expires, not_before, issued = (_instant(claims, name) for name in ("exp", "nbf", "iat"))
    if expires is not None and expires <= now - expected.leeway:
        raise TokenRefused(Code.TOKEN_EXPIRED, f"the token expired {now - expires} s ago")
    begins = max(not_before or 0, issued or 0)
    if begins > now + expected.leeway:
        raise TokenRefused(Code.TOKEN_EXPIRED, f"the token is good in {begins - now} s only, by the clock of the exchange")
    subject = claims.get("sub", "")
    if not isinstance(subject, str) or len(subject) > MAX_SUBJECT or not subject.isprintable() or ("sub" in claims and not subject):
        raise TokenRefused(Code.TOKEN_CLAIM, "the token's `sub` is not a short line of text")
    return VerifiedClaims(issuer, subject, audience, issued or 0, expires or 0, claims, MADE_BY_VERIFY)


def _audience(claims: dict[str, Any]) -> tuple[str, ...]:
    value = claims.get("aud")
    listed = [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or not 0 < len(listed) <= MAX_AUDIENCES or not all(isinstance(item, str) for item in listed):
        raise TokenRefused(Code.TOKEN_AUDIENCE, "the token does not say whom it is for")
    return tuple(listed)


def _instant(claims: dict[str, Any], name: str) -> int | None:
    """NumericDate (RFC 7519 §2). A claim that is there and is no instant refuses the token; it never counts as absent."""
    if name not in claims:
        return None
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value) or not 0 <= value < LATEST:
        raise TokenRefused(Code.TOKEN_CLAIM, f"the token's `{name}` is not an instant")
    return int(value)
