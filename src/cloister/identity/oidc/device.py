"""The device authorization grant (RFC 8628): for machines without a browser. The exchange asks, the person answers on another device."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from cloister.identity.tokens.types import TokenRefused
from cloister.model.reasons import Code

GRANT = "urn:ietf:params:oauth:grant-type:device_code"
MAX_SECONDS = 1800
MIN_INTERVAL, DEFAULT_INTERVAL, MAX_INTERVAL = 1, 5, 60
MAX_TEXT = 2048


@dataclass(frozen=True, slots=True)
class DeviceCode:
    """`code` is a secret between exchange and provider; `user_code` is what the person types at `url`."""

    code: str = field(repr=False)
    user_code: str
    url: str
    seconds: int
    interval: int
    verifier: str = field(repr=False)


def read_device_answer(answer: Mapping[str, Any], verifier: str) -> DeviceCode:
    """RFC 8628 §3.2. `verifier` is that of the challenge which the request carried (PKCE: some providers demand it here too). Raises TokenRefused."""
    code, user_code = answer.get("device_code"), answer.get("user_code")
    url = answer.get("verification_uri_complete") or answer.get("verification_uri")
    seconds, interval = answer.get("expires_in"), answer.get("interval", DEFAULT_INTERVAL)
    texts = (code, user_code, url)
    if not all(isinstance(text, str) and 0 < len(text) <= MAX_TEXT and text.isprintable() for text in texts):
        raise TokenRefused(Code.TOKEN_MALFORMED, "the provider's answer to the device request lacks a code or a URL")
    if not str(url).startswith("https://") and not str(url).startswith("http://"):
        raise TokenRefused(Code.TOKEN_MALFORMED, "the provider's verification URL is no web address")
    if not isinstance(seconds, int) or not isinstance(interval, int) or seconds <= 0:
        raise TokenRefused(Code.TOKEN_MALFORMED, "the provider's answer to the device request has no times")
    return DeviceCode(
        str(code), str(user_code), str(url), min(seconds, MAX_SECONDS), max(MIN_INTERVAL, min(interval, MAX_INTERVAL)), verifier
    )


def next_interval(answer: Mapping[str, Any], interval: int) -> int:
    """How long to wait before asking again (RFC 8628 §3.5). Raises TokenRefused if there is nothing to wait for."""
    match answer.get("error"):
        case "authorization_pending":
            return interval
        case "slow_down":
            return min(interval + 5, MAX_INTERVAL)
        case "access_denied":
            raise TokenRefused(Code.SIGN_IN_FAILED, "the person, or the provider, said no")
        case "expired_token":
            raise TokenRefused(Code.SIGN_IN_FAILED, "the code was not used in time")
        case _:
            raise TokenRefused(Code.SIGN_IN_FAILED, "the provider refused the device's sign-in")
