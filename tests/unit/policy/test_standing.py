"""What a rule may ask besides who and what: where from, how trusted, with whose approval, on whose behalf."""

from dataclasses import replace

import pytest
from tests.unit.policy.test_decide import ANNA, LAPTOP, OTHER, SEGMENT, policy_of, rule, verdict
from tests.unit.strategies import NOW

from cloister.model.facts import Facts, Principal, Risk, SignIn
from cloister.model.ids import RuleId, WorkloadId
from cloister.model.reasons import Code
from cloister.policy.decide import decide
from cloister.policy.explain import explain

ALLOW, DENY = ("allow", Code.OK), ("deny", Code.CONDITION_FAILED)
FIRST_RULE = RuleId(f"{1:016x}")
BOT = Principal("workload", WorkloadId("b" * 16), "bot", frozenset({"machines"}))
ME = Facts(ANNA, LAPTOP)


@pytest.mark.parametrize(
    ("when", "asked", "expected"),
    [
        ("{networks: [office, lab]}", replace(ME, networks=frozenset({"lab", "vpn"})), ALLOW),
        ("{networks: [office]}", replace(ME, networks=frozenset({"lab"})), DENY),
        ("{networks: [office]}", ME, DENY),
        ("{profiles: [a, b]}", Facts(ANNA, replace(LAPTOP, profiles=frozenset("abc"))), ALLOW),
        ("{profiles: [a, b]}", Facts(ANNA, replace(LAPTOP, profiles=frozenset("a"))), DENY),
        ("{profiles: [a]}", Facts(ANNA), DENY),
        ("{risk: {user: 50}}", replace(ME, risk=Risk(49, 100)), ALLOW),
        ("{risk: {user: 50}}", replace(ME, risk=Risk(50, 0)), DENY),
        ("{risk: {user: 50, device: 10}}", replace(ME, risk=Risk(0, 10)), DENY),
        ("{one_place: true}", ME, ALLOW),
        ("{one_place: true}", replace(ME, places=2), DENY),
        ("{issuers: [corp]}", replace(ME, sign_in=SignIn(NOW, issuer="corp")), ALLOW),
        ("{issuers: [corp]}", replace(ME, sign_in=SignIn(NOW)), DENY),
        ("{issuers: [corp]}", ME, DENY),
    ],
)
def test_a_condition_that_is_not_met_denies(when: str, asked: Facts, expected: tuple[str, Code]) -> None:
    assert verdict(policy_of(rule("permit", when)), asked) == expected


# ------------------------------------------------------------------ programs that act for people


@pytest.mark.parametrize(
    ("rules", "in_person", "by_bot"),
    [
        (rule("permit"), "allow", "deny"),
        (rule("permit", who="{any: true}"), "allow", "deny"),
        (rule("permit", who="{groups: [research], via: [bot]}"), "deny", "allow"),
        (rule("permit", who="{groups: [research], via: [other]}"), "deny", "deny"),
        (rule("permit", who="{workloads: [bot]}"), "deny", "deny"),
        (rule("permit", who="{any: true, via: [bot]}") + rule("forbid", name="f"), "deny", "deny"),
        (rule("permit", who="{any: true, via: [bot]}") + rule("forbid", who="{workloads: [bot]}", name="f"), "deny", "deny"),
        (rule("permit", who="{any: true, via: [bot]}") + rule("forbid", who="{groups: [machines]}", name="f"), "deny", "deny"),
        (rule("permit") + rule("forbid", who="{any: true, via: [bot]}", name="f"), "allow", "deny"),
    ],
)
def test_a_program_has_what_a_rule_gives_it_on_behalf_of_that_person_and_no_more(rules: str, in_person: str, by_bot: str) -> None:
    policy = policy_of(rules)
    assert decide(policy, ME, SEGMENT, NOW).verdict == in_person
    assert decide(policy, replace(ME, actor=BOT), SEGMENT, NOW).verdict == by_bot


def test_the_right_of_a_program_itself_is_not_the_right_to_act() -> None:
    policy = policy_of(rule("permit", who="{workloads: [bot]}"))
    assert verdict(policy, Facts(BOT)) == ALLOW
    assert policy.visible(BOT) == [SEGMENT]
    assert policy.visible(ANNA, BOT) == []


def test_a_disabled_program_acts_for_nobody() -> None:
    policy = policy_of(rule("permit", who="{any: true, via: [bot]}"))
    assert verdict(policy, replace(ME, actor=BOT)) == ALLOW
    assert verdict(policy, replace(ME, actor=replace(BOT, disabled=True))) == ("deny", Code.USER_DISABLED)
    assert policy.visible(ANNA, replace(BOT, disabled=True)) == []


# ------------------------------------------------------------------ approvals, limits

APPROVED = "approval: {approvers: [platform]}\n"


def approved(when: str = "", limits: str = "", name: str = "r") -> str:
    return rule("permit", when, name=name).replace("---\n", "") + APPROVED + limits + "---\n"


def test_what_only_an_approval_is_missing_for_can_be_asked_for() -> None:
    policy = policy_of(approved())
    assert verdict(policy, ME) == ("deny", Code.APPROVAL_REQUIRED)
    assert verdict(policy, replace(ME, approvals=frozenset({(FIRST_RULE, SEGMENT)}))) == ALLOW
    assert verdict(policy, replace(ME, approvals=frozenset({(RuleId("9" * 16), SEGMENT), (FIRST_RULE, OTHER)}))) == (
        "deny",
        Code.APPROVAL_REQUIRED,
    )
    assert decide(policy, ME, SEGMENT, NOW).may_follow


def test_an_approval_does_not_replace_another_condition() -> None:
    policy = policy_of(approved("{networks: [office]}"))
    assert verdict(policy, replace(ME, approvals=frozenset({(FIRST_RULE, SEGMENT)}))) == DENY
    assert verdict(policy, ME) == DENY
    explanation = explain(policy, replace(ME, networks=frozenset({"office"})), SEGMENT, NOW)
    assert explanation.decision.code is Code.APPROVAL_REQUIRED
    assert "approve" in explanation.message


def test_a_stronger_sign_in_is_asked_for_before_an_approval() -> None:
    policy = policy_of(approved("{strength: mfa}"))
    assert verdict(policy, ME) == ("step_up", Code.STEP_UP_REQUIRED)
    strong = replace(ME, sign_in=SignIn(NOW, "mfa"))
    assert verdict(policy, strong) == ("deny", Code.APPROVAL_REQUIRED)
    assert verdict(policy, replace(strong, approvals=frozenset({(FIRST_RULE, SEGMENT)}))) == ALLOW


@pytest.mark.parametrize(
    ("limits", "expected"),
    [
        (["limits: {session: 1h}\n"], (3600, None)),
        (["limits: {session: 1h}\n", "limits: {session: 2h, idle: 5m}\n"], (7200, None)),
        (["limits: {session: 1h}\n", ""], (None, None)),
        (["limits: {idle: 5m}\n", "limits: {idle: 10m}\n"], (None, 600)),
    ],
)
def test_the_most_generous_permit_limits_the_session(limits: list[str], expected: tuple[int | None, int | None]) -> None:
    rules = "".join(rule("permit", name=f"r{at}").replace("---\n", "") + limit + "---\n" for at, limit in enumerate(limits))
    decision = decide(policy_of(rules), ME, SEGMENT, NOW)
    assert (decision.session_limit, decision.idle_limit) == expected


def test_a_fact_that_ages_bounds_the_decision_only_where_a_rule_reads_it() -> None:
    aging = replace(ME, device=replace(LAPTOP, profiles=frozenset({"a"})), until={"posture": NOW + 40, "risk": NOW + 20})
    assert decide(policy_of(rule("permit", "{profiles: [a]}")), aging, SEGMENT, NOW).expires_at == NOW + 40
    assert decide(policy_of(rule("permit", "{risk: {user: 50}}")), aging, SEGMENT, NOW).expires_at == NOW + 20
    assert decide(policy_of(rule("permit")), aging, SEGMENT, NOW).expires_at is None
