"""`make bench-decisions`: what one decision costs with 1,000 rules and 1,000 segments, and how many session requests one core answers in a second.

Each decision is the first of its kind: what was answered before is forgotten. A session request is the whole of it in the exchange: message in, decision,
placement, ticket signed, answer out, row stored. Exit status as of `make bench`.
"""

import argparse
import cProfile
import json
import pstats
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "src")]

from bench.requests import measure_requests  # noqa: E402
from cloister.model.documents import Document  # noqa: E402
from cloister.model.facts import Destination, DeviceFacts, Facts, Principal, SignIn  # noqa: E402
from cloister.model.hosts import parse_host  # noqa: E402
from cloister.model.ids import DeviceId, UserId  # noqa: E402
from cloister.model.parse import parse_fields  # noqa: E402
from cloister.policy.compile import CompiledPolicy, compile_policy  # noqa: E402
from cloister.policy.decide import decide  # noqa: E402

SIZE = 1000
MEDIAN_LIMIT = 50e-6
REQUESTS_LIMIT = 2000.0
NOW = 1_800_000_000


def world() -> CompiledPolicy:
    """Every segment named by the rule of its own and one for everybody; conditions of the usual sorts."""
    documents: dict[str, Document] = {}
    for number in range(SIZE):
        documents[f"s{number:015x}"] = parse_fields(
            {
                "kind": "segment",
                "name": f"s{number}",
                "hosts": [f"s{number}.lab.internal"],
                "ports": [443],
                "groups": ["g"],
                "labels": {"team": f"t{number % 50}"},
            }
        )
        when: dict[str, object] = (
            {"strength": "mfa", "signed_in_within": "8h"} if number % 2 else {"posture": {"disk": "encrypted"}}
        )
        documents[f"r{number:015x}"] = parse_fields(
            {
                "kind": "rule",
                "name": f"r{number}",
                "effect": "permit",
                "who": {"groups": [f"g{number % 100}"]},
                "what": {"segments": [f"s{number}"]},
                "when": when,
            }
        )
    return compile_policy(documents)


def facts(group: int) -> Facts:
    principal = Principal("user", UserId("u" * 16), "ada", frozenset({f"g{group}", "staff"}))
    device = DeviceFacts(DeviceId("d" * 16), "laptop", {"owner": "ada"}, {"disk": "encrypted", "os": "linux", "firewall": "on"})
    return Facts(principal, device, SignIn(NOW - 60, "mfa", "corp"))


def measure_decisions(rounds: int) -> list[float]:
    policy, known = world(), [facts(group) for group in range(100)]
    targets = [Destination(parse_host(f"s{number}.lab.internal"), 443) for number in range(SIZE)]
    times = []
    for number in range(rounds):
        target, asked = targets[number % SIZE], known[number % 100]
        policy.answers.clear()
        started = time.thread_time()  # of this core: what else runs on the machine is not the decision's cost
        decision = decide(policy, asked, target, NOW)
        times.append(time.thread_time() - started)
        if not decision.allowed:
            raise AssertionError(f"{decision}")
    return times


def main(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser(prog="bench-decisions", description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="fewer of each")
    parser.add_argument("--profile", choices=("decisions", "requests"), help="say where the time goes instead")
    parser.add_argument("--output", type=Path, help="where the JSON goes")
    options = parser.parse_args(arguments)
    rounds, requests = (2000, 1000) if options.quick else (20_000, 10_000)
    if options.profile:
        profile = cProfile.Profile()
        profile.enable()
        measure_decisions(rounds) if options.profile == "decisions" else measure_requests(requests)
        profile.disable()
        pstats.Stats(profile).sort_stats("tottime").print_stats(30)
        return 0
    times = sorted(measure_decisions(rounds))
    median, p99 = statistics.median(times), times[int(len(times) * 0.99)]
    per_second = measure_requests(requests)
    good = (median <= MEDIAN_LIMIT, per_second >= REQUESTS_LIMIT)
    words = ["ok  " if reached else "MISS" for reached in good]
    print(
        f"{words[0]} a first decision among {SIZE:,} rules and segments: median {median * 1e6:.1f} µs, p99 {p99 * 1e6:.1f} µs (≤ {MEDIAN_LIMIT * 1e6:g})"
    )
    print(f"{words[1]} session requests on one core: {per_second:,.0f} per second of CPU (≥ {REQUESTS_LIMIT:,.0f})")
    if options.output:
        options.output.write_text(
            json.dumps({"median": median, "p99": p99, "requests_per_second": per_second, "reached": all(good)}) + "\n"
        )
    return 0 if all(good) else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
