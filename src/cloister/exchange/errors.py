"""What the exchange answers when it does not do what was asked. Expected on the API and on links; never a crash."""

from collections.abc import Mapping, Sequence

from cloister.model.parse import DocumentError
from cloister.model.reasons import REASONS, Code

MAX_NAME = 128  # characters of what was asked for that an answer repeats


class Refusal(Exception):
    """A request is refused: a stable code, one sentence, what to do next. `errors` are positions in a document."""

    def __init__(
        self,
        code: Code,
        message: str = "",
        remedy: str = "",
        errors: Sequence[Mapping[str, object]] = (),
        status: int | None = None,
    ) -> None:
        self.code = code
        self.message = message or REASONS[code].message
        self.remedy = remedy or REASONS[code].remedy
        self.errors = tuple(errors)
        self.status = status
        super().__init__(f"{code}: {self.message}")


def not_found(kind: str, name: str) -> Refusal:
    """For what the caller may know of. Whoever may not gets the same answer as for what does not exist."""
    return Refusal(Code.NOT_FOUND, f"there is no {kind.replace('-', ' ')} `{name[:MAX_NAME]}`", "check the spelling")


def refuse_errors(errors: Sequence[DocumentError]) -> None:
    """Raise the errors of documents, all at once, with their places."""
    if not errors:
        return
    first = errors[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    listed = [
        {
            "code": error.code,
            "message": error.message,
            "line": error.line,
            "column": error.column,
            "document": error.document,
            "path": list(error.path),
        }
        for error in errors
    ]
    raise Refusal(first.code, f"{first}{more}", errors=listed)
