import os
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from cloister.cli.connect import plain_destination, read_destination
from cloister.client.errors import ClientError
from cloister.client.talk import socket_path


@pytest.mark.parametrize(
    ("text", "expected"),
    [("a:1", ("a", 1)), ("git.lab.internal:65535", ("git.lab.internal", 65535)), ("[fd00::1]:22", ("fd00::1", 22))],
)
def test_destination_is_name_and_port(text: str, expected: tuple[str, int]) -> None:
    assert read_destination(text) == expected


@pytest.mark.parametrize("text", ["", "a", "a:", ":1", "a:0", "a:65536", "a:b", "a b:1", "fd00::1:22", "a:１", "a:1 "])
def test_anything_else_is_refused(text: str) -> None:
    with pytest.raises(ClientError) as caught:
        read_destination(text)
    assert caught.value.code == "argument_invalid"


def test_short_way_is_for_plain_command_lines_only() -> None:
    assert plain_destination(["connect", "a:1"]) == "a:1"
    for other in (["connect"], ["connect", "--help"], ["connect", "a:1", "--state", "x"], ["apps"], []):
        assert plain_destination(other) is None


HEAVY = ("pydantic", "typer", "rich", "asyncio", "cryptography", "httpx", "cloister._core")


def _one_flow(listener: socket.socket) -> None:
    """A client process of one flow: whatever comes over the socket handed over is answered in capitals."""
    connection, _ = listener.accept()
    with connection:
        line, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
        assert b'"connect"' in line
        with socket.socket(fileno=descriptors[0]) as flow:
            data = b""
            while part := flow.recv(65536):
                data += part
            flow.sendall(data.upper())
        connection.sendall(b'{"ended": "ok"}\n')


def test_connect_carries_both_directions_with_half_close_and_loads_nothing_heavy(tmp_path: Path) -> None:
    listener = socket.socket(socket.AF_UNIX)
    with socket_path(tmp_path) as path:
        listener.bind(path)
    listener.listen()
    thread = threading.Thread(target=_one_flow, args=(listener,))
    thread.start()
    script = (
        "import sys; from cloister.cli import main\n"
        "try: main()\n"
        f"finally: print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    data = os.urandom(1 << 20).hex().encode()
    start = time.monotonic()
    result = subprocess.run(
        [sys.executable, "-c", script, "connect", "a:1"],
        input=data,
        capture_output=True,
        env={**os.environ, "CLOISTER_STATE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=30,
        check=False,
    )
    elapsed = time.monotonic() - start
    thread.join()
    listener.close()
    assert result.returncode == 0, result.stderr
    assert result.stdout == data.upper()
    assert result.stderr == b"[]\n"
    assert elapsed < 3.0  # 0.3 s on a quiet machine; what keeps it so is the list of modules above


def test_connect_without_a_sign_in_says_what_to_do(tmp_path: Path) -> None:
    result = subprocess.run(
        [sys.executable, "-m", "cloister", "connect", "a:1"],
        capture_output=True,
        text=True,
        env={**os.environ, "CLOISTER_STATE": str(tmp_path), "PYTHONPATH": os.pathsep.join(sys.path)},
        timeout=60,
        check=False,
    )
    assert result.returncode == 7
    assert "cloister login" in result.stderr
