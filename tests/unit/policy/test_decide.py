import itertools
from collections.abc import Mapping
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy.oracle import cedarpy_says
from tests.unit.strategies import NOW, SEGMENTS, facts, id_of, worlds

from cloister.model.documents import Conditions, Document, Rule, Segment, What, Who
from cloister.model.facts import Destination, DeviceFacts, Facts, Principal, SignIn, Switches
from cloister.model.hosts import Host
from cloister.model.ids import DeviceId, RuleId, SegmentId, UserId, WorkloadId
from cloister.model.parse import parse_documents
from cloister.model.reasons import Code
from cloister.policy.cedar import question_of
from cloister.policy.clock import RAW_CLOCK_HORIZON
from cloister.policy.compile import CompiledPolicy, compile_policy
from cloister.policy.decide import closed_gate, decide, read_answer
from cloister.policy.explain import explain

SEGMENT = SegmentId("5e" * 8)
OTHER = SegmentId("0f" * 8)
ANNA = Principal("user", UserId("a" * 16), "anna", frozenset({"research"}))
LAPTOP = DeviceFacts(DeviceId("d" * 16), "laptop")


def policy_of(rules: str, generation: int = 1) -> CompiledPolicy:
    """Rules in YAML over two segments, `jupyter` and `postgres`."""
    segments = "{kind: segment, name: %s, hosts: [%s.lab], ports: [8888], groups: [g], labels: {team: research, owner: anna}}"
    text = f"{segments}\n---\n{segments}\n---\n{rules}" % ("jupyter", "jupyter", "postgres", "postgres")
    result = parse_documents(text)
    assert result.errors == ()
    ids = [SEGMENT, OTHER, *(f"{n:016x}" for n in range(1, 100))]
    return compile_policy(dict(zip(ids, result.documents, strict=False)), generation)


def rule(
    effect: str, when: str = "", who: str = "{groups: [research]}", what: str = "{segments: [jupyter]}", name: str = "r"
) -> str:
    return f"kind: rule\nname: {name}\neffect: {effect}\nwho: {who}\nwhat: {what}\n" + (f"when: {when}\n" if when else "") + "---\n"


def verdict(policy: CompiledPolicy, asked: Facts = Facts(ANNA), segment: SegmentId = SEGMENT, now: int = NOW) -> tuple[str, Code]:
    decision = decide(policy, asked, segment, now)
    return decision.verdict, decision.code


# ------------------------------------------------------------------ the golden table: rules that meet

NEVER = "'1 == 2'"
ERROR = "context.now + 9223372036854775807 > 0"
PERMIT, PERMIT_NEVER, PERMIT_ERROR = rule("permit"), rule("permit", NEVER), rule("permit", ERROR)
FORBID, FORBID_NEVER, FORBID_ERROR = rule("forbid"), rule("forbid", NEVER), rule("forbid", ERROR)
FORBID_ALL = rule("forbid", who="{any: true}", what="{any: true}")
FORBID_OTHERS = rule("forbid", who="{users: [eve]}")
FORBID_ELSEWHERE = rule("forbid", what="{segments: [postgres]}")
PERMIT_LABEL = rule("permit", who="{users: [anna]}", what="{labels: {team: research}}")
STEP_UP = rule("permit", "{strength: mfa}")

GOLDEN = [
    ((), ("deny", Code.NOT_FOUND)),
    ((PERMIT,), ("allow", Code.OK)),
    ((FORBID,), ("deny", Code.NOT_FOUND)),  # a forbid alone makes nothing visible
    ((PERMIT, FORBID), ("deny", Code.FORBIDDEN_BY_RULE)),
    ((PERMIT, PERMIT_LABEL, FORBID), ("deny", Code.FORBIDDEN_BY_RULE)),
    ((PERMIT, FORBID_ALL), ("deny", Code.FORBIDDEN_BY_RULE)),
    ((PERMIT, FORBID_NEVER), ("allow", Code.OK)),
    ((PERMIT, FORBID_OTHERS), ("allow", Code.OK)),
    ((PERMIT, FORBID_ELSEWHERE), ("allow", Code.OK)),
    ((PERMIT_NEVER,), ("deny", Code.CONDITION_FAILED)),
    ((PERMIT_NEVER, PERMIT), ("allow", Code.OK)),
    ((PERMIT_NEVER, PERMIT_LABEL), ("allow", Code.OK)),
    ((PERMIT_NEVER, FORBID), ("deny", Code.FORBIDDEN_BY_RULE)),
    ((PERMIT, FORBID_ERROR), ("deny", Code.EVALUATION_ERROR)),
    ((PERMIT, PERMIT_ERROR), ("deny", Code.EVALUATION_ERROR)),
    ((PERMIT_ERROR,), ("deny", Code.EVALUATION_ERROR)),
    ((PERMIT, FORBID, FORBID_ERROR), ("deny", Code.EVALUATION_ERROR)),
    ((STEP_UP,), ("step_up", Code.STEP_UP_REQUIRED)),
    ((STEP_UP, PERMIT), ("allow", Code.OK)),
    ((STEP_UP, FORBID), ("deny", Code.FORBIDDEN_BY_RULE)),
    ((STEP_UP, FORBID_ERROR), ("deny", Code.EVALUATION_ERROR)),
]


@pytest.mark.parametrize(("rules", "expected"), GOLDEN)
def test_case_79_rules_that_meet_in_every_order(rules: tuple[str, ...], expected: tuple[str, Code]) -> None:
    for order in itertools.permutations(rules):
        text = "".join(one.replace("name: r\n", f"name: r{at}\n") for at, one in enumerate(order))
        assert verdict(policy_of(text)) == expected


def test_case_78_an_empty_policy_denies_and_shows_nothing() -> None:
    empty = compile_policy({}, 3)
    decision = decide(empty, Facts(ANNA), SEGMENT, NOW)
    assert (decision.verdict, decision.code, decision.visible, decision.generation) == ("deny", Code.NOT_FOUND, False, 3)
    assert decide(empty, Facts(ANNA), Destination(Host("jupyter.lab"), 8888), NOW).verdict == "deny"
    assert empty.visible(ANNA) == []


def test_case_78_the_erring_rule_is_named() -> None:
    decision = decide(policy_of(rule("permit") + rule("forbid", ERROR, name="broken")), Facts(ANNA), SEGMENT, NOW)
    assert (decision.code, decision.rules) == (Code.EVALUATION_ERROR, (RuleId(f"{2:016x}"),))


def test_an_answer_with_an_error_is_no_permission_whatever_else_it_says() -> None:
    assert read_answer((True, ["p"], [])).allowed
    assert not read_answer((True, ["p"], [("f", "overflow")])).allowed
    assert read_answer((False, [], [("", "a question cannot be asked")])).failed


@pytest.mark.parametrize(
    "asked",
    [
        Facts(ANNA, places=1 << 63),
        Facts(ANNA, sign_in=SignIn(-(1 << 63))),
        Facts(replace(ANNA, name="\ud800")),
        Facts(replace(ANNA, kind="group")),  # type: ignore[arg-type]
        Facts(ANNA, networks=None),  # type: ignore[arg-type]
    ],
)
def test_case_84_what_cannot_be_asked_is_denied(asked: Facts) -> None:
    policy = policy_of(rule("permit", who="{any: true}"))
    assert verdict(policy, asked) == ("deny", Code.EVALUATION_ERROR)
    assert verdict(policy) == ("allow", Code.OK)


# ------------------------------------------------------------------ gates, visibility, destinations


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        (Facts(replace(ANNA, disabled=True)), Code.USER_DISABLED),
        (Facts(ANNA, replace(LAPTOP, revoked=True)), Code.DEVICE_REVOKED),
        (Facts(ANNA, switches=Switches(everything=True)), Code.KILL_SWITCH),
        (Facts(ANNA, switches=Switches(principals=frozenset({ANNA.id}))), Code.KILL_SWITCH),
        (Facts(ANNA, LAPTOP, switches=Switches(devices=frozenset({LAPTOP.id}))), Code.KILL_SWITCH),
    ],
)
def test_a_closed_gate_denies_alike_what_exists_and_what_does_not(asked: Facts, code: Code) -> None:
    policy = policy_of(rule("permit"))
    assert closed_gate(asked) == code
    answers = {decide(policy, asked, target, NOW) for target in (SEGMENT, SegmentId("9" * 16), Destination(Host("no.such"), 1))}
    assert {(answer.verdict, answer.code, answer.visible) for answer in answers} == {("deny", code, False)}
    assert len(answers) == 1
    assert verdict(policy) == ("allow", Code.OK)  # negative control


def test_gates_of_others_stay_out_of_the_way() -> None:
    others = Switches(principals=frozenset({"b" * 16}), devices=frozenset({"e" * 16}), segments=frozenset({OTHER}))
    assert verdict(policy_of(rule("permit")), Facts(ANNA, LAPTOP, switches=others)) == ("allow", Code.OK)


def test_case_68_a_switched_off_segment_is_told_to_those_who_may_know_it() -> None:
    off = Switches(segments=frozenset({SEGMENT}))
    policy = policy_of(rule("permit"))
    decision = decide(policy, Facts(ANNA, switches=off), SEGMENT, NOW)
    assert (decision.verdict, decision.code, decision.visible) == ("deny", Code.KILL_SWITCH, True)
    assert verdict(policy, Facts(replace(ANNA, groups=frozenset()), switches=off)) == ("deny", Code.NOT_FOUND)


def test_case_68_what_is_not_visible_answers_like_what_does_not_exist() -> None:
    policy = policy_of(rule("permit", who="{users: [ben]}") + rule("forbid", name="f"))
    hidden = decide(policy, Facts(ANNA), Destination(Host("jupyter.lab"), 8888), NOW)
    missing = decide(policy, Facts(ANNA), Destination(Host("nothing.lab"), 8888), NOW)
    assert hidden == missing
    assert hidden.segment is None


def test_visible_is_what_a_permit_names_even_if_its_conditions_fail() -> None:
    policy = policy_of(rule("permit", NEVER) + rule("forbid", name="f", what="{segments: [postgres]}"))
    assert policy.visible(ANNA) == [SEGMENT]
    assert policy.visible(replace(ANNA, disabled=True)) == []
    assert policy.visible(replace(ANNA, groups=frozenset())) == []


def test_two_ports_of_one_host_have_different_rules() -> None:
    text = "{kind: segment, name: %s, hosts: [h.lab], ports: [%d], groups: [g]}\n---\n"
    documents = parse_documents(text % ("a", 80) + text % ("b", 81) + rule("permit", what="{segments: [a]}")).documents
    policy = compile_policy(dict(zip([SEGMENT, OTHER, "1" * 16], documents, strict=True)))
    assert decide(policy, Facts(ANNA), Destination(Host("h.lab"), 80), NOW).verdict == "allow"
    assert decide(policy, Facts(ANNA), Destination(Host("h.lab"), 81), NOW).code == Code.NOT_FOUND


def test_a_user_and_a_workload_of_one_name_are_two_principals() -> None:
    policy = policy_of(rule("permit", who="{workloads: [anna]}"))
    assert verdict(policy) == ("deny", Code.NOT_FOUND)
    assert verdict(policy, Facts(replace(ANNA, kind="workload"))) == ("allow", Code.OK)


# ------------------------------------------------------------------ conditions


def signed(age: int, strength: str = "password") -> Facts:
    return Facts(ANNA, LAPTOP, SignIn(NOW - age, strength))  # type: ignore[arg-type]


def device(labels: Mapping[str, str] = {}, posture: Mapping[str, str] = {}) -> Facts:
    return Facts(ANNA, replace(LAPTOP, labels=dict(labels), posture=dict(posture)))


@pytest.mark.parametrize(
    ("when", "asked", "now", "expected"),
    [
        ("{signed_in_within: 1h}", signed(3600), NOW, "allow"),
        ("{signed_in_within: 1h}", signed(3601), NOW, "step_up"),
        ("{signed_in_within: 1h}", Facts(ANNA), NOW, "step_up"),
        ("{signed_in_within: 1h}", signed(-30), NOW, "allow"),
        ("{signed_in_within: 1h}", signed(-31), NOW, "step_up"),  # a sign-in in the future did not happen
        ("{strength: password}", signed(0, "password"), NOW, "allow"),
        ("{strength: password}", Facts(ANNA), NOW, "step_up"),  # no sign-in is weaker than any
        ("context.sign_in.age == 0", signed(0), NOW, "allow"),
        ("context.sign_in.age == 0", signed(-30), NOW, "allow"),
        ("context.sign_in.age > 31536000", Facts(ANNA), NOW, "allow"),  # and older
        ("{strength: mfa}", signed(0, "password"), NOW, "step_up"),
        ("{strength: mfa}", signed(0, "mfa"), NOW, "allow"),
        ("{strength: mfa}", signed(0, "hardware"), NOW, "allow"),
        ("{strength: mfa, device: {site: lab}}", signed(0), NOW, "deny"),  # stepping up alone would not do
        ("{device: {site: lab}}", device({"site": "lab"}), NOW, "allow"),
        ("{device: {site: lab}}", device({"site": "home"}), NOW, "deny"),
        ("{device: {site: lab}}", device(), NOW, "deny"),
        ("{device: {site: lab}}", Facts(ANNA), NOW, "deny"),
        ("{posture: {disk: encrypted}}", device({}, {"disk": "encrypted"}), NOW, "allow"),
        ("{posture: {disk: encrypted}}", device({}, {"disk": "plain"}), NOW, "deny"),
        ("{posture: {disk: encrypted}}", device({"disk": "encrypted"}), NOW, "deny"),  # a label is no posture
        ('{after: "2023-11-14T22:13:20Z"}', Facts(ANNA), NOW, "allow"),
        ('{after: "2023-11-14T22:13:20Z"}', Facts(ANNA), NOW - 1, "deny"),
        ('{before: "2023-11-14T22:13:20Z"}', Facts(ANNA), NOW, "deny"),
        ('{before: "2023-11-14T22:13:20Z"}', Facts(ANNA), NOW - 1, "allow"),
        # NOW is Tuesday 22:13:20
        ('{hours: {from: "22:13", until: "22:14"}}', Facts(ANNA), NOW, "allow"),
        ('{hours: {from: "22:13", until: "22:14"}}', Facts(ANNA), NOW + 40, "deny"),
        ('{hours: {from: "22:13", until: "22:14"}}', Facts(ANNA), NOW - 21, "deny"),
        ('{hours: {from: "22:00", until: "23:00", days: [wed]}}', Facts(ANNA), NOW, "deny"),
        ('{hours: {from: "22:00", until: "06:00", days: [tue]}}', Facts(ANNA), NOW, "allow"),
        ('{hours: {from: "22:00", until: "06:00", days: [tue]}}', Facts(ANNA), NOW + 6 * 3600, "allow"),  # Wednesday 04:13
        ('{hours: {from: "22:00", until: "06:00", days: [tue]}}', Facts(ANNA), NOW + 24 * 3600, "deny"),
        ('{hours: {from: "22:00", until: "06:00", days: [tue]}}', Facts(ANNA), NOW - 18 * 3600, "deny"),  # Tuesday 04:13
    ],
)  # fmt: skip
def test_case_86_each_condition_holds_up_to_its_edge(when: str, asked: Facts, now: int, expected: str) -> None:
    assert verdict(policy_of(rule("permit", when)), asked, now=now)[0] == expected


@pytest.mark.parametrize(
    ("what", "name", "expected"),
    [
        ("{owner: owner}", "anna", "allow"),
        ("{owner: owner}", "ben", "deny"),
        ("{owner: nobody}", "anna", "deny"),
        ("{owner: owner, labels: {team: research}}", "anna", "allow"),
        ("{owner: owner, labels: {team: data}}", "anna", "deny"),
        ("{owner: owner, segments: [jupyter]}", "ben", "allow"),
        ("{owner: owner, segments: [postgres]}", "ben", "deny"),
    ],
)
def test_an_owner_sees_and_reaches_what_is_theirs_and_nobody_else_knows_of_it(what: str, name: str, expected: str) -> None:
    policy = policy_of(rule("permit", who="{any: true}", what=what))
    asked = Facts(replace(ANNA, name=name))
    decision = decide(policy, asked, SEGMENT, NOW)
    assert (decision.verdict, decision.visible) == (expected, expected == "allow")
    assert (SEGMENT in policy.visible(asked.principal)) == (expected == "allow")


def test_case_87_posture_that_is_missing_or_garbage_fails_without_an_error() -> None:
    policy = policy_of(rule("permit", "{posture: {disk: encrypted}}"))
    for posture in ({}, {"disk": ""}, {"disk": "Encrypted"}, {"disk": "x" * (1 << 20)}, {"DISK": "encrypted"}, {"disk": 'a"b\\\n'}):
        assert verdict(policy, device({}, posture)) == ("deny", Code.CONDITION_FAILED)


def test_only_a_user_can_step_up() -> None:
    policy = policy_of(rule("permit", "{strength: mfa}", who="{any: true}"))
    assert verdict(policy)[0] == "step_up"
    assert verdict(policy, Facts(replace(ANNA, kind="workload"))) == ("deny", Code.CONDITION_FAILED)


def test_a_forbid_on_weak_sign_ins_asks_for_a_step_up() -> None:
    policy = policy_of(rule("permit") + rule("forbid", "context.sign_in.strength < 2", name="f"))
    decision = decide(policy, signed(0), SEGMENT, NOW)
    assert (decision.verdict, decision.rules) == ("step_up", (RuleId(f"{2:016x}"),))
    assert verdict(policy, signed(0, "mfa"))[0] == "allow"


# ------------------------------------------------------------------ properties


@st.composite
def policies(draw: st.DrawFn) -> tuple[dict[str, Document], CompiledPolicy]:
    documents = draw(worlds())
    return documents, compile_policy(documents, 1)


targets = st.sampled_from([SegmentId(id_of("segment", name)) for name in SEGMENTS])


@settings(max_examples=300, deadline=None)
@given(policies(), facts, targets)
def test_case_79_slice_full_set_and_cedarpy_give_one_verdict(
    world: tuple[dict[str, Document], CompiledPolicy], asked: Facts, target: SegmentId
) -> None:
    _, policy = world
    if asked.actor is not None and asked.actor.id == asked.principal.id:
        asked = replace(asked, actor=asked.principal)  # facts come from one library, which says one thing of one program
    decision = decide(policy, asked, target, NOW)
    if target not in policy.segments:
        assert decision.verdict == "deny"
        return
    allowed, determining, failed = cedarpy_says(policy, asked, target, NOW)
    question = question_of(asked, target, NOW, policy.zones)
    full = read_answer(policy.cedar.decide(question))
    assert (full.allowed, full.failed) == (allowed, failed)
    if not failed:
        assert list(full.determining) == determining
    rules = policy.rules_for(asked.principal, target, asked.actor)
    assert read_answer(policy.cedar.decide(question, [rule.id for rule in rules])) == full
    if closed_gate(asked) is None and target not in asked.switches.segments:
        assert decision.allowed == (allowed and not asked.signed_out)
    else:
        assert not decision.allowed


@settings(max_examples=150, deadline=None)
@given(worlds(), facts, targets, st.randoms(use_true_random=False))
def test_case_79_order_and_ids_of_rules_never_matter(
    documents: dict[str, Document], asked: Facts, target: SegmentId, random: object
) -> None:
    rules = [document for document in documents.values() if isinstance(document, Rule)]
    segments = {id: document for id, document in documents.items() if isinstance(document, Segment)}
    first = decide(compile_policy(documents), asked, target, NOW)
    random.shuffle(rules)  # type: ignore[attr-defined]
    other = decide(compile_policy({**{id_of("rule", at): one for at, one in enumerate(rules)}, **segments}), asked, target, NOW)
    assert (other.verdict, other.code, other.visible, other.expires_at) == (
        first.verdict,
        first.code,
        first.visible,
        first.expires_at,
    )


@settings(max_examples=150, deadline=None)
@given(worlds(), facts, targets)
def test_one_more_forbid_never_allows_and_one_more_permit_never_forbids(
    documents: dict[str, Document], asked: Facts, target: SegmentId
) -> None:
    asked = replace(asked, actor=None)  # a rule that does not speak of the program that acts changes nothing for it
    before = decide(compile_policy(documents), asked, target, NOW)
    everything = {"who": Who(any=True), "what": What(any=True)}
    forbid = Rule(name="last", effect="forbid", **everything)
    assert not decide(compile_policy({**documents, "f" * 16: forbid}), asked, target, NOW).allowed
    permit = Rule(name="last", effect="permit", **everything)
    assert decide(compile_policy({**documents, "f" * 16: permit}), asked, target, NOW).allowed or not before.allowed
    broken = Rule(name="last", effect="permit", when=Conditions(expression=ERROR), **everything)
    assert not decide(compile_policy({**documents, "f" * 16: broken}), asked, target, NOW).allowed


@settings(max_examples=100, deadline=None)
@given(worlds(), facts)
def test_visible_is_exactly_what_is_told_apart(documents: dict[str, Document], asked: Facts) -> None:
    policy = compile_policy(documents)
    asked = replace(asked, switches=Switches(), device=None)
    listed = set(policy.visible(asked.principal, asked.actor))
    assert listed == {id for id in policy.segments if decide(policy, asked, id, NOW).visible}


@settings(max_examples=150, deadline=None)
@given(worlds(), facts, targets, st.integers(0, 100_000))
def test_a_decision_stands_until_it_says(documents: dict[str, Document], asked: Facts, target: SegmentId, later: int) -> None:
    policy = compile_policy(documents)
    first = decide(policy, asked, target, NOW)
    until = first.expires_at if first.expires_at is not None else NOW + 10_000_000
    assert until > NOW
    moment = min(NOW + later, until - 1)
    second = decide(policy, asked, target, moment)
    assert (second.verdict, second.code, second.rules) == (first.verdict, first.code, first.rules)


def test_a_raw_condition_on_the_clock_is_looked_at_again_soon() -> None:
    assert RAW_CLOCK_HORIZON == 60  # as documented
    assert decide(policy_of(rule("permit", "context.now > 0")), Facts(ANNA), SEGMENT, NOW).expires_at == NOW + RAW_CLOCK_HORIZON
    assert decide(policy_of(rule("permit", "principal.name == resource.name")), Facts(ANNA), SEGMENT, NOW).expires_at is None


def test_a_sign_in_that_seems_to_lie_in_the_future_is_looked_at_when_it_begins_to_count() -> None:
    policy = policy_of(rule("permit", "{strength: mfa}"))
    early = decide(policy, signed(-31, "mfa"), SEGMENT, NOW)
    assert (early.verdict, early.expires_at) == ("step_up", NOW + 1)
    counts = decide(policy, signed(-30, "mfa"), SEGMENT, NOW)
    assert (counts.verdict, counts.expires_at) == ("allow", None)


@pytest.mark.parametrize(
    ("when", "asked", "until"),
    [
        ("{signed_in_within: 1h}", signed(60), NOW - 60 + 3600 + 1),
        ("{signed_in_within: 1h}", signed(3600), NOW + 1),
        ("{signed_in_within: 1h}", signed(3601), None),
        ("{signed_in_within: 1h}", Facts(ANNA), None),
        ('{hours: {from: "08:00", until: "22:14"}}', Facts(ANNA), NOW + 40),
        ('{hours: {from: "22:30", until: "08:00"}}', Facts(ANNA), NOW + 1000),
        ('{hours: {from: "08:00", until: "09:00"}}', Facts(ANNA), NOW + 6400),  # midnight: another day of the week
        ('{after: "2023-11-14T22:13:21Z"}', Facts(ANNA), NOW + 1),
        ('{after: "2023-11-14T22:13:20Z"}', Facts(ANNA), None),
        ('{before: "2023-11-14T22:13:21Z", signed_in_within: 1h}', signed(60), NOW + 1),
        ("{device: {site: lab}}", signed(60), None),
    ],
)
def test_a_decision_says_exactly_until_when_it_stands(when: str, asked: Facts, until: int | None) -> None:
    policy = policy_of(rule("permit", when) + rule("forbid", "{before: '2020-01-01T00:00:00Z'}", name="f"))
    assert decide(policy, asked, SEGMENT, NOW).expires_at == until


def test_a_compiled_policy_names_its_rules_and_knows_its_segments() -> None:
    policy = policy_of(rule("permit", name="notebooks"), generation=7)
    assert policy.rule_names((RuleId(f"{1:016x}"), RuleId("gone"))) == ["notebooks"]
    assert policy.segments_of(RuleId("gone")) == []
    assert (policy.digest_of(SEGMENT) == policy.digest_of(OTHER), policy.digest_of(SegmentId("gone"))) == (False, "")
    assert decide(policy, Facts(ANNA), SEGMENT, NOW).generation == 7
    assert compile_policy({}).generation == 0


def test_a_sign_in_that_was_ended_from_outside_allows_nothing_before_the_next_one() -> None:
    policy = policy_of(rule("permit", who="{any: true}"))
    ended = Facts(ANNA, signed_out=True)
    assert verdict(policy, replace(ended, signed_out=False)) == ("allow", Code.OK)
    for _ in range(2):  # the answer of Cedar is remembered, and is the same: what it means here is not
        assert verdict(policy, ended) == ("step_up", Code.STEP_UP_REQUIRED)
        assert verdict(policy, replace(ended, signed_out=False)) == ("allow", Code.OK)
    program = Principal("workload", WorkloadId("b" * 16), "job")
    assert verdict(policy, replace(ended, principal=program)) == ("deny", Code.CONDITION_FAILED)
    assert verdict(policy, replace(ended, actor=program)) == ("deny", Code.NOT_FOUND)
    assert "ended by your identity provider" in explain(policy, ended, SEGMENT, NOW).message
