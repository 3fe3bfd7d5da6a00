"""A client to talk to: the running one, else one inside this command for as long as the command lasts."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.agent.errors import AgentError
from cloister.cli.up import UpOptions, make_capture_dir
from cloister.client.dirs import owner
from cloister.client.errors import ClientError, ClientGone, NotRunning
from cloister.client.talk import ask
from cloister.client.types import ClientSettings

if TYPE_CHECKING:
    from cloister.client.service import ClientService


@contextmanager
def running_client(directory: Path) -> Iterator["Inside"]:
    """Within the block, `ask(directory, …)` finds a client. Raises ClientError if none can be started."""
    try:
        ask(directory, {"op": "status"}).close()
    except NotRunning:
        pass
    else:
        yield Inside(None)
        return
    inside = ClientThread(ClientSettings(state=directory, owner=owner()))
    inside.begin()
    try:
        yield Inside(inside)
    except ClientGone:
        inside.end()
        inside.raise_failure()  # why it ended says more than that it did
        raise
    finally:
        inside.end()


class Inside:
    """The client that this command brought along, if it did."""

    def __init__(self, thread: "ClientThread | None") -> None:
        self._thread = thread

    def raise_failure(self) -> None:
        """Raise what ended it, once it has ended."""
        if self._thread is not None:
            self._thread.join()
            self._thread.raise_failure()


class ClientThread(threading.Thread):
    """`capture` makes names work for every program of the owner as well, as `cloister up` does."""

    def __init__(self, settings: ClientSettings, capture: UpOptions | None = None) -> None:
        super().__init__(name="client", daemon=True)
        self._settings = settings
        self._capture = capture
        self._started_or_failed = threading.Event()
        self._failure: Exception | None = None
        self._own_loop: asyncio.AbstractEventLoop
        self._ending: asyncio.Event

    def begin(self) -> None:
        self.start()
        self._started_or_failed.wait()
        self.raise_failure()

    def raise_failure(self) -> None:
        if isinstance(self._failure, AgentError | ClientError):
            raise ClientError(self._failure.code, self._failure.message, self._failure.remedy)
        if self._failure is not None:
            raise self._failure

    def end(self) -> None:
        if self.is_alive():
            self._own_loop.call_soon_threadsafe(self._ending.set)
            self.join()

    def run(self) -> None:
        try:
            asyncio.run(self._serve())
        except Exception as error:  # noqa: BLE001 (raised again by `begin`, in the thread that asked)
            self._failure = error
        finally:
            self._started_or_failed.set()

    async def _serve(self) -> None:
        from cloister.client.names import CapturedNames
        from cloister.client.service import ClientService

        self._own_loop = asyncio.get_running_loop()
        self._ending = asyncio.Event()
        service = ClientService(self._settings)
        service.start()
        names: CapturedNames | None = None
        try:
            if self._capture is not None:
                await service.wait_ready()
                where = make_capture_dir(self._settings.state)
                names = CapturedNames(service, owner(), where, self._capture.pool4, self._capture.pool6)
                await names.start()
            self._started_or_failed.set()
            await self._until_over(service)
        finally:
            if names is not None:
                await names.stop()
            await service.stop()

    async def _until_over(self, service: "ClientService") -> None:
        ending = asyncio.ensure_future(self._ending.wait())
        over = asyncio.ensure_future(service.run_until_over())
        try:
            await asyncio.wait([ending, over], return_when=asyncio.FIRST_COMPLETED)
            if over.done():
                over.result()
        finally:
            ending.cancel()
            over.cancel()
