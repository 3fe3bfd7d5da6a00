"""When to renew, and which proxy to use. Pure."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from cloister.agent.errors import AgentError
from cloister.model.reasons import Code

RENEW_AFTER = 2 / 3  # of a certificate's life
RENEW_SPREAD = 0.05  # of a certificate's life, so that a fleet enrolled at once does not renew at once
RENEW_RETRY = 60.0  # seconds between attempts


def renewal_time(not_before: int, not_after: int, jitter: float) -> float:
    """Unix time of the first attempt to renew; `jitter` in [0, 1)."""
    life = max(0, not_after - not_before)
    return not_before + life * (RENEW_AFTER + RENEW_SPREAD * jitter)


@dataclass(frozen=True, slots=True)
class OutboundProxy:
    """What the environment says of the way out. The URL may hold credentials: it goes to the core and nowhere else."""

    url: str | None = field(default=None, repr=False)
    exemptions: str = ""  # of NO_PROXY, read by the core for every destination


DIRECT = OutboundProxy()


def read_proxy(environment: Mapping[str, str]) -> OutboundProxy:
    """HTTPS_PROXY and NO_PROXY (lower case wins, as in curl). Raises AgentError for a proxy that cannot be used."""
    url = environment.get("https_proxy") or environment.get("HTTPS_PROXY") or ""
    if not url:
        return DIRECT
    if "://" not in url:
        url = f"http://{url}"
    try:
        parts = urlsplit(url)
        usable = parts.scheme in ("http", "https") and bool(parts.hostname) and (parts.port is None or parts.port > 0)
    except ValueError:
        usable = False
    if not usable:
        raise AgentError(Code.ARGUMENT_INVALID, "HTTPS_PROXY cannot be used", "set it to `http[s]://[USER:PASSWORD@]HOST[:PORT]`")
    return OutboundProxy(url, environment.get("no_proxy") or environment.get("NO_PROXY") or "")
