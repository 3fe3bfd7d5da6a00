"""What was proved of a program and of the person it acts for."""

from dataclasses import dataclass

from cloister.identity.tokens.types import VerifiedClaims
from cloister.model.documents import Strength
from cloister.store.types import AgentRole


@dataclass(frozen=True, slots=True)
class Spent:
    """A token that was used: `id` is a digest of it, good until `expires_at`."""

    id: str
    expires_at: int


@dataclass(frozen=True, slots=True)
class Program:
    """A program that its issuer vouches for: a workload, or a connector of `group`. Ids are those of documents."""

    issuer: str
    claims: VerifiedClaims
    workload: str | None
    group: str | None
    until: int
    kid: str | None
    spent: Spent


@dataclass(frozen=True, slots=True)
class Lent:
    """A person's word that the program acts for them: a delegation made here, or a token of the issuer `by`."""

    user: str
    until: int
    delegation: str | None = None
    by: str | None = None
    signed_in_at: int | None = None
    strength: Strength = "password"
    sign_in_issuer: str = "local"
    sign_in_vouched_at: int | None = None
    spent: Spent | None = None


@dataclass(frozen=True, slots=True)
class Vouched:
    """What the agent of a program is, all of it from proofs."""

    role: AgentRole
    name: str  # for the audit: `token:<issuer>:<subject>`
    principal: str | None
    actor: str | None
    group: str | None
    by: str
    for_by: str | None
    mark: str
    until: int
    delegation: str | None
    lent: Lent | None
    spent: tuple[Spent, ...]
