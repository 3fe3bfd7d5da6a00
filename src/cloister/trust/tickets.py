"""Tickets: JWTs (RFC 7519) signed with Ed25519 (RFC 8037). Made here only; verified in the Rust core."""

import functools
import hashlib
import json

from cryptography.hazmat.primitives.asymmetric import ed25519
from pydantic_core import to_json

from cloister.trust.certificates import base64url
from cloister.trust.types import TicketClaims

TICKET_TYPE = "cloister-ticket+jwt"


def key_id(key: ed25519.Ed25519PublicKey) -> str:
    """The `kid`: the first 16 characters of the key's RFC 7638 thumbprint."""
    canonical = json.dumps({"crv": "Ed25519", "kty": "OKP", "x": base64url(key.public_bytes_raw())}, separators=(",", ":"))
    return base64url(hashlib.sha256(canonical.encode()).digest())[:16]


def sign_ticket(key: ed25519.Ed25519PrivateKey, kid: str, claims: TicketClaims) -> str:
    signing_input = f"{_header(kid)}.{base64url(to_json(claims.payload()))}"
    return f"{signing_input}.{base64url(key.sign(signing_input.encode()))}"


@functools.lru_cache(maxsize=16)
def _header(kid: str) -> str:
    return base64url(to_json({"alg": "EdDSA", "typ": TICKET_TYPE, "kid": kid}))
