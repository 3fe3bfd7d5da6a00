"""The door that leads tools through a SOCKS5 proxy passes on bytes, ends and resets as they are."""

import socket
import struct
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "demo"))

from door import ProxyRefusal, open_door, reach


def proxy(after: Callable[[socket.socket], None], code: int = 0) -> str:
    """A SOCKS5 proxy for one connection, whose far side is `after`."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, listener:
            connection.recv(3)
            connection.sendall(b"\x05\x00")
            head = connection.recv(5)
            connection.recv(head[4] + 2)
            connection.sendall(b"\x05" + bytes([code]) + b"\x00\x01" + bytes(6))
            if code == 0:
                after(connection)

    threading.Thread(target=serve, daemon=True).start()
    return f"127.0.0.1:{listener.getsockname()[1]}"


def echo(connection: socket.socket) -> None:
    while data := connection.recv(4096):
        connection.sendall(data)
    connection.shutdown(socket.SHUT_WR)


def reset(connection: socket.socket) -> None:
    connection.sendall(b"so far")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    connection.close()


def test_bytes_and_half_close_pass_through_a_door() -> None:
    door = open_door(proxy(echo), "web.lab.internal", 80)
    with socket.create_connection(("127.0.0.1", door), timeout=10) as flow:
        flow.sendall(b"question")
        flow.shutdown(socket.SHUT_WR)
        with flow.makefile("rb") as answer:
            assert answer.read() == b"question"


def test_a_reset_behind_the_door_is_a_reset_before_it() -> None:
    door = open_door(proxy(reset), "web.lab.internal", 80)
    with socket.create_connection(("127.0.0.1", door), timeout=10) as flow, pytest.raises(ConnectionResetError):
        while flow.recv(64):
            pass


def test_a_refusal_of_the_proxy_is_told_as_one() -> None:
    with pytest.raises(ProxyRefusal):
        reach(proxy(echo, code=4), "web.lab.internal", 80, timeout=10)
