"""Times of measures with the limits that they are to keep, and the file that holds them, whole after each."""

import contextlib
import datetime as dt
import json
import os
import platform
import statistics
import sys
import time
import traceback
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

P50, P99, LONGEST = 0.1, 1.0, 3.0
"""Seconds: what a cause may take in the middle, at the 99th percentile, and at most."""


@dataclass(frozen=True)
class Figure:
    """Times of one measure and what was to be reached; a limit of 0 is none."""

    name: str
    times: list[float] = field(repr=False)
    p50_limit: float = P50
    p99_limit: float = P99
    max_limit: float = LONGEST

    @property
    def values(self) -> tuple[float, float, float]:
        ordered = sorted(self.times)
        return statistics.median(ordered), ordered[min(len(ordered) - 1, int(len(ordered) * 0.99))], ordered[-1]

    @property
    def reached(self) -> bool:
        limits = (self.p50_limit, self.p99_limit, self.max_limit)
        return all(not limit or value <= limit for value, limit in zip(self.values, limits, strict=True))

    def line(self) -> str:
        p50, p99, longest = (f"{value * 1000:8.1f}" for value in self.values)
        return f"{'ok  ' if self.reached else 'MISS'} {self.name:<48}{p50}{p99}{longest}  n {len(self.times)}"


class Report:
    """What was found so far, in a file that is whole after each figure."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.figures: list[Figure] = []
        self.failed: dict[str, str] = {}
        self._notes: dict[str, Any] = {}
        self._started = time.monotonic()

    def add(self, *figures: Figure) -> None:
        for figure in figures:
            print(f"  {figure.line()}", flush=True)
        self.figures += figures
        self.write()

    def note(self, name: str, value: Any) -> None:
        """What is told without a limit."""
        print(f"       {name}: {value}", flush=True)
        self._notes[name] = value
        self.write()

    @contextlib.contextmanager
    def surviving(self, name: str) -> Iterator[None]:
        """What fails inside is told, and what comes after it goes on."""
        try:
            yield
        except Exception as error:  # noqa: BLE001  told, and the exit status says so
            self.failed[name] = f"{type(error).__name__}: {error}"
            print(f"  FAIL {name}: {error}", file=sys.stderr, flush=True)
            traceback.print_exc()
            self.write()

    @property
    def missed(self) -> list[str]:
        return [figure.name for figure in self.figures if not figure.reached]

    def write(self) -> None:
        about = {
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "seconds": round(time.monotonic() - self._started),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load": os.getloadavg()},
            "missed": self.missed,
            "failed": self.failed,
            "notes": self._notes,
        }
        rows = [
            asdict(figure) | dict(zip(("p50", "p99", "max"), figure.values, strict=True)) | {"reached": figure.reached}
            for figure in self.figures
        ]
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(about | {"figures": rows}, indent=1) + "\n")
