"""Names for every program of the owner: the core answers them, the kernel hands their flows to the core, and both follow the catalogue."""

import asyncio
import logging
import time
from pathlib import Path

from cloister import _core
from cloister.agent.waking import woken
from cloister.client.capture import Capture
from cloister.client.errors import ClientError
from cloister.client.service import ClientService
from cloister.model.messages.from_exchange import Catalogue
from cloister.model.reasons import Code

log = logging.getLogger("cloister.client")

UPDATE_EVERY = 1.0  # seconds: names below a wildcard get their addresses when they are first asked for
LOOK_AROUND_EVERY = 30.0  # seconds between looks for networks that came up inside a pool


class CapturedNames:
    """`start` after the first catalogue, `stop` before the service's own. Needs root."""

    def __init__(self, service: ClientService, owner: int, directory: Path, pool4: str, pool6: str) -> None:
        self._service = service
        self._capture = Capture(owner, directory)
        self._pool4 = pool4
        self._pool6 = pool6
        self._task: asyncio.Task[None] | None = None
        self._changed = asyncio.Event()

    async def start(self) -> None:
        """Raises ClientError with the reason; nothing of it stays then."""
        prepared = await asyncio.to_thread(self._capture.prepare, self._pool4, self._pool6)
        if prepared.pools.moved is not None:
            self._service.tell(Code.OK, prepared.pools.moved)
        plane, catalogue = self._service.plane, self._service.catalogue
        try:
            plane.serve_dns(
                prepared.nameserver,
                upstreams=prepared.upstreams,
                pool4=str(prepared.pools.v4),
                pool6=str(prepared.pools.v6),
                suffixes=catalogue.suffixes if catalogue else [],
            )
            ports = plane.capture("127.0.0.1:0", "[::1]:0")
        except _core.CoreError as error:
            raise ClientError(error.code, f"names cannot be answered: {error}", "see which process uses the address") from error
        await asyncio.to_thread(self._capture.start, ports, plane.captured())
        self._service.on_catalogue = self._follow
        self._task = asyncio.ensure_future(self._keep_current())

    async def stop(self) -> None:
        self._service.on_catalogue = None
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait([self._task])
        await asyncio.to_thread(self._capture.stop)

    def _follow(self, catalogue: Catalogue) -> None:
        self._service.plane.set_suffixes(catalogue.suffixes)
        self._changed.set()

    async def _keep_current(self) -> None:
        look_around = time.monotonic() + LOOK_AROUND_EVERY
        told: str | None = None
        while True:
            await woken(self._changed, UPDATE_EVERY)
            try:
                await asyncio.to_thread(self._capture.update, self._service.plane.captured())
                upstreams = await asyncio.to_thread(self._capture.repair_resolver)
                if upstreams is not None:
                    self._service.plane.set_upstreams(upstreams)
                if time.monotonic() >= look_around:
                    look_around = time.monotonic() + LOOK_AROUND_EVERY
                    if await asyncio.to_thread(self._capture.repair_rules):
                        log.warning("another program removed capture's rules or routes; they are back")
                    overlap = await asyncio.to_thread(self._capture.overlap)
                    if overlap is not None and overlap != told:
                        self._service.tell(Code.CONFLICT, overlap)
                    told = overlap
            except (ClientError, OSError, ValueError) as error:
                log.error("capture could not follow a change: %s", error)
