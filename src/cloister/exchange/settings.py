"""What an operator may set. Reading files, environment and flags is the CLI's part; this is only the result."""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from cloister.model.first_contact import Unreadable, read_exchange_target

TwinPolicy = Literal["keep_older", "cut_both"]


@dataclass(frozen=True, slots=True)
class Limits:
    """Every bound of the exchange. Beyond one, the answer is a refusal with `limit_reached`, `too_large` or `too_many_attempts`."""

    agents: int = 100_000
    links: int = 20_000
    messages_per_link: int = 5_000  # in ten seconds
    sessions: int = 200_000
    sessions_per_client: int = 1_024
    sessions_per_connector: int = 40_000  # a snapshot is one message
    provisioning_keys: int = 10_000
    provisioning_key_uses: int = 100_000
    kill_switches: int = 1_000
    api_tokens_per_user: int = 64
    delegations_per_user: int = 64
    delegation_seconds: int = 30 * 86400
    presented_tokens: int = 500_000  # tokens of programs that were used and have not expired
    documents: int = 20_000
    audit_rows: int = 2_000_000
    refusals_noted_per_source: int = 60  # in the audit, per minute
    refusals_noted: int = 300  # in all, per minute
    body_bytes: int = 8 << 20
    page: int = 1_000
    requests_per_minute: int = 6_000  # per source
    directories: int = 64
    retired_names: int = 200_000  # that users, and groups of directories, have had
    directory_requests_per_minute: int = 60_000  # per source
    attempts_per_account: int = 10  # failed sign-ins per minute
    attempts_per_source: int = 30
    attempts_in_all: int = 600
    password_queue: int = 64  # sign-ins that may wait for a hash at once


def is_address(text: str) -> bool:
    """Whether this is `host:port` that somebody could dial: what everybody is told to dial must not break their parsers."""
    try:
        target = read_exchange_target(text)
    except Unreadable:
        return False
    return target.address == text.lower() and target.host.strip("[]") not in ("0.0.0.0", "::")  # noqa: S104 (compared, not bound)


@dataclass(frozen=True, slots=True)
class Settings:
    """`listen` is where the public port is bound, `advertise` the `host:port` that agents dial and keys carry."""

    data: Path
    listen: str = "0.0.0.0:443"
    advertise: str = ""
    web_certificate: Path | None = None  # PEM chain; without it the exchange's own CA signs one for the advertised host
    web_key: Path | None = None
    relay: bool = True
    twins: TwinPolicy = "keep_older"
    ticket_seconds: int = 300
    renewal_grace: int = 30 * 86400
    acknowledgement_seconds: float = 0.3
    token_seconds: int = 12 * 3600
    private_suffixes: tuple[str, ...] = ()
    threads: int = 1
    drain_grace: float = 5.0
    journal_max_bytes: int = 1 << 34
    limits: Limits = Limits()

    @property
    def address(self) -> str:
        """What agents dial."""
        return self.advertise or self.listen

    @property
    def database(self) -> Path:
        return self.data / "exchange.db"

    @property
    def keys(self) -> Path:
        return self.data / "keys"

    @property
    def journal(self) -> Path:
        return self.data / "journal"
