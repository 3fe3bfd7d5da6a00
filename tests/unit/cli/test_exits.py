import json
import re
from pathlib import Path

import pytest

from cloister.cli.exits import _EXITS, Exit, exit_code, fail, tell_failure
from cloister.model.reasons import Code

DOCS = Path(__file__).parents[3] / "docs" / "reference" / "cli.md"


def test_every_listed_code_is_a_reason_code_and_has_one_exit() -> None:
    listed = [code for codes in _EXITS.values() for code in codes]
    assert len(listed) == len(set(listed))
    assert set(listed) <= {code.value for code in Code}


def test_unlisted_code_is_a_plain_failure() -> None:
    assert exit_code("internal") is Exit.FAILED
    assert exit_code("never_heard_of") is Exit.FAILED


def test_every_refusal_by_policy_is_a_denial() -> None:
    codes = list(Code)
    first, last = codes.index(Code.DENIED_BY_DEFAULT), codes.index(Code.KILL_SWITCH)
    assert {exit_code(code) for code in codes[first : last + 1]} == {Exit.DENIED}


def test_every_exit_code_is_documented() -> None:
    documented = {int(number) for number in re.findall(r"^\| (\d+) \|", DOCS.read_text(), flags=re.MULTILINE)}
    assert documented == {number.value for number in Exit}


def test_failure_is_one_line_whatever_a_name_holds(capsys: pytest.CaptureFixture[str]) -> None:
    """case 72, 94: names come from elsewhere."""
    tell_failure("not_found", "no `a\nb\x1b[31m`", "do this")
    text = capsys.readouterr().err
    assert text == "error: no `a?b?[31m`; do this [not_found]\n"


def test_failure_in_json_keeps_its_parts(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as caught:
        fail("not_found", "m", "r", as_json=True)
    assert caught.value.code == Exit.NOT_FOUND
    assert json.loads(capsys.readouterr().err) == {"error": "not_found", "message": "m", "remedy": "r"}
