"""What a verification takes and gives. `VerifiedClaims` is the witness that it took place: nothing but `verify` can make one."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Any

from cloister.model.reasons import Code

LEEWAY = 30
MADE_BY_VERIFY = object()
"""Handed to `VerifiedClaims` by `verify.verify` and by nobody else; a test reads the source for that."""

REGISTERED = frozenset({"sub", "exp", "iat"})


class TokenRefused(Exception):
    """The token proves nothing. The message says what is wrong and never holds the token."""

    def __init__(self, code: Code, message: str) -> None:
        self.code = code
        self.message = message
        super().__init__(f"{code}: {message}")


@dataclass(frozen=True, slots=True)
class Expected:
    """What this exchange wants of a token, from its own configuration alone. No field of a token switches any of it off.

    `issuer` is compared character by character; None where the set of keys stands for the issuer (SPIFFE). One of `audiences` must be named.
    `types` are the accepted `typ` headers in lower case without `application/`, `""` standing for none; None means `JWT` or none at all.
    `required` are claims that must be there, beside `iss` and `aud`.
    """

    issuer: str | None
    audiences: frozenset[str]
    algorithms: frozenset[str]
    types: frozenset[str] | None = None
    leeway: int = LEEWAY
    required: frozenset[str] = REGISTERED


@dataclass(frozen=True, slots=True)
class VerifiedClaims:
    """Claims whose signature, issuer, audience and time were verified, in the very form that was signed.

    `subject` is "" and `issued_at` and `expires_at` are 0 where the token has none and `Expected.required` lets it.
    """

    issuer: str
    subject: str
    audience: tuple[str, ...]
    issued_at: int
    expires_at: int
    claims: Mapping[str, Any]
    witness: object = field(repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.witness is not MADE_BY_VERIFY:
            raise TypeError("claims are made by verifying a token and in no other way")
        object.__setattr__(self, "claims", MappingProxyType(dict(self.claims)))

    def text(self, name: str) -> str | None:
        """The claim if it is there and is text."""
        value = self.claims.get(name)
        return value if isinstance(value, str) else None

    def texts(self, name: str) -> tuple[str, ...] | None:
        """The claim as a list of texts: one text counts as a list of one. None if it is absent or anything else."""
        value = self.claims.get(name)
        if isinstance(value, str):
            return (value,)
        if isinstance(value, list) and all(isinstance(item, str) for item in value):
            return tuple(value)
        return None
