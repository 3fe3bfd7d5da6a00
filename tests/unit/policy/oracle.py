"""An independent binding of Cedar, asked in Cedar's JSON about all rules and all segments: what the core says of typed facts and the rules that can
matter must be the same."""

from collections.abc import Collection
from typing import Any

import cedarpy

from cloister import _core
from cloister.model.documents import Segment
from cloister.model.facts import STRENGTHS, DeviceFacts, Facts, Principal, SignIn
from cloister.policy.cedar import CLOCK_LEEWAY, NEVER
from cloister.policy.clock import day_and_minute
from cloister.policy.compile import CompiledPolicy

_CLOCK = {"type": "Clock", "id": ""}


def cedarpy_says(policy: CompiledPolicy, facts: Facts, segment: str, now: int) -> tuple[bool, list[str], bool]:
    """Whether it is allowed, by which rules, and whether any rule erred: an error in any of them denies. The schema is held against everything."""
    text = "\n".join(rule.text for rule in policy.rules.values())
    request = request_of(facts, segment, now, policy.zones)
    entities = [*(segment_entity(id, document) for id, document in policy.segments.items()), *request.pop("entities")]
    result = cedarpy.is_authorized(request, text, entities, _core.POLICY_SCHEMA)
    names = {f"policy{number}": id for number, id in enumerate(policy.rules)}
    failed = bool(result.diagnostics.errors)
    return result.allowed and not failed, sorted(names[reason] for reason in result.diagnostics.reasons), failed


def request_of(facts: Facts, segment: str, now: int, zones: Collection[str]) -> dict[str, Any]:
    """One request with the entities that are facts: principal, device, posture, the program that acts, clocks of `zones`."""
    principal, device, actor = facts.principal, facts.device, facts.actor
    weekday, minute = day_and_minute(now)
    return {
        "principal": f'{_type_of(principal)}::"{principal.id}"',
        "action": 'Action::"connect"',
        "resource": f'Segment::"{segment}"',
        "context": {
            "now": now,
            "weekday": weekday,
            "minute": minute,
            "sign_in": _sign_in(facts.sign_in, now),
            "device": {"__entity": {"type": "Device", "id": device.id if device else ""}},
            "clock": {"__entity": _CLOCK},
            "networks": sorted(facts.networks),
            "places": facts.places,
            "risk": {"user": facts.risk.user, "device": facts.risk.device},
            "approvals": sorted(rule for rule, approved in facts.approvals if approved == segment),
            "via": "" if actor is None else actor.name,
            **({} if actor is None else {"actor": {"__entity": {"type": "Workload", "id": actor.id}}}),
        },
        "entities": [
            _principal(principal),
            *_device(device),
            *([] if actor is None else [_principal(actor)]),
            *([_clock(zones, now)] if zones else []),
        ],
    }


def segment_entity(id: str, segment: Segment) -> dict[str, Any]:
    attributes = {"name": segment.name, "protocol": segment.protocol}
    return {"uid": {"type": "Segment", "id": id}, "attrs": attributes, "parents": [], "tags": dict(segment.labels)}


def _type_of(principal: Principal) -> str:
    return "User" if principal.kind == "user" else "Workload"


def _principal(principal: Principal) -> dict[str, Any]:
    parents = [{"type": "Group", "id": group} for group in sorted(principal.groups)]
    return {"uid": {"type": _type_of(principal), "id": principal.id}, "attrs": {"name": principal.name}, "parents": parents}


def _device(device: DeviceFacts | None) -> list[dict[str, Any]]:
    id = device.id if device else ""
    posture = {"type": "Posture", "id": id}
    profiles = sorted(device.profiles) if device else []
    attributes = {"name": device.name if device else "", "posture": {"__entity": posture}, "profiles": profiles}
    return [
        {"uid": {"type": "Device", "id": id}, "attrs": attributes, "parents": [], "tags": dict(device.labels) if device else {}},
        {"uid": posture, "attrs": {}, "parents": [], "tags": dict(device.posture) if device else {}},
    ]


def _sign_in(sign_in: SignIn | None, now: int) -> dict[str, Any]:
    """A sign-in in the future is one that did not happen."""
    if sign_in is None or sign_in.at > now + CLOCK_LEEWAY:
        return {"age": NEVER, "strength": 0, "issuer": ""}
    return {"age": max(0, now - sign_in.at), "strength": STRENGTHS[sign_in.strength], "issuer": sign_in.issuer}


def _clock(zones: Collection[str], now: int) -> dict[str, Any]:
    shown = {zone: day_and_minute(now, zone) for zone in sorted(zones)}
    return {
        "uid": _CLOCK,
        "attrs": {},
        "parents": [],
        "tags": {zone: {"weekday": weekday, "minute": minute} for zone, (weekday, minute) in shown.items()},
    }
