"""Bounded reading: files, directories of /sys and /proc, and commands. Every function returns or raises `Unreadable` within its bounds."""

import hashlib
import os
import stat
import subprocess
import threading
import time
from pathlib import Path

from cloister.client.posture.types import Unreadable

MAX_TEXT = 1 << 20
MAX_OUTPUT = 8 << 20
MAX_HASHED = 256 << 20
HASH_SECONDS = 5.0
MAX_PROCESSES = 32_768
TOOLS = ("/usr/sbin", "/sbin", "/usr/bin", "/bin")
"""Where commands are looked for: never where $PATH says, since the client may run as root for somebody else."""


def read_file(path: str, limit: int = MAX_TEXT) -> bytes:
    """A regular file, not followed into a device or a pipe. Raises FileNotFoundError if there is none."""
    descriptor = _open(path)
    try:
        data = os.read(descriptor, limit + 1)
        while len(data) <= limit and (more := os.read(descriptor, limit + 1 - len(data))):
            data += more
    except OSError as error:
        raise Unreadable(_why(error)) from None
    finally:
        os.close(descriptor)
    if len(data) > limit:
        raise Unreadable(f"it is larger than {limit} bytes")
    return data


def read_text(path: str, limit: int = MAX_TEXT) -> str:
    return read_file(path, limit).decode(errors="replace")


def read_text_if_any(path: str) -> str:
    try:
        return read_text(path)
    except (FileNotFoundError, Unreadable):
        return ""


def hash_file(path: str, stopping: threading.Event) -> str:
    """SHA-256 in hex. Raises FileNotFoundError if there is no such file."""
    descriptor, digest, read, until = _open(path), hashlib.sha256(), 0, time.monotonic() + HASH_SECONDS
    try:
        while part := os.read(descriptor, 1 << 20):
            digest.update(part)
            read += len(part)
            if read > MAX_HASHED or time.monotonic() > until or stopping.is_set():
                raise Unreadable("it is too large to look at")
    except OSError as error:
        raise Unreadable(_why(error)) from None
    finally:
        os.close(descriptor)
    return digest.hexdigest()


def _open(path: str) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY)
    except (FileNotFoundError, NotADirectoryError):
        raise FileNotFoundError(path) from None
    except OSError as error:
        raise Unreadable(_why(error)) from None
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise Unreadable("it is no regular file")
    return descriptor


def _why(error: OSError) -> str:
    return (error.strerror or "it cannot be read").lower()


def process_names() -> set[str]:
    """The names of what runs now: of each process its own name (at most 15 characters) and that of its program file or script."""
    names: set[str] = set()
    try:
        entries = os.listdir("/proc")
    except OSError as error:
        raise Unreadable(_why(error)) from None
    for entry in entries[:MAX_PROCESSES]:
        if not entry.isdigit():
            continue
        try:
            with open(f"/proc/{entry}/cmdline", "rb") as file:
                command = file.read(4096).split(b"\0")[0]
            with open(f"/proc/{entry}/comm", "rb") as file:
                names.add(file.read(64).decode(errors="replace").strip())
        except OSError:
            continue  # it ended
        names.add(os.path.basename(command.decode(errors="replace")))
    return names - {""}


def newest_change(path: str) -> float:
    """When a file or directory was last changed (Unix seconds); raises FileNotFoundError."""
    return Path(path).stat().st_mtime


class Commands:
    """Runs commands of the system. `stop` ends what runs and lets nothing else begin."""

    def __init__(self) -> None:
        self.stopping = threading.Event()
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen[bytes]] = set()

    def run(self, command: str, *arguments: str, seconds: float, environment: dict[str, str] | None = None) -> str:
        """What it prints. Raises Unreadable if it is not there, fails, or takes too long or too much."""
        path = next((f"{folder}/{command}" for folder in TOOLS if os.access(f"{folder}/{command}", os.X_OK)), None)
        if path is None:
            raise Unreadable(f"there is no `{command}` here")
        with self._lock:
            if self.stopping.is_set():
                raise Unreadable("the client stops")
            process = subprocess.Popen(
                [path, *arguments],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={"PATH": ":".join(TOOLS), "LC_ALL": "C", **(environment or {})},
                cwd="/",
                start_new_session=True,
            )
            self._running.add(process)
        try:
            output = _read_bounded(process, seconds)
        finally:
            process.kill()
            process.wait()
            with self._lock:
                self._running.discard(process)
        if process.returncode != 0:
            raise Unreadable(f"`{command}` failed")
        return output.decode(errors="replace")

    def stop(self) -> None:
        with self._lock:
            self.stopping.set()
            for process in self._running:
                process.kill()


def _read_bounded(process: "subprocess.Popen[bytes]", seconds: float) -> bytes:
    """Everything it prints until it ends by itself; kills it beyond the bounds."""
    timer = threading.Timer(seconds, process.kill)
    timer.start()
    try:
        if process.stdout is None:
            raise Unreadable("it prints nothing")
        with process.stdout:
            output = process.stdout.read(MAX_OUTPUT + 1)
        if len(output) > MAX_OUTPUT:
            raise Unreadable("it prints too much")
        process.wait()
    finally:
        timer.cancel()
    return output
