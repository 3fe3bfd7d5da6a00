"""`make bench-revocation`: how long after its cause does a session's last byte go through?

Three parts: `causes` tries every cause on an idle, a busy, a datagram flow and one being opened, at both ends; `scale` ends one session, and all, among
10,000, without and with a directory that provisions 10,000 users; `silent` revokes behind a connector whose link is black-holed. What fails is told and
the rest goes on. Exit status: 0 all targets reached, 1 one missed, 2 something could not be measured.
"""

import argparse
import contextlib
import datetime as dt
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "e2e")]

from deployment import DeploymentError  # noqa: E402
from netlab import LabError, Machine  # noqa: E402

from bench import scale, silence  # noqa: E402
from bench.causes import Causes  # noqa: E402
from bench.figures import LONGEST, P50, P99, Figure, Report  # noqa: E402
from bench.run import EXCHANGE, HOSTS, INSIDE, enter_namespace, prepare_namespace, raise_file_limit  # noqa: E402
from bench.seats import AgentsProcess, SharedDeployment, Site  # noqa: E402
from bench.trials import Trials  # noqa: E402
from bench.watch import KINDS, SIDES  # noqa: E402

SEATS = 20
SWITCH_SECONDS = 0.001
"""Between threads of this process, which hold the clock: the usual 5 ms would be seen in every figure."""


def measure_causes(report: Report, directory: Path, trials: int, only: Sequence[str]) -> None:
    machine = Machine("bench", directory)
    deployment = SharedDeployment(machine, EXCHANGE, directory)
    with contextlib.ExitStack() as stack:
        stack.callback(machine.end)
        stack.callback(deployment.close)
        deployment.start_exchange()
        site = Site(deployment, AgentsProcess(machine, deployment), HOSTS[0], min(SEATS, trials))
        work = Trials(site.seats, HOSTS[0])
        stack.callback(work.close)
        site.build()
        for name, cause in Causes(site).all().items():
            if only and name not in only:
                continue
            with report.surviving(name):
                found: dict[tuple[str, str], list[float]] = {(kind, side): [] for kind in KINDS for side in SIDES}
                try:
                    for answer in work.of(cause, trials):
                        for measure, seconds in answer.items():
                            found[measure].append(seconds)
                finally:  # what was found counts, whatever became of the rest
                    made = {measure: times for measure, times in found.items() if times}
                    report.add(*(Figure(f"{name}: {kind}, {side}", times) for (kind, side), times in made.items()))
            with report.surviving(f"{name}: all as before"):
                work.on_all(cause.ready)
                work.on_all(lambda seat: seat.allow())


def measure_scale(report: Report, directory: Path, trials: int, *, quick: bool) -> None:
    devices, live = (100, 20) if quick else (1000, 200)
    for found in scale.measure(directory, devices, live, trials):
        if isinstance(found, scale.Synced):
            report.note("users provisioned meanwhile", asdict(found))
        else:
            report.add(Figure(found.name, found.times, p50_limit=0, p99_limit=0 if found.is_of_one_change else P99))


def measure_silence(report: Report, directory: Path, trials: int) -> None:
    times = silence.measure(directory, trials)
    report.add(Figure("connector's link black-holed: busy TCP, client", times, p50_limit=0))


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench-revocation", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="5 trials of a cause, 100 devices")
    parser.add_argument("--trials", type=int, help="instead of 200 (quick: 5) of each cause")
    parser.add_argument("--only", action="append", choices=("causes", "scale", "silent"), help="these parts only")
    parser.add_argument("--cause", action="append", default=[], help="these causes only")
    parser.add_argument("--output", type=Path, help="where the JSON goes (default: bench/results/revocation-TIME.json)")
    options = parser.parse_args(arguments)
    if not os.environ.get(INSIDE):
        return enter_namespace(arguments, Path(__file__))
    raise_file_limit()
    prepare_namespace()
    threading.stack_size(256 << 10)
    sys.setswitchinterval(SWITCH_SECONDS)
    trials = options.trials or (5 if options.quick else 200)
    report = Report(options.output or ROOT / "bench" / "results" / f"revocation-{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json")
    parts: Mapping[str, Callable[[Path], None]] = {
        "causes": lambda directory: measure_causes(report, directory, trials, options.cause),
        "scale": lambda directory: measure_scale(report, directory, trials, quick=options.quick),
        "silent": lambda directory: measure_silence(report, directory, trials),
    }
    print(f"{'':<55}{'p50':>8}{'p99':>8}{'max':>8}  ms; limits {P50 * 1000:g}, {P99 * 1000:g}, {LONGEST * 1000:g}")
    for name in options.only or list(parts):
        with report.surviving(name), tempfile.TemporaryDirectory(prefix="cloister-bench-") as directory:
            started = time.monotonic()
            parts[name](Path(directory))
            report.note(f"{name}: seconds", round(time.monotonic() - started))
    print(f"\n{len(report.figures)} figures, {len(report.missed)} missed, {len(report.failed)} failed", end="")
    print(f"; every time: {os.path.relpath(report.path)}")
    return 2 if report.failed else 1 if report.missed else 0


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (DeploymentError, LabError, OSError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
