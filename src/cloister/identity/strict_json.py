"""JSON (RFC 8259) from strangers: one reading, bounded, nothing said twice (case 10).

Refused: duplicate keys, which parsers read differently; numbers that JSON does not have; lone surrogates and NUL, which stores and
terminals read differently; more nesting or values than anybody needs.
"""

import json
from typing import Any

MAX_BYTES = 1 << 20
MAX_DEPTH = 24
MAX_VALUES = 20_000


class NotStrict(ValueError):
    """Not JSON that can be read in one way only. Says what is wrong, never the text itself."""


def read_json(text: bytes | str, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> Any:
    """The value. Raises NotStrict."""
    if len(text) > max_bytes:
        raise NotStrict(f"longer than `{max_bytes}` bytes")
    try:
        decoded = text.decode("utf-8", "strict") if isinstance(text, bytes) else text
        value = json.loads(decoded, object_pairs_hook=_object, parse_constant=_constant)
    except NotStrict:
        raise
    except RecursionError:
        raise NotStrict("nested too deeply") from None
    except ValueError:
        raise NotStrict("not JSON in UTF-8") from None
    _check(value, max_values)
    return value


def read_object(text: bytes | str, *, max_bytes: int = MAX_BYTES, max_values: int = MAX_VALUES) -> dict[str, Any]:
    """The value, which must be an object. Raises NotStrict."""
    value = read_json(text, max_bytes=max_bytes, max_values=max_values)
    if not isinstance(value, dict):
        raise NotStrict("not an object")
    return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise NotStrict("an object names one key twice")
    return found


def _constant(_name: str) -> Any:
    raise NotStrict("a number that JSON does not have")


def _check(value: Any, max_values: int) -> None:
    """Breadth first, so that no depth of nesting costs stack."""
    level, depth, seen = [value], 0, 0
    while level:
        depth += 1
        seen += len(level)
        if depth > MAX_DEPTH:
            raise NotStrict("nested too deeply")
        if seen > max_values:
            raise NotStrict(f"more than `{max_values}` values")
        inner: list[Any] = []
        for item in level:
            match item:
                case str():
                    _check_text(item)
                case dict():
                    for key in item:
                        _check_text(key)
                    inner.extend(item.values())
                case list():
                    inner.extend(item)
                case float() if item in (float("inf"), float("-inf")):
                    raise NotStrict("a number that is too large")
                case _:
                    pass
        level = inner


def _check_text(text: str) -> None:
    if "\0" in text or any("\ud800" <= character <= "\udfff" for character in text):
        raise NotStrict("a text with NUL or half a character")
