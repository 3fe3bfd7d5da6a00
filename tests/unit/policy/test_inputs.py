"""What a question reads: an answer that is known already is the one that Cedar would give now."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.unit.strategies import NOW, SEGMENTS, facts, id_of, worlds

from cloister.model.documents import Document
from cloister.model.facts import Facts, Principal, Risk
from cloister.model.ids import SegmentId, UserId
from cloister.model.parse import parse_documents
from cloister.policy import decide as deciding
from cloister.policy.compile import CompiledPolicy, compile_policy
from cloister.policy.decide import decide

TARGETS = [SegmentId(id_of("segment", name)) for name in SEGMENTS]
MOMENTS = st.lists(st.integers(-200_000, 200_000), min_size=2, max_size=4)


def afresh(policy: CompiledPolicy, asked: Facts, target: Any, now: int) -> Any:
    policy.answers.clear()
    return decide(policy, asked, target, now)


@settings(max_examples=300)
@given(worlds(), st.lists(facts, min_size=2, max_size=4), MOMENTS)
def test_a_policy_that_has_answered_much_decides_as_one_that_has_not(
    world: Mapping[str, Document], people: list[Facts], moments: list[int]
) -> None:
    policy = compile_policy(world)
    variants = [*people, *(replace(people[0], sign_in=other.sign_in, device=other.device, risk=other.risk) for other in people[1:])]
    asked = [(one, target) for one in variants for target in TARGETS]
    for moment in moments:
        expected = [afresh(policy, one, target, NOW + moment) for one, target in asked]
        policy.answers.clear()
        for before in moments:
            for one, target in asked:
                decide(policy, one, target, NOW + before)
        assert [decide(policy, one, target, NOW + moment) for one, target in asked] == expected


def test_answers_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deciding, "MAX_KNOWN", 3)
    documents = parse_documents(
        "{kind: segment, name: jupyter, hosts: [jupyter.lab], ports: [8888], groups: [g]}\n---\n"
        "{kind: rule, name: r, effect: permit, who: {any: true}, what: {any: true}}\n"
    ).documents
    policy = compile_policy({f"{number:016x}": document for number, document in enumerate(documents)})
    for number in range(20):
        person = Principal("user", UserId(f"{number:016x}"), "ada")
        assert decide(policy, Facts(person), SegmentId("0" * 16), NOW).allowed
        assert 1 <= len(policy.answers) <= 4


def test_a_score_that_fades_below_its_bound_asks_cedar_once() -> None:
    documents = parse_documents(
        "{kind: segment, name: jupyter, hosts: [jupyter.lab], ports: [8888], groups: [g]}\n---\n"
        "{kind: rule, name: r, effect: permit, who: {any: true}, what: {any: true}, when: {risk: {user: 50}, one_place: true}}\n"
    ).documents
    policy = compile_policy({f"{number:016x}": document for number, document in enumerate(documents)})
    ada = Facts(Principal("user", UserId("1" * 16), "ada"))
    for score in range(49, -1, -1):
        assert decide(policy, replace(ada, risk=Risk(score, score)), SegmentId("0" * 16), NOW).allowed
    assert len(policy.answers) == 1
    for different in (replace(ada, risk=Risk(50, 0)), replace(ada, places=2)):
        assert not decide(policy, different, SegmentId("0" * 16), NOW).allowed
