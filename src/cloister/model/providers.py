"""The document that describes an identity provider: who it is, what its word is worth here, and who may come in by it."""

import unicodedata
from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainSerializer, StringConstraints, model_validator

from cloister.model.fields import MAX_LIST, Duration, HostField, Labels, Line, Name, UserName, distinct, in_order
from cloister.model.part import Part

MAX_MAPPED = 1_000

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
DEFAULT_ALGORITHMS: tuple[Algorithm, ...] = ("RS256", "ES256", "EdDSA")


def _url(text: str) -> str:
    if not text.isascii() or not text.startswith(("https://", "http://")) or any(mark in text for mark in "#? \\@"):
        raise ValueError(f"`{text[:80]}` is no plain URL: write `https://HOST[/PATH]`, exactly as the provider writes its own name")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("a file is named by its whole path, such as `/etc/cloister/corp.secret`")
    return text


def _scope(text: str) -> str:
    if any(not (character == "!" or "#" <= character <= "[" or "]" <= character <= "~") for character in text):
        raise ValueError("a scope has no spaces, quotes or backslashes (RFC 6749, section 3.3)")
    return text


def canonical(text: str) -> str:
    """The one form in which names that providers give are compared: NFC, nothing else changed."""
    return unicodedata.normalize("NFC", text)


Url = Annotated[str, StringConstraints(min_length=8, max_length=256), AfterValidator(_url)]
FilePath = Annotated[str, StringConstraints(min_length=2, max_length=512), AfterValidator(_path)]
Scope = Annotated[str, StringConstraints(min_length=1, max_length=128), AfterValidator(_scope)]
Claim = Annotated[str, StringConstraints(min_length=1, max_length=256), AfterValidator(canonical)]
Prefix = Annotated[str, StringConstraints(pattern=r"^(?:[a-z0-9](?:[a-z0-9._-]{0,30}))?$")]
Lines = Annotated[tuple[Line, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)]
GroupMap = Annotated[
    Mapping[Claim, UserName],
    Field(max_length=MAX_MAPPED),
    AfterValidator(in_order),
    PlainSerializer(dict, return_type=dict[str, str]),
]

_NO_LABELS: Mapping[str, str] = {}


class GroupClaim(Part):
    """Which claim lists a person's groups, and which groups here they are. A value that `map` does not name is the group `prefix` + value, if there
    is one. These groups are the provider's own: each sign-in says anew who is in them.
    """

    claim: Line = "groups"
    map: GroupMap = _NO_LABELS


class StrengthValues(Part):
    """The values of one claim that stand for a stronger sign-in. Every other value is a password, whatever it claims."""

    mfa: Lines = ()
    hardware: Lines = ()

    @model_validator(mode="after")
    def _are_apart(self) -> "StrengthValues":
        if both := set(self.mfa) & set(self.hardware):
            raise ValueError(f"`{min(both)}` cannot mean both `mfa` and `hardware`")
        return self


NO_VALUES = StrengthValues()


class IdentityProvider(Part):
    """Where people sign in: OpenID Connect, or SAML 2.0.

    OpenID Connect: `issuer` is the provider's own name, character by character; users are keyed by it and their subject. `endpoint_hosts` are hosts
    besides the issuer's where its endpoints may stand, `allow_internal` hosts with internal addresses, `ca_file` what vouches for them.
    SAML: `issuer` is the entity id, `sso_url` where people are sent, `certificate_files` what signs assertions.
    """

    kind: Literal["identity-provider"] = "identity-provider"
    name: Name
    labels: Labels = _NO_LABELS
    protocol: Literal["oidc", "saml"] = "oidc"
    issuer: Line
    client_id: Line | None = None
    client_secret_file: FilePath | None = None
    scopes: Annotated[tuple[Scope, ...], Field(max_length=32), AfterValidator(distinct)] = ("openid", "profile")
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, max_length=10), AfterValidator(distinct)] = DEFAULT_ALGORITHMS
    sso_url: Url | None = None
    certificate_files: Annotated[tuple[FilePath, ...], Field(max_length=8), AfterValidator(distinct)] = ()
    display: Line = "name"
    username: Line = "preferred_username"
    prefix: Prefix | None = None
    groups: GroupClaim | None = None
    acr: StrengthValues = NO_VALUES
    amr: StrengthValues = NO_VALUES
    max_age: Annotated[Duration, Field(ge=60, le=30 * 86400)] | None = None
    strength_lasts: Annotated[Duration, Field(ge=60, le=30 * 86400)] = 12 * 3600
    users: Literal["create", "existing"] = "create"
    endpoint_hosts: Annotated[tuple[HostField, ...], Field(max_length=16), AfterValidator(distinct)] = ()
    allow_internal: Annotated[tuple[HostField, ...], Field(max_length=16), AfterValidator(distinct)] = ()
    ca_file: FilePath | None = None
    disabled: bool = False

    @model_validator(mode="after")
    def _is_whole(self) -> "IdentityProvider":
        if self.protocol == "oidc":
            _url(self.issuer)
            if self.client_id is None:
                raise ValueError("`client_id` is missing: the name under which this exchange is registered at the provider")
            if "openid" not in self.scopes:
                raise ValueError("`scopes` lists `openid`, or the provider gives no ID token")
            if self.sso_url is not None or self.certificate_files:
                raise ValueError("`sso_url` and `certificate_files` belong to `protocol: saml`")
        elif self.sso_url is None or not self.certificate_files:
            raise ValueError("`protocol: saml` needs `sso_url` and `certificate_files`, both from the provider's metadata")
        elif self.client_id is not None or self.client_secret_file is not None:
            raise ValueError("`client_id` and `client_secret_file` belong to `protocol: oidc`")
        if self.name == "local":
            raise ValueError("`local` is the name of this exchange's own accounts: choose another one")
        return self

    @property
    def name_prefix(self) -> str:
        """What stands before the names of its users and of groups that are not mapped."""
        return f"{self.name}." if self.prefix is None else self.prefix
