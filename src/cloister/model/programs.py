"""The documents about programs: whose tokens this exchange believes, and which program a token speaks of."""

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, Field, PlainSerializer, StringConstraints, model_validator

from cloister.model.fields import Duration, HostField, Labels, Line, Name, distinct, in_order
from cloister.model.jwk import SECRET_MEMBERS
from cloister.model.part import Part
from cloister.model.providers import Algorithm

MAX_KEYS = 100  # of one issuer
MAX_CLAIMS = 32  # that one workload asks for
MAX_MEMBER = 16 << 10  # characters of one member of a key
CLAIM_NAME = r"^[A-Za-z0-9_](?:[A-Za-z0-9_.:/-]{0,126}[A-Za-z0-9_])?$"
OWNING_CLAIMS: Mapping[str, frozenset[str]] = {
    "github": frozenset({"repository", "repository_id", "repository_owner", "repository_owner_id"}),
    "gitlab": frozenset({"project_path", "project_id", "namespace_path", "namespace_id"}),
}
"""Issuers that sign for the whole world, and the claims that say whose job it is: one of them must be asked for."""

IssuerType = Literal["kubernetes", "github", "gitlab", "spiffe", "oidc"]

_NO_LABELS: Mapping[str, str] = {}


def _public_key(key: Mapping[str, Any]) -> Mapping[str, Any]:
    """One JSON Web Key (RFC 7517), as text. What it is worth is judged where tokens are verified."""
    if not SECRET_MEMBERS.isdisjoint(key):
        raise ValueError(
            "this key holds secret parts: paste the public keys only, and replace this one, which others may have read"
        )
    if not isinstance(key.get("kty"), str):
        raise ValueError("a key has a `kty`: paste what the issuer publishes as its JSON Web Key Set")  # noqa: TRY004 (pydantic's)
    for name, value in key.items():
        parts = value if isinstance(value, tuple | list) else (value,)
        if not all(isinstance(part, str) and len(part) <= MAX_MEMBER for part in parts):
            raise ValueError(f"`{name[:64]}` of a key is text, or a list of texts: put it in quotes")
    return {name: tuple(value) if isinstance(value, tuple | list) else value for name, value in sorted(key.items())}


def _pattern(text: str) -> str:
    if "*" in text[:-1]:
        raise ValueError(f"`{text}` has a `*` that is not at its end: write the whole value, or its beginning and one `*`")
    return text


def _spiffe(text: str) -> bool:
    name = text.removeprefix("spiffe://")
    return (
        text != name and 0 < len(name) <= 255 and all(character in "abcdefghijklmnopqrstuvwxyz0123456789._-" for character in name)
    )


Jwk = Annotated[Mapping[str, Any], Field(max_length=32), AfterValidator(_public_key), PlainSerializer(dict)]
ClaimName = Annotated[str, StringConstraints(pattern=CLAIM_NAME)]
ClaimPattern = Annotated[Line, AfterValidator(_pattern)]
Claims = Annotated[
    Mapping[ClaimName, ClaimPattern],
    Field(max_length=MAX_CLAIMS),
    AfterValidator(in_order),
    PlainSerializer(dict, return_type=dict[str, str]),
]


class Jwks(Part):
    """A JSON Web Key Set, as the issuer publishes it (RFC 7517, section 5)."""

    keys: Annotated[tuple[Jwk, ...], Field(min_length=1, max_length=MAX_KEYS)]


class ConnectorProof(Part):
    """Programs of this issuer that are connectors of `group`: those whose `sub` is one of `subjects`. They prove it anew every `proof_lasts`.

    With `report_keys` an enrolled connector of the group tells which keys the cluster has now: whoever owns it could then name keys of their own, and with
    them be any workload of this issuer.
    """

    group: Name
    subjects: Annotated[tuple[Line, ...], Field(min_length=1, max_length=64), AfterValidator(distinct)]
    proof_lasts: Annotated[Duration, Field(ge=300, le=30 * 86400)] = 24 * 3600
    report_keys: bool = False


class TokenIssuer(Part):
    """Somebody whose tokens tell programs apart: a Kubernetes cluster, a CI system, a SPIFFE trust domain, any OpenID Connect issuer.

    Keys are written here (`keys`), or found at `jwks_uri`, or by discovery below `issuer`. Several issuers may bear one name, as clusters do: then the key that
    verifies a token says whose it is. `audience` is what tokens must name (default: `https://` and the trust domain of this exchange). An enrolment holds for
    `proof_lasts` from the token's issue. With `people: true` its tokens may vouch for persons on whose behalf a program acts.
    """

    kind: Literal["token-issuer"] = "token-issuer"
    name: Name
    labels: Labels = _NO_LABELS
    type: IssuerType = "oidc"
    issuer: Line
    keys: Jwks | None = None
    jwks_uri: Annotated[Line, StringConstraints(pattern="^https?://")] | None = None
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, max_length=10), AfterValidator(distinct)] = (
        "RS256",
        "ES256",
    )
    audience: Line | None = None
    proof_lasts: Annotated[Duration, Field(ge=60, le=7 * 86400)] = 3600
    people: bool = False
    connectors: ConnectorProof | None = None
    endpoint_hosts: Annotated[tuple[HostField, ...], Field(max_length=16), AfterValidator(distinct)] = ()
    allow_internal: Annotated[tuple[HostField, ...], Field(max_length=16), AfterValidator(distinct)] = ()
    ca_file: Line | None = None
    disabled: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> "TokenIssuer":
        if self.name == "local":
            raise ValueError("`local` stands for this exchange itself: choose another name")
        if "/" not in self.issuer:
            raise ValueError(f"`issuer` is what its tokens say in `iss`, such as `https://gitlab.example.org`, not `{self.issuer}`")
        if self.type == "spiffe" and not _spiffe(self.issuer):
            raise ValueError("the `issuer` of `type: spiffe` is the trust domain, such as `spiffe://example.org`")
        if self.type == "kubernetes" and self.keys is None:
            raise ValueError(
                "`keys` is missing: the exchange never asks a cluster; paste what `kubectl get --raw /openid/v1/jwks` prints"
            )
        if self.type == "spiffe" and self.keys is None and self.jwks_uri is None:
            raise ValueError("`type: spiffe` needs `keys` (the bundle of the trust domain) or `jwks_uri`")
        if self.keys is not None and self.jwks_uri is not None:
            raise ValueError("`keys` and `jwks_uri` are two places for the same: keep one")
        if self.connectors is not None and self.connectors.report_keys and self.type != "kubernetes":
            raise ValueError(f"`report_keys` belongs to `type: kubernetes`: the keys of a {self.type} issuer are found elsewhere")
        if self.people and self.type != "oidc":
            raise ValueError(f"`people` belongs to `type: oidc`: a {self.type} issuer knows programs only")
        return self


class Workload(Part):
    """A program or job. `issuer` names the token issuer that vouches for it (by its document's name, or by what its tokens say in `iss`); its tokens
    must have this `subject` and all of these `claims`: equal, or beginning like a pattern that ends in `*`. Exactly one workload may match a token.
    """

    kind: Literal["workload"] = "workload"
    name: Name
    labels: Labels = _NO_LABELS
    issuer: Line
    subject: Line | None = None
    claims: Claims = _NO_LABELS
    disabled: bool = False

    @model_validator(mode="after")
    def _asks_for_something(self) -> "Workload":
        if self.subject is None and not self.claims:
            raise ValueError("this is every program of the issuer: write `subject`, or `claims` that its tokens must have")
        return self


def why_too_wide(workload: Workload, type: IssuerType) -> str | None:
    """What is missing so that nobody else's job matches, at an issuer that signs for the whole world."""
    owning = OWNING_CLAIMS.get(type)
    if owning is None or workload.subject is not None:
        return None
    for name in owning & workload.claims.keys():
        value = workload.claims[name]
        if not value.endswith("*") or (name in ("repository", "project_path") and "/" in value):
            return None
    names = ", ".join(f"`{name}`" for name in sorted(owning))
    return f"anybody's job at {type} could match: ask for `subject` or for one of {names} (`owner/*` at the widest)"
