"""`make exam`: the tables of NIST SP 1800-35 volume D, or another folder of the same form, put through real processes.

The exit code is 0 if every row that applies passed, 1 if one did not, 2 if the examination could not be held.
"""

import argparse
import os
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
sys.path[:0] = [str(ROOT / "tests"), str(ROOT / "tests" / "e2e"), str(ROOT / "src")]

from deployment import DeploymentError  # noqa: E402
from netlab import LabError  # noqa: E402

from exam.examine import Verdict, examine  # noqa: E402
from exam.places import places  # noqa: E402
from exam.report import print_report, write_report  # noqa: E402
from exam.rows import Row, read_folder  # noqa: E402
from exam.world import Unfit, World  # noqa: E402

NIST = ROOT / "tests" / "data" / "nist-1800-35d"


def chosen(rows: list[Row], *, whole: bool, only: list[str]) -> list[Row]:
    """Rows that differ in more than place, unless all are asked for; those that do not apply are always reported."""
    picked = [row for row in rows if whole or row.distinct or not row.applies]
    return [row for row in picked if not only or any(one in (row.id, row.scenario) for one in only)]


def main(arguments: list[str]) -> int:
    parser = argparse.ArgumentParser(prog="make exam")
    parser.add_argument("--rows", type=Path, default=NIST, help="folder of rows")
    parser.add_argument("--output", type=Path, default=ROOT / "build" / "exam.json")
    parser.add_argument("--full", action="store_true", help="every row, also those that differ in place only")
    parser.add_argument("--only", nargs="*", default=[], metavar="ID", help="these Demo IDs or scenarios")
    options = parser.parse_args(arguments)
    whole = options.full or bool(os.environ.get("FULL")) or options.rows.resolve() != NIST
    try:
        rows = chosen(read_folder(options.rows), whole=whole, only=options.only)
    except (OSError, ValueError) as error:
        print(f"exam: {error}", file=sys.stderr)
        return 2
    started = time.monotonic()
    verdicts: list[Verdict] = []
    with places() as where:
        world = World(where)
        world.prepare()
        world.control()
        print(f"{len(rows)} rows; everything stands after {time.monotonic() - started:.0f} s", file=sys.stderr)
        for number, row in enumerate(rows, 1):
            verdict = examine(world, row)
            verdicts.append(verdict)
            if verdict.passed is False:
                print(f"  {number}/{len(rows)} {row.id}: FAIL {verdict.why}", file=sys.stderr)
            elif number % 25 == 0:
                print(f"  {number}/{len(rows)} after {time.monotonic() - started:.0f} s", file=sys.stderr)
        held = True
        try:
            world.control()
        except Unfit as error:
            print(f"exam: {error}: refusals may have had another reason", file=sys.stderr)
            held = False
    write_report(options.output, verdicts, time.monotonic() - started)
    print_report(verdicts, options.output, time.monotonic() - started)
    if not held:
        return 2
    return 0 if all(verdict.passed is not False for verdict in verdicts) else 1


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (DeploymentError, LabError, Unfit, OSError) as error:
        print(f"exam: {error}", file=sys.stderr)
        sys.exit(2)
