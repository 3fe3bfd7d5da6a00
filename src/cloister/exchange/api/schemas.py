"""The forms of requests and answers. Unknown fields are refused; no answer holds a secret but those that say so."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from cloister.model.fields import Line, Name, UserName
from cloister.store.types import KillScope

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Secret = Annotated[str, Field(min_length=1, max_length=1024)]
AccountRole = Literal["admin", "auditor", "user"]


class Form(BaseModel):
    model_config = ConfigDict(extra="forbid", hide_input_in_errors=True)


class Problem(Form):
    code: str
    message: str
    remedy: str = ""
    errors: list[dict[str, Any]] = []


class SignIn(Form):
    user: Annotated[str, Field(min_length=1, max_length=256)]
    password: Secret


class SignedIn(Form):
    """`token` is a secret, shown this once; send it as `Authorization: Bearer`."""

    token: str
    expires_at: int
    user: str
    role: AccountRole


class ProviderSignIn(Form):
    """`provider`: the name of an identity provider, empty if the person may choose. `device` is shown to the person."""

    provider: Annotated[str, Field(max_length=63)] = ""
    device: Annotated[str, Field(max_length=128)] = ""


class SignInOffer(Form):
    """Open `url` in a browser; `code` must be shown there. `secret` is for `/api/v1/sign-in/wait`, until `expires_at`."""

    url: str
    code: str
    secret: str
    expires_at: int


class ProviderWait(Form):
    secret: Secret


class ProviderSecret(Form):
    secret: Annotated[str, Field(min_length=1, max_length=4096)]


class Me(Form):
    user: str
    role: AccountRole
    expires_at: int


class PasswordChange(Form):
    old: Secret
    new: Secret


class Document(Form):
    """A document with its id and generation; `document` is what `documents.yaml` files hold."""

    id: str
    generation: int
    changed_at: int
    document: dict[str, Any]


class Applied(Form):
    created: list[str]
    changed: list[str]
    deleted: list[str]
    generation: int
    dry_run: bool
    notices: list[str]


class UserCreate(Form):
    name: UserName
    display: Line | None = None
    labels: dict[str, str] = {}
    role: AccountRole = "user"
    password: Secret | None = None


class UserAnswer(Form):
    id: str
    name: str
    display: str | None
    labels: dict[str, str]
    disabled: bool
    groups: list[str]
    role: AccountRole | None
    has_password: bool
    generation: int


class RoleChange(Form):
    role: AccountRole


class PasswordSet(Form):
    password: Secret


class KeyCreate(Form):
    role: Literal["connector", "client", "relay"]
    group: Name | None = None
    user: UserName | None = None
    workload: Name | None = None
    address: Annotated[str, Field(max_length=300)] | None = None
    uses: int = 1
    seconds: int = 3600
    note: Annotated[str, Field(max_length=256)] = ""


class KeyAnswer(Form):
    id: str
    role: str
    group: str
    principal: str
    address: str | None
    note: str
    max_uses: int
    uses: int
    created_at: int
    created_by: str
    expires_at: int
    revoked_at: int | None


class KeyCreated(KeyAnswer):
    """`key` is a secret, shown this once; `contact` is the exchange that it belongs to."""

    key: str
    contact: str


class DirectoryCreate(Form):
    """`issuer` is what the users' documents will say; `subject` the SCIM attribute that holds what this issuer calls the subject."""

    name: Annotated[str, Field(min_length=1, max_length=32)]
    issuer: Annotated[str, Field(min_length=1, max_length=256)]
    subject: Literal["externalId", "userName"] = "externalId"


class DirectoryAnswer(Form):
    id: str
    name: str
    issuer: str
    subject: str
    users: int
    groups: int
    created_at: int
    created_by: str
    rotated_at: int
    revoked_at: int | None


class DirectoryToken(DirectoryAnswer):
    """`token` is a secret, shown this once; the directory sends it as `Authorization: Bearer`."""

    token: str


class AgentAnswer(Form):
    id: str
    role: str
    hostname: str
    principal: str
    actor: str  # the program that acts for the principal
    device: str
    group: str
    address: str | None
    enrolled_at: int
    enrolled_by: str
    vouched_until: int | None  # enrolled by a token: until it has to be proved anew
    delegation: str | None
    revoked_at: int | None
    confirmed: bool
    last_seen_at: int | None
    last_address: str | None
    twin_seen_at: int | None
    up: bool
    draining: bool
    sessions: int


class CertificateAnswer(Form):
    fingerprint: str
    serial: str
    authority: str
    not_before: int
    not_after: int


class SessionAnswer(Form):
    """Never the ticket: it is bound to a key, and still is not shown (case 18)."""

    id: str
    principal: str
    actor: str  # the program that acts for the principal
    client: str
    segment: str
    rules: list[str]
    connectors: list[str]
    opened_at: int
    ticket_expires: int
    idle: bool


class DelegationAnswer(Form):
    """Never the secret: only its hash is stored."""

    id: str
    user: str
    workload: str
    agent: str
    created_at: int
    expires_at: int
    revoked_at: int | None


class Revoked(Form):
    sessions: int


class ExplainAsk(Form):
    user: UserName | None = None
    workload: Name | None = None
    client: Id | None = None
    host: Annotated[str, Field(min_length=1, max_length=253)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    protocol: Literal["tcp", "udp"] = "tcp"


class Explained(Form):
    """`cause` is the true reason where the person is told `not_found`."""

    allowed: bool
    visible: bool
    code: str
    message: str
    remedy: str
    cause: str
    segment: str
    rules: list[dict[str, Any]]


class KillSwitchCreate(Form):
    scope: KillScope
    target: Annotated[str, Field(max_length=128)] = ""
    reason: Line  # shown to those whom it stops
    seconds: Annotated[int, Field(ge=1, le=366 * 86400)] | None = None


class KillSwitchAnswer(Form):
    id: str
    scope: str
    target: str
    reason: str
    created_at: int
    created_by: str
    expires_at: int | None


class AuditAnswer(Form):
    n: int
    at: int
    actor: str
    action: str
    target: str
    detail: dict[str, Any]
    source: str
    code: str
    generation: int | None


class AuditPage(Form):
    entries: list[AuditAnswer]
    next: int | None


class RecordsPage(Form):
    entries: list[dict[str, Any]]
    next: str | None


class Authority(Form):
    id: str
    state: str
    since: int
    root_sha256: str
    root: str


class Trust(Form):
    trust_domain: str
    epoch: int
    authorities: list[Authority]
    ticket_keys: list[dict[str, Any]]


class Rotate(Form):
    """`compromised` has no overlap: every agent must enrol again."""

    compromised: bool = False


class Health(Form):
    status: Literal["ok"]
    generation: int
    links: int
    sessions: int


class Version(Form):
    version: str
    api: int
    protocol: int


class WellKnown(Form):
    exchange: str
    root_sha256: str
    api: int


class Empty(Form):
    pass
