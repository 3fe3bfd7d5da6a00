"""What the examination found: a table by scenario and every failure as text, everything as JSON."""

import dataclasses
import json
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from exam.examine import Verdict

WORDS = {True: "pass", False: "fail", None: "not-applicable"}


def write_report(path: Path, verdicts: Sequence[Verdict], seconds: float) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = [dataclasses.asdict(verdict) | {"result": WORDS[verdict.passed]} for verdict in verdicts]
    total = Counter(row["result"] for row in rows)
    path.write_text(json.dumps({"seconds": round(seconds, 1), "total": total, "rows": rows}, indent=1) + "\n")


def by_scenario(verdicts: Sequence[Verdict]) -> dict[str, Counter[str]]:
    found: dict[str, Counter[str]] = {}
    for verdict in verdicts:
        found.setdefault(verdict.scenario, Counter())[WORDS[verdict.passed]] += 1
    return found


def print_report(verdicts: Sequence[Verdict], path: Path, seconds: float) -> None:
    for verdict in verdicts:
        if verdict.passed is False:
            print(f"{verdict.id}: fail: {verdict.why}")
    for verdict in verdicts:
        if verdict.passed and verdict.notes:
            print(f"{verdict.id}: pass, with a remark: {'; '.join(verdict.notes)}")
    print(f"\n{'scenario':<10}{'pass':>6}{'fail':>6}  not applicable because")
    reasons = {verdict.scenario: verdict.why for verdict in verdicts if verdict.passed is None}
    for scenario, counted in by_scenario(verdicts).items():
        rest = f"  {counted['not-applicable']} rows: {reasons[scenario]}" if counted["not-applicable"] else ""
        print(f"{scenario:<10}{counted['pass']:>6}{counted['fail']:>6}{rest}")
    total = Counter(WORDS[verdict.passed] for verdict in verdicts)
    print(
        f"\n{total['pass']} passed, {total['fail']} failed, {total['not-applicable']} do not apply; {seconds:.0f} s; {os.path.relpath(path)}"
    )
