"""What both directions of a link share: the forms of fields, and the data inside messages."""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

PROTOCOL_VERSION = 1
MAX_MESSAGE_BYTES = 1 << 20
MAX_POSTURE_FACTS = 256
MAX_CLUSTER_KEYS = 16
MAX_POSTURE_PROFILES = 64
MAX_OWN_REQUESTS = 100

Id = Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]
Port = Annotated[int, Field(ge=1, le=65535)]
Protocol = Literal["tcp", "udp"]
SignInMethod = Literal["browser", "device"]
Code = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_]{1,63}$")]
Text = Annotated[str, Field(max_length=1024)]
Host = Annotated[str, Field(min_length=1, max_length=253)]
Pem = Annotated[str, Field(max_length=65536)]
Token = Annotated[str, Field(min_length=1, max_length=65536)]
KeyMember = Literal["kty", "kid", "use", "alg", "crv", "x", "y", "n", "e"]  # of a public key: nothing secret has a name here
KeyText = Annotated[str, Field(min_length=1, max_length=2048)]
FactName = Annotated[str, Field(pattern=r"^[a-z0-9][^\x00-\x1f\x7f]{0,255}$")]


class Message(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class PortRange(Message):
    first: Port
    last: Port


class RelayAddress(Message):
    id: Id
    address: Text


class HealthCheck(Message):
    """How a connector checks a segment: a TCP connect to host (default: the segment's first exact name) and port."""

    host: Host | None = None
    port: Port | None = None
    interval: Annotated[int, Field(ge=1, le=3600)] = 10
    timeout: Annotated[int, Field(ge=1, le=60)] = 3


class Assignment(Message):
    """One segment as its connectors see it. `allow` lists otherwise forbidden addresses (CIDR) that this segment spells out."""

    id: Id
    hosts: list[Host]  # exact names, `*.suffix` wildcards or addresses
    ports: list[PortRange]
    protocol: Protocol
    allow: list[Text] = []
    strict: bool = True
    health: HealthCheck | None = None
    elsewhere: bool = (
        False  # served by other groups, listed because it is more specific than an assigned one: its destinations are refused here
    )


class Visible(Message):
    """One segment as a client sees it."""

    id: Id
    name: Text
    hosts: list[Host]
    ports: list[PortRange]
    protocol: Protocol
    healthy: bool = True
    labels: dict[str, str] = {}


class SegmentHealth(Message):
    segment: Id
    healthy: bool
    rtt_us: Annotated[int, Field(ge=0)] = 0
    code: Code = "ok"


def write(message: Message) -> bytes:
    return message.model_dump_json().encode()
