"""The nouns of trust: who an agent is, and what is signed."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal, cast

Role = Literal["control", "relay", "connector", "client"]
ROLES: tuple[Role, ...] = ("control", "relay", "connector", "client")

CONNECTOR_DNS_NAME = "connector.cloister.invalid"
MAX_TICKET_SECONDS = 300

_URI = re.compile(r"spiffe://([0-9a-f]{16}\.cloister)/(control|relay|connector|client)/([0-9a-f]{16})")


@dataclass(frozen=True, slots=True)
class Identity:
    """An agent, as its leaf's one URI SAN says (ARCHITECTURE.md, "Identity")."""

    trust_domain: str
    role: Role
    id: str

    @property
    def uri(self) -> str:
        return f"spiffe://{self.trust_domain}/{self.role}/{self.id}"


def parse_identity(uri: str) -> Identity | None:
    """The identity in a SPIFFE id of ours; None if it is anything else."""
    match = _URI.fullmatch(uri)
    return Identity(match[1], cast("Role", match[2]), match[3]) if match else None


@dataclass(frozen=True, slots=True)
class TicketClaims:
    """What a ticket says (ARCHITECTURE.md, "Tickets"). Times are Unix seconds."""

    issuer: str
    token_id: str
    session: str
    principal: str
    client: str
    segment: str
    connectors: tuple[str, ...]
    key_thumbprint: str
    issued: int
    expires: int
    generation: int
    continuity: int
    rules: tuple[str, ...]

    def __post_init__(self) -> None:
        if not 0 < self.expires - self.issued <= MAX_TICKET_SECONDS:
            raise ValueError(f"a ticket lasts 1 to {MAX_TICKET_SECONDS} s, not `{self.expires - self.issued}`")

    def payload(self) -> Mapping[str, object]:
        return {
            "iss": self.issuer,
            "jti": self.token_id,
            "sid": self.session,
            "sub": self.principal,
            "dev": self.client,
            "seg": self.segment,
            "con": list(self.connectors),
            "aud": [f"segment:{self.segment}", *(f"connector:{connector}" for connector in self.connectors)],
            "cnf": {"jkt": self.key_thumbprint},
            "iat": self.issued,
            "exp": self.expires,
            "gen": self.generation,
            "cty": self.continuity,
            "rul": list(self.rules),
        }
