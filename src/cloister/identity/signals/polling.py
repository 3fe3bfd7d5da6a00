"""Poll-based delivery (RFC 8936): what is asked and what is answered, as values. Pure."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from cloister.identity.signals.events import MAX_ID
from cloister.identity.signals.types import EventRefused, PushError
from cloister.identity.strict_json import NotStrict, read_object
from cloister.model.reasons import Code

MAX_EVENTS = 100  # asked for at a time
MAX_ANSWER_BYTES = 4 << 20


@dataclass(frozen=True, slots=True)
class PollAnswer:
    """Tokens by their `jti`, in the order in which they came."""

    tokens: Mapping[str, str]
    has_more: bool


def poll_request(acknowledged: Iterable[str], refused: Mapping[str, tuple[PushError, str]]) -> bytes:
    """Section 2.4: acknowledge what was taken, tell what was not, and ask for more without waiting."""
    fields: dict[str, object] = {"maxEvents": MAX_EVENTS, "returnImmediately": True, "ack": list(acknowledged)}
    if refused:
        fields["setErrs"] = {id: {"err": error, "description": description} for id, (error, description) in refused.items()}
    return json.dumps(fields).encode()


def read_answer(body: bytes) -> PollAnswer:
    """Section 2.3. Raises EventRefused if it is none."""
    try:
        fields = read_object(body, max_bytes=MAX_ANSWER_BYTES)
    except NotStrict as error:
        raise _malformed(f"the answer is {error}") from None
    sets, more = fields.get("sets"), fields.get("moreAvailable", False)
    if not isinstance(sets, dict) or not isinstance(more, bool):
        raise _malformed("the answer has no object `sets`, or `moreAvailable` is neither true nor false")
    if len(sets) > MAX_EVENTS:
        raise _malformed(f"the answer has more than the `{MAX_EVENTS}` events that were asked for")
    if not all(isinstance(token, str) and 0 < len(id) <= MAX_ID and id.isprintable() for id, token in sets.items()):
        raise _malformed("`sets` holds something else than tokens by their ids")
    return PollAnswer(sets, more)


def _malformed(message: str) -> EventRefused:
    return EventRefused("invalid_request", Code.MESSAGE_MALFORMED, message)
