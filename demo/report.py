"""What the demo says: one line per thing tried, with what was expected, what was seen and how long it took. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass, field

WIDTHS = (9, 44, 13)


@dataclass(frozen=True)
class Line:
    who: str
    tried: str
    expected: str
    seen: str
    seconds: float | None
    told: str
    holds: bool


@dataclass
class Report:
    sections: list[tuple[str, list[Line]]] = field(default_factory=list)

    def section(self, title: str) -> None:
        self.sections.append((title, []))

    def add(self, line: Line) -> Line:
        self.sections[-1][1].append(line)
        return line

    @property
    def lines(self) -> list[Line]:
        return [line for _, lines in self.sections for line in lines]

    @property
    def holds(self) -> bool:
        return bool(self.lines) and all(line.holds for line in self.lines)


def told(line: Line) -> str:
    """One line of the report as text."""
    mark = "ok  " if line.holds else "FAIL"
    took = f"{_time(line.seconds):>9}" if line.seconds is not None else " " * 9
    seen = line.seen if line.holds else f"{line.seen} (expected: {line.expected})"
    who, tried, width = (text.ljust(width) for text, width in zip((line.who, line.tried, seen), WIDTHS, strict=True))
    return f"  {mark} {who} {tried} {width} {took}   {line.told}".rstrip()


def summary(report: Report, seconds: float) -> str:
    failed = [line for line in report.lines if not line.holds]
    if not failed:
        return f"All {len(report.lines)} lines are as expected, after {_time(seconds)}."
    return f"{len(failed)} of {len(report.lines)} lines are NOT as expected: " + "; ".join(
        f"{line.who}: {line.tried}" for line in failed
    )


def commands(pairs: Sequence[tuple[str, str]]) -> str:
    """Commands to try, each under what it shows."""
    return "\n".join(f"  # {about}\n  {command}" for about, command in pairs)


def _time(seconds: float) -> str:
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.1f} min"
