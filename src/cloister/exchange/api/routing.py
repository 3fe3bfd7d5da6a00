"""The one way to make a route: with its guard, and for a mutation with its audit action."""

from collections.abc import Callable
from typing import Any, Literal, TypeVar

from fastapi import APIRouter, Depends, Request

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.errors import Refusal
from cloister.exchange.signals.types import Transmitter
from cloister.identity.scim.errors import ScimError
from cloister.identity.signals.types import EventRefused
from cloister.model.reasons import REASONS, Code
from cloister.store.types import Actor, Directory

Guard = Literal["public", "user", "auditor", "admin", "directory", "source", "transmitter"]
Method = Literal["GET", "POST", "PUT", "PATCH", "DELETE"]
F = TypeVar("F", bound=Callable[..., Any])

ALLOWED: dict[Guard, frozenset[str]] = {
    "user": frozenset({"user", "auditor", "admin"}),
    "auditor": frozenset({"auditor", "admin"}),
    "admin": frozenset({"admin"}),
    "directory": frozenset(),
    "source": frozenset({"admin"}),
    "transmitter": frozenset(),
}
"""Which account roles pass which guard. No account is a directory or a transmitter: their secrets are of other kinds (case 17). `source` also lets the
token pass that was made for the source of facts that the path names; such a token passes no other guard."""

ERRORS: dict[int | str, dict[str, Any]] = {"4XX": {"description": "Refused: `code`, `message`, `remedy`, `errors`"}}


class Routes:
    """A router that knows its parts. `x-guard` and `x-audit` in the OpenAPI file are what the tests walk."""

    def __init__(self, parts: Parts, tag: str) -> None:
        self.router = APIRouter(tags=[tag], redirect_slashes=False)
        self.parts = parts
        self._dependencies = {guard: Depends(_guard(parts, guard)) for guard in ("user", "auditor", "admin", "source")}
        self._dependencies["directory"] = Depends(_directory_guard(parts))
        self._dependencies["transmitter"] = Depends(_transmitter_guard(parts))

    def add(
        self, method: Method, path: str, *, guard: Guard, audit: str = "", status: int = 200, reads: bool = False
    ) -> Callable[[F], F]:
        """`reads` is a POST that changes nothing: a search."""
        if method != "GET" and not audit and not (reads and method == "POST"):
            raise ValueError(f"`{method} {path}` changes something and names no audit action")

        def register(endpoint: F) -> F:
            extra: dict[str, Any] = (
                {"x-guard": guard} | ({"x-audit": audit} if audit else {}) | ({"x-reads": True} if reads else {})
            )
            if guard != "public":
                extra["security"] = [{"token": []}]
            self.router.add_api_route(
                path,
                endpoint,
                methods=[method],
                status_code=status,
                dependencies=[] if guard == "public" else [self._dependencies[guard]],
                openapi_extra=extra,
                responses=ERRORS,
                operation_id=f"{method.lower()}_{endpoint.__name__}",
            )
            return endpoint

        return register


def _guard(parts: Parts, guard: Guard) -> Callable[[Request], None]:
    async def check(request: Request) -> None:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        found = parts.api_tokens.find(secret) if scheme.lower() == "bearer" else None
        if found is None:
            raise Refusal(Code.NOT_AUTHENTICATED)
        token, account = found
        name = parts.state.name_of(account.user)
        if token.fact_source is not None:
            allowed = guard == "source" and token.fact_source == request.path_params.get("source")
        else:
            allowed = account.role in ALLOWED[guard]
        if not allowed:
            raise Refusal(Code.NOT_AUTHORISED)
        request.state.caller = Caller(token, account, name, Actor(f"user:{name}", source_of(request)))

    return check  # type: ignore[return-value]


def _directory_guard(parts: Parts) -> Callable[[Request], None]:
    async def check(request: Request) -> None:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        judged = parts.directories.judge(secret if scheme.lower() == "bearer" else "", source_of(request))
        if judged == "too_many":
            raise ScimError(429, REASONS[Code.TOO_MANY_ATTEMPTS].message)
        if judged == "unknown":
            raise ScimError(401, "a token of a directory is needed: `Authorization: Bearer`")
        request.state.directory = judged

    return check  # type: ignore[return-value]


def _transmitter_guard(parts: Parts) -> Callable[[Request], None]:
    async def check(request: Request) -> None:
        scheme, _, secret = request.headers.get("authorization", "").partition(" ")
        name, known = request.path_params["name"], secret if scheme.lower() == "bearer" else ""
        found = await parts.signals.receiver.authenticate(name, known, source_of(request))
        if found is None:
            raise EventRefused(
                "authentication_failed", Code.NOT_AUTHENTICATED, "the transmitter's secret is needed: `Authorization: Bearer`"
            )
        request.state.transmitter = found

    return check  # type: ignore[return-value]


# Dependencies are coroutines although they wait for nothing: a plain function would be run in a thread, for each request.


async def transmitter_of(request: Request) -> Transmitter:
    """Whose secret was proved, after the guard."""
    found: Transmitter = request.state.transmitter
    return found


async def directory_of(request: Request) -> Directory:
    """Whose token was proved, after the guard."""
    found: Directory = request.state.directory
    return found


async def caller(request: Request) -> Caller:
    """Who is calling, after the guard."""
    found: Caller = request.state.caller
    return found


def source_of(request: Request) -> str:
    """The peer's address as the public port saw it."""
    return request.client.host if request.client is not None else ""
