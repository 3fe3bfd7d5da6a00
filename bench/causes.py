"""What ends a session, cause by cause, as an administrator, a directory, a signal or the clock brings it about."""

import datetime as dt
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property

from bench.scim import Directory
from bench.seats import MOVED, Seat, Site
from bench.signalling import TokenIssuer, Transmitter

SHORTEST = 60  # seconds that a pushed fact counts for at least
RISK = {"score": 90, "seconds": 600, "reason": "the benchmark"}
MANAGER = "manager"


@dataclass(frozen=True)
class Cause:
    """`ready` makes the seat's session possible, `act` ends it now."""

    ready: Callable[[Seat], object]
    act: Callable[[Seat], object]


@dataclass(frozen=True)
class TimedCause:
    """`ready` prepares; `arm` makes the session possible for so many seconds more and returns when it ends by itself (Unix time). `lead` is
    what arming many seats takes, and more."""

    ready: Callable[[Seat], object]
    arm: Callable[[Seat, int], int]
    lead: int


class Causes:
    def __init__(self, site: Site) -> None:
        self._site = site
        self._call = site.deployment.call

    def all(self) -> Mapping[str, Cause | TimedCause]:
        call = self._call
        return {
            "user disabled by SCIM": Cause(self._activate, lambda seat: self._directory.set_active(seat.scim_id, active=False)),
            "user disabled": Cause(Seat.enable, lambda seat: call("POST", f"/users/{seat.name}/disable")),
            "group removed": Cause(lambda seat: call("PUT", _member(seat)), lambda seat: call("DELETE", _member(seat))),
            "rule removed": Cause(Seat.put_rule, lambda seat: call("DELETE", f"/rules/{seat.name}")),
            "time window over": TimedCause(Seat.put_rule, self._put_window, 3),
            "segment changed": Cause(
                lambda seat: self._site.deployment.apply(seat.segments()),
                lambda seat: self._site.deployment.apply(seat.segments(moved=MOVED)),
            ),
            "connector deleted": Cause(Seat.new_connector, lambda seat: call("POST", f"/agents/{seat.connector}/revoke")),
            "approval expired": TimedCause(self._require_approval, self._approve, 4),
            "posture failed": Cause(self._comply, lambda seat: self._say_compliant(seat, value=False)),
            "posture stale": TimedCause(self._comply, lambda seat, left: self._say_compliant(seat, value=True, left=left), 3),
            "risk raised": Cause(self._calm, lambda seat: call("PUT", f"/users/{seat.name}/risk", RISK)),
            "CAEP session-revoked": Cause(self._sign_in, lambda seat: self._transmitter.say("session-revoked", seat.name)),
            "token expired": TimedCause(self._admit_program, self._vouch, 8),
            "kill switch": Cause(self._switch_on, self._switch_off),
        }

    # ------------------------------------------------------------ who else is needed, once one is

    @cached_property
    def _directory(self) -> Directory:
        made = self._call("POST", "/directories", {"name": "corp", "issuer": "https://login.example"})
        return Directory(self._site.deployment.address, made["token"])

    @cached_property
    def _transmitter(self) -> Transmitter:
        return Transmitter(self._site.deployment)

    @cached_property
    def _issuer(self) -> TokenIssuer:
        return TokenIssuer(self._site.deployment, [seat.program for seat in self._site.seats])

    @cached_property
    def _manager(self) -> str:
        """Their token."""
        self._site.deployment.add_user(MANAGER)
        self._site.deployment.apply(f"kind: group\nname: {MANAGER}\nusers: [{MANAGER}]\n")
        return self._site.deployment.token_of(MANAGER)

    # ------------------------------------------------------------

    def _activate(self, seat: Seat) -> None:
        """Somebody whom a directory made, active again, on a device of theirs."""
        if not seat.scim_id:
            name = f"provisioned-{seat.number}"
            seat.scim_id = self._directory.add_user(name)
            self._call("PUT", f"/groups/{seat.name}/members/{name}")
            seat.person = name
        self._directory.set_active(seat.scim_id, active=True)
        seat.new_client()

    def _put_window(self, seat: Seat, left: int) -> int:
        """The window's end is written down beforehand; what counts is the time from that very second on."""
        moment = int(time.time()) + left
        seat.put_rule(when={"before": dt.datetime.fromtimestamp(moment, dt.UTC).isoformat().replace("+00:00", "Z")})
        return moment

    def _require_approval(self, seat: Seat) -> None:
        _ = self._manager  # their group is there before a rule names it
        seat.put_rule(approval={"approvers": [MANAGER]})

    def _approve(self, seat: Seat, left: int) -> int:
        moment = 0
        for protocol, port in zip(("tcp", "udp"), seat.ports, strict=True):
            fields = {"host": self._site.host, "port": port, "protocol": protocol}
            made = self._site.agents.ask("request", seat.name, **fields)
            answer = self._call("POST", f"/requests/{made['id']}/approve", {"seconds": left}, token=self._manager)
            moment = max(moment, int(answer["until"]))
        return moment

    def _comply(self, seat: Seat) -> None:
        """Device management says that the device is fine."""
        seat.put_rule(when={"posture": {"mdm/compliant": "true"}})
        self._say_compliant(seat, value=True)

    def _say_compliant(self, seat: Seat, *, value: bool, left: int = 3600) -> int:
        """It counts for so many seconds more."""
        observed = int(time.time()) + min(left - SHORTEST, 0)
        lasts = max(left, SHORTEST)
        fact = {"name": "compliant", "value": value, "observed_at": observed, "seconds": lasts}
        self._call("PUT", f"/agents/{seat.client}/facts/mdm", {"facts": [fact]})
        return observed + lasts

    def _calm(self, seat: Seat) -> None:
        seat.put_rule(when={"risk": {"user": 50}})
        self._call("DELETE", f"/users/{seat.name}/risk")

    def _sign_in(self, seat: Seat) -> None:
        time.sleep(1 - time.time() % 1)  # sign-ins up to the second of the last event do not count
        seat.new_client(user=seat.name, password=self._site.deployment.password_of(seat.name))

    def _admit_program(self, seat: Seat) -> None:
        _ = self._issuer  # its workloads are known before a rule names one
        seat.put_rule(who={"groups": [seat.name], "workloads": [seat.program]})

    def _vouch(self, seat: Seat, left: int) -> int:
        """A program with a token that vouches for it for so many seconds more."""
        token, until = self._issuer.token(seat.program, left)
        seat.person = seat.program
        seat.new_client(token=token)
        return until

    def _switch_on(self, seat: Seat) -> None:
        for switch in self._call("GET", "/kill-switches"):
            if switch["target"] == seat.name:
                self._call("DELETE", f"/kill-switches/{switch['id']}")

    def _switch_off(self, seat: Seat) -> None:
        self._call("POST", "/kill-switches", {"scope": "user", "target": seat.name, "reason": "the benchmark"})


def _member(seat: Seat) -> str:
    return f"/groups/{seat.name}/members/{seat.name}"
