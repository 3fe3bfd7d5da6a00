"""Someone at a laptop: uses the services by name, with ordinary tools, and says what came of it.

Reads commands as JSON lines on standard input and answers each with one JSON line on standard output:
`{"visit": NAME, "host": …, "port": …, …}` → `{"ok": bool, "seconds": float, "told": text}`. A stream answers twice: when its
first item came and when it ended. Secrets come through standard input, never through arguments.
"""

import asyncio
import json
import os
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from door import ProxyRefusal, open_door, reach

HERE = Path(__file__).parent
Command = dict[str, Any]
Visit = Callable[[Command], str]
PATIENCE = 20.0
ARTIFACT_BYTES = 5 << 20


class Odd(Exception):
    """The service answered, but not as it should."""


def expect(holds: bool, told: str) -> None:  # noqa: FBT001  what is expected is a fact
    if not holds:
        raise Odd(told)


def base(command: Command) -> str:
    return f"http://{command['host']}:{command['port']}"


def jupyter(command: Command) -> str:
    """Start a kernel over REST, run a cell over its WebSocket."""
    import websockets

    headers = {"Authorization": f"token {command['secret']}"}
    with httpx.Client(base_url=base(command), headers=headers, timeout=PATIENCE, trust_env=False) as http:
        kernel = http.post("/api/kernels", json={"name": "python3"}).raise_for_status().json()["id"]

        async def execute(code: str) -> str:
            url = f"ws://{command['host']}:{command['port']}/api/kernels/{kernel}/channels"
            async with websockets.connect(url, additional_headers=headers, proxy=None, max_size=None) as channel:
                header = {
                    "msg_id": secrets.token_hex(8),
                    "msg_type": "execute_request",
                    "username": "",
                    "session": "demo",
                    "version": "5.3",
                }
                content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
                message = {"header": header, "parent_header": {}, "metadata": {}, "content": content, "channel": "shell"}
                await channel.send(json.dumps(message))
                async with asyncio.timeout(PATIENCE):
                    async for text in channel:
                        answer = json.loads(text)
                        if answer["msg_type"] == "stream" and answer["parent_header"].get("msg_id") == header["msg_id"]:
                            return str(answer["content"]["text"])
            raise Odd("the kernel said nothing")

        printed = asyncio.run(execute("print(sum(n * n for n in range(1000)))")).strip()
        http.delete(f"/api/kernels/{kernel}").raise_for_status()
    expect(printed == "332833500", f"the kernel printed `{printed}`")
    return f"a kernel ran a cell over its WebSocket: {printed}"


def rest(command: Command) -> str:
    with httpx.Client(base_url=base(command), timeout=PATIENCE, trust_env=False) as http:
        digit = http.post("/v1/predict", json={"instances": [[0.0] * 64]}).raise_for_status().json()["predictions"][0]
        wrong = http.post("/v1/predict", json={"instances": [[0.0] * 3]})
    expect(wrong.status_code == 422, f"3 pixels were answered with {wrong.status_code}")
    return f"a blank image reads as {digit['digit']} ({digit['confidence']:.0%})"


def sse(command: Command) -> str:
    words = 0
    for data in _events(command, 25):
        words += data is not None
    expect(words == 25, f"{words} words came")
    return f"{words} words streamed, then the end"


def _events(command: Command, count: int) -> Any:
    body = {"model": "digits-1", "stream": True, "max_tokens": count, "messages": [{"role": "user", "content": "read on"}]}
    with (
        httpx.Client(base_url=base(command), timeout=PATIENCE, trust_env=False) as http,
        http.stream("POST", "/v1/chat/completions", json=body) as answer,
    ):
        answer.raise_for_status()
        for line in answer.iter_lines():
            if line == "data: [DONE]":
                return
            if line.startswith("data: "):
                yield json.loads(line[6:])["choices"][0]["delta"]["content"]
    raise Odd("the stream stopped before its end")


def grpc_stream(command: Command) -> str:
    import grpc

    sys.path.insert(0, str(HERE / "services"))
    messages, services = grpc.protos_and_services("inference.proto")
    options = [("grpc.enable_http_proxy", 0)]
    with grpc.insecure_channel(f"{command['host']}:{command['port']}", options) as channel:
        stub = services.InferenceStub(channel)
        one = stub.Predict(messages.Instance(pixels=[0.0] * 64), timeout=PATIENCE)
        many = list(stub.Watch(messages.WatchRequest(count=50, interval_ms=5), timeout=PATIENCE))
    expect([item.sample for item in many] == list(range(50)), f"{len(many)} of 50 predictions came")
    return f"one prediction ({one.digit}), then {len(many)} over a server stream"


def psql(command: Command) -> str:
    place = f"host={command['host']} port={command['port']} user=lab dbname=features connect_timeout=10"
    query = "SELECT count(*), round(sum(value)::numeric, 3) FROM features"
    result = subprocess.run(
        ["psql", "-AtX", place, "-c", query],
        env={**os.environ, "PGPASSWORD": command["secret"]},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    if result.returncode != 0:
        raise Odd(result.stderr.strip().splitlines()[-1] if result.stderr.strip() else f"psql ended with {result.returncode}")
    expect(result.stdout.startswith("1000|"), f"psql printed `{result.stdout.strip()}`")
    return f"psql: {result.stdout.strip()}"


def chroma(command: Command) -> str:
    """Make a collection, add two vectors, ask for the nearest (Chroma's HTTP API, version 2)."""
    name = f"demo-{secrets.token_hex(4)}"
    with httpx.Client(base_url=base(command), timeout=PATIENCE, trust_env=False) as http:
        collections = "/api/v2/tenants/default_tenant/databases/default_database/collections"
        identity = http.post(collections, json={"name": name}).raise_for_status().json()["id"]
        vectors = {
            "ids": ["north", "east"],
            "embeddings": [[0.0, 1.0], [1.0, 0.0]],
            "documents": ["up the map", "right of the map"],
        }
        http.post(f"{collections}/{identity}/add", json=vectors).raise_for_status()
        question = {"query_embeddings": [[0.9, 0.2]], "n_results": 1}
        found = http.post(f"{collections}/{identity}/query", json=question).raise_for_status().json()
        http.delete(f"{collections}/{name}").raise_for_status()
    nearest = found["ids"][0][0]
    expect(nearest == "east", f"the nearest was `{nearest}`")
    return f"2 vectors added, the nearest to (0.9, 0.2) is `{nearest}`"


def mlflow(command: Command) -> str:
    """Log a run with a metric and a 5 MiB artifact over the tracking server's REST API, and read both back."""
    with httpx.Client(base_url=base(command), timeout=PATIENCE, trust_env=False) as http:
        api = "/api/2.0/mlflow"
        made = http.post(f"{api}/experiments/create", json={"name": f"demo-{secrets.token_hex(4)}"}).raise_for_status()
        experiment = made.json()["experiment_id"]
        start = {"experiment_id": experiment, "start_time": int(time.time() * 1000)}
        run = http.post(f"{api}/runs/create", json=start).raise_for_status().json()["run"]["info"]["run_id"]
        metric = {"run_id": run, "key": "accuracy", "value": 0.97, "timestamp": int(time.time() * 1000)}
        http.post(f"{api}/runs/log-metric", json=metric).raise_for_status()
        artifact = secrets.token_bytes(ARTIFACT_BYTES)
        path = f"/api/2.0/mlflow-artifacts/artifacts/{experiment}/{run}/artifacts/weights.bin"
        http.put(path, content=artifact, headers={"Content-Type": "application/octet-stream"}).raise_for_status()
        back = http.get(path).raise_for_status().content
        read = http.get(f"{api}/runs/get", params={"run_id": run}).raise_for_status().json()["run"]["data"]["metrics"]
    expect(back == artifact, f"{len(back)} bytes came back, not those that were sent")
    expect(read[0]["value"] == metric["value"], f"the metric came back as `{read}`")
    return f"a run with a metric and an artifact of {ARTIFACT_BYTES >> 20} MiB logged and read back"


def warm(_: Command) -> str:
    """Load what the visits use, so that their times are those of the network and the services."""
    import grpc
    import websockets

    grpc.protos_and_services  # noqa: B018  loads the compiler
    return f"grpc {grpc.__version__}, websockets {websockets.__version__}"


VISITS: dict[str, Visit] = {
    "warm": warm,
    "jupyter": jupyter,
    "rest": rest,
    "sse": sse,
    "grpc": grpc_stream,
    "psql": psql,
    "chroma": chroma,
    "mlflow": mlflow,
}


def why(error: BaseException) -> str:
    """What a person would be told by an ordinary tool."""
    seen: BaseException | None = error
    while seen is not None:
        match seen:
            case ProxyRefusal():
                return "refused by the proxy"
            case socket.gaierror():
                return "no such name"
            case ConnectionRefusedError():
                return "connection refused"
            case ConnectionResetError() | BrokenPipeError():
                return "connection reset"
            case TimeoutError() | subprocess.TimeoutExpired():
                return "timed out"
            case _:
                pass
        seen = seen.__cause__ or seen.__context__
    return f"{type(error).__name__}: {error}"[:200]


def knock(command: Command) -> Command:
    """Resolve and connect, as every tool does first, so that a refusal is told in the kernel's own words. Returns where to go."""
    if proxy := command.get("proxy"):
        reach(proxy, command["host"], command["port"], PATIENCE).close()
        return {**command, "host": "127.0.0.1", "port": open_door(proxy, command["host"], command["port"])}
    socket.create_connection((command["host"], command["port"]), timeout=PATIENCE).close()
    return command


def perform(command: Command) -> Command:
    started = time.perf_counter()
    try:
        if "host" in command:
            command = knock(command)
        told, ok = VISITS[command["visit"]](command), True
    except Exception as error:  # noqa: BLE001  whatever a tool raises is what its user sees
        told, ok = why(error), False
    return {"ok": ok, "seconds": time.perf_counter() - started, "told": told}


def stream(command: Command) -> None:
    """Read words until the stream ends, one way or another."""
    words, last = 0, time.time()
    try:
        command = knock(command)
        for _ in _events(command, 1_000_000):
            words, last = words + 1, time.time()
            if words == 1:
                say({"ok": True, "told": "streaming"})
        told = "ended by the service"
    except Exception as error:  # noqa: BLE001  whatever a tool raises is what its user sees
        told = why(error)
    say({"ok": words > 0, "told": told, "words": words, "last": last, "ended": time.time()})


def say(answer: Command) -> None:
    print(json.dumps(answer), flush=True)


def main() -> None:
    for line in sys.stdin:
        command = json.loads(line)
        if command["visit"] == "stream":
            stream(command)
        else:
            say(perform(command))


if __name__ == "__main__":
    main()
