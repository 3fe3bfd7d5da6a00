"""Keys and tokens of issuers that exist only in tests, with every freedom that a forger has."""

import base64
import hmac
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

from joserfc.jwk import ECKey, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

NOW = 1_800_000_000
ISSUER = "https://idp.example"
CLIENT = "cloister"


def encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def as_json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


@lru_cache
def rsa(name: str = "rsa") -> RSAKey:
    return RSAKey.generate_key(2048, parameters={"kid": name})


@lru_cache
def ec(name: str = "ec", curve: str = "P-256") -> ECKey:
    return ECKey.generate_key(curve, parameters={"kid": name})  # type: ignore[arg-type]


@lru_cache
def okp(name: str = "okp") -> OKPKey:
    return OKPKey.generate_key("Ed25519", parameters={"kid": name})


def jwks(*keys: RSAKey | ECKey | OKPKey, **extra: Any) -> dict[str, Any]:
    return {"keys": [{**key.as_dict(private=False), **extra} for key in keys]}


def sign(header: bytes | Mapping[str, Any], payload: bytes, key: Any, algorithm: str) -> str:
    """Signed with `algorithm` whatever the header says."""
    head = header if isinstance(header, bytes) else as_json(header)
    text = f"{encode(head)}.{encode(payload)}"
    if algorithm.startswith("HS"):
        return f"{text}.{encode(hmac.digest(key, text.encode(), 'sha' + algorithm[2:]))}"
    model = JWSRegistry.algorithms["Ed25519" if algorithm == "EdDSA" else algorithm]
    return f"{text}.{encode(model.sign(text.encode(), key))}"


@dataclass(frozen=True)
class Minted:
    """A token that would be good, with some of it changed."""

    claims: Mapping[str, Any] = field(default_factory=dict)
    header: Mapping[str, Any] = field(default_factory=dict)
    key: Any = None
    algorithm: str = "RS256"

    def __str__(self) -> str:
        key = self.key or rsa()
        header = {"alg": self.algorithm, "kid": key.kid, **self.header}
        claims = {"iss": ISSUER, "aud": CLIENT, "sub": "u-1", "iat": NOW - 5, "exp": NOW + 300, **self.claims}
        return sign(
            {name: value for name, value in header.items() if value is not ...},
            as_json({name: value for name, value in claims.items() if value is not ...}),
            key,
            self.algorithm,
        )
