"""The documents of the page about programs are parsed and checked; what is not ours says so in its title."""

import re
from pathlib import Path

import pytest

from cloister.model.parse import parse_documents
from cloister.policy.check import check

PAGE = Path("docs/identity/workloads.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_can_be_applied(example: str) -> None:
    result = parse_documents(example)
    assert result.errors == ()
    assert check(result.documents, result.origins) == []


def test_every_type_of_issuer_has_an_example() -> None:
    shown = {match for example in EXAMPLES for match in re.findall(r"^type: (\w+)$", example, re.MULTILINE)}
    assert shown == {"kubernetes", "github", "gitlab", "spiffe"}
