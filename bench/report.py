"""Medians, ratios and targets; pure: samples in, a report out."""

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

Samples = Mapping[str, Mapping[str, Sequence[Mapping[str, float]]]]  # set-up → measure → repetitions
BULKS = ("bulk_up_1", "bulk_down_1", "bulk_up_8", "bulk_down_8")


@dataclass(frozen=True)
class Target:
    """One figure to reach. `over` names the baseline's field; None: the field itself is held against the limit."""

    name: str
    measure: str
    field: str
    at_most: float | None = None
    at_least: float | None = None
    over: str | None = None
    unit: str = "×"

    def holds(self, value: float) -> bool:
        return (self.at_most is None or value <= self.at_most) and (self.at_least is None or value >= self.at_least)

    @property
    def limit(self) -> str:
        return f"≤ {self.at_most:g}" if self.at_most is not None else f"≥ {self.at_least:g}"


TARGETS = (
    *(Target(f"CPU per GB, {bulk}", bulk, "cpu_per_gb", at_most=0.60, over="cpu_per_gb") for bulk in BULKS),
    *(
        Target(f"CPU per GB of the relay, {bulk}", bulk, "cpu_middle_per_gb", at_most=0.15, over="cpu_middle_per_gb")
        for bulk in BULKS
    ),
    Target("requests/s, 64 connections", "pingpong_64", "per_second", at_least=2.0, over="per_second"),
    Target("CPU per request, 64 connections", "pingpong_64", "cpu_us_per_request", at_most=0.40, over="cpu_us_per_request"),
    Target("p50 of a request, 1 connection", "pingpong_1", "p50_us", at_most=0.65, over="p50_us"),
    Target("new connections/s, 32 workers", "connect_32", "per_second", at_least=11.0, over="per_second"),
    Target("CPU per connection, 32 workers", "connect_32", "cpu_us_per_connection", at_most=0.055, over="cpu_us_per_connection"),
    Target("memory per idle flow", "idle", "kib_per_flow", at_most=14.0, unit="KiB"),
    Target("bulk kept beside stalled flows", "stalled", "bulk_kept", at_least=0.8),
    Target("requests/s kept beside stalled flows", "stalled", "interactive_kept", at_least=0.8),
)


@dataclass(frozen=True)
class Figure:
    name: str
    value: float  # the ratio, or the figure itself
    limit: str
    unit: str
    reached: bool
    ours: float
    baseline: float | None


def medians(samples: Samples) -> dict[str, dict[str, dict[str, float]]]:
    return {
        setup: {
            measure: {field: statistics.median(sample[field] for sample in repetitions) for field in repetitions[0]}
            for measure, repetitions in measures.items()
            if repetitions
        }
        for setup, measures in samples.items()
    }


def judge(
    middle: Mapping[str, Mapping[str, Mapping[str, float]]], setup: str = "cloister", baseline: str = "haproxy"
) -> list[Figure]:
    """Every target that both set-ups have a figure for."""
    figures = []
    for target in TARGETS:
        ours = middle.get(setup, {}).get(target.measure, {}).get(target.field)
        theirs = middle.get(baseline, {}).get(target.measure, {}).get(target.over or target.field)
        if ours is None or (target.over is not None and not theirs):
            continue
        value = ours / theirs if target.over is not None and theirs else ours
        figures.append(Figure(target.name, value, target.limit, target.unit, target.holds(value), ours, theirs))
    return figures


def absolute_lines(middle: Mapping[str, Mapping[str, Mapping[str, float]]]) -> list[str]:
    """The figures of every set-up by themselves, one line per measure and set-up."""
    lines = []
    measures = list(dict.fromkeys(measure for setup in middle.values() for measure in setup))
    for measure in measures:
        for setup, values in middle.items():
            if sample := values.get(measure):
                lines.append(f"  {measure:12} {setup:9} {_told(measure, sample)}")
    return lines


def figure_lines(figures: Sequence[Figure]) -> list[str]:
    return [
        f"  {'ok  ' if figure.reached else 'MISS'} {figure.name:40} {figure.value:8.3f} {figure.unit:3} (target {figure.limit})"
        f"   ours {figure.ours:.4g}" + (f", baseline {figure.baseline:.4g}" if figure.baseline is not None else "")
        for figure in figures
    ]


def as_json(figures: Sequence[Figure]) -> list[dict[str, object]]:
    return [asdict(figure) for figure in figures]


def _told(measure: str, sample: Mapping[str, float]) -> str:
    if measure.startswith("bulk"):
        cpu = "".join(
            f", {role} {sample[key]:.3f}" for role in ("client", "middle", "connector") if (key := f"cpu_{role}_per_gb") in sample
        )
        return f"{sample['per_second'] / 1e9:6.2f} GB/s   CPU s/GB {sample['cpu_per_gb']:.3f}{cpu}"
    if measure.startswith("pingpong"):
        return (
            f"{sample['per_second']:8.0f} req/s   p50 {sample['p50_us']:.0f} µs, p99 {sample['p99_us']:.0f} µs"
            f"   CPU µs/req {sample['cpu_us_per_request']:.1f}"
        )
    if measure.startswith("connect"):
        return f"{sample['per_second']:8.0f} conn/s   p99 {sample['p99_us'] / 1000:.1f} ms   CPU µs/conn {sample['cpu_us_per_connection']:.0f}"
    if measure == "idle":
        return f"{sample['kib_per_flow']:8.1f} KiB per flow at {sample['flows']:.0f} flows"
    return f"bulk kept {sample['bulk_kept']:.2f}, requests/s kept {sample['interactive_kept']:.2f}"
