"""`cloister up`: the client as a process of its own, in the foreground or behind the terminal."""

import asyncio
import json
import os
import select
import subprocess
import sys
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cloister.agent.errors import AgentError
from cloister.agent.process import Signals, notify_ready
from cloister.client.dirs import capture_dir, owner
from cloister.client.errors import ClientError, NotRunning
from cloister.client.talk import ask
from cloister.model.reasons import Code

START_WAIT = 20.0  # seconds until the process behind the terminal must have said that it is up
LOG_NAME = "client.log"
MAX_LOG_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class UpOptions:
    state: Path
    pool4: str
    pool6: str


def run_background(options: UpOptions) -> dict[str, Any]:
    """Start the process, wait until it is up, and return its status. Raises ClientError with its own words if it fails."""
    with suppress(NotRunning), ask(options.state, {"op": "status"}) as conversation:
        conversation.first()
        raise ClientError(Code.CONFLICT, "a client is running already", "see `cloister status`, or end it with `cloister down`")
    if not (options.state / "identity.json").exists():
        raise ClientError(Code.NOT_AUTHENTICATED, "nobody is signed in on this machine", "run `cloister login HOST`")
    check_permitted()
    reading, writing = os.pipe()
    log_path = options.state / LOG_NAME
    if log_path.exists() and log_path.stat().st_size > MAX_LOG_BYTES:
        log_path.replace(log_path.with_suffix(".log.1"))
    command = [sys.executable, "-m", "cloister", "up", "--foreground", "--state", str(options.state)]
    command += ["--pool4", options.pool4, "--pool6", options.pool6]
    with open(log_path, "ab", opener=lambda path, flags: os.open(path, flags, 0o600)) as log:
        subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            pass_fds=[writing],
            env={**os.environ, "CLOISTER_READY_FD": str(writing)},
        )
    os.close(writing)
    with open(reading, "rb") as pipe:
        ready, _, _ = select.select([pipe], [], [], START_WAIT)
        line = pipe.readline() if ready else b""
    if not line:
        raise ClientError(Code.INTERNAL, "the client did not come up", f"look at `{log_path}`")
    answer: dict[str, Any] = json.loads(line)
    if "error" in answer:
        raise ClientError(answer["error"], answer["message"], answer["remedy"])
    return answer


def check_permitted() -> None:
    """Say at once what is missing, before anything is started."""
    from cloister.client.capture import Capture

    reason = Capture.missing()
    if reason is not None:
        raise ClientError(Code.NOT_CAPTURED, reason)


def clean_up(state: Path) -> None:
    """Take back what a killed client left on the host; nothing without root, who alone could have left it."""
    from cloister.client.capture import Capture

    if Capture.missing() is None:
        Capture(owner(), make_capture_dir(state)).clean()


def make_capture_dir(state: Path) -> Path:
    directory = capture_dir(state)
    directory.mkdir(mode=0o700, parents=True, exist_ok=True)
    return directory


def run_foreground(options: UpOptions) -> None:
    check_permitted()
    try:
        asyncio.run(_serve(options))
    except (AgentError, ClientError) as error:
        _report({"error": error.code, "message": error.message, "remedy": error.remedy})
        raise


async def _serve(options: UpOptions) -> None:
    from cloister.client.names import CapturedNames
    from cloister.client.service import ClientService
    from cloister.client.types import ClientSettings

    signals = Signals()
    service = ClientService(ClientSettings(state=options.state, owner=owner()))
    service.start()
    names: CapturedNames | None = None
    try:
        await service.wait_ready()
        names = CapturedNames(service, owner(), make_capture_dir(options.state), options.pool4, options.pool6)
        await names.start()
        _report(service.answers.status())
        notify_ready()
        over = asyncio.ensure_future(service.run_until_over())
        end = asyncio.ensure_future(signals.stop.wait())
        try:
            await asyncio.wait([over, end], return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                over.result()
        finally:
            over.cancel()
            end.cancel()
    finally:
        if names is not None:
            await names.stop()
        await service.stop()


def _report(answer: dict[str, Any]) -> None:
    """Tell the command that started this process, once."""
    descriptor = os.environ.pop("CLOISTER_READY_FD", "")
    if descriptor.isascii() and descriptor.isdigit():
        with suppress(OSError), open(int(descriptor), "wb") as pipe:
            pipe.write(json.dumps(answer).encode() + b"\n")
