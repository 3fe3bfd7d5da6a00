"""Risk scores: contributions that fade, and an administrator's word that stands above them for a while. Pure.

A score is a whole number from 0 to 100: the sum of what every source says now, at most 100. Rules compare whole numbers, so a decision stands
until the next second at which the rounded score is another one.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, Literal

from cloister.model.facts import MAX_RISK

Decay = Literal["none", "linear", "exponential"]
DECAYS: Final[tuple[Decay, ...]] = ("none", "linear", "exponential")
HALF_LIVES: Final = 8  # after so many, less than half a point of the highest score is left, and it counts as gone
MAX_HALF_LIFE: Final = 366 * 86400


@dataclass(frozen=True, slots=True)
class Contribution:
    """What one source says: `score` at the instant `at`. `half_life` seconds later half of it is left; a linear one is gone after two of them.
    `ends`: from then on it does not count at all.
    """

    score: int
    at: int
    decay: Decay = "none"
    half_life: int = 0
    ends: int | None = None

    def left(self, now: int) -> float:
        age = max(0, now - self.at)
        if self.ends is not None and now >= self.ends:
            return 0.0
        match self.decay:
            case "none":
                return float(self.score)
            case "linear":
                return self.score * max(0.0, 1 - age / (2 * self.half_life))
            case "exponential":
                return self.score * 0.5 ** (age / self.half_life) if age < HALF_LIVES * self.half_life else 0.0

    @property
    def gone_at(self) -> int | None:
        """From when on nothing of it is left; None: it stays."""
        fades = {"none": None, "linear": 2 * self.half_life, "exponential": HALF_LIVES * self.half_life}[self.decay]
        ends = [end for end in (None if fades is None else self.at + fades, self.ends) if end is not None]
        return min(ends, default=None)


@dataclass(frozen=True, slots=True)
class Override:
    """What an administrator sets the score to, until it expires."""

    score: int
    ends: int


def score(contributions: Sequence[Contribution], override: Override | None, now: int) -> int:
    """The score now."""
    if override is not None and now < override.ends:
        return override.score
    return _sum(contributions, now)


def next_change(contributions: Sequence[Contribution], override: Override | None, now: int) -> int | None:
    """The first second after `now` at which the score is another one by the clock alone; None: never.

    While an override stands: its end. Otherwise scores only fall, so that instant is found by halving.
    """
    if override is not None and now < override.ends:
        return override.ends
    current = _sum(contributions, now)
    last = max((gone for one in contributions if (gone := one.gone_at) is not None), default=now)
    low, high = now, last
    if high <= now or _sum(contributions, high) == current:
        return None
    while high - low > 1:
        middle = (low + high) // 2
        if _sum(contributions, middle) == current:
            low = middle
        else:
            high = middle
    return high


def _sum(contributions: Sequence[Contribution], now: int) -> int:
    return min(MAX_RISK, math.floor(sum(one.left(now) for one in contributions) + 0.5))


def print_contribution(one: Contribution) -> str:
    """As it is stored: `score decay half-life`. The instants are the row's own."""
    return f"{one.score} {one.decay} {one.half_life}"


def read_contribution(text: str, at: int, ends: int | None) -> Contribution:
    """What `print_contribution` wrote, or a score alone, which stays as it is. Anything else counts as the highest risk: what cannot be read
    vouches for nobody.
    """
    match text.split(" "):
        case [points] if _is_number(points, MAX_RISK):
            return Contribution(int(points), at, ends=ends)
        case [points, word, half_life] if _is_number(points, MAX_RISK) and _is_number(half_life, MAX_HALF_LIFE):
            decay = next((known for known in DECAYS if known == word), None)
            if decay is not None and (decay == "none" or int(half_life) > 0):
                return Contribution(int(points), at, decay, int(half_life), ends)
        case _:
            pass
    return Contribution(MAX_RISK, at, ends=ends)


def _is_number(text: str, most: int) -> bool:
    return text.isascii() and text.isdecimal() and len(text) <= 9 and int(text) <= most
