"""Write tests/data/segments.json: random sets of segments, and which of them each destination belongs to by the rule of DESIGN §1 read aloud.

Both the exchange's index (Python) and the connector's and client's (Rust) are held to it. `python tools/segment_corpus.py` writes it anew.
"""

import json
import random
from pathlib import Path

PAGE = Path(__file__).parent.parent / "tests/data/segments.json"
PATTERNS = [
    "a.lab", "b.lab", "x.nb.lab", "*.lab", "*.nb.lab", "*.x.nb.lab", "10.0.0.1", "10.0.0.2", "2001:db8::1", "*.svc.cluster.local",
    "kubernetes.default.svc.cluster.local", "dns.kube-system.svc.cluster.local", "lab",
]  # fmt: skip
HOSTS = [
    "a.lab", "A.LAB", "a.lab.", "b.lab", "c.lab", "lab", "nb.lab", "x.nb.lab", "y.nb.lab", "z.x.nb.lab", "10.0.0.1", "10.0.0.2", "10.0.0.3",
    "2001:db8::1", "web.svc.cluster.local", "kubernetes.default.svc.cluster.local", "dns.kube-system.svc.cluster.local", "xlab",
]  # fmt: skip
CONTROL_PLANE = {"kubernetes.default.svc.cluster.local", "dns.kube-system.svc.cluster.local"}  # of HOSTS, what no wildcard covers
WORLDS = 60


def make_world(seed: int) -> dict[str, object]:
    dice = random.Random(seed)
    segments = []
    for number in range(dice.randint(0, 6)):
        starts = sorted(dice.sample(range(1, 12), dice.choice([1, 1, 2])))
        ends = [dice.randint(first, (starts[at + 1] - 1) if at + 1 < len(starts) else 12) for at, first in enumerate(starts)]
        segments.append(
            {
                "id": f"{number:016x}",
                "hosts": dice.sample(PATTERNS, dice.randint(1, 3)),
                "ports": [{"first": first, "last": last} for first, last in zip(starts, ends, strict=True)],
                "protocol": dice.choice(["tcp", "tcp", "udp"]),
            }
        )
    asked = [(dice.choice(HOSTS), dice.randint(1, 12), dice.choice(["tcp", "tcp", "udp"])) for _ in range(40)]
    answers = [
        {"host": host, "port": port, "protocol": protocol, "segment": find(segments, host, port, protocol)}
        for host, port, protocol in asked
    ]
    return {"segments": segments, "destinations": answers}


def find(segments: list[dict[str, object]], host: str, port: int, protocol: str) -> str | None:
    """The best claim, and nobody's if two segments share it."""
    host = host.lower().removesuffix(".")
    claims = []
    for segment in segments:
        own = [
            (rank(pattern, host), first["first"] - first["last"])
            for pattern in segment["hosts"]
            for first in segment["ports"]
            if rank(pattern, host) and first["first"] <= port <= first["last"]
        ]  # type: ignore[attr-defined]
        if own and segment["protocol"] == protocol:
            claims.append((max(own), segment["id"]))
    winners = {id for claim, id in claims if claim == max(claims)[0]}
    return str(winners.pop()) if len(winners) == 1 else None


def rank(pattern: str, host: str) -> int:
    """How specific a pattern is that matches this host; 0 if it does not."""
    if pattern == host:
        return 1000
    covers = pattern.startswith("*.") and host.endswith(pattern[1:]) and host not in CONTROL_PLANE
    return len(pattern.split(".")) if covers else 0


if __name__ == "__main__":
    PAGE.write_text(json.dumps([make_world(seed) for seed in range(WORLDS)], separators=(",", ":")) + "\n")
