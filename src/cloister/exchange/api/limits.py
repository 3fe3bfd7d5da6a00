"""Bounds on what a request may be, before anything reads it: rate per source, size, and no fact given twice (case 20)."""

import asyncio
import contextlib
import json
from collections.abc import Callable

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister.exchange.api.routes_documents import KIND_PATHS
from cloister.exchange.attempts import Counter, group_of
from cloister.exchange.settings import Limits
from cloister.identity.scim.errors import error_body
from cloister.model.reasons import REASONS, Code

SINGLE_HEADERS = frozenset(
    {b"authorization", b"host", b"content-length", b"content-type", b"if-match", b"if-none-match", b"transfer-encoding"}
)


SMALL_BODY_BYTES = 512 << 10  # of forms: what is read of a request before anybody knows whose it is
LINGER_BYTES = 1 << 20
LINGER_SECONDS = 1.0


class _TooLarge(Exception):
    pass


class RequestLimits:
    def __init__(self, app: ASGIApp, limits: Limits, clock: Callable[[], float]) -> None:
        self._app = app
        self._limits = limits
        self._clock = clock
        self._requests = Counter(limits.requests_per_minute)
        self._directory_requests = Counter(limits.directory_requests_per_minute)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        source = group_of(scope["client"][0] if scope["client"] else "")
        now = self._clock()
        names = [name for name, _ in scope["headers"]]
        length = dict(scope["headers"]).get(b"content-length", b"0")
        scim = is_scim(scope["path"])
        requests = self._directory_requests if scim else self._requests
        if not requests.allows(source, now):
            await _refuse(receive, send, 429, Code.TOO_MANY_ATTEMPTS, scim=scim)
        elif any(names.count(name) > 1 for name in SINGLE_HEADERS):
            await _refuse(receive, send, 400, Code.ARGUMENT_INVALID, scim=scim)
        elif not length.isdigit() or int(length) > self._most(scope):
            await _refuse(receive, send, 413, Code.TOO_LARGE, scim=scim)
        else:
            requests.add(source, now)
            await self._serve(scope, receive, send)

    def _most(self, scope: Scope) -> int:
        return self._limits.body_bytes if _is_large(scope["path"]) else min(SMALL_BODY_BYTES, self._limits.body_bytes)

    async def _serve(self, scope: Scope, receive: Receive, send: Send) -> None:
        taken, most = 0, self._most(scope)
        started = False

        async def bounded() -> Message:
            nonlocal taken
            message = await receive()
            taken += len(message.get("body", b""))
            if taken > most:
                raise _TooLarge
            return message

        async def watched(message: Message) -> None:
            nonlocal started
            started = True
            await send(message)

        try:
            await self._app(scope, bounded, watched)
        except _TooLarge:
            if not started:
                await _refuse(receive, send, 413, Code.TOO_LARGE, scim=is_scim(scope["path"]))


def _is_large(path: str) -> bool:
    """Where bundles, documents and resources are sent: by routes that read the body after their guard, so strangers' bodies are never kept."""
    kind, slash, name = path.removeprefix("/api/v1/").partition("/")
    is_document = kind in KIND_PATHS and bool(slash) and "/" not in name
    return is_scim(path) or path == "/api/v1/documents" or is_document


def is_scim(path: str) -> bool:
    """Below this path errors are SCIM's own."""
    return path.startswith("/scim/")


async def _discard(receive: Receive) -> None:
    """Take what is on its way, within bounds: a connection that is closed over unread bytes is reset, and the answer with it (RFC 9112 §9.6)."""
    taken = 0
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(LINGER_SECONDS):
            while taken <= LINGER_BYTES:
                message = await receive()
                taken += len(message.get("body", b""))
                if message["type"] != "http.request" or not message.get("more_body", False):
                    return


async def _refuse(receive: Receive, send: Send, status: int, code: Code, *, scim: bool) -> None:
    await _discard(receive)
    reason = REASONS[code]
    problem = {"code": code, "message": reason.message, "remedy": reason.remedy, "errors": []}
    body = json.dumps(error_body(status, reason.message) if scim else problem).encode()
    media_type = b"application/scim+json" if scim else b"application/json"
    headers = [(b"content-type", media_type), (b"content-length", str(len(body)).encode()), (b"connection", b"close")]
    await send({"type": "http.response.start", "status": status, "headers": headers})
    await send({"type": "http.response.body", "body": body})
