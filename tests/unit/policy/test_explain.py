from dataclasses import replace

import pytest
from hypothesis import given, settings
from tests.unit.policy.test_decide import ANNA, ERROR, SEGMENT, policy_of, rule, targets
from tests.unit.strategies import NOW, facts, worlds

from cloister.model.documents import Document
from cloister.model.facts import Destination, DeviceFacts, Facts, SignIn
from cloister.model.hosts import Host
from cloister.model.ids import DeviceId, SegmentId
from cloister.model.reasons import Code
from cloister.policy.compile import compile_policy
from cloister.policy.decide import decide
from cloister.policy.explain import explain

WEAK = Facts(ANNA, DeviceFacts(DeviceId("d" * 16), "laptop", {"site": "home"}, {"disk": "plain"}), SignIn(NOW - 7200))


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        (rule("permit"), "all is well"),
        (rule("permit") + rule("forbid", name="f"), "a rule forbids this"),
        (rule("permit", "{strength: mfa}"), "a stronger or more recent sign-in is needed: the sign-in is not strong enough"),
        (rule("permit", "{signed_in_within: 1h}"), "a stronger or more recent sign-in is needed: the sign-in is too old"),
        (
            rule("permit", "{device: {site: lab}}"),
            "a condition of the rule is not met now: the device is not one of the permitted ones",
        ),
        (
            rule("permit", "{posture: {disk: encrypted, os: linux}}"),
            "a condition of the rule is not met now: the device does not fulfil `disk, os`",
        ),
        (rule("permit", "'1 == 2'"), "a condition of the rule is not met now: a condition of the rule does not hold"),
        (
            rule("permit", "{device: {site: lab}, after: '2100-01-01T00:00:00Z'}")
            + rule("permit", "{posture: {disk: on}}", name="near"),
            "a condition of the rule is not met now: the device does not fulfil `disk`",
        ),
        (rule("permit") + rule("forbid", ERROR, name="f"), "a rule could not be evaluated, so access is denied"),
    ],
)
def test_a_person_is_told_in_one_sentence(rules: str, message: str) -> None:
    explained = explain(policy_of(rules), WEAK, SEGMENT, NOW)
    assert explained.message == message
    assert explained.remedy or explained.decision.allowed


def test_conditions_are_parsed_for_the_first_explanation_and_for_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks again and again why they are refused keeps nobody else from being answered."""
    policy = policy_of(rule("permit", "{strength: mfa}") + rule("permit", "{device: {site: lab}}", name="near"))
    first = explain(policy, WEAK, SEGMENT, NOW)
    monkeypatch.setattr("cloister.policy.explain.PolicySet", lambda *_: pytest.fail("parsed again"))
    assert explain(policy, WEAK, SEGMENT, NOW) == first
    assert explain(policy, replace(WEAK, sign_in=SignIn(NOW, "mfa")), SEGMENT, NOW).decision.allowed


def test_what_is_kept_parsed_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("cloister.policy.explain.MAX_ALONE", 1)
    policy = policy_of(rule("permit", "{strength: mfa}") + rule("permit", "{device: {site: lab}}", name="near"))
    explain(policy, WEAK, SEGMENT, NOW)
    assert len(policy.alone) == 1


def test_an_administrator_sees_each_rule_and_what_failed() -> None:
    policy = policy_of(rule("permit", "{strength: mfa, device: {site: home}}") + rule("forbid", ERROR, name="broken"))
    explained = explain(policy, WEAK, Destination(Host("jupyter.lab"), 8888), NOW)
    permit, forbid = explained.rules
    assert [(condition.field, condition.outcome) for condition in permit.conditions] == [("strength", "failed"), ("device", "held")]
    assert not permit.applies
    (broken,) = forbid.conditions
    assert (forbid.name, broken.outcome) == ("broken", "error")
    assert "overflow" in broken.detail
    assert explained.segment == "jupyter"


def test_case_68_the_person_learns_nothing_of_what_is_hidden_and_the_administrator_all() -> None:
    policy = policy_of(rule("permit", who="{users: [ben]}") + rule("forbid", name="f"))
    hidden, missing = (explain(policy, WEAK, Destination(Host(host), 8888), NOW) for host in ("jupyter.lab", "no.such"))
    assert (hidden.decision, hidden.message, hidden.remedy) == (missing.decision, missing.message, missing.remedy)
    assert (hidden.cause, hidden.segment, missing.cause, missing.segment) == (Code.FORBIDDEN_BY_RULE, "jupyter", Code.NOT_FOUND, "")
    by_default = explain(policy, replace(WEAK, principal=replace(ANNA, groups=frozenset())), SEGMENT, NOW)
    assert by_default.cause == Code.DENIED_BY_DEFAULT


@settings(max_examples=150, deadline=None)
@given(worlds(), facts, targets)
def test_an_explanation_fits_its_decision(documents: dict[str, Document], asked: Facts, target: SegmentId) -> None:
    policy = compile_policy(documents)
    explained = explain(policy, asked, target, NOW)
    assert explained.decision == decide(policy, asked, target, NOW)
    applying = {outcome.effect for outcome in explained.rules if outcome.applies}
    erring = any(condition.outcome == "error" for outcome in explained.rules for condition in outcome.conditions)
    if explained.decision.allowed:
        assert "permit" in applying
        assert "forbid" not in applying
    if explained.decision.code == Code.EVALUATION_ERROR:
        assert erring
    if explained.decision.code == Code.FORBIDDEN_BY_RULE:
        assert "forbid" in applying
    if explained.decision.code == Code.CONDITION_FAILED:
        assert "permit" not in applying
