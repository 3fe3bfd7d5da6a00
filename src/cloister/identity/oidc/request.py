"""Where a person is sent (OpenID Connect Core 1.0 §3.1.2.1; PKCE, RFC 7636), and what comes back in the URL (RFC 6749 §4.1.2, RFC 9207)."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

from cloister.identity.tokens.types import TokenRefused
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code

MAX_CODE = 4096


@dataclass(frozen=True, slots=True)
class Secrets:
    """Made for one redirect and good for one answer. `verifier` never leaves until the code is exchanged."""

    state: str
    nonce: str
    verifier: str

    def __repr__(self) -> str:
        return "Secrets()"


@dataclass(frozen=True, slots=True)
class Wish:
    """What a sign-in must bring beyond the document: values of `acr` (in order of preference), and how old it may be (seconds, 0: right now)."""

    acr_values: tuple[str, ...] = ()
    max_age: int | None = None


def authorization_url(
    provider: IdentityProvider, metadata: Mapping[str, Any], redirect_uri: str, secrets: Secrets, wish: Wish
) -> str:
    endpoint = str(metadata["authorization_endpoint"])
    fields = {
        "response_type": "code",
        "client_id": provider.client_id or "",
        "redirect_uri": redirect_uri,
        "scope": " ".join(provider.scopes),
        "state": secrets.state,
        "nonce": secrets.nonce,
        "code_challenge": challenge(secrets.verifier),
        "code_challenge_method": "S256",
    } | wish_fields(wish)
    return endpoint + ("&" if "?" in endpoint else "?") + urlencode(fields)


def wish_fields(wish: Wish) -> dict[str, str]:
    fields = {}
    if wish.acr_values:
        fields["acr_values"] = " ".join(wish.acr_values)
    if wish.max_age is not None:
        fields["max_age"] = str(wish.max_age)
    if wish.max_age == 0:
        fields["prompt"] = "login"
    return fields


def challenge(verifier: str) -> str:
    """RFC 7636 §4.2, method S256: the only one there is here."""
    return base64.urlsafe_b64encode(hashlib.sha256(verifier.encode()).digest()).rstrip(b"=").decode()


def read_answer(pairs: Sequence[tuple[str, str]], issuer: str, metadata: Mapping[str, Any]) -> str:
    """The authorization code in the query of the callback. Raises TokenRefused.

    `iss` is compared where it is there, and must be there where the provider says that it sends it (mix-up, RFC 9207).
    """
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise TokenRefused(Code.TOKEN_MALFORMED, "the provider's answer says something twice")
    says_who = "iss" in fields or metadata.get("authorization_response_iss_parameter_supported") is True
    if says_who and not hmac.compare_digest(fields.get("iss", "").encode(), issuer.encode()):
        raise TokenRefused(Code.TOKEN_ISSUER, "the answer is of another provider than the one that was asked")
    if "error" in fields:
        raise TokenRefused(Code.SIGN_IN_FAILED, f"the provider refused the sign-in: `{_printable(fields['error'])}`")
    code = fields.get("code", "")
    if not 0 < len(code) <= MAX_CODE or not code.isprintable():
        raise TokenRefused(Code.TOKEN_MALFORMED, "the provider's answer has no code")
    return code


def token_request(code: str, redirect_uri: str, verifier: str) -> dict[str, str]:
    return {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri, "code_verifier": verifier}


def _printable(text: str) -> str:
    return "".join(character for character in text if character.isprintable() and character not in "`<>")[:80]
