"""Which sessions this client asked for, holds and lost, as a machine: events in, commands out, no I/O, time passed in."""

from collections import deque
from dataclasses import dataclass

from cloister.model.messages.common import Message, Protocol
from cloister.model.messages.from_agent import Idle, WantSession
from cloister.model.messages.from_exchange import EndSession, Refused, Session
from cloister.model.reasons import PENDING, PENDING_SECONDS, REASONS, Code

MAX_WAITING = 1024  # requests without an answer
MAX_SESSIONS = 4096
MAX_NOTICES = 64
LINK_WAIT = 10.0  # seconds a request waits for the link
ANSWER_WAIT = 12.0  # seconds a request waits for its first answer; the flow itself gives up a little earlier
ASK_AGAIN_AFTER = 1.0  # seconds between two requests caused by a refused ticket


@dataclass(frozen=True, slots=True)
class Destination:
    host: str
    port: int
    protocol: Protocol

    def __str__(self) -> str:
        return f"{self.host}:{self.port}" + ("/udp" if self.protocol == "udp" else "")


@dataclass(frozen=True, slots=True)
class Notice:
    """One sentence for the person, kept for `cloister status`."""

    at: float  # Unix seconds
    code: str
    text: str
    remedy: str


@dataclass(frozen=True, slots=True)
class Send:
    message: Message


@dataclass(frozen=True, slots=True)
class Grant:
    request: int | None
    session: Session


@dataclass(frozen=True, slots=True)
class Refuse:
    request: int
    code: str


@dataclass(frozen=True, slots=True)
class Hold:
    """Not now: a person has to do something, and the flow waits for it."""

    request: int
    code: str


@dataclass(frozen=True, slots=True)
class End:
    session: str
    code: str


@dataclass(frozen=True, slots=True)
class Tell:
    notice: Notice


Command = Send | Grant | Refuse | Hold | End | Tell


@dataclass(slots=True)
class _Waiting:
    request: int | None  # None: asked again because a ticket was refused
    session: str | None
    destination: Destination
    since: float
    is_sent: bool
    pending: str | None = None  # the code of `PENDING` that it was last answered with

    @property
    def deadline(self) -> float:
        if self.pending is not None:
            return self.since + PENDING_SECONDS
        return self.since + (ANSWER_WAIT if self.is_sent else LINK_WAIT)


@dataclass(slots=True)
class _Held:
    destination: Destination
    asked_again: float


class Sessions:
    def __init__(self) -> None:
        self.notices: deque[Notice] = deque(maxlen=MAX_NOTICES)
        self._is_up = False
        self._next_ref = 1
        self._waiting: dict[int, _Waiting] = {}
        self._held: dict[str, _Held] = {}

    def new_ref(self) -> int:
        """A number for one question; answers carry it back."""
        self._next_ref += 1
        return self._next_ref

    @property
    def held(self) -> dict[str, Destination]:
        return {session: held.destination for session, held in self._held.items()}

    # ------------------------------------------------------------ the link

    def on_up(self, now: float) -> list[Command]:
        """Questions of a link that is gone have no answer any more: ask them all again."""
        self._is_up = True
        commands: list[Command] = []
        for ref, waiting in self._waiting.items():
            waiting.is_sent = True
            if waiting.pending is None:
                waiting.since = now
            commands.append(_ask(ref, waiting.destination))
        return commands

    def on_down(self, now: float) -> list[Command]:
        self._is_up = False
        for waiting in self._waiting.values():
            waiting.is_sent = False
            if waiting.pending is None:
                waiting.since = now
        return []

    # ------------------------------------------------------------ the core

    def on_wanted(self, request: int, destination: Destination, now: float) -> list[Command]:
        if len(self._waiting) >= MAX_WAITING:
            return [Refuse(request, Code.LIMIT_REACHED)]
        return self._wait(_Waiting(request, None, destination, now, self._is_up))

    def on_ticket_refused(self, session: str, now: float) -> list[Command]:
        """Control may decide anew: the session may live on with another ticket, or with another connector."""
        held = self._held.get(session)
        is_asked = any(waiting.session == session for waiting in self._waiting.values())
        if held is None or is_asked or now < held.asked_again + ASK_AGAIN_AFTER or len(self._waiting) >= MAX_WAITING:
            return []
        held.asked_again = now
        return self._wait(_Waiting(None, session, held.destination, now, self._is_up))

    def on_idle(self, sessions: list[str]) -> list[Command]:
        known = [session for session in sessions if self._held.pop(session, None) is not None]
        return [Send(Idle(sessions=known))] if known and self._is_up else []

    def _wait(self, waiting: _Waiting) -> list[Command]:
        ref = self.new_ref()
        self._waiting[ref] = waiting
        return [_ask(ref, waiting.destination)] if self._is_up else []

    # ------------------------------------------------------------ the exchange

    def on_session(self, message: Session, now: float) -> list[Command]:
        waiting = self._waiting.pop(message.ref, None) if message.ref is not None else None
        if waiting is None and (message.ref is not None or message.session not in self._held):
            # Of an earlier process, or an answer to a question that nobody asked: it is not used, so it need not be renewed.
            return [] if message.session in self._held else [Send(Idle(sessions=[message.session]))]
        if waiting is None:
            return [Grant(None, message)]
        if message.session not in self._held and len(self._held) >= MAX_SESSIONS:
            return [Refuse(waiting.request, Code.LIMIT_REACHED)] if waiting.request is not None else []
        self._held[message.session] = _Held(waiting.destination, now)
        return [Grant(waiting.request, message)]

    def on_refused(self, message: Refused, now: float) -> list[Command]:
        """Final, but for a flow whose refusal a person can change: its question stays open, and the next answer to it counts."""
        waiting = self._waiting.pop(message.ref, None) if message.ref is not None else None
        if waiting is None or message.ref is None:
            return []
        if waiting.request is not None and message.code in PENDING:
            self._waiting[message.ref] = waiting
            if waiting.pending == message.code:
                return []
            waiting.pending, waiting.since = message.code, now
            text = f"`{waiting.destination}` waits: {message.message}"
            return [Hold(waiting.request, message.code), self._tell(message.code, text, message.remedy, now)]
        commands: list[Command] = []
        if waiting.request is not None:
            commands.append(Refuse(waiting.request, message.code))
        if waiting.session is not None and self._held.pop(waiting.session, None) is not None:
            commands.append(End(waiting.session, message.code))
        if message.code != Code.NOT_FOUND:
            commands.append(self._tell(message.code, f"`{waiting.destination}`: {message.message}", message.remedy, now))
        return commands

    def on_end(self, message: EndSession, now: float) -> list[Command]:
        commands: list[Command] = []
        ended: list[str] = []
        for session in message.sessions:
            held = self._held.pop(session, None)
            if held is not None:
                ended.append(f"`{held.destination}`")
            commands.append(End(session, message.code))
        if ended:
            names = ", ".join(sorted(set(ended)))
            commands.append(self._tell(message.code, f"access to {names} ended: {message.message}", message.remedy, now))
        return commands

    # ------------------------------------------------------------ time

    def on_timer(self, now: float) -> list[Command]:
        """Call about once a second: requests that waited too long are refused."""
        commands: list[Command] = []
        for ref, waiting in list(self._waiting.items()):
            if now < waiting.deadline:
                continue
            del self._waiting[ref]
            if waiting.pending is not None and waiting.request is not None:
                commands.append(Refuse(waiting.request, waiting.pending))
            elif waiting.request is not None:
                commands.append(Refuse(waiting.request, Code.EXCHANGE_UNREACHABLE))
                reason = REASONS[Code.EXCHANGE_UNREACHABLE]
                commands.append(self._tell(reason.code, f"`{waiting.destination}`: {reason.message}", reason.remedy, now))
        return commands

    def _tell(self, code: str, text: str, remedy: str, now: float) -> Tell:
        notice = Notice(now, code, text, remedy)
        self.notices.append(notice)
        return Tell(notice)


def _ask(ref: int, destination: Destination) -> Send:
    return Send(WantSession(ref=ref, host=destination.host, port=destination.port, protocol=destination.protocol))
