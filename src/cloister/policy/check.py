"""Whether a whole set of documents may be saved: references, ties and claims, and every rule as Cedar reads it."""

import re
from collections.abc import Sequence

from cloister._core import CoreError, PolicySet, check_condition
from cloister.model.documents import Document, Rule, Segment
from cloister.model.parse import DocumentError, Origins, Path
from cloister.model.reasons import Code
from cloister.model.references import check_documents
from cloister.policy.cedar import print_rule

_PLACE = re.compile(r"([0-9]+):([0-9]+): (.*)", re.DOTALL)


def check(documents: Sequence[Document], origins: Origins | None = None) -> list[DocumentError]:
    """Every error; an empty list means that `compile_policy` takes these documents."""
    return check_documents(documents, origins) + check_rules(documents, origins)


def check_rules(documents: Sequence[Document], origins: Origins | None = None) -> list[DocumentError]:
    """Conditions that are not one expression, and rules that break the schema: an author sees these before anything is applied."""
    segments = {document.name: document.name for document in documents if isinstance(document, Segment)}
    errors: list[DocumentError] = []
    rules: dict[str, Rule] = {}
    for document in documents:
        if isinstance(document, Rule):
            error = _check_expression(document, origins or {})
            if error is None:
                rules[document.name] = document
            else:
                errors.append(error)
    texts = {name: print_rule(rule, segments) for name, rule in rules.items()}
    for name, refused in _refused(texts).items():
        del texts[name]
        errors.append(_error(Code.POLICY_MALFORMED, refused, rules[name], origins or {}, ("when",)))
    violations = PolicySet(texts).validate()
    errors.extend(
        _error(Code.POLICY_MALFORMED, _violation(message), rules[name], origins or {}, ("when",)) for name, message in violations
    )
    return errors


def _refused(texts: dict[str, str]) -> dict[str, str]:
    """The rules that Cedar does not take as one policy each; nothing else has to be parsed alone."""
    try:
        PolicySet(texts)
    except CoreError:
        pass
    else:
        return {}
    found: dict[str, str] = {}
    for name, text in texts.items():
        try:
            PolicySet({name: text})
        except CoreError as refused:
            found[name] = str(refused)
    return found


def _check_expression(rule: Rule, origins: Origins) -> DocumentError | None:
    if rule.when is None or rule.when.expression is None:
        return None
    refused = check_condition(rule.when.expression)
    if refused is None:
        return None
    place = _PLACE.fullmatch(refused)
    where, message = (f"line {place[1]}, column {place[2]} of the expression", place[3]) if place else ("the expression", refused)
    return _error(
        Code.POLICY_MALFORMED, f"`when` is no Cedar expression: {where}: {message}", rule, origins, ("when", "expression")
    )


def _violation(message: str) -> str:
    return f"`when` does not fit: {message.removeprefix('for policy ').partition(', ')[2] or message}"


def _error(code: Code, message: str, rule: Rule, origins: Origins, path: Path) -> DocumentError:
    title = f"rule {rule.name}"
    origin = origins.get(("rule", rule.name))
    return DocumentError(code, message, document=title, path=path) if origin is None else origin.error(code, message, title, path)
