"""What is measured, on any set-up alike. A sample is a flat mapping of numbers; CPU is in seconds, by process."""

import contextlib
import json
import subprocess
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from bench import procfs
from bench.setups import Setup

Sample = dict[str, float]
SETTLE = 0.1
"""Seconds after a load before its CPU is read: ends of flows and their records belong to it."""


@dataclass(frozen=True)
class Sizes:
    bulk_bytes: int
    seconds: float
    idle_flows: int
    stalled_flows: int
    repetitions: int


FULL = Sizes(bulk_bytes=2 << 30, seconds=4.0, idle_flows=5000, stalled_flows=200, repetitions=5)
QUICK = Sizes(bulk_bytes=512 << 20, seconds=1.5, idle_flows=1000, stalled_flows=200, repetitions=1)


@dataclass(frozen=True)
class Load:
    """The load generator."""

    program: Path

    def run(self, *arguments: object) -> Sample:
        (sample,) = self.run_all(*arguments)
        return sample

    def run_all(self, *arguments: object) -> list[Sample]:
        result = subprocess.run(self._command(*arguments), capture_output=True, text=True, timeout=300, check=False)
        if result.returncode != 0:
            raise RuntimeError(f"`{' '.join(map(str, arguments))}` failed: {result.stderr.strip()}")
        return [{name: float(value) for name, value in json.loads(line).items()} for line in result.stdout.splitlines()]

    def start(self, *arguments: object) -> subprocess.Popen[str]:
        return subprocess.Popen(
            self._command(*arguments), stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    @contextlib.contextmanager
    def standing(self, *arguments: object) -> Iterator[Sample]:
        """`hold` or `stall`: inside, all flows stand."""
        process = self.start(*arguments)
        assert process.stdout is not None
        line = process.stdout.readline()
        if not line:
            _, error = process.communicate()
            raise RuntimeError(f"`{' '.join(map(str, arguments))}` failed: {error.strip()}")
        try:
            yield {name: float(value) for name, value in json.loads(line).items()}
        finally:
            process.communicate(timeout=60)

    def _command(self, *arguments: object) -> list[str]:
        return [str(self.program), *map(str, arguments)]


@contextlib.contextmanager
def counted_cpu(setup: Setup, sample: Sample) -> Iterator[None]:
    before = {role: procfs.cpu_seconds(pid) for role, pid in setup.processes.items()}
    yield
    time.sleep(SETTLE)
    for role, pid in setup.processes.items():
        sample[f"cpu_{role}"] = procfs.cpu_seconds(pid) - before[role]
    sample["cpu"] = sum(sample[f"cpu_{role}"] for role in setup.processes)


def _loaded(load: Load, setup: Setup, *arguments: object) -> Sample:
    sample: Sample = {}
    with counted_cpu(setup, sample):
        sample |= load.run(*arguments)
    return sample


def bulk(direction: str, streams: int) -> "Measure":
    def take(load: Load, setup: Setup, sizes: Sizes) -> Sample:
        sample = _loaded(load, setup, "bulk", setup.address, direction, streams, sizes.bulk_bytes)
        gigabytes = sample["count"] / 1e9
        return sample | {f"{name}_per_gb": value / gigabytes for name, value in sample.items() if name.startswith("cpu")}

    return take


def pingpong(flows: int) -> "Measure":
    def take(load: Load, setup: Setup, sizes: Sizes) -> Sample:
        sample = _loaded(load, setup, "pingpong", setup.address, flows, sizes.seconds)
        return sample | {"cpu_us_per_request": 1e6 * sample["cpu"] / sample["count"]}

    return take


def connect(workers: int) -> "Measure":
    def take(load: Load, setup: Setup, sizes: Sizes) -> Sample:
        sample = _loaded(load, setup, "connect", setup.address, workers, sizes.seconds)
        return sample | {"cpu_us_per_connection": 1e6 * sample["cpu"] / sample["count"]}

    return take


def idle(load: Load, setup: Setup, sizes: Sizes) -> Sample:
    before = procfs.resident_kib(setup.processes.values())
    with load.standing("hold", setup.address, sizes.idle_flows) as stood:
        time.sleep(1.0)
        after = procfs.resident_kib(setup.processes.values())
        return {
            "flows": stood["count"],
            "opened_per_second": stood["per_second"],
            "resident_kib_before": before,
            "resident_kib": after,
            "kib_per_flow": (after - before) / stood["count"],
        }


def stalled(load: Load, setup: Setup, sizes: Sizes) -> Sample:
    """One bulk and one interactive flow beside each other, without and with stalled flows; without, before and after."""
    alone = [load.run_all("mixed", setup.address, sizes.seconds)]
    with load.standing("stall", setup.address, sizes.stalled_flows):
        bulk_beside, interactive_beside = (
            sample["per_second"] for sample in load.run_all("mixed", setup.address, 2 * sizes.seconds)
        )
    alone.append(load.run_all("mixed", setup.address, sizes.seconds))
    bulk_alone, interactive_alone = (sum(run[kind]["per_second"] for run in alone) / len(alone) for kind in (0, 1))
    return {
        "bulk_per_second_alone": bulk_alone,
        "bulk_per_second_beside": bulk_beside,
        "bulk_kept": bulk_beside / bulk_alone,
        "interactive_per_second_alone": interactive_alone,
        "interactive_per_second_beside": interactive_beside,
        "interactive_kept": interactive_beside / interactive_alone,
    }


Measure = Callable[[Load, Setup, Sizes], Sample]
FRESH = frozenset({"idle"})
"""Taken on processes of their own that have carried nothing yet: memory that an earlier load left would hide what flows need."""

MEASURES: dict[str, Measure] = {
    "bulk_up_1": bulk("up", 1),
    "bulk_down_1": bulk("down", 1),
    "bulk_up_8": bulk("up", 8),
    "bulk_down_8": bulk("down", 8),
    "pingpong_1": pingpong(1),
    "pingpong_64": pingpong(64),
    "connect_32": connect(32),
    "idle": idle,
    "stalled": stalled,
}
