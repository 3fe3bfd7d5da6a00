from dataclasses import replace

from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.policy.test_decide import ANNA, OTHER, SEGMENT, policy_of, rule
from tests.unit.strategies import NOW, SEGMENTS, facts, id_of, worlds

from cloister.model.documents import Document, Segment, to_fields
from cloister.model.facts import DeviceFacts, Facts, SignIn
from cloister.model.ids import DeviceId, SegmentId
from cloister.model.parse import parse_fields
from cloister.policy.affected import Held, affected, basis_of, touched_by_principal, touched_segments
from cloister.policy.compile import compile_policy
from cloister.policy.decide import decide


@st.composite
def changes(draw: st.DrawFn) -> tuple[dict[str, Document], dict[str, Document]]:
    """Two states that share most documents: some of the first are dropped, some of another are put in their place."""
    first, second = draw(worlds()), draw(worlds())
    keep = draw(st.sets(st.sampled_from(sorted(first)))) if first else set()
    take = draw(st.sets(st.sampled_from(sorted(second)))) if second else set()
    return first, {**{id: first[id] for id in keep}, **{id: second[id] for id in take}}


any_facts = st.builds(lambda known, out: replace(known, signed_out=out), facts, st.booleans())
held = st.builds(
    lambda at, name, before, after, changed: Held(at, SegmentId(id_of("segment", name)), before, after if changed else before),
    st.integers(0, 1000),
    st.sampled_from(SEGMENTS),
    any_facts,
    any_facts,
    st.booleans(),
)


@settings(max_examples=300, deadline=None)
@given(changes(), st.lists(held, max_size=8, unique_by=lambda one: one.key))
def test_deciding_only_the_affected_again_gives_the_same_as_deciding_all(
    states: tuple[dict[str, Document], dict[str, Document]], sessions: list[Held[int]]
) -> None:
    old, new = compile_policy(states[0], 1), compile_policy(states[1], 2)
    again = set(affected(old, new, sessions))
    touched = touched_segments(old, new)
    for session in sessions:
        before = decide(old, session.before, session.segment, NOW)
        after = decide(new, session.after, session.segment, NOW)
        if session.key not in again:
            assert replace(after, generation=before.generation) == before
        if session.before == session.after and session.segment not in touched:
            assert session.key not in again


@settings(max_examples=150, deadline=None)
@given(worlds(), facts, facts)
def test_a_change_of_groups_touches_no_other_segment(documents: dict[str, Document], asked: Facts, other: Facts) -> None:
    policy = compile_policy(documents)
    before, after = asked.principal, replace(asked.principal, groups=other.principal.groups)
    touched = touched_by_principal(policy, before, after)
    for segment in policy.segments:
        if segment not in touched:
            assert policy.rules_for(before, segment) == policy.rules_for(after, segment)


def test_what_no_applicable_rule_reads_does_not_count() -> None:
    policy = policy_of(
        rule("permit", "{strength: mfa}") + rule("forbid", "{device: {site: lab}}", name="f", what="{segments: [postgres]}")
    )
    old = Facts(ANNA, DeviceFacts(DeviceId("d" * 16), "laptop", {"site": "home"}), SignIn(NOW, "mfa"))
    moved = replace(old, device=DeviceFacts(DeviceId("d" * 16), "laptop", {"site": "lab"}))
    weaker = replace(old, sign_in=SignIn(NOW, "password"))
    sessions = [Held("device", SEGMENT, old, moved), Held("device, read", OTHER, old, moved), Held("sign-in", SEGMENT, old, weaker)]
    assert affected(policy, policy, sessions) == ["device, read", "sign-in"]


def test_a_changed_segment_touches_its_sessions_even_if_the_rules_stay() -> None:
    old = policy_of(rule("permit"))
    segments = {id: parse_fields({**to_fields(one), "ports": [9000]}) if id == SEGMENT else one for id, one in old.segments.items()}
    new = compile_policy({**segments, **{id: one.rule for id, one in old.rules.items()}})
    assert touched_segments(old, new) == {SEGMENT}
    assert affected(old, new, [Held("a", SEGMENT, Facts(ANNA), Facts(ANNA)), Held("b", OTHER, Facts(ANNA), Facts(ANNA))]) == ["a"]


def test_a_removed_segment_touches_its_sessions() -> None:
    old = policy_of(rule("permit"))
    new = compile_policy({id: one.rule for id, one in old.rules.items()})
    assert touched_segments(old, new) == {SEGMENT, OTHER}
    assert basis_of(new, Facts(ANNA), SEGMENT) != basis_of(old, Facts(ANNA), SEGMENT)


def test_an_unrelated_rule_touches_only_what_it_names() -> None:
    old = policy_of(rule("permit"))
    new = policy_of(rule("permit") + rule("permit", name="more", who="{users: [ben]}", what="{segments: [postgres]}"))
    assert touched_segments(old, new) == {OTHER}
    assert all(isinstance(one, Segment) for one in new.segments.values())


def test_a_sign_in_that_no_rule_reads_sets_no_expiry() -> None:
    late = SignIn(NOW + 3600, "password")
    assert decide(policy_of(rule("permit")), Facts(ANNA, None, late), SEGMENT, NOW).expires_at is None
    assert decide(policy_of(rule("permit", "{strength: mfa}")), Facts(ANNA, None, late), SEGMENT, NOW).expires_at is not None
