"""Facts as they are judged, and what came of it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol


class Observed(Protocol):
    """One fact that a source reported; `expires_at` None: it stands until it is replaced. Unix seconds."""

    @property
    def value(self) -> str: ...
    @property
    def observed_at(self) -> int: ...
    @property
    def expires_at(self) -> int | None: ...


Facts = Mapping[tuple[str, str], Observed]
"""By source and name."""


@dataclass(frozen=True, slots=True)
class Seen:
    """A fact that nobody had to report."""

    value: str
    observed_at: int
    expires_at: int | None = None


@dataclass(frozen=True, slots=True)
class Outcome:
    """Whether a profile holds: it does if nothing failed. `failed` is why not, by the key of the requirement; `until` is when the first of the facts
    that count now is too old, None if none ever is.
    """

    failed: Mapping[str, str]
    until: int | None

    @property
    def holds(self) -> bool:
        return not self.failed


@dataclass(frozen=True, slots=True)
class Report:
    """A report taken apart: facts by name as (value, observed at), and why others are not worth anything."""

    facts: Mapping[str, tuple[str, int]]
    refused: Mapping[str, str]
