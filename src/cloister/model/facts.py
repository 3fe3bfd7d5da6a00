"""What a decision reads besides documents: who asks, from which device, how they signed in, and what has been switched off.

Facts are values at one instant; whoever keeps them (the exchange) hands them in. Groups are the effective ones: see `Membership`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

from cloister.model.documents import Group, Protocol, Strength
from cloister.model.hosts import Host
from cloister.model.ids import DeviceId, PrincipalId, RuleId, SegmentId

STRENGTHS: Mapping[Strength, int] = {"password": 1, "mfa": 2, "hardware": 3}


@dataclass(frozen=True, slots=True)
class Principal:
    """A user or workload with the names of all groups it is in, directly or through other groups."""

    kind: Literal["user", "workload"]
    id: PrincipalId
    name: str
    groups: frozenset[str] = frozenset()
    disabled: bool = False


@dataclass(frozen=True, slots=True)
class DeviceFacts:
    """`posture` holds readable and fresh facts only: what is absent, unreadable or stale counts as failed. `profiles` are the posture
    profiles that hold now, `shortfalls` says of the others what they lack.
    """

    id: DeviceId
    name: str
    labels: Mapping[str, str] = field(default_factory=dict)
    posture: Mapping[str, str] = field(default_factory=dict)
    profiles: frozenset[str] = frozenset()
    revoked: bool = False
    shortfalls: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class SignIn:
    """When and how the principal last proved who they are. `issuer` is the name of the identity provider, `local` for accounts of this exchange."""

    at: int  # Unix seconds
    strength: Strength = "password"
    issuer: str = "local"


MAX_RISK: Final = 100


@dataclass(frozen=True, slots=True)
class Risk:
    """Scores from 0 to 100 as they are now, decay and overrides counted in."""

    user: int = 0
    device: int = 0


NO_RISK = Risk()


@dataclass(frozen=True, slots=True)
class Switches:
    """Kill switches: what is off whatever the rules say. Ids, so that a thing made again under an old name is not concerned."""

    everything: bool = False
    principals: frozenset[str] = frozenset()
    devices: frozenset[str] = frozenset()
    segments: frozenset[str] = frozenset()


NO_SWITCHES = Switches()


Aging = Literal["posture", "risk", "approvals", "places"]
"""Facts that change by the clock alone."""


@dataclass(frozen=True, slots=True)
class Facts:
    """`actor` is the program that acts for the principal, None if the principal acts in person. `until` is when each aging fact is next different (Unix
    seconds); what is not in it stays until somebody changes it. `approvals` are the rules that are approved for this principal now, each for one segment.
    `signed_out`: the sign-in was ended from outside, and nothing is allowed before the next one.
    """

    principal: Principal
    device: DeviceFacts | None = None
    sign_in: SignIn | None = None
    switches: Switches = NO_SWITCHES
    actor: Principal | None = None
    networks: frozenset[str] = frozenset()
    places: int = 1
    risk: Risk = NO_RISK
    approvals: frozenset[tuple[RuleId, SegmentId]] = frozenset()
    signed_out: bool = False
    until: Mapping[Aging, int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Destination:
    """What a flow asks for; `host` is canonical (`model.hosts.parse_host`)."""

    host: Host
    port: int
    protocol: Protocol = "tcp"


Target = SegmentId | Destination


class Membership:
    """Effective groups by member, over one set of group documents; circles end by themselves."""

    def __init__(self, groups: Iterable[Group] = ()) -> None:
        found: dict[tuple[str, str], set[str]] = {}
        for group in groups:
            for kind, members in (("user", group.users), ("workload", group.workloads), ("group", group.groups)):
                for member in members:
                    found.setdefault((kind, member), set()).add(group.name)
        self._of: Mapping[tuple[str, str], frozenset[str]] = {key: frozenset(names) for key, names in found.items()}

    @classmethod
    def of(cls, groups: Mapping[tuple[str, str], frozenset[str]]) -> "Membership":
        """From the groups that list each member."""
        made = cls()
        made._of = groups
        return made

    @property
    def lists(self) -> Mapping[tuple[str, str], frozenset[str]]:
        """The names of the groups that list each member."""
        return self._of

    def direct(self, kind: str, name: str) -> frozenset[str]:
        """The groups that list this member."""
        return self._of.get((kind, name), NO_GROUPS)

    def groups_of(self, kind: Literal["user", "workload"], name: str) -> frozenset[str]:
        found: set[str] = set()
        keys: list[tuple[str, str]] = [(kind, name)]
        while keys:
            for group in self._of.get(keys.pop(), ()):
                if group not in found:
                    found.add(group)
                    keys.append(("group", group))
        return frozenset(found)


NO_GROUPS: frozenset[str] = frozenset()
