"""What a question reads, as a value: questions with equal inputs have equal answers, so Cedar is asked once. Pure.

Only what the rules in question read is in it, in the form in which they read it: of the sign-in's age not the age but whether it is small enough, and of
a score likewise. A raw expression may read anything, so a question with one has no such value and is always asked.
"""

from collections.abc import Hashable, Iterable

from cloister.model.documents import Conditions, RiskBounds, Rule
from cloister.model.facts import DeviceFacts, Facts, Risk, SignIn
from cloister.model.ids import SegmentId
from cloister.policy.cedar import CLOCK_LEEWAY
from cloister.policy.clock import seconds_of

MINUTE = 60  # windows open and close with minutes


def inputs_of(facts: Facts, segment: SegmentId, rules: Iterable[Rule], now: int) -> list[Hashable] | None:
    """Besides the rules' ids, which are the caller's to add. None if it cannot be told."""
    inputs: list[Hashable] = [segment, facts.principal, facts.actor]
    sign_in = facts.sign_in
    if sign_in is not None and sign_in.at > now + CLOCK_LEEWAY:
        sign_in = None
    for rule in rules:
        if rule.approval is not None:
            inputs.append(frozenset(facts.approvals))
        conditions = rule.when
        if conditions is None:
            continue
        if conditions.expression is not None:
            return None
        _read(conditions, facts, sign_in, now, inputs)
    return inputs


def _read(conditions: Conditions, facts: Facts, sign_in: SignIn | None, now: int, inputs: list[Hashable]) -> None:
    if conditions.strength is not None or conditions.issuers:
        inputs.append(None if sign_in is None else (sign_in.strength, sign_in.issuer))
    if conditions.signed_in_within is not None:
        inputs.append(sign_in is not None and now - sign_in.at <= conditions.signed_in_within)
    if conditions.hours is not None:
        inputs.append(now // MINUTE)
    if conditions.after is not None or conditions.before is not None:
        inputs.append(tuple(at is not None and now >= seconds_of(at) for at in (conditions.after, conditions.before)))
    if conditions.networks:
        inputs.append(facts.networks)
    if conditions.risk is not None:
        inputs.append(_is_below(facts.risk, conditions.risk))
    if conditions.one_place:
        inputs.append(facts.places <= 1)
    _read_device(conditions, facts.device, inputs)


def _is_below(risk: Risk, bounds: RiskBounds) -> tuple[bool, bool]:
    """A score that fades is another one every few seconds, and seldom on the other side of its bound."""
    return bounds.user is None or risk.user < bounds.user, bounds.device is None or risk.device < bounds.device


def _read_device(conditions: Conditions, device: DeviceFacts | None, inputs: list[Hashable]) -> None:
    if conditions.device:
        inputs.append(None if device is None else tuple(device.labels.get(key) for key in conditions.device))
    if conditions.posture:
        inputs.append(None if device is None else tuple(device.posture.get(key) for key in conditions.posture))
    if conditions.profiles:
        inputs.append(None if device is None else device.profiles)
