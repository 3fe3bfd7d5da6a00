"""What goes wrong at the control socket, without a heavy import: `cloister connect` starts in a blink."""


class ClientError(Exception):
    """A refusal for a person: a stable code, one sentence, and what to do next."""

    def __init__(self, code: str, message: str, remedy: str = "") -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.remedy = remedy


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
