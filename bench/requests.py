"""Session requests through the real exchange in process: decoded, decided, placed, signed, answered, stored. Measured in seconds of CPU of one core."""

import asyncio
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.bare import Bare, id_of, library_of, rule
from cloister.exchange.persist import SessionWriter
from cloister.exchange.writer import Writer
from cloister.model.messages.common import write
from cloister.model.messages.from_agent import WantSession, read_from_agent
from cloister.store.service import Store
from cloister.telemetry.decisions import DecisionLog
from cloister.trust.keyring import create_keyring

SIZE = 1000
CLIENTS = 100
AT_ONCE = 100  # requests between two turns of the loop, as they come in from many links


def documents() -> Iterator[dict[str, Any]]:
    yield {"kind": "connector-group", "name": "g", "suffixes": ["lab.internal"]}
    for number in range(CLIENTS):
        yield {"kind": "user", "name": f"u{number}"}
        yield {"kind": "group", "name": f"g{number}", "users": [f"u{number}"]}
    for number in range(SIZE):
        yield {"kind": "segment", "name": f"s{number}", "hosts": [f"s{number}.lab.internal"], "ports": [443], "groups": ["g"]}
        yield rule(f"r{number}", f"g{number % CLIENTS}", [f"s{number}"])


def measure_requests(count: int) -> float:
    """Requests per second of CPU, the thread that stores counted in."""
    return asyncio.run(_measure(count))


async def _measure(count: int) -> float:
    sent: list[bytes] = []

    def send(_: int, body: bytes) -> bool:
        sent.append(body)
        return True

    with tempfile.TemporaryDirectory() as name:
        directory, now = Path(name), int(time.time())
        store, writer = Store.open(directory / "exchange.db"), Writer()
        session_writer = SessionWriter(store, writer)
        bare = Bare(
            directory,
            create_keyring(now),
            library_of(documents()),
            time.time,
            send,
            store=store,
            writer=writer,
            session_writer=session_writer,
            reserve=store.reserve_generations,
            log=DecisionLog(directory / "journal"),
        )
        bare.link_up(bare.add_agent("connector", "c0", group=id_of("connector-group", "g")))
        clients = [bare.add_agent("client", f"d{number}", principal=id_of("user", f"u{number}")) for number in range(CLIENTS)]
        links = [bare.link_up(client) for client in clients]
        bodies = [
            write(WantSession(ref=number, host=f"s{number % SIZE}.lab.internal", port=443, protocol="tcp"))
            for number in range(count)
        ]
        started = time.process_time()
        for number, body in enumerate(bodies):
            message = read_from_agent(body)
            assert isinstance(message, WantSession)
            bare.sessions.want(links[number % CLIENTS], message)
            if number % AT_ONCE == AT_ONCE - 1:
                await asyncio.sleep(0)
        await session_writer.flush()
        used = time.process_time() - started
        writer.close()
        store.close()
    granted = sum(body.startswith(b'{"type":"session"') for body in sent)
    if granted != count:
        raise AssertionError(f"{granted} of {count} requests were granted: {sent[-1][:300]!r}")
    return count / used
