"""Text to documents: the one parser for files, the API's bodies (YAML or JSON) and whatever brings documents later.

All errors at once, each with its place: what is wrong in one document hides nothing in the next.
"""

import difflib
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from cloister.model.documents import KINDS, Document
from cloister.model.durations import print_duration
from cloister.model.fields import FORMS
from cloister.model.hosts import shown
from cloister.model.reasons import Code
from cloister.model.tree import Node, TreeError, read_trees

MAX_DOCUMENTS = 50_000
MAX_ERRORS = 200

Path = tuple[int | str, ...]
Key = tuple[str, str]  # kind and name


@dataclass(frozen=True, slots=True)
class DocumentError:
    """`line` and `column` count from 1, and are 0 where the document did not come from a text."""

    code: Code
    message: str
    source: str = ""
    line: int = 0
    column: int = 0
    document: str = ""  # `kind name`
    path: Path = ()

    def __str__(self) -> str:
        place = self.document
        if self.line:
            place = f"{self.source}:{self.line}:{self.column}" if self.source else f"line {self.line}, column {self.column}"
        return f"{place}: {self.message}" if place else self.message


@dataclass(frozen=True, slots=True)
class Origin:
    """Where a document stands, for errors that are found later."""

    source: str
    node: Node = field(repr=False)

    def error(self, code: Code, message: str, document: str, path: Path = ()) -> DocumentError:
        line, column = self.node.place(path)
        return DocumentError(code, message, self.source, line, column, document, path)


Origins = Mapping[Key, Origin]


@dataclass(frozen=True, slots=True)
class ParseResult:
    """The documents that are well formed, in order, and every error. With errors nothing may be applied."""

    documents: tuple[Document, ...]
    errors: tuple[DocumentError, ...]
    origins: Origins = field(default_factory=dict, repr=False)


def parse_documents(text: str | bytes, source: str = "") -> ParseResult:
    """Read a stream of documents: separated by `---`, or one list of them."""
    reading = _Reading(source)
    try:
        for root in read_trees(text):
            nodes = root.items if root.items is not None else [root]
            for node in nodes:
                reading.take(node)
    except TreeError as error:
        code = Code.TOO_LARGE if error.too_large else Code.DOCUMENT_MALFORMED
        reading.errors.append(DocumentError(code, str(error), source, error.line, error.column))
    return ParseResult(tuple(reading.documents), tuple(reading.errors), reading.origins)


def parse_fields(fields: Mapping[str, Any]) -> Document:
    """A document from what `to_fields` gave, for instance out of the store; raises `ValueError` naming every error."""
    reading = _Reading("")
    reading.take(_node(fields))
    if reading.errors or not reading.documents:
        raise ValueError("; ".join(str(error) for error in reading.errors) or "the document is empty")
    return reading.documents[0]


def _node(value: Any) -> Node:
    if isinstance(value, Mapping):
        return Node(0, 0, fields={str(key): _node(inner) for key, inner in value.items()})
    if isinstance(value, list | tuple):
        return Node(0, 0, items=[_node(inner) for inner in value])
    return Node(0, 0, scalar=value)


class _Reading:
    def __init__(self, source: str) -> None:
        self.source = source
        self.documents: list[Document] = []
        self.errors: list[DocumentError] = []
        self.origins: dict[Key, Origin] = {}

    def take(self, node: Node) -> None:
        if node.fields is None and node.items is None and node.scalar is None:
            return  # nothing between two `---`
        if len(self.errors) >= MAX_ERRORS:
            return
        if len(self.documents) >= MAX_DOCUMENTS:
            raise TreeError(f"the text holds more than `{MAX_DOCUMENTS}` documents", node.line, node.column, too_large=True)
        origin = Origin(self.source, node)
        name = _title(node)
        kind = node.fields.get("kind") if node.fields is not None else None
        if node.fields is None:
            self._refuse(origin, "a document is a mapping with `kind` and `name`", name)
        elif kind is None:
            self._refuse(origin, f"`kind` is missing: it is one of {_listed(KINDS)}", name)
        elif not isinstance(kind.scalar, str) or kind.scalar not in KINDS:
            given = shown(str(kind.scalar))
            self._refuse(origin, f"`{given}` is no kind of document: it is one of {_listed(KINDS)}", name, ("kind",))
        else:
            self._validate(origin, KINDS[kind.scalar], name)

    def _validate(self, origin: Origin, kind: type[Document], name: str) -> None:
        try:
            document = kind.model_validate(origin.node.to_plain())
        except ValidationError as error:
            for detail in error.errors(include_url=False):
                path = tuple(step for step in detail["loc"] if step != "[key]")
                if detail["type"] == "too_short" and detail["input"]:
                    continue  # its entries are wrong, each with an error of its own
                is_key = detail["type"] == "extra_forbidden" or "[key]" in detail["loc"]
                line, column = origin.node.key_place(path) if is_key else origin.node.place(path)
                self._add(DocumentError(Code.DOCUMENT_MALFORMED, _sentence(detail, kind), self.source, line, column, name, path))
            return
        key = (document.kind, document.name)
        if (first := self.origins.get(key)) is not None:
            line = first.node.line
            self._refuse(
                origin, f"the {document.kind} `{document.name}` stands here and in line {line}: write it once", name, ("name",)
            )
            return
        self.origins[key] = origin
        self.documents.append(document)

    def _refuse(self, origin: Origin, message: str, name: str, path: Path = ()) -> None:
        self._add(origin.error(Code.DOCUMENT_MALFORMED, message, name, path))

    def _add(self, error: DocumentError) -> None:
        if len(self.errors) < MAX_ERRORS:
            self.errors.append(error)


def _title(node: Node) -> str:
    parts = [node.fields[key].scalar for key in ("kind", "name") if key in node.fields] if node.fields is not None else []
    return " ".join(shown(str(part)) for part in parts if part is not None)


def _listed(words: Mapping[str, Any]) -> str:
    return ", ".join(f"`{word}`" for word in words)


_KINDS_OF_VALUE = {
    "string_type": "text: put it in quotes",
    "int_type": "a whole number",
    "bool_type": "`true` or `false`",
    "tuple_type": "a list: write `[…]`",
    "dict_type": "a mapping: write `key: value`",
    "mapping_type": "a mapping: write `key: value`",
    "model_type": "a mapping: write `key: value`",
    "model_attributes_type": "a mapping: write `key: value`",
}


def _as_written(limit: int, given: object) -> str:
    """A limit in the form of the value that breaks it: a duration has a unit."""
    return print_duration(limit) if isinstance(given, str) else str(limit)


def _sentence(detail: ErrorDetails, kind: type[Document]) -> str:
    """One error of pydantic in our own words: the field, the value, what to write."""
    field_name = next((str(step) for step in reversed(detail["loc"]) if isinstance(step, str) and step != "[key]"), "document")
    context = detail.get("ctx", {})
    value = shown(str(detail["input"]))
    match detail["type"]:
        case "missing":
            return f"`{field_name}` is missing"
        case "extra_forbidden":
            near = difflib.get_close_matches(field_name, _fields_at(kind, detail["loc"][:-1]), n=1)
            return f"`{shown(field_name)}` is no field here" + (f": did you mean `{near[0]}`?" if near else "")
        case "literal_error":
            return f"`{value}` is not possible for `{field_name}`: write {context.get('expected', '').replace(chr(39), '`')}"
        case "string_pattern_mismatch":
            return f"`{value}` is not {FORMS.get(str(context.get('pattern')), 'of the right form')}"
        case "value_error":
            return str(context["error"])
        case "too_short" | "string_too_short":
            return f"`{field_name}` is empty"
        case "too_long":
            return f"`{field_name}` has `{context['actual_length']}` entries; at most `{context['max_length']}` are allowed"
        case "string_too_long":
            return f"`{field_name}` is too long: at most `{context['max_length']}` characters"
        case "greater_than_equal":
            return f"`{value}` is too small for `{field_name}`: at least `{_as_written(context['ge'], detail['input'])}`"
        case "less_than_equal":
            return f"`{value}` is too large for `{field_name}`: at most `{_as_written(context['le'], detail['input'])}`"
        case other:
            expected = _KINDS_OF_VALUE.get(other)
            return (
                f"`{field_name}` is {expected}" if expected else f"`{field_name}`: {detail['msg'][:1].lower()}{detail['msg'][1:]}"
            )


def _fields_at(kind: type[Document], path: tuple[int | str, ...]) -> list[str]:
    """The names of fields that are possible at a path inside a document."""
    model: Any = kind
    for step in path:
        annotation = model.model_fields[step].annotation if isinstance(step, str) and step in model.model_fields else None
        options = [annotation, *getattr(annotation, "__args__", ())]
        model = next((option for option in options if isinstance(option, type) and hasattr(option, "model_fields")), None)
        if model is None:
            return []
    return [info.alias or name for name, info in model.model_fields.items()]
