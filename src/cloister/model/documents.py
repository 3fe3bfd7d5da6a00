"""The documents people write: segments, connector groups, rules, and who is who.

Every value here is already canonical and within its bounds; `model/parse.py` makes documents from text with positions, `model/print.py`
writes them back. References between documents are by name; `model/references.py` and `model/overlap.py` check what takes more than one document.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    model_validator,
)

from cloister.model.fields import (
    MAX_LIST,
    Clock,
    Day,
    Duration,
    ExceptionField,
    HostField,
    HostPatternField,
    Instant,
    LabelKey,
    Labels,
    Line,
    Name,
    Names,
    NetworkField,
    Port,
    PortsField,
    SuffixField,
    UserName,
    UserNames,
    Yes,
    Zone,
    apart,
    distinct,
)
from cloister.model.messages.common import Assignment, Visible
from cloister.model.messages.common import HealthCheck as HealthCheckMessage
from cloister.model.messages.common import PortRange as PortRangeMessage
from cloister.model.part import Part
from cloister.model.posture import Network, PostureProfile
from cloister.model.programs import TokenIssuer, Workload
from cloister.model.providers import IdentityProvider
from cloister.model.transmitters import SignalTransmitter
from cloister.model.webhooks import Webhook

MAX_MEMBERS = 10_000  # members of one group
MAX_CONDITION = 4096  # characters of a raw `when`
MAX_CONTINUITY = 24 * 3600

Protocol = Literal["tcp", "udp"]
Strength = Literal["password", "mfa", "hardware"]

_NO_LABELS: Mapping[str, str] = {}


class HealthCheck(Part):
    """A TCP connect by the connector to `host` (default: the segment's first exact host) and `port` (default: its first port)."""

    host: HostField | None = None
    port: Port | None = None
    interval: Annotated[Duration, Field(ge=1, le=3600)] = 10
    timeout: Annotated[Duration, Field(ge=1, le=60)] = 3


class Segment(Part):
    """One application. `allow` spells out networks that no segment may reach otherwise; `continuity` belongs to `last-known`."""

    kind: Literal["segment"] = "segment"
    name: Name
    labels: Labels = _NO_LABELS
    hosts: Annotated[tuple[HostPatternField, ...], Field(min_length=1, max_length=MAX_LIST), AfterValidator(distinct)]
    ports: Annotated[tuple[PortsField, ...], Field(min_length=1, max_length=MAX_LIST), AfterValidator(apart)]
    protocol: Protocol = "tcp"
    groups: Annotated[Names, Field(min_length=1)]
    allow: Annotated[tuple[ExceptionField, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)] = ()
    mode: Literal["strict", "last-known"] = "strict"
    continuity: Annotated[Duration, Field(ge=0, le=MAX_CONTINUITY)] = 0
    health: HealthCheck | None = None

    @model_validator(mode="after")
    def _mode_and_continuity_agree(self) -> "Segment":
        if self.mode == "strict" and self.continuity:
            raise ValueError("`continuity` belongs to `mode: last-known`: a strict segment ends with its ticket")
        if self.mode == "last-known" and not self.continuity:
            raise ValueError("`mode: last-known` needs `continuity`: how long flows may outlive the exchange, such as `15m`")
        return self


class ConnectorGroup(Part):
    """One place where connectors stand, and what its segments may claim: names below `suffixes` (`*`: any), addresses in `networks`."""

    kind: Literal["connector-group"] = "connector-group"
    name: Name
    labels: Labels = _NO_LABELS
    suffixes: Annotated[tuple[SuffixField, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)] = ()
    networks: Annotated[tuple[NetworkField, ...], Field(max_length=MAX_LIST), AfterValidator(distinct)] = ()


class Who(Part):
    """The principals that a rule names: whoever is named by any of the keys. `any` names everybody who is signed in or enrolled.

    `via` lists programs that act for a person (RFC 8693: the person is the subject, the program the actor). A permit with `via` speaks of these programs
    on behalf of those people and of nothing else; a permit without it never reaches a program that acts for somebody. A forbid without it holds for both.
    """

    users: UserNames = ()
    groups: UserNames = ()
    workloads: Names = ()
    any: Yes | None = None
    via: Names = ()

    @model_validator(mode="after")
    def _names_somebody(self) -> "Who":
        if not (self.users or self.groups or self.workloads or self.any):
            raise ValueError("`who` names nobody: list `users`, `groups` or `workloads`, or write `any: true`")
        if self.via and self.workloads:
            raise ValueError(
                "`via` lists programs that act for people: a rule for programs themselves names them in `workloads` alone"
            )
        return self


class What(Part):
    """The segments that a rule names: those listed, and those that carry all of `labels` and whose label `owner` is the name of the principal.
    `any` names every segment.
    """

    segments: Names = ()
    labels: Labels = _NO_LABELS
    owner: LabelKey | None = None
    any: Yes | None = None

    @model_validator(mode="after")
    def _names_something(self) -> "What":
        if not (self.segments or self.labels or self.owner or self.any):
            raise ValueError("`what` names nothing: list `segments` or `labels`, name the `owner` label, or write `any: true`")
        return self


class Hours(Part):
    """A daily window on the clocks of `zone`; `until` before `from` runs over midnight and belongs to the day it started on.

    It is read off the wall clock: on the day that skips an hour a window inside it does not open, on the day that has an hour twice it is open twice.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True, populate_by_name=True)

    start: Clock = Field(alias="from")
    until: Clock
    zone: Zone = "UTC"
    days: Annotated[tuple[Day, ...], Field(min_length=1, max_length=7), AfterValidator(distinct)] = (
        "mon",
        "tue",
        "wed",
        "thu",
        "fri",
        "sat",
        "sun",
    )

    @model_validator(mode="after")
    def _is_not_empty(self) -> "Hours":
        if self.start == self.until:
            raise ValueError("`from` and `until` are the same: leave `hours` out for the whole day")
        return self


class RiskBounds(Part):
    """Scores from 0 (none) to 100 that must stay below these."""

    user: Annotated[int, Field(ge=1, le=100)] | None = None
    device: Annotated[int, Field(ge=1, le=100)] | None = None

    @model_validator(mode="after")
    def _bounds_something(self) -> "RiskBounds":
        if self.user is None and self.device is None:
            raise ValueError("`risk` bounds nothing: write `user` or `device` with a score from 1 to 100")
        return self


class Conditions(Part):
    """What must hold, all of it. `expression` is one Cedar expression over principal, resource and context.

    `issuers` are the identity providers that the sign-in may come from (`local`: this exchange's own accounts), `networks` the named networks that the
    client may stand in, `profiles` the posture profiles that the device must fulfil, `one_place` that the principal is not seen at two places at once.
    """

    issuers: Names = ()
    networks: Names = ()
    profiles: Names = ()
    risk: RiskBounds | None = None
    one_place: Yes | None = None
    signed_in_within: Annotated[Duration, Field(ge=60, le=365 * 86400)] | None = None
    strength: Strength | None = None
    hours: Hours | None = None
    after: Instant | None = None
    before: Instant | None = None
    device: Labels = _NO_LABELS
    posture: Labels = _NO_LABELS
    expression: Annotated[str, StringConstraints(min_length=1, max_length=MAX_CONDITION, strip_whitespace=True)] | None = None

    @model_validator(mode="after")
    def _says_something(self) -> "Conditions":
        if not any(getattr(self, field) for field in type(self).model_fields):
            raise ValueError("`when` is empty: leave it out, or write a condition")
        return self


def _conditions(value: Any) -> Any:
    return {"expression": value} if isinstance(value, str) else value


def _short_conditions(conditions: Conditions | None) -> Any:
    """A lone expression is written as text."""
    if conditions is None:
        return None
    fields = conditions.model_dump(mode="json", by_alias=True, exclude_defaults=True)
    return fields["expression"] if list(fields) == ["expression"] else fields


class Limits(Part):
    """How long a session that this rule permits may last, and how long it may carry no byte."""

    session: Annotated[Duration, Field(ge=60, le=30 * 86400)] | None = None
    idle: Annotated[Duration, Field(ge=60, le=86400)] | None = None

    @model_validator(mode="after")
    def _limits_something(self) -> "Limits":
        if self.session is None and self.idle is None:
            raise ValueError("`limits` limits nothing: write `session` or `idle` with a duration such as `8h`")
        return self


class Approval(Part):
    """The rule permits only what one member of `approvers` (groups) has approved, for at most `longest` at a time; nobody approves for themselves."""

    approvers: Annotated[UserNames, Field(min_length=1)]
    longest: Annotated[Duration, Field(ge=60, le=30 * 86400)] = 8 * 3600


class Rule(Part):
    """Who may reach what, when. Default deny; a forbid always wins; order never matters."""

    kind: Literal["rule"] = "rule"
    name: Name
    labels: Labels = _NO_LABELS
    effect: Literal["permit", "forbid"]
    who: Who
    what: What
    when: Annotated[Conditions | None, BeforeValidator(_conditions), PlainSerializer(_short_conditions, when_used="json")] = None
    approval: Approval | None = None
    limits: Limits | None = None

    @model_validator(mode="after")
    def _only_a_permit_is_approved_and_limited(self) -> "Rule":
        for field in ("approval", "limits"):
            if self.effect == "forbid" and getattr(self, field) is not None:
                raise ValueError(f"`{field}` belongs to a permit: a forbid ends what it names at once")
        return self


class User(Part):
    """A person, keyed by issuer and subject, never by mail. `issuer: local` is an account of this exchange."""

    kind: Literal["user"] = "user"
    name: UserName
    labels: Labels = _NO_LABELS
    issuer: Line = "local"
    subject: Line | None = None  # default: the name
    display: Line | None = None
    disabled: bool = False

    @property
    def key(self) -> tuple[str, str]:
        """Issuer and subject: who this is."""
        return self.issuer, self.subject if self.subject is not None else self.name


class Group(Part):
    """Members by name; members of a member group are members too. A circle of groups is refused."""

    kind: Literal["group"] = "group"
    name: UserName
    labels: Labels = _NO_LABELS
    users: Annotated[tuple[UserName, ...], Field(max_length=MAX_MEMBERS), AfterValidator(distinct)] = ()
    workloads: Annotated[tuple[Name, ...], Field(max_length=MAX_MEMBERS), AfterValidator(distinct)] = ()
    groups: UserNames = ()


class Device(Part):
    """A machine that clients run on; its posture is a fact, not a document. `owner` is the name of a user: rules read whether it is who asks."""

    kind: Literal["device"] = "device"
    name: Name
    labels: Labels = _NO_LABELS
    owner: UserName | None = None
    disabled: bool = False


Document = (
    Segment
    | ConnectorGroup
    | Rule
    | User
    | Workload
    | Group
    | Device
    | Webhook
    | IdentityProvider
    | TokenIssuer
    | PostureProfile
    | Network
    | SignalTransmitter
)
KINDS: Mapping[str, type[Document]] = MappingProxyType(
    {
        "segment": Segment,
        "connector-group": ConnectorGroup,
        "rule": Rule,
        "user": User,
        "workload": Workload,
        "group": Group,
        "device": Device,
        "webhook": Webhook,
        "identity-provider": IdentityProvider,
        "token-issuer": TokenIssuer,
        "posture-profile": PostureProfile,
        "network": Network,
        "signal-transmitter": SignalTransmitter,
    }
)


def to_fields(document: Document) -> dict[str, Any]:
    """The document as plain JSON values in the order of the fields, defaults left out; `parse_fields` reads it back."""
    fields: dict[str, Any] = {"kind": document.kind}
    fields.update(document.model_dump(mode="json", by_alias=True, exclude_defaults=True, exclude={"kind"}))
    return fields


def to_assignment(id: str, segment: Segment) -> Assignment:
    """The segment as its connectors see it."""
    return Assignment(
        id=id,
        hosts=list(segment.hosts),
        ports=_port_messages(segment),
        protocol=segment.protocol,
        allow=list(segment.allow),
        strict=segment.mode == "strict",
        health=None
        if segment.health is None
        else HealthCheckMessage(
            host=segment.health.host, port=segment.health.port, interval=segment.health.interval, timeout=segment.health.timeout
        ),
    )


def to_visible(id: str, segment: Segment, *, healthy: bool = True) -> Visible:
    """The segment as a client sees it."""
    return Visible(
        id=id,
        name=segment.name,
        hosts=list(segment.hosts),
        ports=_port_messages(segment),
        protocol=segment.protocol,
        healthy=healthy,
        labels=dict(segment.labels),
    )


def _port_messages(segment: Segment) -> list[PortRangeMessage]:
    return [PortRangeMessage(first=ports.first, last=ports.last) for ports in segment.ports]
