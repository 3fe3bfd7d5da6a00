"""At how many places a principal is right now. A machine without I/O.

A principal is at the place of each of its clients whose link is up, and for `SIGN_IN_SECONDS` after a sign-in at the place that it came from. A
sign-in that made a client counts where that client's link is, once it is up: whoever signs in and walks to another network is at one place.
A link that is down counts nowhere, so that changing networks is no second place. What is not up and signs in nowhere is at one place: none.
"""

from collections import Counter, deque
from dataclasses import dataclass, field

from cloister.identity.posture.places import NetworkIndex, read_address

SIGN_IN_SECONDS = 300
SIGN_INS_PER_PRINCIPAL = 16
MAX_PRINCIPALS_SIGNING_IN = 100_000


@dataclass(frozen=True, slots=True)
class _SignIn:
    address: str
    agent: str | None  # the client that it made, if it made one
    until: int


@dataclass(slots=True)
class _Presence:
    links: dict[str, str] = field(default_factory=dict)  # client → address, without its port
    addresses: Counter[str] = field(default_factory=Counter)  # of links: a thousand clients behind one address are looked at once
    sign_ins: deque[_SignIn] = field(default_factory=lambda: deque(maxlen=SIGN_INS_PER_PRINCIPAL))
    known: tuple[NetworkIndex, frozenset[str]] | None = None  # the places of `addresses`, by which networks

    def places_of_links(self, networks: NetworkIndex) -> frozenset[str]:
        if self.known is None or self.known[0] is not networks:
            self.known = networks, frozenset(map(networks.place_of, self.addresses))
        return self.known[1]


class Places:
    def __init__(self) -> None:
        self._of: dict[str, _Presence] = {}
        self._signed_in: deque[tuple[str, int]] = deque()  # principal, until; oldest first

    def up(self, principal: str, client: str, address: str) -> None:
        presence = self._of.setdefault(principal, _Presence())
        self._leave(presence, client)
        host = str(read_address(address))
        presence.links[client] = host
        presence.addresses[host] += 1
        presence.known = None

    def down(self, principal: str, client: str) -> None:
        presence = self._of.get(principal)
        if presence is not None:
            self._leave(presence, client)
            self._drop_empty(principal, presence)

    def signed_in(self, principal: str, address: str, agent: str | None, now: int) -> None:
        self.forget(now)
        if len(self._signed_in) >= MAX_PRINCIPALS_SIGNING_IN:
            self._signed_in.popleft()
        self._signed_in.append((principal, now + SIGN_IN_SECONDS))
        self._of.setdefault(principal, _Presence()).sign_ins.append(_SignIn(address, agent, now + SIGN_IN_SECONDS))

    def forget(self, now: int) -> None:
        """Sign-ins that are over leave nothing behind."""
        while self._signed_in and self._signed_in[0][1] <= now:
            principal, _ = self._signed_in.popleft()
            presence = self._of.get(principal)
            if presence is not None:
                while presence.sign_ins and presence.sign_ins[0].until <= now:
                    presence.sign_ins.popleft()
                self._drop_empty(principal, presence)

    def count(self, principal: str, networks: NetworkIndex, now: int) -> tuple[int, int | None]:
        """How many, at least 1, and when there may be one fewer by the clock alone."""
        presence = self._of.get(principal)
        if presence is None:
            return 1, None
        found = set(presence.places_of_links(networks))
        ends: list[int] = []
        for sign_in in presence.sign_ins:
            if sign_in.until > now and (sign_in.agent is None or sign_in.agent not in presence.links):
                found.add(networks.place_of(sign_in.address))
                ends.append(sign_in.until)
        return max(1, len(found)), min(ends, default=None)

    def _leave(self, presence: _Presence, client: str) -> None:
        host = presence.links.pop(client, None)
        if host is not None:
            presence.known = None
            presence.addresses[host] -= 1
            if not presence.addresses[host]:
                del presence.addresses[host]

    def _drop_empty(self, principal: str, presence: _Presence) -> None:
        if not presence.links and not presence.sign_ins:
            self._of.pop(principal, None)
