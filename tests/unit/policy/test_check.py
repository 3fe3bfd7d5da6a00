import pytest
from tests.unit.policy.test_decide import rule

from cloister.model.parse import parse_documents
from cloister.model.reasons import Code
from cloister.policy.check import check
from cloister.policy.compile import compile_policy

SET = """
{kind: connector-group, name: g, suffixes: [lab]}
---
{kind: user, name: anna}
---
{kind: group, name: research, users: [anna]}
---
{kind: segment, name: jupyter, hosts: [jupyter.lab], ports: [8888], groups: [g]}
---
"""


def errors_of(text: str) -> list[tuple[Code, str]]:
    result = parse_documents(SET + text, "f")
    assert result.errors == ()
    return [(error.code, str(error)) for error in check(result.documents, result.origins)]


@pytest.mark.parametrize(
    "when",
    [
        "context.sign_in.strength >= 2",
        "principal.name == resource.name // with a comment",
        'resource.hasTag("owner") && resource.getTag("owner") == principal.name',
        'context.device.posture.hasTag("disk") && context.device.posture.getTag("disk") == "encrypted"',
        'principal in Group::"research"',
        'context.weekday == "mon" && context.minute < 600 && context.now > 0 && context.sign_in.issuer == "local"',
        "[1, 2].contains(context.sign_in.strength)",
        "if context.sign_in.age < 60 then true else principal is User",
    ],
)
def test_a_condition_that_fits_is_accepted(when: str) -> None:
    text = rule("permit", "|-\n  " + when)
    assert errors_of(text) == []
    documents = parse_documents(SET + text).documents
    assert compile_policy({f"{at:016x}": document for at, document in enumerate(documents)}).rules


@pytest.mark.parametrize(
    ("when", "message"),
    [
        ("true }; permit(principal, action, resource) when { true", "`when` is no Cedar expression: line 1, column 6"),
        ("true } unless { false", "`when` is no Cedar expression: line 1, column 6"),
        ("true }", "no Cedar expression"),
        ("(true", "no Cedar expression"),
        ("// nothing", "no Cedar expression"),
        ("?principal == principal", "no Cedar expression"),
        ("permit(principal, action, resource);", "no Cedar expression"),
        ("(" * 33 + "true" + ")" * 33, "nest at most 32 deep"),
        ("principal.nam == 'x'", "no Cedar expression"),
        ('principal.nam == "x"', "`when` does not fit: attribute `nam`"),
        ('resource.getTag("owner") == principal.name', "`when` does not fit: unable to guarantee safety of access to tag"),
        ("context.stength >= 2", "`when` does not fit: attribute `stength`"),
        ("context.sign_in.strength", "`when` does not fit: unexpected type"),
        ('context.sign_in.strength >= "2"', "`when` does not fit: unexpected type"),
        ('principal in Grup::"research"', "`when` does not fit"),
        ("unknownFunction(3)", "`unknownFunction` is not a valid function"),
        ("principal == resource", "`when` does not fit"),
    ],
)
def test_case_84_a_condition_that_does_not_fit_is_shown_to_its_author(when: str, message: str) -> None:
    errors = errors_of(rule("permit", "|-\n  " + when))
    assert errors
    assert all(code == Code.POLICY_MALFORMED for code, _ in errors)
    assert message in errors[0][1], errors
    assert errors[0][1].startswith("f:15:7: ")


def test_case_84_a_regular_expression_cannot_be_written_and_like_is_linear() -> None:
    assert errors_of(rule("permit", '|-\n  principal.name like "' + "*a" * 200 + '"')) == []


def test_every_kind_of_error_comes_at_once() -> None:
    text = (
        rule("permit", "principal.nam == 1", name="a")
        + rule("forbid", "true }", name="b")
        + rule("permit", who="{groups: [x]}", name="c")
    )
    assert [code for code, _ in errors_of(text)][:3] == [Code.REFERENCE_UNKNOWN, Code.POLICY_MALFORMED, Code.POLICY_MALFORMED]
