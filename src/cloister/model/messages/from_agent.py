"""What agents say to control."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter

from cloister.model.messages.common import (
    MAX_CLUSTER_KEYS,
    MAX_POSTURE_FACTS,
    Code,
    FactName,
    Host,
    Id,
    KeyMember,
    KeyText,
    Message,
    Port,
    Protocol,
    SegmentHealth,
    SignInMethod,
    Text,
    Token,
)


class Hello(Message):
    """First message on a link. `resume` is the secret of the previous link (Welcome.resume): absent or wrong means a twin."""

    type: Literal["hello"] = "hello"
    version: int
    software: Text
    resume: Text | None = None
    boot: Id  # random per process start
    hostname: Text = ""


class EnrolByKey(Message):
    """On an enrolment link: a provisioning key and a CSR (PKCS#10, DER in base64)."""

    type: Literal["enrol_by_key"] = "enrol_by_key"
    key: Annotated[str, Field(max_length=256)]
    csr: Annotated[str, Field(max_length=8192)]
    hostname: Text = ""


class EnrolByPassword(Message):
    """On an enrolment link: a local account signs in and enrols this client."""

    type: Literal["enrol_by_password"] = "enrol_by_password"
    user: Annotated[str, Field(max_length=256)]
    password: Annotated[str, Field(max_length=1024)]
    csr: Annotated[str, Field(max_length=8192)]
    hostname: Text = ""


class EnrolBySignIn(Message):
    """On an enrolment link: this client is enrolled for whoever signs in at an identity provider within ten minutes. `provider` is the name of one,
    empty if the person may choose. Answered with `SignInStarted`, later with `Enrolled` or `Refused` on the same link.
    """

    type: Literal["enrol_by_sign_in"] = "enrol_by_sign_in"
    provider: Annotated[str, Field(max_length=63)] = ""
    method: SignInMethod = "browser"
    csr: Annotated[str, Field(max_length=8192)]
    hostname: Text = ""


class StepUp(Message):
    """Client: the same person signs in again, stronger or just now. Answered with `SignInStarted`, later with `SignedIn` or `Refused`."""

    type: Literal["step_up"] = "step_up"
    ref: int
    method: SignInMethod = "browser"


class SignOut(Message):
    """Client: this sign-in is over. Answered with `SignedOut`; then the exchange knows this agent no more."""

    type: Literal["sign_out"] = "sign_out"
    ref: int


class EnrolByToken(Message):
    """On an enrolment link: a program proves itself with a token of an issuer that the exchange believes. `subject_token` is the word of the person on whose
    behalf it acts: a delegation, or a token of theirs that names the program (RFC 8693, section 2.1).
    """

    type: Literal["enrol_by_token"] = "enrol_by_token"
    token: Token
    csr: Annotated[str, Field(max_length=8192)]
    hostname: Text = ""
    subject_token: Token | None = None


class Prove(Message):
    """An agent that was enrolled by a token proves itself anew, with a fresh one. Answered with `Proved`."""

    type: Literal["prove"] = "prove"
    token: Token
    subject_token: Token | None = None


class ClusterKeys(Message):
    """Connector: the public keys (RFC 7517) with which its cluster signs service-account tokens now. Answered with `KeysTaken`."""

    type: Literal["cluster_keys"] = "cluster_keys"
    keys: Annotated[list[dict[KeyMember, KeyText]], Field(min_length=1, max_length=MAX_CLUSTER_KEYS)]


class Delegate(Message):
    """Client: the signed-in person lets a program act for them. Answered with `Delegated`."""

    type: Literal["delegate"] = "delegate"
    ref: int
    workload: Annotated[str, Field(min_length=1, max_length=63)]
    seconds: int


class EndDelegation(Message):
    """Client: one of the person's own delegations is over. Answered with `DelegationEnded`."""

    type: Literal["end_delegation"] = "end_delegation"
    ref: int
    id: Id


class Renew(Message):
    """Ask for a new leaf for the proved key; accepted with a leaf expired up to 30 days ago (then this is all that is accepted)."""

    type: Literal["renew"] = "renew"


class WantSession(Message):
    type: Literal["want_session"] = "want_session"
    ref: int
    host: Host
    port: Port
    protocol: Protocol


class Explain(Message):
    type: Literal["explain"] = "explain"
    ref: int
    host: Host
    port: Port | None = None
    protocol: Protocol = "tcp"


class RequestAccess(Message):
    """Client: ask for what a rule permits only with an approval. Answered with Requested or Refused."""

    type: Literal["request_access"] = "request_access"
    ref: int
    host: Host
    port: Port | None = None
    protocol: Protocol = "tcp"
    reason: Annotated[str, Field(min_length=1, max_length=512)]
    seconds: Annotated[int, Field(ge=1, le=30 * 86400)] | None = None


class ListRequests(Message):
    """Client: the requests for access of its principal. Answered with OwnRequests or Refused."""

    type: Literal["list_requests"] = "list_requests"
    ref: int


class WithdrawRequest(Message):
    """Client: take a request of its principal back. Answered with OwnRequests, of this one, or Refused."""

    type: Literal["withdraw_request"] = "withdraw_request"
    ref: int
    id: Id


class Idle(Message):
    """Client: these sessions carry no flow any more and need not be renewed."""

    type: Literal["idle"] = "idle"
    sessions: list[Id]


class PostureFact(Message):
    """One fact about the device. Anything may stand as value and time: what is not a text and a number of Unix seconds is refused by name, alone."""

    name: FactName
    value: JsonValue = None
    observed_at: JsonValue = None


class Posture(Message):
    """Client: everything that it can say of its device now, whole set, after each welcome, when something changes, and before the facts are too old."""

    type: Literal["posture"] = "posture"
    facts: Annotated[list[PostureFact], Field(max_length=MAX_POSTURE_FACTS)]


class Health(Message):
    type: Literal["health"] = "health"
    segments: list[SegmentHealth]
    flows: int = 0
    tunnels: int = 0


class Revoked(Message):
    """Connector: the revocation or snapshot of this generation is in force; its flows are reset."""

    type: Literal["revoked"] = "revoked"
    generation: int
    flows: int = 0


class Quiet(Message):
    """Connector: of the sessions that it watches, the whole set of those that have carried no byte for as long as they may."""

    type: Literal["quiet"] = "quiet"
    sessions: list[Id]


class WantCarrier(Message):
    """Relay: a join waits for a carrier of this connector."""

    type: Literal["want_carrier"] = "want_carrier"
    connector: Id


class Advertise(Message):
    """Relay, after each welcome: the address at which connectors and clients reach it."""

    type: Literal["advertise"] = "advertise"
    address: Text


class CutDone(Message):
    type: Literal["cut_done"] = "cut_done"
    ref: int
    carriers: int


class Bye(Message):
    """The agent leaves on purpose (drain finished or stop)."""

    type: Literal["bye"] = "bye"
    reason: Code = "stopped"


class Draining(Message):
    """The agent takes no new work; what is open goes on."""

    type: Literal["draining"] = "draining"


FromAgent = Annotated[
    Hello
    | EnrolByKey
    | EnrolByPassword
    | EnrolBySignIn
    | StepUp
    | SignOut
    | EnrolByToken
    | Prove
    | ClusterKeys
    | Delegate
    | EndDelegation
    | Renew
    | WantSession
    | Explain
    | RequestAccess
    | ListRequests
    | WithdrawRequest
    | Idle
    | Posture
    | Health
    | Revoked
    | Quiet
    | WantCarrier
    | Advertise
    | CutDone
    | Bye
    | Draining,
    Field(discriminator="type"),
]

_reader: TypeAdapter[FromAgent] = TypeAdapter(FromAgent)


def read_from_agent(body: bytes) -> FromAgent:
    """Parse one message; raises `pydantic.ValidationError` on anything but exactly one known message."""
    return _reader.validate_json(body)
