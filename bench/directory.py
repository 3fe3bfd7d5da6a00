"""What one change of a user costs the exchange when a directory has 10,000, and what the event loop feels of it.

Runs one exchange in this process; a directory in another one then provisions more users over HTTPS. `python bench/directory.py [--users N] [--seconds S]`
"""

import argparse
import asyncio
import gc
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from cloister.exchange.main import ExchangeProcess, Running
from cloister.exchange.scim.directories import Directories
from cloister.exchange.settings import Limits, Settings
from cloister.model.documents import Document, Group, User
from cloister.store.types import Actor

ACTOR = Actor("bench")
BATCH = 1000


async def watch(gaps: list[float]) -> None:
    """How late the loop comes round."""
    while True:
        before = time.perf_counter()
        await asyncio.sleep(0.001)
        gaps.append(time.perf_counter() - before - 0.001)


async def fill(running: Running, users: int) -> None:
    names = [f"user{number}" for number in range(users)]
    for start in range(0, users, BATCH):
        documents: list[Document] = [User(name=name, issuer="i", subject=name) for name in names[start : start + BATCH]]
        await running.changes.write(ACTOR, "bench.fill", documents)
    groups: list[Document] = [Group(name=f"group{number}", users=tuple(names[number::100])) for number in range(100)]
    await running.changes.write(ACTOR, "bench.fill", groups)
    await running.changes.write(ACTOR, "bench.fill", [Group(name="everybody", users=tuple(names[:10_000]))])


async def measure(running: Running, change: Any, seconds: float) -> dict[str, Any]:
    gaps: list[float] = []
    watcher = asyncio.get_running_loop().create_task(watch(gaps))
    await asyncio.sleep(0.05)
    gaps.clear()
    started, times = time.perf_counter(), []
    busy = time.process_time()
    number = 0
    while time.perf_counter() - started < seconds:
        before = time.perf_counter()
        await change(running, number)
        times.append(time.perf_counter() - before)
        number += 1
    elapsed, busy = time.perf_counter() - started, time.process_time() - busy
    watcher.cancel()
    times.sort()
    gaps.sort()
    return {
        "per_second": round(number / elapsed, 1),
        "per_cpu_second": round(number / busy, 1),
        "p50_ms": round(statistics.median(times) * 1000, 2),
        "p99_ms": round(times[int(len(times) * 0.99)] * 1000, 2),
        "loop_gap_p99_ms": round(gaps[int(len(gaps) * 0.99)] * 1000, 2),
        "loop_gap_max_ms": round(gaps[-1] * 1000, 2),
    }


async def change_user(running: Running, number: int) -> None:
    name = f"user{number % 5000}"
    user = User(name=name, issuer="i", subject=name, display=f"display {number}")
    await running.changes.write(ACTOR, "bench.user", [user])


async def change_small_group(running: Running, number: int) -> None:
    await running.changes.set_member(ACTOR, f"group{number % 100}", "user7", member=number % 200 < 100)


async def change_large_group(running: Running, number: int) -> None:
    await running.changes.set_member(ACTOR, "everybody", "user7", member=number % 2 == 1)


SYNC = """
import http.client, json, ssl, sys, time
address, token, first, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
web = http.client.HTTPSConnection(address, context=ssl._create_unverified_context())
headers = {"authorization": "Bearer " + token, "content-type": "application/scim+json"}
def call(method, path, body):
    web.request(method, "/scim/v2" + path, json.dumps(body), headers)
    answer = web.getresponse()
    text = answer.read()
    assert answer.status < 300, text
    return json.loads(text) if text else None
def patch(path, value):
    call("PATCH", path, {"schemas": ["urn:ietf:params:scim:api:messages:2.0:PatchOp"], "Operations": [value]})
group = call("POST", "/Groups", {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:Group"], "displayName": "synced%d" % first})["id"]
ends, made = time.time() + seconds, []
while time.time() < ends:
    name = "synced%d" % (first + len(made))
    made.append(call("POST", "/Users", {"schemas": ["urn:ietf:params:scim:schemas:core:2.0:User"], "userName": name, "externalId": name})["id"])
users, patches, started = len(made), 0, time.time()
while time.time() - started < seconds:
    patch("/Groups/" + group, {"op": "add", "path": "members", "value": [{"value": made[patches % users]}]})
    patches += 1
print(json.dumps({"users_per_second": round(users / seconds, 1), "members_per_second": round(patches / seconds, 1)}))
"""


async def sync(running: Running, seconds: float, clients: int = 2) -> dict[str, Any]:
    """Users created and put into a group, one request each, by so many connections at once."""
    writer = running.changes._writer  # noqa: SLF001 (a directory of the bench's own)
    directories = Directories(running.settings.limits, running.state, running.changes, running.store, writer, time.time)
    _, token = await directories.create(ACTOR, "bench", "https://bench.example", "externalId")
    processes = [
        await asyncio.create_subprocess_exec(
            sys.executable, "-c", SYNC, running.address, token, str(number * 1_000_000), str(seconds), stdout=subprocess.PIPE
        )
        for number in range(clients)
    ]
    gaps: list[float] = []
    watcher = asyncio.get_running_loop().create_task(watch(gaps))
    answers = [json.loads((await process.communicate())[0]) for process in processes]
    watcher.cancel()
    gaps.sort()
    return {
        "clients": clients,
        **{key: round(sum(answer[key] for answer in answers), 1) for key in answers[0]},
        "loop_gap_p99_ms": round(gaps[int(len(gaps) * 0.99)] * 1000, 2),
        "loop_gap_max_ms": round(gaps[-1] * 1000, 2),
    }


async def run(users: int, seconds: float) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as directory:
        settings = Settings(Path(directory) / "data", listen="127.0.0.1:0", drain_grace=0, limits=Limits())
        async with ExchangeProcess(settings) as running:
            await fill(running, users)
            gc.collect()
            gc.freeze()  # as the process does when it starts and when many documents have come
            return {
                "users": users,
                "user": await measure(running, change_user, seconds),
                "group_of_100": await measure(running, change_small_group, seconds),
                "group_of_10000": await measure(running, change_large_group, seconds),
                "scim": await sync(running, seconds),
            }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--users", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=5.0)
    options = parser.parse_args()
    print(json.dumps(asyncio.run(run(options.users, options.seconds)), indent=1))


if __name__ == "__main__":
    main()
