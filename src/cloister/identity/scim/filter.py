"""Filters and paths (RFC 7644 §3.4.2.2, §3.5.2) as values: a parser with bounds, by hand, because what it reads comes from strangers.

Also read is what Microsoft Entra sends: `emails[type eq "work"].value eq "x"`, as `emails[type eq "work" and value eq "x"]`.
"""

import json
import re
from dataclasses import dataclass
from typing import Literal

from cloister.identity.scim.errors import ScimError, ScimType, invalid

MAX_CHARS = 4096
MAX_DEPTH = 32  # brackets and `not` inside one another
MAX_TERMS = 256  # comparisons of one filter

Operator = Literal["eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"]
Value = str | int | float | bool | None

_TOKEN = re.compile(
    r"""[ \t\r\n]*(?:
      (?P<string>"(?:[^"\\\x00-\x1f]|\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}))*")
    | (?P<number>-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]+)?(?![A-Za-z0-9_.-]))
    | (?P<sign>[()\[\]])
    | (?P<word>(?:urn:[A-Za-z0-9][A-Za-z0-9:._-]*:)?[A-Za-z$][A-Za-z0-9$_-]*(?:\.[A-Za-z$][A-Za-z0-9$_-]*)?)
    | (?P<part>\.[A-Za-z$][A-Za-z0-9$_-]*)
    )""",
    re.VERBOSE | re.IGNORECASE,
)
_OPERATORS = frozenset({"eq", "ne", "co", "sw", "ew", "gt", "ge", "lt", "le"})
_LITERALS: dict[str, Value] = {"true": True, "false": False, "null": None}


@dataclass(frozen=True, slots=True)
class AttrPath:
    """`urn:…:name.part`; `urn` and `part` may be empty. Names are compared whatever their case."""

    name: str
    part: str = ""
    urn: str = ""


@dataclass(frozen=True, slots=True)
class Comparison:
    path: AttrPath
    operator: Operator
    value: Value


@dataclass(frozen=True, slots=True)
class Present:
    path: AttrPath


@dataclass(frozen=True, slots=True)
class Not:
    inner: "Filter"


@dataclass(frozen=True, slots=True)
class All:
    terms: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    terms: tuple["Filter", ...]


@dataclass(frozen=True, slots=True)
class Selection:
    """`emails[type eq "work"]`: some value of the attribute fulfils the inner filter, which speaks of its parts."""

    path: AttrPath
    inner: "Filter"


Filter = Comparison | Present | Not | All | AnyOf | Selection


@dataclass(frozen=True, slots=True)
class PatchPath:
    """The target of a PATCH operation: an attribute, the values of it that `select` picks, and the part of these."""

    path: AttrPath
    select: Filter | None = None
    part: str = ""


def parse_filter(text: str) -> Filter:
    """Raises ScimError 400 `invalidFilter`."""
    reading = _Reading(text, "invalidFilter")
    found = reading.either(inside=False)
    reading.end()
    return found


def parse_path(text: str) -> PatchPath:
    """Raises ScimError 400 `invalidPath`."""
    reading = _Reading(text, "invalidPath")
    path = reading.attr_path()
    select, part = None, ""
    if reading.takes("["):
        if path.part:
            raise reading.error("a part of a value has no values to select from")
        select = reading.either(inside=True)
        reading.expect("]")
        part = reading.part()
    reading.end()
    return PatchPath(path, select, part)


class _Reading:
    """One text, read from left to right."""

    def __init__(self, text: str, scim_type: ScimType) -> None:
        self._scim_type: ScimType = scim_type
        if len(text) > MAX_CHARS:
            raise invalid(f"a filter or path has at most `{MAX_CHARS}` characters", scim_type)
        self._tokens: list[tuple[str, str]] = []
        self._at = 0
        self._depth = 0
        self._terms = 0
        place, stripped = 0, text.rstrip(" \t\r\n")
        while place < len(stripped):
            found = _TOKEN.match(stripped, place)
            if found is None or found.lastgroup is None:
                raise self.error(f"character `{place + 1}` does not belong here")
            self._tokens.append((found.lastgroup, found.group(found.lastgroup)))
            place = found.end()

    def error(self, detail: str) -> ScimError:
        return invalid(
            f"the {'filter' if self._scim_type == 'invalidFilter' else 'path'} cannot be read: {detail}", self._scim_type
        )

    # ------------------------------------------------------------ tokens

    def _peek(self) -> tuple[str, str]:
        return self._tokens[self._at] if self._at < len(self._tokens) else ("end", "")

    def _next(self) -> tuple[str, str]:
        token = self._peek()
        self._at += 1
        return token

    def takes(self, sign: str) -> bool:
        if self._peek() == ("sign", sign):
            self._at += 1
            return True
        return False

    def expect(self, sign: str) -> None:
        if not self.takes(sign):
            raise self.error(f"`{sign}` is missing")

    def end(self) -> None:
        if self._at < len(self._tokens):
            raise self.error("there is more than one expression")

    def _word_is(self, word: str) -> bool:
        kind, text = self._peek()
        return kind == "word" and text.lower() == word

    # ------------------------------------------------------------ the grammar

    def either(self, *, inside: bool) -> Filter:
        """`or` binds weaker than `and`, `and` weaker than `not`. `inside`: between square brackets."""
        self._depth += 1
        if self._depth > MAX_DEPTH:
            raise self.error(f"it is nested deeper than `{MAX_DEPTH}`")
        terms = [self._both(inside=inside)]
        while self._word_is("or"):
            self._at += 1
            terms.append(self._both(inside=inside))
        self._depth -= 1
        return terms[0] if len(terms) == 1 else AnyOf(tuple(terms))

    def _both(self, *, inside: bool) -> Filter:
        terms = [self._one(inside=inside)]
        while self._word_is("and"):
            self._at += 1
            terms.append(self._one(inside=inside))
        return terms[0] if len(terms) == 1 else All(tuple(terms))

    def _one(self, *, inside: bool) -> Filter:
        if self._word_is("not") and self._at + 1 < len(self._tokens) and self._tokens[self._at + 1] == ("sign", "("):
            self._at += 1
            return Not(self._grouped(inside=inside))
        if self._peek() == ("sign", "("):
            return self._grouped(inside=inside)
        path = self.attr_path()
        if self._peek() == ("sign", "["):
            return self._selection(path, inside=inside)
        return self._assertion(path)

    def _grouped(self, *, inside: bool) -> Filter:
        self.expect("(")
        found = self.either(inside=inside)
        self.expect(")")
        return found

    def _selection(self, path: AttrPath, *, inside: bool) -> Filter:
        if inside or path.part:
            raise self.error("values are selected of an attribute, and only once")
        self.expect("[")
        inner = self.either(inside=True)
        self.expect("]")
        part = self.part()
        if part:
            inner = All((inner, self._assertion(AttrPath(part))))
        return Selection(path, inner)

    def _assertion(self, path: AttrPath) -> Filter:
        self._terms += 1
        if self._terms > MAX_TERMS:
            raise self.error(f"it compares more than `{MAX_TERMS}` times")
        kind, text = self._next()
        word = text.lower()
        if kind == "word" and word == "pr":
            return Present(path)
        if kind != "word" or word not in _OPERATORS:
            raise self.error(f"after `{path.name}` comes an operator: eq, ne, co, sw, ew, gt, ge, lt, le or pr")
        return Comparison(path, word, self._value())  # type: ignore[arg-type]  # one of _OPERATORS

    def _value(self) -> Value:
        kind, text = self._next()
        if kind == "string":
            value: str = json.loads(text)
            if any("\ud800" <= character <= "\udfff" for character in value) or "\0" in value:
                raise self.error("a text holds NUL or half a character")
            return value
        if kind == "number":
            number = float(text)
            if number in (float("inf"), float("-inf")):
                raise self.error("a number is too large")
            return number if any(sign in text for sign in ".eE") else self._integer(text)
        if kind == "word" and text.lower() in _LITERALS:
            return _LITERALS[text.lower()]
        raise self.error("after an operator comes a text in double quotes, a number, true, false or null")

    def _integer(self, text: str) -> int:
        if len(text) > 19:
            raise self.error("a number is too large")
        return int(text)

    def attr_path(self) -> AttrPath:
        kind, text = self._next()
        if kind != "word":
            raise self.error("the name of an attribute is missing")
        urn, _, rest = text.rpartition(":")
        if rest[:1].isdigit():
            raise self.error("the name of an attribute is missing")
        # `urn:…:2.0:User` alone names an extension as a whole; its dot is no part.
        name, _, part = rest.partition(".")
        if not urn and name.lower() == "not":
            raise self.error("after `not` comes a bracket")
        return AttrPath(name, part, urn)

    def part(self) -> str:
        if self._peek()[0] == "part":
            return self._next()[1][1:]
        return ""
