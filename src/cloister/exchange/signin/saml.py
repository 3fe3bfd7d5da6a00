"""Asking a SAML provider: a request in the URL, a response in a form that the person's browser posts."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from cloister.exchange.errors import Refusal
from cloister.exchange.signin.spent import SpentTokens
from cloister.exchange.signin.types import Provider
from cloister.identity.oidc.request import Wish
from cloister.identity.people import Person
from cloister.identity.tokens.types import TokenRefused
from cloister.model.reasons import Code

if TYPE_CHECKING:
    from saml2.client import Saml2Client

MAX_HELD = 256
HOLD_SECONDS = 60.0
MAX_CERTIFICATE_BYTES = 16 * 1024


class HeldResponses:
    """Responses between the provider's form, which comes without our cookie, and the navigation that brings it, a moment later. Beyond the bound the oldest
    makes room: whoever holds places with attempts of their own keeps nobody out.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._held: dict[str, tuple[str, float]] = {}

    def put(self, state: str, response: str) -> None:
        now = self._clock()
        self._held = {key: entry for key, entry in self._held.items() if entry[1] > now and key != state}
        if len(self._held) >= MAX_HELD:
            del self._held[next(iter(self._held))]
        self._held[state] = (response, now + HOLD_SECONDS)

    def take(self, state: str) -> str:
        response, until = self._held.pop(state, ("", 0.0))
        if until <= self._clock():
            raise Refusal(Code.SIGN_IN_MISMATCH)
        return response


class SamlProvider:
    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._spent = SpentTokens()
        self.held = HeldResponses(clock)

    async def send_url(self, provider: Provider, entity: str, acs: str, state: str, wish: Wish) -> tuple[str, str]:
        """The id of the request, and where to send the person."""
        from cloister.identity.saml.provider import make_request

        client = await self._client(provider, entity, acs)
        return await asyncio.to_thread(make_request, client, provider.document, state, wish)

    async def take_answer(self, provider: Provider, entity: str, acs: str, state: str, request: str, wish: Wish) -> Person:
        """Raises TokenRefused and Refusal."""
        from cloister.identity.saml.provider import read_response

        encoded = self.held.take(state)
        client, now = await self._client(provider, entity, acs), int(self._clock())
        verified = await asyncio.to_thread(read_response, client, provider.document, encoded, request, wish, now)
        if not self._spent.spend(provider.document.issuer, verified.assertion, verified.spent_until, self._clock()):
            raise TokenRefused(Code.TOKEN_REPLAYED, "this assertion was used before")
        return verified.person

    async def _client(self, provider: Provider, entity: str, acs: str) -> "Saml2Client":
        from cloister.identity.saml.provider import SamlMissing, make_client

        def make() -> "Saml2Client":
            files = [Path(name).read_bytes()[:MAX_CERTIFICATE_BYTES].decode() for name in provider.document.certificate_files]
            return make_client(provider.document, files, entity, acs)

        try:
            return await asyncio.to_thread(make)
        except SamlMissing:
            raise Refusal(Code.SIGN_IN_FAILED, "this exchange cannot read SAML", "install `xmlsec1` on it") from None
        except (OSError, UnicodeDecodeError):
            message = f"the certificates of `{provider.name}` cannot be read"
            raise Refusal(Code.SIGN_IN_FAILED, message, "check `certificate_files` on the exchange") from None
