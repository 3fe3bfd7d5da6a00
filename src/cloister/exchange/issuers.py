"""The keys of other issuers: found by discovery (OpenID Connect Discovery 1.0, RFC 8414), kept for a while, renewed when a token names a new one.

What a token says causes at most a look at the configured place, at most once in ten seconds; it never says where to look (case 5).
"""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from cloister.exchange.errors import Refusal
from cloister.exchange.outgoing import PUBLIC, Outgoing, Reach, check_url, shown_url
from cloister.identity.tokens.jws import peek_kid
from cloister.identity.tokens.keys import KeySet, KeysUnusable
from cloister.identity.tokens.types import Expected, VerifiedClaims
from cloister.identity.tokens.verify import verify
from cloister.model.reasons import Code

WELL_KNOWN = "/.well-known/openid-configuration"
FRESH_SECONDS = 600.0
KEEP_SECONDS = 3600.0  # how long the last good set serves while the issuer cannot be asked
RENEW_SECONDS = 10.0  # between two looks that tokens or failures cause
MAX_ISSUERS = 512

_ENDPOINTS = (
    "authorization_endpoint",
    "token_endpoint",
    "jwks_uri",
    "device_authorization_endpoint",
    "end_session_endpoint",
)


@dataclass(frozen=True, slots=True)
class Issuer:
    """An issuer as an administrator describes it. Endpoints stand at the issuer's own host or at one of `hosts`.

    With `jwks_uri` nothing is discovered.
    """

    issuer: str
    algorithms: frozenset[str]
    reach: Reach = PUBLIC
    hosts: frozenset[str] = frozenset()
    jwks_uri: str | None = None
    well_known: str = WELL_KNOWN


@dataclass(slots=True)
class _Known:
    metadata: Mapping[str, Any] | None = None
    keys: KeySet | None = None
    fetched_at: float = float("-inf")
    tried_at: float = float("-inf")
    why: Refusal | None = None
    looks: int = 0
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class IssuerKeys:
    """By configuration: a document that changes begins anew. `metadata`, `keys` and `verify` raise `Refusal` while an issuer cannot be asked."""

    def __init__(self, outgoing: Outgoing, clock: Callable[[], float]) -> None:
        self._outgoing = outgoing
        self._clock = clock
        self._known: dict[Issuer, _Known] = {}

    async def metadata(self, issuer: Issuer) -> Mapping[str, Any]:
        """The provider's own description, checked against what is configured; empty where `jwks_uri` is given."""
        return (await self._fresh(issuer)).metadata or {}

    async def keys(self, issuer: Issuer) -> KeySet:
        known = await self._fresh(issuer)
        if known.keys is None:
            raise known.why or Refusal(Code.OUTGOING_FAILED)
        return known.keys

    async def verify(self, issuer: Issuer, token: str, expected: Expected) -> VerifiedClaims:
        """The token's claims. Raises TokenRefused; looks once for newer keys if the token names one that is not known."""
        return verify(token, await self.keys_for(issuer, token), expected, int(self._clock()))

    async def keys_for(self, issuer: Issuer, token: str) -> KeySet:
        """The keys to verify this token with: newer ones are looked for, once, if it names one that is not known."""
        keys = await self.keys(issuer)
        if keys.has(peek_kid(token)):
            return keys
        known = self._known[issuer]
        if known.lock.locked() or self._age(known.tried_at) >= RENEW_SECONDS:
            await self._renew(issuer, known)
        return known.keys or keys

    async def check(self, issuer: Issuer) -> Mapping[str, Any]:
        """Ask now, whatever is known: for whoever configures it (case 9). Raises Refusal with the reason."""
        known = _Known()
        await self._renew(issuer, known)
        if known.why is not None:
            raise known.why
        self._remember(issuer, known)
        return known.metadata or {}

    # ------------------------------------------------------------

    async def _fresh(self, issuer: Issuer) -> _Known:
        known = self._known.get(issuer)
        if known is None:
            known = self._remember(issuer, _Known())
        is_due = self._age(known.fetched_at) >= FRESH_SECONDS and self._age(known.tried_at) >= RENEW_SECONDS
        if is_due or (known.keys is None and known.lock.locked()):
            await self._renew(issuer, known)
        if self._age(known.fetched_at) >= KEEP_SECONDS:
            known.keys = known.metadata = None
        if known.keys is None:
            raise known.why or Refusal(Code.OUTGOING_FAILED)
        return known

    def _age(self, instant: float) -> float:
        """A clock that was set back makes nothing young again."""
        return abs(self._clock() - instant)

    async def _renew(self, issuer: Issuer, known: _Known) -> None:
        """One look at a time; whoever waited for it takes what it found."""
        seen = known.looks
        async with known.lock:
            if known.looks != seen:
                return
            known.tried_at = self._clock()
            try:
                metadata = {} if issuer.jwks_uri is not None else await self._discover(issuer)
                document = await self._outgoing.get_json(issuer.jwks_uri or metadata["jwks_uri"], issuer.reach)
                keys = KeySet.from_jwks(document, issuer.algorithms)
                if not keys.keys:
                    raise KeysUnusable("no key of the set can be used")
            except KeysUnusable as error:
                known.why = Refusal(Code.PROVIDER_MISMATCH, f"the keys of `{issuer.issuer}`: {error}")
            except Refusal as refusal:
                known.why = refusal
            else:
                known.metadata, known.keys, known.why = metadata, keys, None
                known.fetched_at = self._clock()
            finally:
                known.looks += 1

    async def _discover(self, issuer: Issuer) -> dict[str, Any]:
        url = _description_url(issuer)
        metadata = await self._outgoing.get_json(url, issuer.reach)
        check_metadata(issuer, metadata)
        return metadata

    def _remember(self, issuer: Issuer, known: _Known) -> _Known:
        while len(self._known) >= MAX_ISSUERS:
            self._known.pop(next(iter(self._known)))
        self._known[issuer] = known
        return known


def _description_url(issuer: Issuer) -> str:
    """OpenID Connect appends the well-known path to the issuer; everything else puts it before the issuer's own path (RFC 8615, RFC 8414)."""
    if issuer.well_known == WELL_KNOWN:
        return issuer.issuer.removesuffix("/") + WELL_KNOWN
    scheme, _, rest = issuer.issuer.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host}{issuer.well_known}{slash if path else ''}{path}"


def check_metadata(issuer: Issuer, metadata: Mapping[str, Any]) -> None:
    """The description is of this very issuer, and its endpoints stand where they may (case 9). Raises Refusal."""
    if metadata.get("issuer") != issuer.issuer:
        said = shown_url(str(metadata.get("issuer", "")))
        raise Refusal(
            Code.PROVIDER_MISMATCH,
            f"the description of `{issuer.issuer}` says that its issuer is `{said}`",
            "write `issuer` exactly as the provider does, down to the last `/`",
        )
    own = check_url(issuer.issuer, issuer.reach)
    for name in _ENDPOINTS:
        if name not in metadata and name != "jwks_uri":
            continue
        url = metadata.get(name)
        if not isinstance(url, str):
            raise Refusal(Code.PROVIDER_MISMATCH, f"the description of `{issuer.issuer}` has no `{name}` that is a URL")
        place = check_url(url, issuer.reach)
        if place.host != own.host and place.host not in issuer.hosts:
            raise Refusal(
                Code.PROVIDER_MISMATCH,
                f"`{name}` of `{issuer.issuer}` stands at another host, `{place.host}`",
                "list that host under `endpoint_hosts` if the provider says so",
            )
