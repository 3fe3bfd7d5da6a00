"""Talking to the running client: one request per connection of the control socket, newline JSON, answers until it closes.

Light on purpose (no pydantic, no asyncio): `cloister connect` is started by ssh for every connection.
"""

import json
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Self

from cloister.client.errors import ClientError, ClientGone, NotRunning

SOCKET_NAME = "control.sock"
MAX_LINE = 1 << 20


@contextmanager
def socket_path(directory: Path) -> Iterator[str]:
    """A path for the socket in this directory that is short enough for sockaddr_un (108 bytes), however deep the directory is."""
    handle = os.open(directory, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield f"/proc/self/fd/{handle}/{SOCKET_NAME}"
    finally:
        os.close(handle)


class Conversation:
    """One request and its answers. Closing it ends what the request started (an entrance, a watch)."""

    def __init__(self, channel: socket.socket) -> None:
        self._channel = channel
        self._file = channel.makefile("rb")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        self._file.close()
        self._channel.close()

    def answers(self) -> Iterator[dict[str, Any]]:
        """Each answer; ends when the client process closes. Raises ClientError on a refusal."""
        while line := self._read_line():
            answer = json.loads(line)
            if "error" in answer:
                raise ClientError(answer["error"], answer.get("message", ""), answer.get("remedy", ""))
            yield answer

    def _read_line(self) -> bytes:
        try:
            return self._file.readline(MAX_LINE)
        except ConnectionResetError:  # the process ended with our request unread
            return b""

    def first(self) -> dict[str, Any]:
        for answer in self.answers():
            return answer
        raise ClientGone


def ask(directory: Path, request: dict[str, Any], descriptors: Sequence[int] = ()) -> Conversation:
    """Send a request, with open descriptors if it needs them. Raises NotRunning if nobody listens."""
    channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC)
    try:
        with socket_path(directory) as path:
            channel.connect(path)
        line = json.dumps(request).encode() + b"\n"
        sent = socket.send_fds(channel, [line], list(descriptors)) if descriptors else 0
        if rest := line[sent:]:  # nothing more is sent to a side that may have answered and closed already
            channel.sendall(rest)
    except (FileNotFoundError, ConnectionRefusedError, NotADirectoryError) as error:
        channel.close()
        raise NotRunning from error
    except (BrokenPipeError, ConnectionResetError) as error:
        channel.close()
        raise ClientGone from error
    except OSError as error:
        channel.close()
        raise ClientError(
            "not_authorised" if isinstance(error, PermissionError) else "internal",
            f"the client process of `{directory}` cannot be asked: {error.strerror}",
            "run this as the same user as the client",
        ) from error
    return Conversation(channel)
