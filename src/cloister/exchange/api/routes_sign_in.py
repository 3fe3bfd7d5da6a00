"""Signing in at identity providers: the pages for people, the way back from a provider, its word that somebody left, and an administrator's terminal."""

import json
from collections.abc import Awaitable, Callable
from typing import Annotated
from urllib.parse import parse_qsl

from fastapi import APIRouter, Depends, Request, Response
from fastapi.responses import HTMLResponse, RedirectResponse

from cloister.exchange.api.parts import Caller, Parts
from cloister.exchange.api.routing import Routes, caller, source_of
from cloister.exchange.api.schemas import Empty, ProviderSecret, ProviderSignIn, ProviderWait, SignedIn, SignInOffer
from cloister.exchange.errors import Refusal, not_found
from cloister.exchange.signin.browsers import COOKIE
from cloister.exchange.signin.pages import Page, confirm_page, message_page
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code
from cloister.store.types import Actor

CallerIs = Annotated[Caller, Depends(caller)]
MAX_FORM_FIELDS = 16
MAX_FORM_BYTES = 512 * 1024
STATUS = {Code.SIGN_IN_EXPIRED: 404, Code.TOO_MANY_ATTEMPTS: 429, Code.OUTGOING_FAILED: 502, Code.PROVIDER_MISMATCH: 502}


def make_routes(parts: Parts) -> APIRouter:
    routes = Routes(parts, "sign-in")
    _add_pages(routes, parts)
    _add_provider(routes, parts)
    _add_terminal(routes, parts)
    return routes.router


def _add_pages(routes: Routes, parts: Parts) -> None:
    service, browsers = parts.sign_ins.service, parts.sign_ins.browsers

    @routes.add("GET", "/sign-in/{id}", guard="public")
    async def show_sign_in(id: str, request: Request) -> Response:
        """Ask whether this is the person's own terminal. Changes nothing: whatever fetches links ahead of people does no harm."""

        async def work() -> Response:
            pending = service.find(id)
            browser = browsers.read(_cookie(request))
            cookie = None
            if browser is None:
                browser, cookie = browsers.make()
            providers, targets = await service.reachable(pending)
            page = confirm_page(
                purpose=pending.purpose,
                device=pending.attempt.device,
                source=pending.attempt.source,
                code=pending.attempt.code,
                action=f"/sign-in/{id}",
                token=browsers.form_token(browser, id),
                providers=providers,
                targets=targets,
            )
            return _answer(page, cookie)

        return await _page(work)

    @routes.add("POST", "/sign-in/{id}", guard="public", audit="sign_in")
    async def start_sign_in(id: str, request: Request) -> Response:
        """The person said yes: this browser goes to the provider, and the attempt is its own from now on."""

        async def work() -> Response:
            fields = dict(await _form(request))
            browser = browsers.read(_cookie(request))
            if browser is None or not browsers.is_form_token(browser, id, fields.get("token", "")):
                await service.audit(source_of(request), "form of another site or browser", Code.SIGN_IN_MISMATCH)
                raise Refusal(Code.SIGN_IN_MISMATCH)
            url = await service.send(service.find(id), browser, fields.get("provider", ""), source_of(request))
            return RedirectResponse(url, 303, headers={"referrer-policy": "no-referrer"})

        return await _page(work)

    @routes.add("GET", "/sign-in/callback/{name}", guard="public")
    async def finish_sign_in(name: str, request: Request) -> Response:
        """The provider's answer. Its state is spent whatever comes of it."""

        async def work() -> Response:
            pairs = _pairs(request.scope["query_string"])
            await service.answer(name, browsers.read(_cookie(request)), pairs, source_of(request))
            return _answer(message_page(200, "You are signed in", "Go back to your terminal; you can close this page."))

        return await _page(work)


def _add_provider(routes: Routes, parts: Parts) -> None:
    @routes.add("POST", "/sign-in/acs/{name}", guard="public", audit="sign_in")
    async def take_saml_response(name: str, request: Request) -> Response:
        """SAML 2.0 HTTP POST binding. The form comes from another site and so without our cookie: it is held for the navigation that brings it."""

        async def work() -> Response:
            fields = dict(await _form(request))
            url = parts.sign_ins.service.hold_response(name, fields.get("RelayState", ""), fields.get("SAMLResponse", ""))
            return RedirectResponse(url, 303)

        return await _page(work)

    @routes.add("POST", "/sign-in/logout/{name}", guard="public", audit="sign_out")
    async def log_out_by_provider(name: str, request: Request) -> Response:
        """OpenID Connect Back-Channel Logout 1.0, §2.5: the token is the authorisation."""
        token = dict(await _form(request)).get("logout_token", "")
        try:
            await parts.sign_ins.departures.by_provider(name, token, source_of(request))
        except Refusal as refusal:
            body = {"error": "invalid_request", "error_description": refusal.message}
            return Response(json.dumps(body), 400, media_type="application/json")
        return Response(status_code=200)

    @routes.add("PUT", "/api/v1/identity-providers/{name}/secret", guard="admin", audit="identity-provider.set_secret")
    async def set_provider_secret(name: str, form: ProviderSecret, who: CallerIs) -> Empty:
        """The client secret, kept in a file of the exchange; nothing shows it again."""
        row = parts.state.find("identity-provider", name)
        document = None if row is None else parts.state.parsed[row.id]
        if row is None or not isinstance(document, IdentityProvider):
            raise not_found("identity provider", name)
        if document.client_secret_file is not None:
            raise Refusal(Code.CONFLICT, f"`{name}` takes its secret from `client_secret_file`", "leave that out first")
        await parts.sign_ins.secrets.store(row.id, form.secret)
        entry = parts.changes.entry(who.actor, "identity-provider.set_secret", name)
        await parts.changes.commit(entry, lambda _change: None)
        return Empty()


def _add_terminal(routes: Routes, parts: Parts) -> None:
    service = parts.sign_ins.service

    @routes.add("POST", "/api/v1/sign-in/provider", guard="public", audit="sign_in")
    async def offer_sign_in(form: ProviderSignIn, request: Request) -> SignInOffer:
        """A URL for the person's browser, and a secret with which this terminal waits for the outcome."""
        return SignInOffer(**service.offer_api(form.provider, form.device, source_of(request)))

    @routes.add("POST", "/api/v1/sign-in/wait", guard="public", audit="sign_in")
    async def wait_for_sign_in(form: ProviderWait, request: Request) -> SignedIn:
        """Wait for at most 25 s; `sign_in_pending` means: ask again. The token is given out once."""
        user, person = await service.wait_api(form.secret)
        source = source_of(request)
        if user not in parts.state.accounts:
            actor = Actor(f"user:{parts.state.name_of(user)}", source)
            await parts.changes.set_account(actor, parts.state.name_of(user), role="user")
        token, secret = await parts.api_tokens.create(user, source, lambda: service.check_standing(user, person))
        role = parts.state.accounts[user].role
        return SignedIn(token=secret, expires_at=token.expires_at, user=parts.state.name_of(user), role=role)


# ------------------------------------------------------------------ forms and pages


async def _page(work: Callable[[], Awaitable[Response]]) -> Response:
    """Whatever a person's browser asked for is answered with a page."""
    try:
        return await work()
    except Refusal as refusal:
        status = STATUS.get(refusal.code, 403)
        return _answer(message_page(status, "This sign-in did not work", _sentence(refusal.message), _sentence(refusal.remedy)))


def _sentence(text: str) -> str:
    """With a capital letter, unless it begins with a name or a URL."""
    plain = text.replace("`", "")
    return f"{plain[0] if text[0] == '`' else plain[0].upper()}{plain[1:]}." if plain else ""


def _answer(page: Page, cookie: str | None = None) -> Response:
    response = HTMLResponse(page.html, page.status, headers=page.headers)
    if cookie is not None:
        # Lax: the way back from the provider is a navigation from another site, and must bring it.
        response.set_cookie(COOKIE, cookie, max_age=1800, path="/", secure=True, httponly=True, samesite="lax")
    return response


def _cookie(request: Request) -> str | None:
    """The one cookie that counts; given twice, none does (case 20)."""
    header = request.headers.getlist("cookie")
    found = [
        value for line in header for part in line.split(";") for key, _, value in [part.strip().partition("=")] if key == COOKIE
    ]
    return found[0] if len(found) == 1 else None


async def _form(request: Request) -> list[tuple[str, str]]:
    """The fields of a form, each named once."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise Refusal(Code.ARGUMENT_INVALID, "this is not a form", status=400)
    body = await request.body()
    if len(body) > MAX_FORM_BYTES:
        raise Refusal(Code.TOO_LARGE)
    pairs = _pairs(body)
    if len(dict(pairs)) != len(pairs):
        raise Refusal(Code.ARGUMENT_INVALID, "a field of the form is given twice", status=400)
    return pairs


def _pairs(text: bytes) -> list[tuple[str, str]]:
    try:
        return parse_qsl(
            text.decode("ascii"), keep_blank_values=True, encoding="utf-8", errors="strict", max_num_fields=MAX_FORM_FIELDS
        )
    except (ValueError, UnicodeDecodeError):
        raise Refusal(Code.ARGUMENT_INVALID, "the fields cannot be read", status=400) from None
