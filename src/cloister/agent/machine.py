"""The agent's side of a link as a machine: events in, commands out, no I/O, time passed in.

```
down ──up──▶ greeting ──welcome──▶ ready
  └────up, leaf expired──▶ renewing ──renewed──▶ (redial) down
```
"""

from dataclasses import dataclass
from enum import Enum

from cloister.agent.rules import RENEW_RETRY, renewal_time
from cloister.agent.types import Role
from cloister.model.messages.common import PROTOCOL_VERSION, Message
from cloister.model.messages.from_agent import Hello, Renew
from cloister.model.messages.from_exchange import (
    Assignments,
    Catalogue,
    Cut,
    Delegated,
    DelegationEnded,
    Drain,
    EndSession,
    Enrolled,
    Explained,
    FromExchange,
    KeysTaken,
    OpenCarrier,
    OwnRequests,
    PostureAsk,
    Proved,
    Refused,
    Relays,
    Renewed,
    Requested,
    Revoke,
    Session,
    SignedIn,
    SignedOut,
    SignInStarted,
    Snapshot,
    Trust,
    Unblock,
    Watch,
    Welcome,
)
from cloister.model.reasons import REASONS, Code

# Refusals after which trying again cannot help: a person has to act.
FINAL = frozenset(
    {
        Code.AGENT_REVOKED,
        Code.AGENT_UNKNOWN,
        Code.ROLE_MISMATCH,
        Code.VERSION_UNSUPPORTED,
        Code.DEVICE_REVOKED,
        Code.USER_DISABLED,
        Code.SIGNED_OUT,
        Code.PROOF_ENDED,
    }
)


class State(Enum):
    DOWN = "down"
    GREETING = "greeting"
    RENEWING = "renewing"
    READY = "ready"


@dataclass(frozen=True, slots=True)
class Send:
    message: Message


@dataclass(frozen=True, slots=True)
class Deliver:
    """For the process that owns the link: a message of its own role, in the order of arrival."""

    message: FromExchange


@dataclass(frozen=True, slots=True)
class Ready:
    welcome: Welcome


@dataclass(frozen=True, slots=True)
class Swap:
    chain_pem: str


@dataclass(frozen=True, slots=True)
class Believe:
    trust: Trust


@dataclass(frozen=True, slots=True)
class Redial:
    reason: Code


@dataclass(frozen=True, slots=True)
class Stop:
    code: str
    message: str
    remedy: str


Command = Send | Deliver | Ready | Swap | Believe | Redial | Stop

_COMMON = (Trust, Relays, Drain, Proved)
_OF_ROLE: dict[Role, tuple[type[Message], ...]] = {
    "connector": (Assignments, Snapshot, Revoke, Watch, OpenCarrier, KeysTaken),
    "client": (
        Catalogue,
        PostureAsk,
        Session,
        EndSession,
        Explained,
        Requested,
        OwnRequests,
        Refused,
        SignInStarted,
        SignedIn,
        SignedOut,
        Delegated,
        DelegationEnded,
    ),
    "relay": (Cut, Unblock),
}


class LinkMachine:
    def __init__(
        self,
        *,
        role: Role,
        software: str,
        boot: str,
        hostname: str,
        resume: str | None,
        not_before: int,
        not_after: int,
        jitter: float,
    ) -> None:
        self.state = State.DOWN
        self.resume = resume
        self._role = role
        self._software = software
        self._boot = boot
        self._hostname = hostname
        self._jitter = jitter
        self._renew_at = 0.0
        self._set_life(not_before, not_after)

    @property
    def wake_at(self) -> float | None:
        """When `on_timer` wants to be called next."""
        return self._renew_at if self.state in (State.READY, State.RENEWING) else None

    # ------------------------------------------------------------ events

    def on_up(self, now: float) -> list[Command]:
        if now >= self._not_after:
            return self._start_renewing(now)
        return self._greet()

    def on_down(self, reason: str = "") -> list[Command]:
        """`reason` is the code of the other side's close or TLS alert; some of them no next attempt can change."""
        self.state = State.DOWN
        if reason in FINAL:
            return [Stop(reason, REASONS[reason].message, REASONS[reason].remedy)]
        return []

    def on_timer(self, now: float) -> list[Command]:
        if self.wake_at is None or now < self._renew_at:
            return []
        self._renew_at = now + RENEW_RETRY
        return [Send(Renew())]

    def on_message(self, message: FromExchange, now: float) -> list[Command]:
        if self.state is State.DOWN:
            return []  # of a connection that is gone
        match message:
            case Renewed():
                return self._on_renewed(message)
            case Refused(ref=None):
                return self._on_refused(message, now)
            case Welcome():
                return self._on_welcome(message)
            case Enrolled():
                return [Redial(Code.MESSAGE_UNEXPECTED)]
            case _ if self.state is not State.READY or not isinstance(message, _COMMON + _OF_ROLE[self._role]):
                return [Redial(Code.MESSAGE_UNEXPECTED)]
            case Trust():
                return [Believe(message)]
            case _:
                return [Deliver(message)]

    # ------------------------------------------------------------ transitions

    def _greet(self) -> list[Command]:
        self.state = State.GREETING
        hello = Hello(
            version=PROTOCOL_VERSION, software=self._software, resume=self.resume, boot=self._boot, hostname=self._hostname
        )
        return [Send(hello)]

    def _start_renewing(self, now: float) -> list[Command]:
        self.state = State.RENEWING
        self._renew_at = now + RENEW_RETRY
        return [Send(Renew())]

    def _on_welcome(self, welcome: Welcome) -> list[Command]:
        if self.state is not State.GREETING:
            return [Redial(Code.MESSAGE_UNEXPECTED)]
        self.state = State.READY
        self.resume = welcome.resume
        return [Ready(welcome)]

    def _on_renewed(self, message: Renewed) -> list[Command]:
        swap = Swap(message.chain)
        if self.state is State.RENEWING:
            return [swap, Redial(Code.CERTIFICATE_EXPIRED)]
        return [swap]

    def _on_refused(self, message: Refused, now: float) -> list[Command]:
        if message.code in FINAL:
            return [Stop(message.code, message.message, message.remedy)]
        if message.code == Code.CERTIFICATE_EXPIRED and self.state is State.GREETING:
            return self._start_renewing(now)  # the exchange's clock says so, and it is the exchange that judges
        return []

    def renewed(self, not_before: int, not_after: int, now: float) -> None:
        """The swap is done: the next renewal follows from the new certificate, and is never at once, whatever the clocks say."""
        self._set_life(not_before, not_after)
        self._renew_at = max(self._renew_at, now + RENEW_RETRY)

    def _set_life(self, not_before: int, not_after: int) -> None:
        self._not_after = not_after
        self._renew_at = renewal_time(not_before, not_after, self._jitter)
