"""One row put through the world: its steps are done in order, then what must be seen is looked at."""

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta

from exam.flows import ANSWER_WAIT, REFUSAL_WAIT, Flow
from exam.rows import Row
from exam.situation import Asker, Expected, Level, NotUnderstood, Party, Plan, plan
from exam.world import LEVELS, Unfit, World

RECORD_WAIT = 5.0


@dataclass(slots=True)
class Verdict:
    """`passed` is None for a row that does not apply. `why` says what was not as it must be, `seen` what was."""

    id: str
    scenario: str
    passed: bool | None
    why: str = ""
    seen: list[str] = field(default_factory=list)
    notes: tuple[str, ...] = ()
    seconds: float = 0.0


def examine(world: World, row: Row) -> Verdict:
    if not row.applies:
        return Verdict(row.id, row.scenario, None, row.why_not or "marked as not applying, without a reason")
    started = time.monotonic()
    try:
        todo = plan(row)
    except NotUnderstood as error:
        return Verdict(row.id, row.scenario, passed=False, why=f"not understood: {error}")
    verdict = Verdict(row.id, row.scenario, passed=True, notes=todo.notes)
    try:
        _Attempt(world, todo, verdict).run()
    except Exception as error:  # noqa: BLE001  whatever goes wrong in a row is that row's: the others are still examined
        verdict.why = f"{type(error).__name__.lower()}: {error}"
    if left := world.put_back():
        verdict.why = verdict.why or f"not put back: {'; '.join(left)}"
    verdict.passed = not verdict.why
    verdict.seconds = round(time.monotonic() - started, 3)
    return verdict


class _Attempt:
    def __init__(self, world: World, todo: Plan, verdict: Verdict) -> None:
        self._world = world
        self._plan = todo
        self._verdict = verdict
        self._resource = todo.resource, todo.resource_place

    def run(self) -> None:
        self._since = datetime.now(UTC) - timedelta(seconds=1)
        for step in self._plan.steps:
            self._do(step.deed, step.party)
        for expected in self._plan.expected:
            if why := self._check(expected):
                self._verdict.why = f"{expected.party}: expected {expected.outcome}: {why}"
                return

    def _do(self, deed: str, party: Party) -> None:
        world, asker = self._world, self._plan.askers[party]
        match deed:
            case "hold":
                world.hold(asker, *self._resource, self._plan.held(party))
            case "overreach":
                world.overreach(asker, self._plan.forbidden_place)
            case "be_refused":
                if why := self._opens(party, full=False):
                    raise Unfit(why)
            case "resource_loses_compliance" | "resource_fails":
                getattr(world, deed)(*self._resource)
            case "grant":
                world.grant(asker, *self._resource)
            case "sign_in_badly":
                world.sign_in_badly(asker, world.old_password(asker) if self._reported else "")
            case "ask_step_up":
                if world.open(asker, *self._resource, "full", REFUSAL_WAIT):
                    raise Unfit("the sensitive action is open without a stronger sign-in")
            case _:
                getattr(world, deed)(asker)

    @property
    def _reported(self) -> bool:
        return any(step.deed == "report_theft" for step in self._plan.steps)

    def _check(self, expected: Expected) -> str:
        checks: dict[str, Callable[[Party], str]] = {
            "allow": self._allow,
            "limit": self._limit,
            "deny": self._deny,
            "deny_or_limit": self._deny_or_limit,
            "keep": self._keep,
            "terminate": self._terminate,
            "terminate_all": self._terminate_all,
            "record": self._record,
        }
        return checks[expected.outcome](expected.party)

    # ------------------------------------------------------------ outcomes; each returns what was wrong, or nothing

    def _allow(self, party: Party) -> str:
        """The profile's full rights: everything up to its best, and no more than that."""
        best = self._plan.best(party)
        if best is None:
            return "the profile has no rights here"
        rights = {"full": best == "full", "limited": True}
        return self._opens(party, **rights)

    def _limit(self, party: Party) -> str:
        held_full, held_limited = self._held(party, "full"), self._held(party, "limited")
        if held_full is not None and held_full.end() is None:
            return "the open session still has its full rights"
        if held_limited is not None and not held_limited.goes_on():
            return "the open session lost the limited rights as well"
        return self._opens(party, full=False, limited=True)

    def _deny(self, party: Party) -> str:
        if any(self._held(party, level) for level in LEVELS) and (why := self._ends(party)):
            return why
        return self._opens(party, full=False, limited=False)

    def _deny_or_limit(self, party: Party) -> str:
        held_full = self._held(party, "full")
        if held_full is not None and held_full.end() is None:
            return "the open session still has its full rights"
        return self._opens(party, full=False)

    def _keep(self, party: Party) -> str:
        if not any(self._held(party, level) for level in LEVELS):
            return "there was no open session"
        for level in LEVELS:
            flow = self._held(party, level)
            if flow is not None and not flow.goes_on():
                return f"the open session's {level} flow ended"
        stepped_up = any(step.deed == "step_up" for step in self._plan.steps)
        if stepped_up and self._world.open(self._plan.askers[party], *self._resource, "full") is None:
            return "the sensitive action is still refused"
        self._verdict.seen.append(f"{party}: the open flows go on")
        return ""

    def _terminate(self, party: Party) -> str:
        return self._ends(party) or self._opens(party, full=False, limited=False)

    def _terminate_all(self, party: Party) -> str:
        if not self._world.flows:
            return "there was no open session"
        for other in self._plan.askers:
            if any(self._held(other, level) for level in LEVELS) and (why := self._ends(other)):
                return why
        left = self._world.sessions_of(self._plan.askers[party].person)
        return f"{left} sessions of the identity are left" if left else ""

    def _record(self, party: Party) -> str:
        asker = self._plan.askers[party]
        flow = self._open_in_time(asker, "full")
        if flow is None:
            return "the request did not succeed"
        flow.close()
        segment = self._world.segment(*self._resource, "full")["name"]
        until = time.monotonic() + RECORD_WAIT
        while time.monotonic() < until:
            kinds = {entry["kind"]: entry for entry in self._world.records(asker, self._since, segment=segment)}
            if "decision" not in kinds and self._world.records(asker, None, segment=segment, kind="decision"):
                kinds["decision"] = {}  # of a session that stood before
            if {"decision", "open", "close"} <= kinds.keys():
                lacking = [part for part in ("principal_name", "segment_name", "at", "code") if not kinds["close"].get(part)]
                named = kinds["close"].get("principal_name") == asker.person
                self._verdict.seen.append(f"{party}: {sorted(kinds)} recorded for {kinds['close'].get('principal_name')}")
                return f"the record lacks {lacking}" if lacking or not named else ""
            time.sleep(0.05)
        return f"recorded: {sorted(kinds)}"

    # ------------------------------------------------------------

    def _open_now(self, asker: Asker, level: Level) -> Flow | None:
        return self._world.open(asker, *self._resource, level, REFUSAL_WAIT)

    def _open_in_time(self, asker: Asker, level: Level) -> Flow | None:
        """What was given reaches the client over its link: until then it knows of nothing there."""
        until = time.monotonic() + ANSWER_WAIT
        while True:
            flow = self._world.open(asker, *self._resource, level)
            if flow is not None or time.monotonic() >= until:
                return flow
            time.sleep(0.02)

    def _held(self, party: Party, level: Level) -> Flow | None:
        return self._world.flows.get((self._plan.askers[party], level))

    def _ends(self, party: Party) -> str:
        held = [(level, flow) for level in LEVELS if (flow := self._held(party, level))]
        if not held:
            return "there was no open session"
        for level, flow in held:
            took = flow.end()
            if took is None:
                return f"the {level} flow of the open session goes on"
            self._verdict.seen.append(f"{party}: the {level} flow ended")
        return ""

    def _opens(self, party: Party, **wanted: bool) -> str:
        """Try the levels; what must not open must leave no trace at the resource either."""
        for level in LEVELS:
            if level not in wanted:
                continue
            service = self._world.service(*self._resource, level)
            before = service.settled()
            open_it = self._open_in_time if wanted[level] else self._open_now
            flow = open_it(self._plan.askers[party], level)
            self._verdict.seen.append(f"{party}: {level} {'opened' if flow else 'refused'}")
            if flow is not None:
                flow.close()
            if (flow is not None) != wanted[level]:
                return f"{level} {'opened' if flow else 'was refused'}"
            if flow is None and service.traces != before:
                return f"{level} was refused, but the resource was reached: {before} -> {service.traces}"
        return ""
