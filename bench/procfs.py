"""What the kernel says of a process and of all that it started: CPU seconds and resident memory."""

import os
from collections.abc import Iterable
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")
PROC = Path("/proc")


def family(root: int) -> set[int]:
    """The process and its descendants that live now."""
    children: dict[int, list[int]] = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit() and (fields := _stat(int(entry.name))):
            children.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = set(), [root]
    while waiting:
        pid = waiting.pop()
        found.add(pid)
        waiting += children.get(pid, [])
    return found


def cpu_seconds(root: int) -> float:
    """User and system time of all threads, ended children that were waited for included (proc(5): utime, stime, cutime, cstime)."""
    return sum(sum(int(ticks) for ticks in fields[11:15]) for pid in family(root) if (fields := _stat(pid))) / TICKS


def resident_kib(roots: Iterable[int]) -> int:
    total = 0
    for root in roots:
        for pid in family(root):
            try:
                status = (PROC / str(pid) / "smaps_rollup").read_text()
            except OSError:  # ended meanwhile
                continue
            total += sum(int(line.split()[1]) for line in status.splitlines() if line.startswith("Rss:"))
    return total


def _stat(pid: int) -> list[str] | None:
    """The fields of proc(5) stat from the third (state) on, or None when the process is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except OSError:
        return None
    return text[text.rindex(")") + 2 :].split()
