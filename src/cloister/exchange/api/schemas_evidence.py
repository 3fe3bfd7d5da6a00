"""The forms of what is reported of devices and people: facts, risk, transmitters of signals."""

from typing import Annotated, Literal

from pydantic import Field, StrictBool

from cloister.exchange.api.schemas import Form
from cloister.model.fields import LABEL_KEY, Name, UserName


class DeviceSet(Form):
    device: Name | None


class Fact(Form):
    """One fact from outside; it counts for `seconds` from `observed_at` (default: now) on."""

    name: Annotated[str, Field(pattern=LABEL_KEY)]
    value: Annotated[str, Field(min_length=1, max_length=256)] | StrictBool
    observed_at: Annotated[int, Field(ge=0, le=1 << 40)] | None = None
    seconds: Annotated[int, Field(ge=60, le=30 * 86400)] = 86400


class FactsSet(Form):
    facts: Annotated[list[Fact], Field(max_length=128)]


class FactAnswer(Form):
    """`refused` is why a client's own fact does not count."""

    source: str
    name: str
    value: str | None
    refused: str | None
    observed_at: int
    expires_at: int | None


class ProfileAnswer(Form):
    """`failed` says what each requirement lacks, by its key."""

    name: str
    holds: bool
    failed: dict[str, str]
    until: int | None


class ClientFacts(Form):
    id: str
    hostname: str
    principal: str
    device: str
    up: bool
    address: str | None
    networks: list[str]
    facts: list[FactAnswer]
    profiles: list[ProfileAnswer]


class FactsOfDevice(Form):
    device: str
    owner: str | None
    facts: list[FactAnswer]
    clients: list[ClientFacts]


class FactSourceTokenCreate(Form):
    account: UserName
    seconds: Annotated[int, Field(ge=60, le=366 * 86400)] = 90 * 86400


class FactSourceToken(Form):
    """`token` is a secret, shown this once."""

    token: str
    source: str
    account: str
    expires_at: int


class TransmitterStatus(Form):
    """How the stream fares since this exchange started."""

    name: str
    delivery: str
    taken: int
    refused: int
    last_taken_at: int | None
    last_refused_at: int | None
    last_refusal: str
    status: str
    verified_at: int | None
    polled_at: int | None
    poll_error: str


class TransmitterSecretMade(Form):
    """`secret` is shown this once; the transmitter sends it as `Authorization: Bearer`."""

    secret: str


class TransmitterSecretSet(Form):
    secret: Annotated[str, Field(min_length=1, max_length=4096)]


class RiskPart(Form):
    """What one source said at `at`, and what is left of it now."""

    source: str
    score: int
    left: float
    at: int
    decay: str
    half_life: int
    ends: int | None


class RiskOverride(Form):
    score: int
    reason: str
    ends: int


class RiskAnswer(Form):
    """`changes_at`: when the score is next another one by the clock alone."""

    score: int
    changes_at: int | None
    override: RiskOverride | None
    parts: list[RiskPart]


class RiskSet(Form):
    """Without `source`: an administrator's override for `seconds`, with a reason. With `source`: what that source says, fading as it asks."""

    score: Annotated[int, Field(ge=0, le=100)]
    seconds: Annotated[int | None, Field(ge=60, le=366 * 86400)] = None
    reason: Annotated[str, Field(max_length=256)] = ""
    source: Name | None = None
    decay: Literal["none", "linear", "exponential"] = "none"
    half_life: Annotated[int, Field(ge=60, le=366 * 86400)] = 21600
