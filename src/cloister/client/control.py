"""The control socket: a UNIX socket (0600) for one operating-system user, who is asked of the kernel, not of the peer."""

import asyncio
import json
import logging
import os
import socket
import struct
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from cloister.client.errors import ClientError
from cloister.client.talk import SOCKET_NAME, socket_path
from cloister.client.types import MAX_REQUEST_BYTES, Request, read_request

log = logging.getLogger("cloister.client")

MAX_CONNECTIONS = 512
ACCEPT_PAUSE = 0.1  # seconds
REQUEST_DEADLINE = 5.0  # seconds for the request line
MAX_DESCRIPTORS = 1


class Channel:
    """The answering side of one request."""

    def __init__(self, connection: socket.socket, descriptors: list[int]) -> None:
        self._connection = connection
        self._descriptors = descriptors
        self._loop = asyncio.get_running_loop()

    def take_descriptor(self) -> int:
        """The descriptor that came with the request; the caller owns it from now on."""
        if not self._descriptors:
            raise ClientError("argument_invalid", "the request came without its socket")
        return self._descriptors.pop()

    async def answer(self, body: dict[str, Any]) -> None:
        await self._loop.sock_sendall(self._connection, json.dumps(body).encode() + b"\n")

    async def closed(self) -> None:
        """Return when the asking side has closed."""
        with suppress(OSError):
            while await self._loop.sock_recv(self._connection, 4096):
                pass


Handler = Callable[[Request, Channel], Awaitable[None]]


class ControlServer:
    def __init__(self, directory: Path, owner: int, handle: Handler) -> None:
        self._directory = directory
        self._owner = owner
        self._handle = handle
        self._tasks: set[asyncio.Task[None]] = set()
        self._accepting: asyncio.Task[None] | None = None

    def open(self) -> None:
        """Listen. Only the holder of the state directory's lock may call this: an old socket there is a dead one."""
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC | socket.SOCK_NONBLOCK)
        with suppress(FileNotFoundError):
            (self._directory / SOCKET_NAME).unlink()
        os.fchmod(listener.fileno(), 0o600)  # Linux gives this mode to the file that bind makes: it never has a wider one
        with socket_path(self._directory) as path:
            listener.bind(path)
            if os.geteuid() != self._owner:
                os.chown(path, self._owner, -1, follow_symlinks=False)  # the directory is the owner's, who may have put a link here
        listener.listen(64)
        self._accepting = asyncio.ensure_future(self._accept(listener))
        # Closed when the loop has let go of it: what is opened next has its number, and the loop would not hear of it.
        self._accepting.add_done_callback(lambda _: listener.close())

    def stop_listening(self) -> None:
        """Take no more requests; those that are open go on until `close`."""
        if self._accepting is not None and not self._accepting.cancelling():
            self._accepting.cancel()
            with suppress(FileNotFoundError):
                (self._directory / SOCKET_NAME).unlink()

    async def close(self) -> None:
        self.stop_listening()
        for task in self._tasks:
            task.cancel()
        waiting = self._tasks if self._accepting is None else {*self._tasks, self._accepting}
        if waiting:
            await asyncio.wait(waiting)

    async def _accept(self, listener: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        while True:
            try:
                connection, _ = await loop.sock_accept(listener)
            except OSError:  # out of descriptors: what waits keeps, and trying again at once would only burn
                await asyncio.sleep(ACCEPT_PAUSE)
                continue
            if len(self._tasks) >= MAX_CONNECTIONS or _peer_uid(connection) not in (self._owner, 0):
                connection.close()
                continue
            task = asyncio.ensure_future(self._serve(connection))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _serve(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        descriptors: list[int] = []
        try:
            async with asyncio.timeout(REQUEST_DEADLINE):
                line = await _read_line(connection, descriptors)
            channel = Channel(connection, descriptors)
            try:
                await self._handle(read_request(line), channel)
            except ValidationError as error:
                message = error.errors(include_input=False)[0]["msg"].lower()
                await channel.answer({"error": "argument_invalid", "message": f"the request cannot be read: {message}"})
            except ClientError as error:
                await channel.answer({"error": error.code, "message": error.message, "remedy": error.remedy})
        except (OSError, TimeoutError):
            pass  # the asking side went away
        finally:
            for descriptor in descriptors:
                os.close(descriptor)
            connection.close()


def _peer_uid(connection: socket.socket) -> int:
    """SO_PEERCRED: who connected, as the kernel knows (unix(7))."""
    size = struct.calcsize("3i")
    _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, size))
    return int(uid)


async def _read_line(connection: socket.socket, descriptors: list[int]) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        await _readable(connection)
        try:
            part, received, _, _ = socket.recv_fds(connection, MAX_REQUEST_BYTES, MAX_DESCRIPTORS)
        except BlockingIOError:
            continue
        descriptors.extend(received)
        for descriptor in received:
            os.set_inheritable(descriptor, False)
        data += part
        if not part or len(data) > MAX_REQUEST_BYTES or len(descriptors) > MAX_DESCRIPTORS:
            raise ConnectionAbortedError
    return data


async def _readable(connection: socket.socket) -> None:
    loop = asyncio.get_running_loop()
    ready = asyncio.Event()
    loop.add_reader(connection.fileno(), ready.set)
    try:
        await ready.wait()
    finally:
        loop.remove_reader(connection.fileno())
