"""How an agent recognises its exchange before it trusts anything: provisioning keys, login lines, and the well-known document.

A provisioning key and the line for `cloister login` carry the SHA-256 of the exchange's root certificate (DER), so that
nothing secret is sent to anyone who cannot show a chain up to exactly that root.
"""

import re
import secrets
from dataclasses import dataclass
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

DEFAULT_PORT = 443
WELL_KNOWN_PATH = "/.well-known/cloister"
MAX_TEXT = 512

_KEY = re.compile(r"cloister-key-1\.([0-9a-f]{16})\.([A-Za-z0-9_-]{43})\.([0-9a-f]{64})", re.ASCII)
_HOST = r"(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)*"
_TARGET = re.compile(rf"({_HOST}|\[[0-9a-f:.]{{2,45}}\])(?::([0-9]{{1,5}}))?(?:#sha256-([0-9a-f]{{64}}))?", re.ASCII)


class Unreadable(ValueError):
    """The text is not of the expected form. The text itself may be a secret, so it is never part of the message."""

    code = "argument_invalid"


@dataclass(frozen=True, slots=True)
class ProvisioningKey:
    """`cloister-key-1.<key id>.<secret, 256 bits base64url>.<SHA-256 of the root, hex>`; the whole text is what `EnrolByKey.key` carries."""

    id: str
    secret: str
    root_sha256: str

    @property
    def text(self) -> str:
        return f"cloister-key-1.{self.id}.{self.secret}.{self.root_sha256}"

    def __repr__(self) -> str:
        return f"ProvisioningKey(id={self.id!r})"


def make_provisioning_key(root_sha256: str) -> ProvisioningKey:
    return ProvisioningKey(secrets.token_hex(8), secrets.token_urlsafe(32), root_sha256)


def read_provisioning_key(text: str) -> ProvisioningKey:
    found = _KEY.fullmatch(text.strip()) if len(text) <= MAX_TEXT else None
    if found is None:
        raise Unreadable(
            "this is not a provisioning key: expected `cloister-key-1.…`; copy the whole line that `cloister create key` printed"
        )
    return ProvisioningKey(*found.groups())


@dataclass(frozen=True, slots=True)
class ExchangeTarget:
    """Where an exchange is, and the fingerprint of its root if known. `host` is lower case; IPv6 addresses keep their brackets."""

    host: str
    port: int
    root_sha256: str | None = None

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def __str__(self) -> str:
        return self.address + (f"#sha256-{self.root_sha256}" if self.root_sha256 else "")


def read_exchange_target(text: str) -> ExchangeTarget:
    """Parse `HOST[:PORT][#sha256-…]`."""
    found = _TARGET.fullmatch(text.strip().lower()) if len(text) <= MAX_TEXT else None
    port = int(found[2]) if found and found[2] else DEFAULT_PORT
    if found is None or not 1 <= port <= 65535 or len(found[1]) > 253:
        raise Unreadable("not an exchange address: expected `HOST[:PORT][#sha256-…]`")
    return ExchangeTarget(found[1], port, found[3])


class WellKnown(BaseModel):
    """The document at `https://HOST/.well-known/cloister`: trusted only as far as the web certificate that served it."""

    model_config = ConfigDict(extra="ignore", frozen=True)

    exchange: Annotated[str, Field(max_length=253)]  # trust domain
    root_sha256: Annotated[str, Field(pattern=r"^[0-9a-f]{64}$")]
