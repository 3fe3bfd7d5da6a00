"""The HTTP server: uvicorn on a UNIX socket of mode 0600, in the exchange's own event loop."""

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h11
import uvicorn
from fastapi import FastAPI
from uvicorn.protocols.http.h11_impl import H11Protocol

from cloister.exchange.api.proxy import ProxyHeaderError, read_header
from cloister.exchange.settings import Settings

REQUEST_DEADLINE = 15.0  # for the PROXY header and the first request of a connection
WHOLE_DEADLINE = 60.0  # for the rest of a request that has begun, its body included
MAX_HEADER_BYTES = 32 * 1024
MAX_CONNECTIONS = 1024


class ProxyProtocol(H11Protocol):
    """HTTP/1.1 after a PROXY v2 header; the peer of a request is the one that the header names."""

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._waiting: bytes | None = b""  # until the header is whole
        self._deadline = self.loop.call_later(REQUEST_DEADLINE, self._check_deadline)
        self._whole: asyncio.TimerHandle | None = None  # runs while a request is on its way

    def connection_lost(self, exc: Exception | None) -> None:
        self._deadline.cancel()
        if self._whole is not None:
            self._whole.cancel()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        if self._waiting is None:
            self._receive(data)
            return
        self._waiting += data
        try:
            header = read_header(self._waiting)
        except ProxyHeaderError:
            self.transport.close()
            return
        if header is None:
            return
        rest, self._waiting = self._waiting[header.length :], None
        self.client = None if header.peer is None else (header.peer.host, header.peer.port)
        self.scheme = "https"
        if rest:
            self._receive(rest)

    def _receive(self, data: bytes) -> None:
        """uvicorn waits for the rest of a request for ever; whoever sends it byte by byte would hold a place as long."""
        super().data_received(data)
        is_begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if is_begun or self.conn.their_state is h11.SEND_BODY:
            if self._whole is None:
                self._whole = self.loop.call_later(WHOLE_DEADLINE, self.transport.close)
        elif self._whole is not None:
            self._whole.cancel()
            self._whole = None

    def _check_deadline(self) -> None:
        if getattr(self, "cycle", None) is None:  # uvicorn declares it as always there
            self.transport.close()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.ready.set()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield  # signals belong to the composition root


class ApiServer:
    def __init__(self, app: FastAPI, path: Path, settings: Settings) -> None:
        self.path = path
        self._settings = settings
        config = uvicorn.Config(
            app,
            http=ProxyProtocol,
            ws="none",
            lifespan="off",
            log_config=None,
            access_log=False,
            server_header=False,
            date_header=False,
            proxy_headers=False,
            h11_max_incomplete_event_size=MAX_HEADER_BYTES,
            timeout_keep_alive=30,
            timeout_graceful_shutdown=3,
            limit_concurrency=MAX_CONNECTIONS,
        )
        self._server = _Server(config)
        self._task: asyncio.Task[Any] | None = None

    async def start(self) -> None:
        """Listen; returns when the socket is there."""
        self.path.unlink(missing_ok=True)
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        old = os.umask(0o177)
        try:
            listener.bind(str(self.path))
        finally:
            os.umask(old)
        listener.listen(256)
        listener.setblocking(False)
        self._task = asyncio.get_running_loop().create_task(self._server.serve([listener]), name="api")
        await asyncio.wait([self._task, asyncio.ensure_future(self._server.ready.wait())], return_when=asyncio.FIRST_COMPLETED)
        if self._task.done():
            await self._task

    async def stop(self) -> None:
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self.path.unlink(missing_ok=True)
