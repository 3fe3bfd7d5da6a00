"""What goes wrong at the control socket, without a heavy import: `cloister connect` starts in a blink."""

from collections.abc import Mapping, Sequence
from typing import Any


class ClientError(Exception):
    """A refusal for a person: a stable code, one sentence, and what to do next. `errors` are positions in a document, where there are any."""

    def __init__(self, code: str, message: str, remedy: str = "", errors: Sequence[Mapping[str, Any]] = ()) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy
        self.errors = errors


class ClientGone(ClientError):
    """There is no client process, or it ended before it answered."""

    def __init__(
        self, code: str = "internal", message: str = "the client process ended without an answer", remedy: str = "look at its log"
    ) -> None:
        super().__init__(code, message, remedy)


class NotRunning(ClientGone):
    """No client process answers at the control socket."""

    def __init__(self) -> None:
        super().__init__("exchange_unreachable", "no client is running", "start it with `cloister up`")
