"""Which browser is asking: a cookie that this process made, and form tokens bound to it. No state, nothing that can be made up (case 6).

The cookie `__Host-cloister-sign-in` is `<random>.<MAC>`: this very process, this very purpose, or it counts as none. A form token is a MAC over browser
and attempt, so that another site can send no form for it (cross-site request forgery).
"""

import hmac
import secrets

COOKIE = "__Host-cloister-sign-in"
MAX_COOKIE = 256


class Browsers:
    def __init__(self) -> None:
        self._key = secrets.token_bytes(32)

    def make(self) -> tuple[str, str]:
        """A browser that was not seen before: its id, and its cookie's value."""
        id = secrets.token_urlsafe(32)
        return id, f"{id}.{self._mac('cookie', id)}"

    def read(self, cookie: str | None) -> str | None:
        """The id in a cookie that is ours."""
        if cookie is None or len(cookie) > MAX_COOKIE or not cookie.isascii():
            return None
        id, _, mac = cookie.partition(".")
        return id if id and hmac.compare_digest(mac, self._mac("cookie", id)) else None

    def form_token(self, browser: str, attempt: str) -> str:
        return self._mac("form", browser, attempt)

    def is_form_token(self, browser: str, attempt: str, token: str) -> bool:
        return hmac.compare_digest(token.encode(), self._mac("form", browser, attempt).encode())

    def _mac(self, purpose: str, *parts: str) -> str:
        text = "\0".join((purpose, *parts)).encode()
        return hmac.digest(self._key, text, "sha256").hex()
