"""Security events by push (RFC 8935), the secrets of transmitters, and how their streams fare."""

from typing import Annotated

from fastapi import APIRouter, Depends, Request, Response

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller, source_of, transmitter_of
from cloister.exchange.api.schemas import Empty
from cloister.exchange.api.schemas_evidence import TransmitterSecretMade, TransmitterSecretSet, TransmitterStatus
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.signals.receiver import ACTION, MAX_TOKEN_BYTES
from cloister.exchange.signals.types import Transmitter
from cloister.identity.signals.types import EventRefused
from cloister.model.reasons import Code

CallerIs = Annotated[Caller, Depends(caller)]
From = Annotated[Transmitter, Depends(transmitter_of)]
MEDIA_TYPE = "application/secevent+jwt"


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "signals")

    @routes.add("POST", "/api/v1/signals/{name}", guard="transmitter", audit=ACTION, status=202)
    async def receive_event(name: str, request: Request, transmitter: From) -> Response:  # noqa: ARG001 (the guard has read it)
        """Deliver one Security Event Token. 202: what it says is in force. 400: `err` and `description`, by RFC 8935. 429, 503: send it again."""
        if request.headers.get("content-type", "").partition(";")[0].strip().lower() != MEDIA_TYPE:
            raise EventRefused("invalid_request", Code.TOKEN_TYPE, f"the content type is not `{MEDIA_TYPE}`")
        token = await _read_token(request)
        try:
            await parts.signals.receiver.receive(transmitter, token, source_of(request))
        except Refusal as refusal:
            status = 429 if refusal.code is Code.TOO_MANY_ATTEMPTS else 503  # nothing is wrong with the token: it is sent again
            raise Refusal(refusal.code, refusal.message, refusal.remedy, status=status) from None
        return Response(status_code=202)

    @routes.add("GET", "/api/v1/signal-transmitters/{name}/status", guard="auditor")
    async def read_transmitter_status(name: str) -> TransmitterStatus:
        transmitter = _known(parts, name)
        stream = parts.signals.receiver.stream(transmitter)
        return TransmitterStatus(
            name=name,
            delivery=transmitter.document.delivery,
            taken=stream.taken,
            refused=stream.refused,
            last_taken_at=stream.last_taken_at,
            last_refused_at=stream.last_refused_at,
            last_refusal=stream.last_refusal,
            status=stream.status,
            verified_at=stream.verified_at,
            polled_at=stream.polled_at,
            poll_error=stream.poll_error,
        )

    @routes.add(
        "POST", "/api/v1/signal-transmitters/{name}/secret", guard="admin", audit="signal-transmitter.set_secret", status=201
    )
    async def make_transmitter_secret(name: str, who: CallerIs) -> TransmitterSecretMade:
        """A new secret for a transmitter that pushes, shown in this answer and never again; the one before ends at once."""
        return TransmitterSecretMade(secret=await parts.signals.secrets.make(who.actor, _known(parts, name)))

    @routes.add("PUT", "/api/v1/signal-transmitters/{name}/secret", guard="admin", audit="signal-transmitter.set_secret")
    async def store_transmitter_secret(name: str, form: TransmitterSecretSet, who: CallerIs) -> Empty:
        """Keep the secret that a transmitter gave out for polling it."""
        await parts.signals.secrets.store(who.actor, _known(parts, name), form.secret)
        return Empty()

    return routes.router


async def _read_token(request: Request) -> str:
    body = bytearray()
    async for part in request.stream():
        body += part
        if len(body) > MAX_TOKEN_BYTES:
            raise EventRefused("invalid_request", Code.TOO_LARGE, f"the token is longer than `{MAX_TOKEN_BYTES}` bytes")
    if not body.isascii():
        raise EventRefused("invalid_request", Code.TOKEN_MALFORMED, "the body is not a token")
    return body.decode("ascii").strip()


def _known(parts: Parts, name: str) -> Transmitter:
    found = parts.signals.receiver.find(name)
    if found is None:
        raise not_found("signal transmitter", name)
    return found
