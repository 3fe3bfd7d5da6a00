"""What control says to agents."""

from typing import Annotated, Literal

from pydantic import Field, JsonValue, TypeAdapter

from cloister.model.messages.common import (
    MAX_OWN_REQUESTS,
    MAX_POSTURE_FACTS,
    MAX_POSTURE_PROFILES,
    Assignment,
    Code,
    FactName,
    Host,
    Id,
    Message,
    Pem,
    RelayAddress,
    SignInMethod,
    Text,
    Visible,
)


class Welcome(Message):
    type: Literal["welcome"] = "welcome"
    agent: Id
    exchange: Text  # trust domain
    now: int
    resume: Text
    generation: int
    principal: Text = ""  # clients: the user's display name


class Enrolled(Message):
    """`chain` is leaf then issuing CA; `roots` the trust anchors; `relays` where carriers go."""

    type: Literal["enrolled"] = "enrolled"
    agent: Id
    exchange: Text
    chain: Pem
    roots: Pem
    api: Text = ""  # base URL of the API


class Renewed(Message):
    type: Literal["renewed"] = "renewed"
    chain: Pem


class SignInStarted(Message):
    """Open `url` in a browser. `code` is shown there too (`browser`), or is what the person types there (`device`). Good until `expires` (Unix seconds)."""

    type: Literal["sign_in_started"] = "sign_in_started"
    ref: int | None = None
    url: Annotated[str, Field(max_length=4096)]
    code: Text
    method: SignInMethod = "browser"
    expires: int


class SignedIn(Message):
    """The sign-in that this client acts for is this strong and this recent now."""

    type: Literal["signed_in"] = "signed_in"
    ref: int
    at: int
    strength: Literal["password", "mfa", "hardware"]


class SignedOut(Message):
    """`url`, if not empty, ends the session at the provider too when it is opened in a browser."""

    type: Literal["signed_out"] = "signed_out"
    ref: int
    url: Annotated[str, Field(max_length=4096)] = ""


class Proved(Message):
    """What vouches for this agent holds until then (Unix seconds)."""

    type: Literal["proved"] = "proved"
    until: int


class KeysTaken(Message):
    """What became of a report of `ClusterKeys`: `ok`, or why nothing was changed."""

    type: Literal["keys_taken"] = "keys_taken"
    code: Code = "ok"
    message: Text = ""


class Delegated(Message):
    """`delegation` is shown this once: whoever has it and is the workload may act for the person."""

    type: Literal["delegated"] = "delegated"
    ref: int
    id: Id
    delegation: Text
    expires: int


class DelegationEnded(Message):
    type: Literal["delegation_ended"] = "delegation_ended"
    ref: int
    id: Id


class Trust(Message):
    """Trust anchors and ticket keys (kid → raw Ed25519 public key, base64url) now in force, sent at start and on every rotation."""

    type: Literal["trust"] = "trust"
    roots: Pem
    ticket_keys: dict[str, str]
    revoked_agents: list[Id] = Field(default_factory=list)


class Relays(Message):
    type: Literal["relays"] = "relays"
    relays: list[RelayAddress]


class Refused(Message):
    """The answer to anything that is not granted. `remedy` says what to do next."""

    type: Literal["refused"] = "refused"
    ref: int | None = None
    code: Code
    message: Text
    remedy: Text = ""


class Catalogue(Message):
    """Everything visible to this client's principal, whole set."""

    type: Literal["catalogue"] = "catalogue"
    generation: int
    segments: list[Visible]
    suffixes: list[Host] = Field(default_factory=list)  # private suffixes: below them only the client answers


class PostureAsk(Message):
    """Client: the posture profiles that rules ask of its principal, as documents, and the facts that rules name themselves, whole set. Comes before the
    catalogue; what names a process, a file or a certificate is looked at for no other reason.
    """

    type: Literal["posture_ask"] = "posture_ask"
    profiles: Annotated[list[dict[str, JsonValue]], Field(max_length=MAX_POSTURE_PROFILES)]
    facts: Annotated[list[FactName], Field(max_length=MAX_POSTURE_FACTS)] = Field(default_factory=list)


class Session(Message):
    """A session and its ticket; `ref` is None for a renewal."""

    type: Literal["session"] = "session"
    ref: int | None
    session: Id
    segment: Id
    ticket: Annotated[str, Field(max_length=8192)]
    expires: int
    connectors: list[Id]
    relays: list[Id]


class EndSession(Message):
    """Client: these sessions are over; the user is told why."""

    type: Literal["end_session"] = "end_session"
    sessions: list[Id]
    code: Code
    message: Text
    remedy: Text = ""


class Explained(Message):
    type: Literal["explained"] = "explained"
    ref: int
    visible: bool
    allowed: bool
    code: Code
    message: Text
    remedy: Text = ""
    rules: list[Text] = Field(default_factory=list)
    segment: Text = ""


class Requested(Message):
    """The request for access as it stands; flows that wait go on when it is approved."""

    type: Literal["requested"] = "requested"
    ref: int
    id: Id
    segment: Text
    state: Literal["pending", "approved"]
    seconds: int
    until: int


class OwnRequest(Message):
    id: Id
    user: Text
    segment: Text
    reason: Text
    seconds: int
    state: Literal["pending", "approved", "denied", "withdrawn"]
    created_at: int
    until: int
    note: Text


class OwnRequests(Message):
    """Requests for access of the client's principal, newest first."""

    type: Literal["own_requests"] = "own_requests"
    ref: int
    requests: Annotated[list[OwnRequest], Field(max_length=MAX_OWN_REQUESTS)]


class Assignments(Message):
    """Connector: the segments to serve, whole set."""

    type: Literal["assignments"] = "assignments"
    generation: int
    segments: list[Assignment]


class Snapshot(Message):
    """Connector: the whole set of live sessions that name it, at this generation."""

    type: Literal["snapshot"] = "snapshot"
    generation: int
    sessions: list[Id]


class Revoke(Message):
    """Connector: answer with Revoked within 300 ms or the relay cuts."""

    type: Literal["revoke"] = "revoke"
    generation: int
    sessions: list[Id]


class Watch(Message):
    """Connector: the whole set of sessions with an idle limit (seconds); answered with Quiet whenever some become or cease to be so."""

    type: Literal["watch"] = "watch"
    sessions: dict[Id, Annotated[int, Field(ge=1)]]


class OpenCarrier(Message):
    """Connector: park one more carrier at this relay now."""

    type: Literal["open_carrier"] = "open_carrier"
    relay: Id


class Cut(Message):
    """Relay: end carriers of this client (to this connector); `block` also refuses joins of the pair until Unblock."""

    type: Literal["cut"] = "cut"
    ref: int
    client: Id
    connector: Id | None = None
    block: bool = False


class Unblock(Message):
    type: Literal["unblock"] = "unblock"
    client: Id
    connector: Id


class Drain(Message):
    """The exchange asks the agent to move: it is about to stop."""

    type: Literal["drain"] = "drain"
    grace: int


FromExchange = Annotated[
    Welcome
    | Enrolled
    | Renewed
    | SignInStarted
    | SignedIn
    | SignedOut
    | Proved
    | KeysTaken
    | Delegated
    | DelegationEnded
    | Trust
    | Relays
    | Refused
    | Catalogue
    | PostureAsk
    | Session
    | EndSession
    | Explained
    | Requested
    | OwnRequests
    | Assignments
    | Snapshot
    | Revoke
    | Watch
    | OpenCarrier
    | Cut
    | Unblock
    | Drain,
    Field(discriminator="type"),
]

_reader: TypeAdapter[FromExchange] = TypeAdapter(FromExchange)


def read_from_exchange(body: bytes) -> FromExchange:
    """Parse one message; raises `pydantic.ValidationError` on anything but exactly one known message."""
    return _reader.validate_json(body)
