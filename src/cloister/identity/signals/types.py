"""What a Security Event Token can say here, as values. Anything else is `Unknown`: acknowledged, never acted upon."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from cloister.model.reasons import Code

PushError = Literal[
    "invalid_request", "invalid_key", "invalid_issuer", "invalid_audience", "authentication_failed", "access_denied"
]
"""RFC 8935, section 2.4."""

RiskLevel = Literal["LOW", "MEDIUM", "HIGH"]


class EventRefused(Exception):
    """The token says nothing that can be acknowledged. `error` is for the transmitter, `code` for the audit."""

    def __init__(self, error: PushError, code: Code, message: str) -> None:
        self.error = error
        self.code = code
        self.message = message
        super().__init__(message)


# ------------------------------------------------------------------ subjects (RFC 9493)


@dataclass(frozen=True, slots=True)
class IssuerSubject:
    issuer: str
    subject: str


@dataclass(frozen=True, slots=True)
class Email:
    address: str


@dataclass(frozen=True, slots=True)
class Account:
    uri: str


@dataclass(frozen=True, slots=True)
class Opaque:
    id: str


Identifier = IssuerSubject | Email | Account | Opaque


@dataclass(frozen=True, slots=True)
class EventSubject:
    """Whom an event is about: everything named at once. `plain` is a simple identifier, which says by itself not of what kind it is; `foreign`
    are members of a complex subject that mean nothing here, so that nothing here is meant.
    """

    plain: Identifier | None = None
    user: Identifier | None = None
    device: Identifier | None = None
    session: Identifier | None = None
    tenant: Identifier | None = None
    foreign: tuple[str, ...] = ()


# ------------------------------------------------------------------ events


@dataclass(frozen=True, slots=True)
class SessionRevoked:
    pass


@dataclass(frozen=True, slots=True)
class CredentialChange:
    credential: str
    change: str


@dataclass(frozen=True, slots=True)
class ComplianceChange:
    is_compliant: bool


@dataclass(frozen=True, slots=True)
class AssuranceChange:
    namespace: str
    level: str


@dataclass(frozen=True, slots=True)
class ClaimsChange:
    claims: Mapping[str, object]


@dataclass(frozen=True, slots=True)
class RiskChange:
    about: str  # `USER`, `DEVICE`, or something that has no score here
    level: RiskLevel


@dataclass(frozen=True, slots=True)
class Verification:
    """The transmitter shows that the stream works."""

    state: str


@dataclass(frozen=True, slots=True)
class StreamUpdated:
    status: str
    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    pass


Happening = (
    SessionRevoked
    | CredentialChange
    | ComplianceChange
    | AssuranceChange
    | ClaimsChange
    | RiskChange
    | Verification
    | StreamUpdated
    | Unknown
)


@dataclass(frozen=True, slots=True)
class SecurityEvent:
    """One event of one token. `at` is when it happened (Unix seconds), never later than `issued_at` or now allow; `id` is the token's `jti`."""

    id: str
    issued_at: int
    type: str
    at: int
    subject: EventSubject | None
    what: Happening
