"""What can be asked at the control socket: one closed union, parsed before anything acts on it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from cloister.agent.tokens import TokenSource
from cloister.model.messages.common import Host, Port, Protocol, SignInMethod

MAX_REQUEST_BYTES = 65536


@dataclass(frozen=True, slots=True)
class ClientSettings:
    state: Path
    owner: int  # uid that may use the control socket and the entrances
    browser: bool = False  # open a browser by itself when a stronger sign-in is needed
    source: TokenSource | None = None  # programs: what says who they are, again and again
    subject: TokenSource | None = None  # and for whom they act


class _Request(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True)


class Status(_Request):
    op: Literal["status"]


class Apps(_Request):
    op: Literal["apps"]


class ExplainName(_Request):
    op: Literal["explain"]
    host: Host
    port: Port | None = None
    protocol: Protocol = "tcp"


class RequestName(_Request):
    """Ask for what a rule permits only with an approval."""

    op: Literal["request"]
    host: Host
    port: Port | None = None
    protocol: Protocol = "tcp"
    reason: Annotated[str, Field(min_length=1, max_length=512)]
    seconds: Annotated[int, Field(ge=1, le=30 * 86400)] | None = None


class OwnRequestsHere(_Request):
    """What the person asked for."""

    op: Literal["requests"]


class WithdrawHere(_Request):
    op: Literal["withdraw"]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class OpenProxy(_Request):
    """SOCKS5 and HTTP CONNECT on a loopback address, until the connection closes."""

    op: Literal["proxy"]
    address: Annotated[str, Field(max_length=64)]


class OpenForward(_Request):
    """One local port to one destination, until the connection closes."""

    op: Literal["forward"]
    address: Annotated[str, Field(max_length=64)]
    host: Host
    port: Port
    protocol: Protocol = "tcp"


class OpenFlow(_Request):
    """One TCP flow over the socket that comes with the request."""

    op: Literal["connect"]
    host: Host
    port: Port


class TellPosture(_Request):
    """What is reported of this device, and what is asked of it."""

    op: Literal["posture"]


class Watch(_Request):
    """Notices as they come, until the connection closes."""

    op: Literal["watch"]


class StepUpSignIn(_Request):
    """Sign in again for the running client; first where, then how it ended."""

    op: Literal["step_up"]
    method: SignInMethod = "browser"


class SignOutHere(_Request):
    """Tell the exchange that this sign-in is over."""

    op: Literal["sign_out"]


class DelegateTo(_Request):
    """Let a program act for the person."""

    op: Literal["delegate"]
    workload: Annotated[str, Field(min_length=1, max_length=63)]
    seconds: int


class EndDelegationOf(_Request):
    op: Literal["end_delegation"]
    id: Annotated[str, Field(pattern=r"^[0-9a-f]{16}$")]


class Down(_Request):
    op: Literal["down"]


Request = Annotated[
    Status
    | Apps
    | ExplainName
    | RequestName
    | OwnRequestsHere
    | WithdrawHere
    | OpenProxy
    | OpenForward
    | OpenFlow
    | TellPosture
    | Watch
    | StepUpSignIn
    | SignOutHere
    | DelegateTo
    | EndDelegationOf
    | Down,
    Field(discriminator="op"),
]

_request: TypeAdapter[Request] = TypeAdapter(Request)


def read_request(line: bytes) -> Request:
    """Raises `pydantic.ValidationError` on anything but exactly one known request."""
    return _request.validate_json(line)
