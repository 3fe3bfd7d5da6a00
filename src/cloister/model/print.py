"""Documents to text: short, for people, and read back by `parse_documents` as equal documents."""

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from cloister.model.documents import Document, to_fields

_PLAIN = re.compile(r"[A-Za-z][A-Za-z0-9_./@+-]*|[0-9]+(?:-[0-9]+|[smhd])")
_WORDS = frozenset({"true", "false", "null", "yes", "no", "on", "off", "y", "n"})  # read as something else by some YAML parser


def print_documents(documents: Iterable[Document]) -> str:
    return "---\n".join(print_document(document) for document in documents)


def print_document(document: Document) -> str:
    return "".join(f"{key}: {_value(value)}\n" for key, value in to_fields(document).items())


def _value(value: Any) -> str:
    if isinstance(value, str) and "\n" in value and _fits_block(value):
        return "|-\n" + "\n".join(f"  {line}" if line else "" for line in value.split("\n"))
    return _flow(value)


def _fits_block(text: str) -> bool:
    """A literal block begins and ends with a full line, and shows what it holds."""
    lines = text.split("\n")
    return bool(lines[0]) and not lines[0][0].isspace() and bool(lines[-1]) and all(line.isprintable() for line in lines)


def _flow(value: Any) -> str:
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{_flow(key)}: {_flow(inner)}" for key, inner in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(_flow(inner) for inner in value) + "]"
    if isinstance(value, str):
        return _text(value)
    return json.dumps(value)


def _text(text: str) -> str:
    if _PLAIN.fullmatch(text) and text.lower() not in _WORDS:
        return text
    quoted = json.dumps(text, ensure_ascii=False)
    return "".join(c if c.isprintable() else f"\\u{ord(c):04x}" if ord(c) < 0x10000 else f"\\U{ord(c):08x}" for c in quoted)
