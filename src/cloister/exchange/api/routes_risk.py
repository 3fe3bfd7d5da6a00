"""Risk scores of users and devices."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller
from cloister.exchange.api.schemas import Empty
from cloister.exchange.api.schemas_evidence import RiskAnswer, RiskOverride, RiskPart, RiskSet
from cloister.exchange.errors import Refusal
from cloister.exchange.signals.risk import Kind
from cloister.identity.signals.risk import Contribution
from cloister.model.reasons import Code
from cloister.store.types import Actor

CallerIs = Annotated[Caller, Depends(caller)]
Source = Annotated[str | None, Query(max_length=63, description="One source alone; `override` for an administrator's.")]


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "risk")
    _add_kind(routes, parts, "user")
    _add_kind(routes, parts, "device")
    return routes.router


def _add_kind(routes: Routes, parts: Parts, kind: Kind) -> None:
    async def read_risk(name: str) -> RiskAnswer:
        """The score now, and what it is made of."""
        return _answer(parts, kind, name)

    async def set_risk(name: str, form: RiskSet, who: CallerIs) -> RiskAnswer:
        """Override the score for a while, or say what another source says. In force when this returns."""
        await _set(parts, who.actor, kind, name, form)
        return _answer(parts, kind, name)

    async def clear_risk(name: str, who: CallerIs, source: Source = None) -> Empty:
        """Forget what one source says, or everything that counts towards the score."""
        await parts.signals.risk.clear(who.actor, kind, name, source)
        return Empty()

    for endpoint, verb in ((read_risk, "read"), (set_risk, "set"), (clear_risk, "clear")):
        endpoint.__name__ = f"{verb}_{kind}_risk"
    path = f"/api/v1/{kind}s/{{name}}/risk"
    routes.add("GET", path, guard="auditor")(read_risk)
    routes.add("PUT", path, guard="admin", audit="risk.set")(set_risk)
    routes.add("DELETE", path, guard="admin", audit="risk.clear")(clear_risk)


async def _set(parts: Parts, actor: Actor, kind: Kind, name: str, form: RiskSet) -> None:
    scores = parts.signals.risk
    if form.source is None:
        if form.seconds is None or not form.reason.isprintable() or not form.reason.strip():
            raise Refusal(Code.ARGUMENT_INVALID, "an override has `seconds` and a `reason` of one line")
        await scores.override(actor, kind, name, form.score, form.seconds, form.reason.strip())
        return
    now = int(parts.clock())
    ends = None if form.seconds is None else now + form.seconds
    await scores.contribute(actor, kind, name, form.source, Contribution(form.score, now, form.decay, form.half_life, ends))


def _answer(parts: Parts, kind: Kind, name: str) -> RiskAnswer:
    standing = parts.signals.risk.show(kind, name)
    override = standing.override
    return RiskAnswer(
        score=standing.score,
        changes_at=standing.changes_at,
        override=None if override is None else RiskOverride(score=override.score, reason=standing.reason, ends=override.ends),
        parts=[
            RiskPart(
                source=part.source,
                score=part.contribution.score,
                left=round(part.left, 1),
                at=part.contribution.at,
                decay=part.contribution.decay,
                half_life=part.contribution.half_life,
                ends=part.contribution.ends,
            )
            for part in standing.parts
        ],
    )
