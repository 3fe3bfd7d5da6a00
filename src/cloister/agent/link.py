"""The link of an agent, run: executes what the machine decides on a core's link, and keeps the identity on disk up to date."""

import asyncio
import base64
import binascii
import logging
import random
import secrets
import socket
import time
from collections.abc import Callable
from typing import assert_never

from pydantic import ValidationError

from cloister import _core
from cloister.agent.disk import StateDir
from cloister.agent.errors import AgentError
from cloister.agent.machine import Believe, Command, Deliver, LinkMachine, Ready, Redial, Send, State, Stop, Swap
from cloister.agent.types import Identity
from cloister.model.messages.common import Message, write
from cloister.model.messages.from_exchange import FromExchange, Refused, Trust, Welcome, read_from_exchange
from cloister.model.reasons import Code

log = logging.getLogger("cloister.link")


class Link:
    """One link to the exchange. `on_message` gets this role's messages, and Trust once it is in force; `on_up` means welcomed."""

    def __init__(
        self,
        core: _core.Core,
        state: StateDir,
        identity: Identity,
        *,
        on_message: Callable[[FromExchange], None],
        on_up: Callable[[], None],
        on_down: Callable[[], None],
    ) -> None:
        self._core = core
        self._disk = state
        self.identity = identity
        self._on_message = on_message
        self._on_up = on_up
        self._on_down = on_down
        self._machine = LinkMachine(
            role=identity.role,
            software=f"cloister/{_core.__version__}",
            boot=secrets.token_hex(8),
            hostname=socket.gethostname()[:255],
            resume=state.load_resume(),
            not_before=identity.not_before,
            not_after=identity.not_after,
            jitter=random.SystemRandom().random(),
        )
        self._timer: asyncio.TimerHandle | None = None
        self.welcome: Welcome | None = None
        self.last_refusal: str = ""
        self.stopped: asyncio.Future[Stop] = asyncio.get_running_loop().create_future()
        core.set_identity(identity.role, identity.chain_pem, identity.key_pem)
        core.set_trust(identity.roots_pem)
        self.number = core.dial_link(identity.address, role=identity.role)

    @property
    def is_up(self) -> bool:
        return self._machine.state is State.READY

    def send(self, message: Message) -> bool:
        return self.is_up and self._core.send(self.number, write(message))

    def handle(self, event: "_core.Event") -> bool:
        """Take an event of this link; False if it is about something else."""
        match event:
            case _core.LinkUp(link=self.number):
                self._run(self._machine.on_up(time.time()))
            case _core.LinkDown(link=self.number):
                self._went_down(event)
            case _core.LinkMessage(link=self.number):
                self._read(event.body)
            case _:
                return False
        self._set_timer()
        return True

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
        self._core.close_link(self.number, Code.STOPPED)

    # ------------------------------------------------------------ events

    def _went_down(self, event: _core.LinkDown) -> None:
        was_up = self.is_up
        self._run(self._machine.on_down(event.reason))
        retry = "" if event.retry_in is None else f"; next attempt in {event.retry_in:.1f} s"
        detail = f" ({event.detail})" if event.detail else ""
        is_news = was_up or event.reason != self.last_refusal
        log.log(
            logging.WARNING if is_news else logging.INFO,
            "no link to the exchange `%s`: %s%s%s",
            self.identity.address,
            event.reason,
            detail,
            retry,
        )
        self.last_refusal = event.reason
        if was_up:
            self._on_down()

    def _read(self, body: bytes) -> None:
        try:
            message = read_from_exchange(body)
        except ValidationError as error:
            log.error("the exchange sent a message that cannot be read: %s", error.errors(include_input=False)[0]["msg"])
            self._run([Redial(Code.MESSAGE_MALFORMED)])
            return
        if isinstance(message, Refused) and message.ref is None:
            log.warning("the exchange refuses: %s [%s]", message.message, message.code)
            self.last_refusal = message.code
        self._run(self._machine.on_message(message, time.time()))

    # ------------------------------------------------------------ commands

    def _run(self, commands: list[Command]) -> None:
        for command in commands:
            match command:
                case Send(message):
                    self._core.send(self.number, write(message))
                case Deliver(message):
                    self._on_message(message)
                case Ready(welcome):
                    self._became_ready(welcome)
                case Swap(chain_pem):
                    self._swap(chain_pem)
                case Believe(trust):
                    self._believe(trust)
                case Redial(reason):
                    was_up = self.is_up
                    self._machine.on_down()
                    if was_up:
                        self._on_down()
                    self._core.redial(self.number, reason)
                case Stop():
                    if not self.stopped.done():
                        self.stopped.set_result(command)
                case _:
                    assert_never(command)

    def _became_ready(self, welcome: Welcome) -> None:
        self.welcome = welcome
        was_told = self.last_refusal != ""  # whoever read that it was gone reads that it is back
        log.log(logging.WARNING if was_told else logging.INFO, "the link to the exchange `%s` is up", self.identity.address)
        self.last_refusal = ""
        self._disk.save_resume(welcome.resume)
        self._on_up()

    def _swap(self, chain_pem: str) -> None:
        try:
            renewed = self.identity.with_chain(chain_pem)
        except AgentError as error:
            log.error("the renewed certificate is refused: %s", error.message)
            return
        self._disk.save_identity(renewed)
        self._core.set_identity(renewed.role, renewed.chain_pem, renewed.key_pem)
        self._machine.renewed(renewed.not_before, renewed.not_after, time.time())
        self.identity = renewed
        log.info("certificate renewed")

    def _believe(self, trust: Trust) -> None:
        try:
            keys = {kid: _raw_key(text) for kid, text in trust.ticket_keys.items()}
            identity = self.identity.with_roots(trust.roots)
            self._core.set_trust(identity.roots_pem, trust.revoked_agents)
            self._core.set_ticket_keys(keys)
        except (AgentError, _core.CoreError, ValueError) as error:
            log.error("the trust that the exchange sent is refused: %s", error)
            self._run([Redial(Code.MESSAGE_MALFORMED)])
            return
        if identity.roots_pem != self.identity.roots_pem:
            self._disk.save_identity(identity)
        self.identity = identity
        self._on_message(trust)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if self._machine.wake_at is not None and not self.stopped.done():
            delay = max(0.0, self._machine.wake_at - time.time())
            # at most an hour ahead: a suspended machine's clocks jump
            self._timer = asyncio.get_running_loop().call_later(min(delay, 3600.0), self._on_timer)

    def _on_timer(self) -> None:
        self._run(self._machine.on_timer(time.time()))
        self._set_timer()


def _raw_key(text: str) -> bytes:
    """base64url without padding → 32 bytes."""
    try:
        raw = base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except binascii.Error as error:
        raise ValueError("a ticket key is not base64url") from error
    if len(raw) != 32:
        raise ValueError(f"a ticket key has `{len(raw)}` bytes, not 32")
    return raw
