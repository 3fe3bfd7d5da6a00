"""One attempt to sign in, as a machine: which step may follow which, and for whom. Pure; time and secrets are handed in (case 15).

```
offered ──send──▶ sent ──answer──▶ answered ──finish──▶ done
   │               │ └─send again, same browser          │
   └───────────────┴──────────── fail / expiry ──────────┴──▶ failed
```

`send` binds the attempt to one browser and one provider for good. `answer` spends the state, whatever comes of it.
"""

import hashlib
import hmac
from dataclasses import dataclass, field
from typing import Literal

from cloister.identity.oidc.request import Secrets, Wish

LIFE_SECONDS = 600
MAX_SENDS = 10

Stage = Literal["offered", "sent", "answered", "done", "failed"]


class OutOfOrder(Exception):
    """This step has no place here: another browser, another provider, a state that was used, a time that is over."""


@dataclass(slots=True, eq=False)
class Attempt:
    """`code` is shown in the terminal and in the browser. `only` is the provider that the terminal asked for, empty for any."""

    id: str
    code: str
    device: str
    source: str
    made_at: float
    only: str = ""
    wish: Wish = field(default_factory=Wish)
    stage: Stage = "offered"
    provider: str = ""
    secrets: Secrets | None = None
    _browser: str = ""
    _sends: int = 0

    def is_over(self, now: float) -> bool:
        return self.stage in ("done", "failed") or not 0 <= now - self.made_at < LIFE_SECONDS

    def send(self, browser: str, provider: str, secrets: Secrets, now: float) -> None:
        """A browser is on its way to the provider."""
        self._check_open(now)
        if self.stage not in ("offered", "sent") or (self.stage == "sent" and not self._is_browser(browser)):
            raise OutOfOrder
        if (self.only and provider != self.only) or (self.provider and provider != self.provider):
            raise OutOfOrder
        if self._sends >= MAX_SENDS:
            raise OutOfOrder
        self._sends += 1
        self._browser, self.provider, self.secrets, self.stage = digest(browser), provider, secrets, "sent"

    def answer(self, browser: str, provider: str, state: str, now: float) -> Secrets:
        """The provider's answer came back by this browser. The secrets are given out this once; any answer that does not fit ends the attempt."""
        self._check_open(now)
        secrets, self.secrets = self.secrets, None
        fits = self.stage == "sent" and secrets is not None and provider == self.provider and self._is_browser(browser)
        if secrets is None or not fits or not hmac.compare_digest(secrets.state.encode(), state.encode()):
            self.stage = "failed"
            raise OutOfOrder
        self.stage = "answered"
        return secrets

    def finish(self, now: float) -> None:
        self._check_open(now)
        if self.stage != "answered":
            raise OutOfOrder
        self.stage = "done"

    def fail(self) -> None:
        if self.stage != "done":
            self.stage, self.secrets = "failed", None

    def _check_open(self, now: float) -> None:
        if self.is_over(now):
            raise OutOfOrder

    def _is_browser(self, browser: str) -> bool:
        return bool(self._browser) and hmac.compare_digest(self._browser, digest(browser))


def digest(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
