"""Whether a profile holds: by tables, and for anything that could stand there."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.identity.posture.report import REFUSED, judge_report
from cloister.identity.posture.rules import evaluate, fresh, mismatch, tell_shortfall
from cloister.identity.posture.types import Facts, Seen
from cloister.model.messages.from_agent import PostureFact
from cloister.model.posture import MAX_AGE, PostureProfile, Requirement, asked_by, read_version

NOW = 1_700_000_000


def _profile(**require: Any) -> PostureProfile:
    return PostureProfile.model_validate({"name": "managed", "require": require})


def _facts(age: int = 0, source: str = "client", expires: int | None = None, **values: str) -> Facts:
    return {(source, name): Seen(value, NOW - age, expires) for name, value in values.items()}


@pytest.mark.parametrize(
    ("requirement", "good", "bad"),
    [
        ({"is": "ubuntu"}, ["ubuntu"], ["Ubuntu", "ubuntu ", "debian", ""]),
        ({"is": True}, ["true"], ["True", "1", "yes", "false", "TRUE"]),
        ({"is": False}, ["false"], ["true", "False", "0", ""]),
        ({"one_of": ("a", "b")}, ["a", "b"], ["c", "a,b", ""]),
        (
            {"at_least": "12.5"},
            ["12.5", "12.5.0", "12.10", "13", "12.5-41-generic", "12.5+b1"],
            ["12.4.9", "12", "12.5-rc1", "x", ""],
        ),
        ({"at_least": "12.5"}, ["12.05"], ["12.5~rc2", "12.5beta", "v13", "٣٣", "9" * 40, "-13", "+13"]),
        ({"at_most": "3"}, ["0", "3", "2.9"], ["4", "3.1", "", "none"]),
        ({"process": "edr"}, ["running"], ["absent", "true"]),
        ({"file": {"path": "/etc/x", "sha256": "ab" * 32}}, ["ab" * 32], ["absent", "AB" * 32, "ab" * 31]),
        ({"file": {"path": "/etc/x"}}, ["cd" * 32], ["absent", "zz" * 32, "1"]),
    ],
)
def test_matchers(requirement: dict[str, Any], good: list[str], bad: list[str]) -> None:
    parsed = Requirement.model_validate(requirement)
    assert [value for value in good if mismatch(parsed, value)] == []
    assert [value for value in bad if not mismatch(parsed, value)] == []


def test_versions_compare_by_number_and_what_comes_before_a_release_is_less() -> None:
    ordered = ["1", "1.0.1", "1.2-rc1", "1.2", "1.10", "2.0~beta1", "2", "10"]
    read = [read_version(text) for text in ordered]
    assert all(version is not None for version in read)
    assert read == sorted(read)  # type: ignore[type-var]
    assert read_version("1.0") == read_version("1")


def test_a_profile_holds_when_every_fact_fits_and_is_fresh() -> None:
    profile = _profile(**{"os.version": {"at_least": "22.04"}, "disk.encrypted": True})
    facts = _facts(100, **{"os.version": "24.04", "disk.encrypted": "true"})
    assert evaluate(profile, facts, NOW).holds
    assert evaluate(profile, facts, NOW).until == NOW + 500
    assert evaluate(profile, facts, NOW + 499).holds
    assert evaluate(profile, facts, NOW + 500).failed == {"os.version": "is too old", "disk.encrypted": "is too old"}


def test_ages_are_those_of_the_requirement_else_of_the_fact() -> None:
    profile = _profile(**{"disk.encrypted": {"is": True, "max_age": 60}, "updates.security": "0"})
    facts = _facts(59, **{"disk.encrypted": "true", "updates.security": "0"})
    assert evaluate(profile, facts, NOW).until == NOW + 1
    assert evaluate(profile, facts, NOW + 1).failed == {"disk.encrypted": "is too old"}
    assert evaluate(_profile(**{"updates.security": "0"}), facts, NOW + 3000).holds


def test_each_source_speaks_for_itself() -> None:
    profile = _profile(compliant={"is": True, "from": "mdm"})
    assert evaluate(profile, _facts(compliant="true"), NOW).failed == {"compliant": "is not reported"}
    assert not evaluate(profile, _facts(source="edr", compliant="true"), NOW).holds
    assert evaluate(profile, _facts(90_000, source="mdm", compliant="true"), NOW).holds  # stands until its source says otherwise
    assert not evaluate(profile, _facts(5, source="mdm", expires=NOW, compliant="true"), NOW).holds


def test_case_87_a_fact_of_the_future_fails_wherever_it_came_from() -> None:
    profile = _profile(x="a", y={"is": "a", "from": "mdm"})
    facts = {**_facts(-31, x="a"), **_facts(-31, source="mdm", y="a")}
    assert evaluate(profile, facts, NOW).failed == {"x": "is dated in the future", "y": "is dated in the future"}
    assert fresh(facts, NOW) == ({}, None)
    assert evaluate(profile, {**_facts(-30, x="a"), **_facts(-30, source="mdm", y="a")}, NOW).holds


def test_a_refused_fact_says_why() -> None:
    facts: Facts = {("client", REFUSED + "x"): Seen("is not text", NOW, NOW + 9)}
    assert evaluate(_profile(x="a"), facts, NOW).failed == {"x": "is not text"}
    assert fresh(facts, NOW) == ({}, None)


def test_what_rules_read_as_posture_is_fresh_and_named_by_its_source() -> None:
    facts = {
        **_facts(599, a="1"),
        **_facts(600, b="2"),
        **_facts(9, source="mdm", expires=NOW + 5, c="3"),
        **_facts(9, source="mdm", d="4"),
    }
    assert fresh(facts, NOW) == ({"a": "1", "mdm/c": "3", "mdm/d": "4"}, NOW + 1)


def test_a_shortfall_is_told_in_bounds() -> None:
    profile = _profile(**{f"fact{at}": "x" * 200 for at in range(40)})
    told = tell_shortfall("managed", evaluate(profile, _facts(**{f"fact{at}": "y" * 256 for at in range(40)}), NOW))
    assert told.startswith("`managed`: `fact0` is `yyy")
    assert told.endswith("and 35 more")
    assert len(told) < 1000


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2),
    max_leaves=3,
)


@given(
    st.lists(
        st.builds(PostureFact, name=st.sampled_from(["a", "b", "owner"]), value=json_values, observed_at=json_values), max_size=6
    )
)
def test_case_87_any_report_is_taken_apart_and_what_is_not_good_is_named(facts: list[PostureFact]) -> None:
    report = judge_report(facts, NOW)
    assert set(report.facts) | set(report.refused) == {fact.name for fact in facts}
    assert not set(report.facts) & set(report.refused)
    assert "owner" not in report.facts
    for value, at in report.facts.values():
        assert value.isprintable()
        assert 0 < len(value) <= 256
        assert NOW - MAX_AGE < at <= NOW + 30


@pytest.mark.parametrize("name", ["mdm/compliant", "signals/corp/compliance", "owner", "process"])
def test_case_37_a_client_says_nothing_in_the_name_of_others(name: str) -> None:
    """Rules call facts from outside `source/name`."""
    allowed = ["process/sshd", "file//etc/x", "certificate/0123456789abcdef", "disk.encrypted"]
    report = judge_report([PostureFact(name=one, value="true", observed_at=NOW) for one in [name, *allowed]], NOW)
    assert set(report.facts) == {*allowed, *({name} & {"process"})}
    assert report.refused == ({} if name == "process" else {name: "is not for clients to report"})


def test_a_fact_that_is_reported_twice_counts_not_at_all() -> None:
    twice = [PostureFact(name="a", value=value, observed_at=NOW) for value in ("good", "bad", "good")]
    assert judge_report(twice, NOW).facts == {}


@given(
    st.text(max_size=40),
    st.sampled_from([{"at_least": "1.2"}, {"at_most": "1.2"}, {"is": "x"}, {"one_of": ("x",)}, {"process": "x"}]),
)
def test_case_87_no_value_breaks_a_matcher(value: str, requirement: dict[str, Any]) -> None:
    assert isinstance(mismatch(Requirement.model_validate(requirement), value), str)


def test_what_a_client_looks_at_follows_from_the_profiles() -> None:
    ca = "-----BEGIN CERTIFICATE-----\nx"
    asked = asked_by(
        [
            _profile(
                edr={"process": "edr", "max_age": 40},
                conf={"file": {"path": "/etc/x"}},
                c={"certificate": {"path": "/c", "ca": ca}},
            ),
            _profile(compliant={"is": True, "from": "mdm"}, owner="self", **{"updates.security": "0"}),
        ],
        ["process/sshd"],
    )
    assert dict(asked.processes) == {"process/edr": "edr", "process/sshd": "sshd"}
    assert dict(asked.files) == {"file//etc/x": "/etc/x"}
    assert [check.path for check in asked.certificates.values()] == ["/c"]
    assert asked.facts == {"updates.security", "process/sshd"}
    assert asked.shortest == 40
    assert not asked_by([])
