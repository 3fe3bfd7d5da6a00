"""Tells outside listeners of requests for access: a POST each, signed, tried a few times, never in anybody's way."""

import asyncio
import base64
import hashlib
import hmac
import json
import logging
from collections.abc import Callable, Mapping
from pathlib import Path

from cloister.exchange.errors import Refusal
from cloister.exchange.outgoing import Outgoing, Reach
from cloister.exchange.state import State
from cloister.model.webhooks import Webhook
from cloister.store.types import AccessRequest

log = logging.getLogger("cloister.exchange")

MAX_WAITING = 1_000
PAUSES = (1.0, 5.0, 30.0, 120.0)  # seconds between tries
MAX_SECRET_BYTES = 4096
MAX_ANSWER_BYTES = 65536


class Webhooks:
    """`tell` returns at once; what cannot be delivered is logged and dropped."""

    def __init__(self, state: State, outgoing: Outgoing, clock: Callable[[], float], pauses: tuple[float, ...] = PAUSES) -> None:
        self._state = state
        self._outgoing = outgoing
        self._clock = clock
        self._pauses = pauses
        self._tasks: set[asyncio.Task[None]] = set()

    def tell(self, request: AccessRequest) -> None:
        hooks = [document for document in self._state.library.referers.values() if isinstance(document, Webhook)]
        for hook in hooks:
            if request.state not in hook.events:
                continue
            if len(self._tasks) >= MAX_WAITING:
                log.error("too many webhooks wait: `%s` is not told of request `%s`", hook.name, request.id)
                continue
            body = json.dumps(self._describe(request)).encode()
            task = asyncio.get_running_loop().create_task(self._deliver(hook, f"{request.id}-{request.state}", body))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    @property
    def waiting(self) -> int:
        """Deliveries that are not done."""
        return len(self._tasks)

    def close(self) -> None:
        for task in self._tasks:
            task.cancel()

    def _describe(self, request: AccessRequest) -> dict[str, object]:
        """`text` is what chat tools show. Names follow the grammar of names and the reason is printable, so no markup is made here; tools that read some
        are sent it without `<`, `>` and `&` (Slack's control characters).
        """
        who, what = self._state.name_of(request.principal), self._state.name_of(request.segment)
        reason = request.reason.translate({ord("<"): "‹", ord(">"): "›", ord("&"): "+"})
        sentences: Mapping[str, str] = {
            "pending": f"{who} asks for {what} for {request.seconds} s: {reason}. Answer with: cloister approve {request.id}",
            "approved": f"{who} may reach {what} for {request.seconds} s: {reason}",
            "denied": f"the request of {who} for {what} was turned down",
            "withdrawn": f"{who} withdrew the request for {what}",
        }
        return {
            "type": f"access_request.{request.state}",
            "text": sentences[request.state],
            "request": {"id": request.id, "user": who, "segment": what, "reason": request.reason, "seconds": request.seconds},
        }

    async def _deliver(self, hook: Webhook, id: str, body: bytes) -> None:
        reach = Reach(internal=frozenset(hook.allow_internal))
        for pause in (*self._pauses, None):
            try:
                headers = {"content-type": "application/json", **await self._sign(hook, id, body)}
                answer = await self._outgoing.send(
                    "POST", hook.url, reach, headers=headers, content=body, max_bytes=MAX_ANSWER_BYTES
                )
                if 200 <= answer.status < 300:
                    return
                why = f"status `{answer.status}`"
            except (Refusal, OSError, ValueError) as error:
                why = str(error)
            if pause is None:
                log.error("the webhook `%s` could not be told of `%s`: %s", hook.name, id, why)
                return
            log.warning("the webhook `%s` did not take `%s`: %s", hook.name, id, why)
            await asyncio.sleep(pause)

    async def _sign(self, hook: Webhook, id: str, body: bytes) -> Mapping[str, str]:
        """The headers of Standard Webhooks 1.0: HMAC-SHA256 over id, time and body."""
        timestamp = str(int(self._clock()))
        headers = {"webhook-id": id, "webhook-timestamp": timestamp}
        if hook.secret_file is None:
            return headers
        secret = await asyncio.to_thread(_read_secret, Path(hook.secret_file))
        digest = hmac.digest(secret, b".".join((id.encode(), timestamp.encode(), body)), hashlib.sha256)
        return headers | {"webhook-signature": f"v1,{base64.b64encode(digest).decode()}"}


def _read_secret(path: Path) -> bytes:
    """`whsec_` and base64, as Standard Webhooks writes keys; at least 24 bytes."""
    with path.open("rb") as file:
        text = file.read(MAX_SECRET_BYTES + 1).strip()
    secret = base64.b64decode(text.removeprefix(b"whsec_"), validate=True)
    if not 24 <= len(secret) <= 64:
        raise ValueError("a webhook's secret has 24 to 64 bytes, in base64 after `whsec_`")
    return secret
