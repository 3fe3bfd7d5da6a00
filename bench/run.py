"""`make bench`: take every measure on every set-up, interleaved, print ratios with their targets, write one JSON file.

Runs in a network namespace of its own, where the congestion control is set to cubic for every set-up alike.
Exit status: 0 all targets reached, 1 a target missed, 2 the benchmark could not be run.
"""

import argparse
import contextlib
import datetime as dt
import json
import os
import platform
import resource
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))

from bench import measures, report, setups  # noqa: E402  the benchmark is run from the tree

EXCHANGE = "10.77.0.2:7443"
SINK = "10.77.0.1:7000"
HOSTS = ("10.77.0.1", "10.77.0.2")
CONGESTION_CONTROL = "cubic"
SYSCTLS = {
    "net/ipv4/tcp_congestion_control": CONGESTION_CONTROL,
    "net/ipv4/ip_local_reserved_ports": "7000-7999",  # where set-ups listen: no connection out may take one of these before
    "net/ipv4/ip_local_port_range": "1024 65535",  # tens of thousands of connections a second leave TIME_WAIT behind
    "net/ipv4/tcp_tw_reuse": "1",
    "net/core/somaxconn": "8192",
}
INSIDE = "CLOISTER_BENCH_INSIDE"


@dataclass(frozen=True)
class Plan:
    setups: Sequence[str]
    measures: Sequence[str]
    repetitions: int


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="one short repetition")
    parser.add_argument("--repetitions", type=int, help="instead of the default 5 (quick: 1)")
    parser.add_argument("--only", action="append", metavar="MEASURE", choices=measures.MEASURES, help="these measures only")
    parser.add_argument("--setups", default="plain,haproxy,cloister", help="these set-ups only (default: %(default)s)")
    parser.add_argument("--output", type=Path, help="where the JSON goes (default: bench/results/TIME.json)")
    options = parser.parse_args(arguments)
    if not os.environ.get(INSIDE):
        return enter_namespace(arguments)
    load = measures.Load(target_directory() / "release" / "cloister-load")
    sizes = measures.QUICK if options.quick else measures.FULL
    plan = Plan(options.setups.split(","), options.only or list(measures.MEASURES), options.repetitions or sizes.repetitions)
    samples: Samples = {}
    raise_file_limit()
    if os.environ[INSIDE] == "namespace":
        prepare_namespace()
    with tempfile.TemporaryDirectory(prefix="cloister-bench-") as name, contextlib.ExitStack() as stack:
        directory = Path(name)
        plain = stack.enter_context(setups.sink(load.program, directory, SINK))
        take_fresh(load, directory, sizes, plan, samples)
        chains = [stack.enter_context(stand(directory / chain)) for chain, stand in CHAINS.items() if chain in plan.setups]
        standing = [*([plain] if plain.name in plan.setups else []), *chains]
        take_interleaved(load, standing, sizes, plan, samples)
        about = {
            "at": dt.datetime.now(dt.UTC).isoformat(timespec="seconds"),
            "congestion_control": congestion_control(),
            "machine": {"cpus": os.cpu_count(), "kernel": platform.release(), "load_before": os.getloadavg()},
            "sizes": vars(sizes) | {"repetitions": plan.repetitions},
            "setups": {setup.name: setup.about for setup in standing},
        }
    middle = report.medians(samples)
    figures = report.judge(middle)
    print(
        f"\nMedians of {plan.repetitions} interleaved repetition(s), {about['congestion_control']} everywhere, {os.cpu_count()} CPUs"
    )
    print("\n".join(report.absolute_lines(middle)))
    if figures:
        print("\nCloister against the baseline of two TLS hops (haproxy)")
        print("\n".join(report.figure_lines(figures)))
    output = options.output or ROOT / "bench" / "results" / f"{dt.datetime.now(dt.UTC):%Y%m%dT%H%M%SZ}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    output.write_text(
        json.dumps({"about": about, "figures": report.as_json(figures), "medians": middle, "samples": samples}, indent=1) + "\n"
    )
    print(f"\nevery measure of every set-up and repetition: {os.path.relpath(output)}")
    return 0 if all(figure.reached for figure in figures) else 1


def enter_namespace(arguments: Sequence[str], script: Path = Path(__file__)) -> int:
    """Run again in a network namespace that ends with the run; without the right to make one, here."""
    again = [sys.executable, str(script.resolve()), *arguments]
    allowed = subprocess.run(["unshare", "--net", "true"], capture_output=True, check=False).returncode == 0
    if not allowed:
        print(
            "bench: not allowed to make a network namespace; measuring in this one, with its own congestion control",
            file=sys.stderr,
        )
        present = subprocess.run(["ip", "-o", "address", "show", "dev", "lo"], capture_output=True, text=True, check=False).stdout
        if missing := [host for host in HOSTS if f" {host}/" not in present]:
            print(f"bench: first, as root: `ip address add {missing[0]}/32 dev lo` (all of: {', '.join(missing)})", file=sys.stderr)
            return 2
        return subprocess.run(again, env={**os.environ, INSIDE: "host"}, check=False).returncode
    allow_congestion_control()
    return subprocess.run(["unshare", "--net", "--", *again], env={**os.environ, INSIDE: "namespace"}, check=False).returncode


def allow_congestion_control() -> None:
    """A namespace may only choose what the machine's own one lists as allowed; the list grows, nothing else changes."""
    allowed = Path("/proc/sys/net/ipv4/tcp_allowed_congestion_control")
    names = allowed.read_text().split()
    if CONGESTION_CONTROL not in names:
        allowed.write_text(" ".join([*names, CONGESTION_CONTROL]))


def prepare_namespace() -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    for host in HOSTS:
        subprocess.run(["ip", "address", "add", f"{host}/32", "dev", "lo"], check=True)
    for name, value in SYSCTLS.items():
        (Path("/proc/sys") / name).write_text(value)


def congestion_control() -> str:
    return Path("/proc/sys/net/ipv4/tcp_congestion_control").read_text().strip()


def target_directory() -> Path:
    return Path(os.environ.get("CARGO_TARGET_DIR") or ROOT / "target")


def raise_file_limit() -> None:
    """Thousands of flows are thousands of descriptors; the limit in force is often far below the one allowed."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


Stand = Callable[[Path], contextlib.AbstractContextManager[setups.Setup]]
CHAINS: dict[str, Stand] = {
    "haproxy": lambda directory: setups.haproxy(directory, SINK),
    "cloister": lambda directory: setups.cloister(directory, EXCHANGE, SINK),
}
Samples = dict[str, dict[str, list[measures.Sample]]]


def warm(load: measures.Load, setup: setups.Setup) -> None:
    """Handshakes, caches and pools are no measure."""
    load.run("pingpong", setup.address, 64, 0.3)


def take_fresh(load: measures.Load, directory: Path, sizes: measures.Sizes, plan: Plan, samples: Samples) -> None:
    """Measures that want processes which have carried nothing yet: each repetition has its own."""
    for repetition in range(plan.repetitions):
        for name in [name for name in plan.measures if name in measures.FRESH]:
            for chain in [chain for chain in CHAINS if chain in plan.setups]:
                tell(f"repetition {repetition + 1} of {plan.repetitions}: {name} over a new {chain}")
                with CHAINS[chain](directory / f"{chain}-{name}-{repetition}") as setup:
                    warm(load, setup)
                    samples.setdefault(chain, {}).setdefault(name, []).append(measures.MEASURES[name](load, setup, sizes))


def take_interleaved(
    load: measures.Load, standing: Sequence[setups.Setup], sizes: measures.Sizes, plan: Plan, samples: Samples
) -> None:
    """Each repetition begins with another set-up, so that none always runs first."""
    for setup in standing:
        warm(load, setup)
        load.run("bulk", setup.address, "down", 8, 64 << 20)
    for repetition in range(plan.repetitions):
        for name in [name for name in plan.measures if name not in measures.FRESH]:
            for place in range(len(standing)):
                setup = standing[(repetition + place) % len(standing)]
                tell(f"repetition {repetition + 1} of {plan.repetitions}: {name} over {setup.name}")
                samples.setdefault(setup.name, {}).setdefault(name, []).append(measures.MEASURES[name](load, setup, sizes))
    tell("")


def tell(progress: str) -> None:
    if sys.stderr.isatty():
        print(f"\r\033[K  {progress}" if progress else "\r\033[K", end="", file=sys.stderr, flush=True)


if __name__ == "__main__":
    try:
        sys.exit(main(sys.argv[1:]))
    except (setups.SetupFailed, RuntimeError, subprocess.SubprocessError) as error:
        print(f"bench: {error}", file=sys.stderr)
        sys.exit(2)
