"""The document that describes a transmitter of security events: how its word is known, whom it may speak of, and what its events do here."""

from collections.abc import Mapping
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, PlainSerializer, StringConstraints, model_validator

from cloister.model.fields import MAX_LIST, Duration, HostField, LabelKey, Labels, Line, Name, distinct
from cloister.model.jwk import SECRET_MEMBERS
from cloister.model.part import Part

MAX_NAME = 40  # rules name its facts `signals/<name>/compliance`, which is the key of a label

Algorithm = Literal["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
EventName = Literal[
    "session-revoked",
    "credential-change",
    "device-compliance-change",
    "assurance-level-change",
    "token-claims-change",
    "risk-level-change",
]
EVENTS: tuple[EventName, ...] = (
    "session-revoked",
    "credential-change",
    "device-compliance-change",
    "assurance-level-change",
    "token-claims-change",
    "risk-level-change",
)
Strength = Literal["password", "mfa", "hardware"]
_NO_LABELS: Mapping[str, str] = {}


def _url(text: str) -> str:
    if not text.isascii() or not text.startswith(("https://", "http://")) or any(mark in text for mark in "# \\@"):
        raise ValueError(f"`{text[:80]}` is no plain URL: write `https://HOST[/PATH]`")
    return text


def _path(text: str) -> str:
    if not text.startswith("/") or not text.isprintable():
        raise ValueError("a file is named by its whole path, such as `/etc/cloister/signals.secret`")
    return text


def _jwk(key: Mapping[str, str]) -> Mapping[str, str]:
    if not SECRET_MEMBERS.isdisjoint(key):
        raise ValueError(
            "a key of `keys` holds secret parts: give the public key alone, and replace this one, which others have read by now"
        )
    if "kty" not in key:
        raise ValueError("a key of `keys` is a public JWK (RFC 7517) with `kty`")
    return dict(sorted(key.items()))


def _domain(text: str) -> str:
    if text != text.lower() or "." not in text:
        raise ValueError(f"`{text}` is no domain in lower case, such as `corp.example`")
    return text


Url = Annotated[str, StringConstraints(min_length=8, max_length=512), AfterValidator(_url)]
FilePath = Annotated[str, StringConstraints(min_length=2, max_length=512), AfterValidator(_path)]
Domain = Annotated[str, StringConstraints(pattern=r"^[a-z0-9.-]{3,253}$"), AfterValidator(_domain)]
Jwk = Annotated[
    Mapping[
        Annotated[str, StringConstraints(pattern=r"^[a-zA-Z0-9_#]{1,32}$")],
        Annotated[str, StringConstraints(min_length=1, max_length=2048, pattern=r"^[!-~]+$")],
    ],
    Field(min_length=2, max_length=16),
    AfterValidator(_jwk),
    PlainSerializer(dict, return_type=dict[str, str]),
]
Hosts = Annotated[tuple[HostField, ...], Field(max_length=16), AfterValidator(distinct)]
Score = Annotated[int, Field(ge=0, le=100)]


class Poll(Part):
    """Where and how often events are fetched (RFC 8936). The secret is in `secret_file`, or stored through the API."""

    url: Url
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 10
    secret_file: FilePath | None = None


class SignalUsers(Part):
    """The users that the transmitter may speak of: those of one issuer. `iss_sub` names them by issuer and subject.

    `opaque`: the label of a user that holds the id by which an `opaque` or `account` subject names it; `subject`: the id is the subject itself.
    `email_domain`: users may also be named by mail, of this domain alone, which the issuer must have verified: it is the label `email`, or the name.
    """

    issuer: Line
    opaque: LabelKey | None = None
    email_domain: Domain | None = None


class SignalDevices(Part):
    """The devices that the transmitter may speak of: those with all of `labels`. The label `label` holds the id by which it names a device.

    `lasts`: how long its word that a device is compliant counts; until it says otherwise, if left out.
    """

    label: LabelKey
    labels: Labels = _NO_LABELS
    lasts: Annotated[Duration, Field(ge=60, le=366 * 86400)] | None = None


class SignalRisk(Part):
    """What the levels of `risk-level-change` are worth, and how they fade: `half_life` later half is left."""

    low: Score = 0
    medium: Score = 50
    high: Score = 90
    decay: Literal["none", "linear", "exponential"] = "exponential"
    half_life: Annotated[Duration, Field(ge=60, le=366 * 86400)] = 6 * 3600

    @model_validator(mode="after")
    def _rises(self) -> "SignalRisk":
        if not self.low <= self.medium <= self.high:
            raise ValueError("`low`, `medium` and `high` do not rise")
        return self


NIST_LEVELS: Mapping[str, Strength] = {"nist-aal1": "password", "nist-aal2": "mfa", "nist-aal3": "hardware"}


class SignalAssurance(Part):
    """What the levels of `assurance-level-change` mean. A level weakens a sign-in that was made before it; only with `raises` it may strengthen one."""

    namespace: Line = "NIST-AAL"
    levels: Annotated[Mapping[Line, Strength], Field(max_length=32), PlainSerializer(dict, return_type=dict[str, str])] = (
        NIST_LEVELS
    )
    raises: bool = False


class SignalTransmitter(Part):
    """Who may send security events (OpenID Shared Signals Framework 1.0, CAEP 1.0), about whom, and what they do.

    Its keys are found by discovery below `issuer`, or are the public `keys` alone. `audience` is what its tokens name as theirs: this exchange.
    """

    kind: Literal["signal-transmitter"] = "signal-transmitter"
    name: Name
    labels: Labels = _NO_LABELS
    issuer: Line
    audience: Line
    algorithms: Annotated[tuple[Algorithm, ...], Field(min_length=1, max_length=10), AfterValidator(distinct)] = ("RS256", "ES256")
    keys: Annotated[tuple[Jwk, ...], Field(max_length=16)] = ()
    delivery: Literal["push", "poll"] = "push"
    poll: Poll | None = None
    events: Annotated[tuple[EventName, ...], Field(min_length=1, max_length=len(EVENTS)), AfterValidator(distinct)] = EVENTS
    users: SignalUsers | None = None
    devices: SignalDevices | None = None
    tenant: Line | None = None
    risk: SignalRisk = SignalRisk()
    assurance: SignalAssurance = SignalAssurance()
    sign_in_claims: Annotated[tuple[Line, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)] = (
        "groups",
        "roles",
        "acr",
        "amr",
    )
    max_age: Annotated[Duration, Field(ge=60, le=7 * 86400)] = 3600
    endpoint_hosts: Hosts = ()
    allow_internal: Hosts = ()
    ca_file: FilePath | None = None

    @model_validator(mode="after")
    def _is_whole(self) -> "SignalTransmitter":
        if len(self.name) > MAX_NAME:
            raise ValueError(f"the name of a transmitter has at most `{MAX_NAME}` characters: rules name its facts by it")
        if not self.keys:
            _url(self.issuer)
        if (self.delivery == "poll") != (self.poll is not None):
            raise ValueError("`delivery: poll` and `poll` belong together: where events are fetched")
        if self.users is None and self.devices is None:
            raise ValueError("it may speak of nobody: write `users`, `devices`, or both")
        return self
