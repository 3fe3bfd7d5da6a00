"""What the store hands out and takes in: rows as plain values."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Strength = Literal["password", "mfa", "hardware"]
AgentRole = Literal["connector", "client", "relay"]
AccountRole = Literal["admin", "auditor", "user"]
KillScope = Literal["all", "user", "device", "segment", "agent", "connector-group", "session"]
ScimKind = Literal["User", "Group"]
SubjectAttribute = Literal["externalId", "userName"]

ACCOUNT_ROLES: tuple[AccountRole, ...] = ("admin", "auditor", "user")


@dataclass(frozen=True, slots=True)
class Actor:
    """Who causes a change, and from where. `name` is `user:<name>`, `agent:<id>` or `exchange`."""

    name: str
    source: str = ""


@dataclass(frozen=True, slots=True)
class AuditEntry:
    at: int
    actor: Actor
    action: str
    target: str
    detail: Mapping[str, object] = field(default_factory=dict)
    code: str = "ok"


@dataclass(frozen=True, slots=True)
class AuditRow:
    n: int
    at: int
    actor: str
    action: str
    target: str
    detail: Mapping[str, object]
    source: str
    code: str
    generation: int | None
    chain: str


@dataclass(frozen=True, slots=True)
class StoredDocument:
    id: str
    kind: str
    name: str
    fields: Mapping[str, object]
    generation: int
    changed_at: int


@dataclass(frozen=True, slots=True)
class Account:
    user: str
    password_hash: str | None = field(repr=False)
    role: AccountRole
    changed_at: int


@dataclass(frozen=True, slots=True)
class Agent:
    """An enrolled agent. Only `revoked_at is None` and `confirmed` ones are served."""

    id: str
    role: AgentRole
    hostname: str
    public_key: str
    key_thumbprint: str
    enrolled_at: int
    enrolled_by: str
    principal: str | None = None
    device: str | None = None
    connector_group: str | None = None
    address: str | None = None
    actor: str | None = None
    signed_in_at: int | None = None
    sign_in_strength: Strength = "password"
    sign_in_issuer: str = "local"
    sign_in_session: str | None = None
    sign_in_vouched_at: int | None = None
    vouched_by: str | None = None
    vouched_for_by: str | None = None
    vouched_mark: str | None = None
    vouched_until: int | None = None
    delegation: str | None = None
    revoked_at: int | None = None
    confirmed: bool = True
    last_seen_at: int | None = None
    last_address: str | None = None
    resume_hash: str | None = field(default=None, repr=False)
    twin_seen_at: int | None = None


@dataclass(frozen=True, slots=True)
class IssuedCertificate:
    fingerprint: str
    serial: str
    agent: str
    role: str
    authority: str
    not_before: int
    not_after: int


@dataclass(frozen=True, slots=True)
class ProvisioningKeyRow:
    id: str
    secret_hash: str = field(repr=False)
    role: AgentRole
    max_uses: int
    uses: int
    created_at: int
    created_by: str
    expires_at: int
    connector_group: str | None = None
    principal: str | None = None
    address: str | None = None
    note: str = ""
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class ClusterKeyRow:
    """A public key that a cluster's connectors reported, or that was pasted before they did. `basis` is a digest of the keys of the issuer's document."""

    issuer: str
    thumbprint: str
    jwk: Mapping[str, Any]
    retired_at: int | None
    basis: str


@dataclass(frozen=True, slots=True)
class Presented:
    """A token that was used, until it could not be used anyway: `id` is a digest, never the token."""

    id: str
    key_thumbprint: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Delegation:
    """A person's word that one program may act for them for a while."""

    id: str
    secret_hash: str = field(repr=False)
    user: str
    workload: str
    agent: str
    created_at: int
    expires_at: int
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class StoredSession:
    id: str
    principal: str
    client: str
    segment: str
    rules: tuple[str, ...]
    connectors: tuple[str, ...]
    audience: Mapping[str, int]
    opened_at: int
    ticket_expires: int
    ends_at: int
    idle: bool = False


@dataclass(frozen=True, slots=True)
class RelayBlock:
    client: str
    connector: str
    generation: int
    until: int
    cleared: bool = False
    owed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """Whom a piece of evidence is about: an agent, a device document or a user document, by id."""

    kind: Literal["agent", "device", "user"]
    id: str


@dataclass(frozen=True, slots=True)
class EvidenceRow:
    """One fact that somebody observed. `expires_at` None: it stands until it is replaced or withdrawn."""

    subject: Subject
    source: str
    name: str
    value: str
    observed_at: int
    expires_at: int | None = None


RequestState = Literal["pending", "approved", "denied", "withdrawn"]


@dataclass(frozen=True, slots=True)
class AccessRequest:
    """Somebody asks for what a rule permits only with an approval. `until` is when it ends by itself: pending ones unanswered, approved ones over."""

    id: str
    principal: str
    rule: str
    segment: str
    reason: str
    seconds: int  # as asked for, then as approved
    state: RequestState
    created_at: int
    until: int
    decided_by: str | None = None  # a user document's id
    decided_at: int | None = None
    note: str = ""


@dataclass(frozen=True, slots=True)
class KillSwitch:
    """Ends and refuses every session in its scope; `target` is an id, empty for `all`, `CLIENT/SEGMENT` (ids) for a session."""

    id: str
    scope: KillScope
    target: str
    reason: str
    created_at: int
    created_by: str
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class ApiToken:
    """With `fact_source` it may push the facts of that source, and nothing else."""

    id: str
    user: str
    created_at: int
    expires_at: int
    fact_source: str | None = None


@dataclass(frozen=True, slots=True)
class Directory:
    """Who may provision users of one issuer by SCIM. `subject` is the attribute that holds the issuer's subject."""

    id: str
    name: str
    issuer: str
    subject: SubjectAttribute
    token_hash: str = field(repr=False)
    created_at: int
    created_by: str
    rotated_at: int
    revoked_at: int | None = None


@dataclass(frozen=True, slots=True)
class ScimEntry:
    """A resource of a directory without its body; the id is the document's, `key` its name in canonical form, `title` as it was given."""

    id: str
    directory: str
    kind: ScimKind
    key: str
    title: str
    external_id: str | None
    generation: int
    created_at: int
    modified_at: int
