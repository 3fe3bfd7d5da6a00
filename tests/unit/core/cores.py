"""Cores for tests: an exchange's public port and agents, with real certificates, in this process or in children."""

import select
import time
from collections.abc import Callable
from typing import Self, TypeVar

from cloister import _core
from cloister.trust.certificates import key_to_pem, make_key
from cloister.trust.keyring import Keyring, create_keyring
from cloister.trust.types import Identity, Role

T = TypeVar("T")
PATIENCE = 15.0


class Host:
    """One core and the events it has given that nobody has asked for yet."""

    def __init__(self, **settings: int) -> None:
        self.core = _core.Core(**settings)
        self._waiting: list[_core.Event] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.core.shutdown()

    def expect(self, kind: type[T], where: Callable[[T], bool] = lambda _: True, patience: float = PATIENCE) -> T:
        """The next event of this kind; what came before it of other kinds stays."""
        end = time.monotonic() + patience
        while True:
            for at, event in enumerate(self._waiting):
                if isinstance(event, kind) and where(event):
                    del self._waiting[at]
                    return event
            left = end - time.monotonic()
            if left <= 0 or not select.select([self.core.fileno()], [], [], left)[0]:
                raise AssertionError(f"no {kind.__name__} within {patience} s; waiting: {self._waiting}")
            self._waiting += self.core.take_events()

    def events(self) -> list[_core.Event]:
        """Everything that waits now."""
        events, self._waiting = [*self._waiting, *self.core.take_events()], []
        return events


class World:
    """A keyring and what is issued from it."""

    def __init__(self, keyring: Keyring | None = None) -> None:
        self.now = int(time.time())
        self.keyring = keyring or create_keyring(self.now)

    def identity(self, role: Role, agent: str) -> tuple[str, str]:
        """Chain and key of a new agent, PEM."""
        key = make_key()
        identity = Identity(self.keyring.trust_domain, role, agent)
        issue = self.keyring.issue_own if role in ("control", "relay") else self.keyring.issue
        _, chain = issue(key.public_key(), identity, self.now)
        return chain, key_to_pem(key)

    def equip(self, host: Host, role: Role, agent: str) -> None:
        host.core.set_identity(role, *self.identity(role, agent))
        host.core.set_trust(self.keyring.roots_pem())
        host.core.set_ticket_keys(self.keyring.ticket_verification_keys())

    def exchange(self, **settings: int) -> Host:
        host = Host(**settings)
        self.equip(host, "control", self.keyring.control_id)
        host.core.set_identity("relay", *self.identity("relay", self.keyring.relay_id))
        return host

    def agent(self, role: Role, agent: str) -> Host:
        host = Host()
        self.equip(host, role, agent)
        return host
