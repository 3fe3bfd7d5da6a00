"""Compact JWS (RFC 7515 §7.1): taken apart once, strictly; what is verified is what is read (case 19).

The JSON serialisations, detached and unencoded payloads (RFC 7797) and symmetric algorithms do not exist here.
"""

import base64
import re
from typing import Any

from joserfc.jws import JWSRegistry

from cloister.identity.strict_json import NotStrict, read_object
from cloister.identity.tokens.keys import ALGORITHMS, KeySet
from cloister.identity.tokens.types import TokenRefused
from cloister.model.reasons import Code

MAX_TOKEN_CHARS = 64 * 1024
MAX_HEADER_CHARS = 8 * 1024

_COMPACT = re.compile(r"([A-Za-z0-9_-]+)\.([A-Za-z0-9_-]*)\.([A-Za-z0-9_-]+)", re.ASCII)
_FORBIDDEN_HEADERS = ("crit", "b64", "zip", "jku", "jwk", "x5u", "x5c", "enc")
"""What would change how the token is read, or where its key comes from (case 5). Refused, so that a token that tries is seen."""

_MODELS = {name: JWSRegistry.algorithms["Ed25519" if name == "EdDSA" else name] for name in ALGORITHMS}


def open_jws(token: str, keys: KeySet, algorithms: frozenset[str]) -> tuple[dict[str, Any], bytes]:
    """Header and payload of a token that a key of `keys` signed with one of `algorithms`. Raises TokenRefused."""
    if len(token) > MAX_TOKEN_CHARS:
        raise TokenRefused(Code.TOKEN_MALFORMED, f"the token is longer than `{MAX_TOKEN_CHARS}` characters")
    parts = _COMPACT.fullmatch(token)
    if parts is None or len(parts[1]) > MAX_HEADER_CHARS:
        raise TokenRefused(Code.TOKEN_MALFORMED, "the token is not a signed compact JWS")
    header = _read_header(parts[1])
    algorithm = header.get("alg")
    if not isinstance(algorithm, str) or algorithm not in algorithms or algorithm not in _MODELS:
        raise TokenRefused(Code.TOKEN_ALGORITHM, "the token is signed with an algorithm that is not configured for its issuer")
    for name in _FORBIDDEN_HEADERS:
        if name in header:
            raise TokenRefused(Code.TOKEN_MALFORMED, f"the token's header has `{name}`, which is not accepted here")
    kid = header.get("kid")
    if kid is not None and not isinstance(kid, str):
        raise TokenRefused(Code.TOKEN_MALFORMED, "the token's `kid` is not a text")
    key = keys.find(kid, algorithm)
    if key is None:
        raise TokenRefused(Code.TOKEN_KEY_UNKNOWN, "the token's key is not one of its issuer's keys")
    signed, signature = token[: parts.start(3) - 1].encode(), _decode(parts[3])
    if not _MODELS[algorithm].verify(signed, signature, key.key):
        raise TokenRefused(Code.TOKEN_SIGNATURE, "the token is not signed by its issuer")
    return header, _decode(parts[2])


def peek_kid(token: str) -> str | None:
    """The `kid` of a token that nothing vouches for yet: good for deciding whether to look for newer keys, and for nothing else."""
    parts = _COMPACT.fullmatch(token) if len(token) <= MAX_TOKEN_CHARS else None
    if parts is None or len(parts[1]) > MAX_HEADER_CHARS:
        return None
    try:
        kid = _read_header(parts[1]).get("kid")
    except TokenRefused:
        return None
    return kid if isinstance(kid, str) else None


def _read_header(encoded: str) -> dict[str, Any]:
    try:
        return read_object(_decode(encoded), max_values=64)
    except NotStrict as error:
        raise TokenRefused(Code.TOKEN_MALFORMED, f"the token's header is {error}") from None


def _decode(text: str) -> bytes:
    """base64url without padding, in its one canonical form."""
    if len(text) % 4 == 1:
        raise TokenRefused(Code.TOKEN_MALFORMED, "the token is not base64url")
    decoded = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
    if base64.urlsafe_b64encode(decoded).rstrip(b"=").decode() != text:
        raise TokenRefused(Code.TOKEN_MALFORMED, "the token is not base64url")
    return decoded
