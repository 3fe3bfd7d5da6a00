import re
from pathlib import Path

import pytest

from cloister.model.documents import KINDS
from cloister.model.parse import parse_documents
from cloister.policy.check import check

PAGE = Path("docs/reference/documents.md").read_text()
EXAMPLES = re.findall(r"```yaml\n(.*?)```", PAGE, re.DOTALL)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_of_the_page_can_be_applied(example: str) -> None:
    result = parse_documents(example)
    assert result.errors == ()
    assert check(result.documents, result.origins) == []


def test_every_field_of_every_document_is_on_the_page() -> None:
    for kind, model in KINDS.items():
        assert f"`{kind}`" in PAGE
        missing = [name for name in model.model_fields if name != "kind" and f"`{name}`" not in PAGE]
        assert missing == [], kind
