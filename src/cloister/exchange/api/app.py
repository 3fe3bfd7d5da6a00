"""The application: routes, bounds on requests, and one form for every refusal."""

import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from cloister import _core
from cloister.exchange.api import (
    routes_access,
    routes_devices,
    routes_directories,
    routes_documents,
    routes_programs,
    routes_requests,
    routes_risk,
    routes_scim,
    routes_sign_in,
    routes_signals,
    routes_system,
    routes_users,
)
from cloister.exchange.api.limits import RequestLimits, is_scim
from cloister.exchange.api.parts import Parts
from cloister.exchange.errors import Refusal
from cloister.identity.scim.errors import NOT_FOUND, ScimError
from cloister.identity.signals.types import EventRefused
from cloister.model.reasons import REASONS, Code

log = logging.getLogger("cloister.api")

STATUS: dict[Code, int] = {
    Code.NOT_FOUND: 404,
    Code.CONFLICT: 409,
    Code.NOT_AUTHENTICATED: 401,
    Code.SIGN_IN_FAILED: 401,
    Code.SIGN_IN_PENDING: 409,
    Code.NOT_AUTHORISED: 403,
    Code.TOO_LARGE: 413,
    Code.TOO_MANY_ATTEMPTS: 429,
    Code.LIMIT_REACHED: 409,
    Code.INTERNAL: 500,
}
OTHER_REFUSAL = 422


def make_app(parts: Parts) -> FastAPI:
    app = FastAPI(
        title="Cloister",
        version=_core.__version__,
        docs_url=None,
        redoc_url=None,
        openapi_url=None,
        redirect_slashes=False,
        separate_input_output_schemas=False,
    )
    for module in (
        routes_scim,  # first: routes are tried in turn, and a directory that synchronises asks most often
        routes_signals,
        routes_system,
        routes_documents,
        routes_users,
        routes_access,
        routes_devices,
        routes_requests,
        routes_sign_in,
        routes_directories,
        routes_programs,
        routes_risk,
    ):
        app.include_router(module.make_routes(parts))
    _describe_token(app)
    app.add_exception_handler(Refusal, _on_refusal)
    app.add_exception_handler(ScimError, _on_scim_error)
    app.add_exception_handler(EventRefused, _on_event_refused)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_exception_handler(Exception, _on_failure)
    app.add_middleware(RequestLimits, limits=parts.settings.limits, clock=parts.clock)
    app.add_middleware(_Headers)
    return app


def _describe_token(app: FastAPI) -> None:
    describe = app.openapi

    def describe_with_token() -> dict[str, Any]:
        schema = describe()
        schema["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
        return schema

    app.openapi = describe_with_token  # type: ignore[method-assign]  # FastAPI's own way to extend its schema


def problem(code: Code, message: str = "", remedy: str = "", errors: Any = (), status: int | None = None) -> JSONResponse:
    reason = REASONS[code]
    body = {"code": code, "message": message or reason.message, "remedy": remedy or reason.remedy, "errors": list(errors)}
    headers = {"www-authenticate": "Bearer"} if code is Code.NOT_AUTHENTICATED else None
    return JSONResponse(body, status or STATUS.get(code, OTHER_REFUSAL), headers)


class _Headers:
    """What every answer says. Plain ASGI: a middleware of requests and responses would cost each request two tasks and a stream."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers["cache-control"] = "no-store"
                headers["x-content-type-options"] = "nosniff"
                headers.setdefault("content-security-policy", "default-src 'none'; frame-ancestors 'none'")
            await send(message)

        await self._app(scope, receive, with_headers)


async def _on_refusal(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, Refusal)  # noqa: S101 (registered for nothing else)
    if is_scim(request.url.path):
        return routes_scim.scim_problem(STATUS.get(error.code, 400), error.message)
    return problem(error.code, error.message, error.remedy, error.errors, error.status)


async def _on_event_refused(_request: Request, error: Exception) -> JSONResponse:
    """RFC 8935, sections 2.3 and 2.4."""
    assert isinstance(error, EventRefused)  # noqa: S101 (registered for nothing else)
    is_stranger = error.error == "authentication_failed"
    headers = {"www-authenticate": "Bearer"} if is_stranger else None
    return JSONResponse({"err": error.error, "description": error.message}, 401 if is_stranger else 400, headers)


async def _on_invalid(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, RequestValidationError)  # noqa: S101 (registered for nothing else)
    errors = [{"path": [str(step) for step in item["loc"]], "message": item["msg"]} for item in error.errors()[:100]]
    first = errors[0] if errors else {"path": [], "message": "the request is not valid"}
    return problem(Code.ARGUMENT_INVALID, f"`{'.'.join(first['path'])}`: {first['message']}", errors=errors)


async def _on_scim_error(_request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, ScimError)  # noqa: S101 (registered for nothing else)
    return routes_scim.scim_problem(error.status, error.detail, error.scim_type)


async def _on_http(request: Request, error: Exception) -> JSONResponse:
    assert isinstance(error, HTTPException)  # noqa: S101 (registered for nothing else)
    if is_scim(request.url.path):
        detail = NOT_FOUND[1] if error.status_code == 404 else str(error.detail)
        return routes_scim.scim_problem(error.status_code, detail)
    code = Code.NOT_FOUND if error.status_code == 404 else Code.ARGUMENT_INVALID
    return problem(code, "there is no such resource" if code is Code.NOT_FOUND else str(error.detail), status=error.status_code)


async def _on_failure(request: Request, error: Exception) -> JSONResponse:
    log.error("a request failed", exc_info=error)
    if is_scim(request.url.path):
        return routes_scim.scim_problem(500, REASONS[Code.INTERNAL].message)
    return problem(Code.INTERNAL)
