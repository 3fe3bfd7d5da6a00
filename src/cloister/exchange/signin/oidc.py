"""Asking an OpenID provider: codes for tokens, devices, keys. What comes back is a `Person` or a refusal; no token is kept."""

import asyncio
import base64
import secrets
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote_plus, urlencode

from cloister.exchange.errors import Refusal
from cloister.exchange.issuers import Issuer, IssuerKeys
from cloister.exchange.outgoing import Outgoing, Reach
from cloister.exchange.signin.secrets import ProviderSecrets
from cloister.exchange.signin.types import Provider
from cloister.identity.oidc import answer, logout
from cloister.identity.oidc.device import GRANT, DeviceCode, next_interval, read_device_answer
from cloister.identity.oidc.request import Secrets, Wish, authorization_url, challenge, read_answer, token_request, wish_fields
from cloister.identity.people import Person
from cloister.identity.tokens.types import TokenRefused
from cloister.model.providers import IdentityProvider
from cloister.model.reasons import Code

FORM = "application/x-www-form-urlencoded"
CLIENT_REFUSED = frozenset({"invalid_client", "unauthorized_client"})  # RFC 6749, section 5.2


class OidcClient:
    def __init__(
        self, outgoing: Outgoing, issuers: IssuerKeys, client_secrets: ProviderSecrets, clock: Callable[[], float]
    ) -> None:
        self._outgoing = outgoing
        self._issuers = issuers
        self._secrets = client_secrets
        self._clock = clock

    async def metadata(self, provider: Provider) -> Mapping[str, Any]:
        metadata = await self._issuers.metadata(issuer_of(provider))
        for name in ("authorization_endpoint", "token_endpoint"):
            if not isinstance(metadata.get(name), str):
                raise Refusal(Code.PROVIDER_MISMATCH, f"the description of `{provider.name}` has no `{name}`")
        return metadata

    async def authorization_endpoint(self, provider: Provider) -> str:
        return str((await self.metadata(provider))["authorization_endpoint"])

    async def check(self, provider: Provider) -> None:
        """For whoever configures it: whether the provider answers and is who it should be (case 9)."""
        await self._issuers.check(issuer_of(provider))
        await self.metadata(provider)

    async def check_document(self, document: IdentityProvider) -> str:
        """Refuse a document that contradicts its provider. One that cannot be asked right now, or without its secret, is let through, and what is
        wrong is the answer: both are looked at again at each sign-in."""
        if document.protocol != "oidc" or document.disabled:
            return ""
        try:
            await self.check(Provider("", document))
            if document.client_secret_file is not None:
                await self._secrets.read("", document)
        except Refusal as refusal:
            if refusal.code in (Code.PROVIDER_MISMATCH, Code.URL_FORBIDDEN):
                raise
            return f"{refusal.message}; {refusal.remedy}"
        return ""

    async def send_url(self, provider: Provider, redirect_uri: str, made: Secrets, wish: Wish) -> str:
        return authorization_url(provider.document, await self.metadata(provider), redirect_uri, made, wish)

    async def take_answer(
        self, provider: Provider, pairs: list[tuple[str, str]], redirect_uri: str, made: Secrets, wish: Wish
    ) -> Person:
        """The code in the answer for an ID token, and that for a person. Raises TokenRefused and Refusal."""
        code = read_answer(pairs, provider.document.issuer, await self.metadata(provider))
        status, said = await self._post(provider, "token_endpoint", token_request(code, redirect_uri, made.verifier))
        if status == 401 or said.get("error") in CLIENT_REFUSED:
            raise _client_refused(provider)
        if status != 200:
            raise TokenRefused(Code.SIGN_IN_FAILED, "the provider did not accept the code that it gave")
        return await self._read_person(provider, said, made.nonce, wish)

    async def start_device(self, provider: Provider, wish: Wish) -> DeviceCode:
        metadata = await self.metadata(provider)
        if not isinstance(metadata.get("device_authorization_endpoint"), str):
            raise Refusal(Code.SIGN_IN_FAILED, f"`{provider.name}` offers no sign-in for devices", "sign in without `--device`")
        verifier = secrets.token_urlsafe(48)
        fields = {"scope": " ".join(provider.document.scopes), **wish_fields(wish)}
        fields |= {"code_challenge": challenge(verifier), "code_challenge_method": "S256"}
        status, said = await self._post(provider, "device_authorization_endpoint", fields)
        if status == 401 or said.get("error") == "invalid_client":
            raise _client_refused(provider)
        if status != 200:
            raise Refusal(
                Code.SIGN_IN_FAILED, f"`{provider.name}` does not let this client sign in devices", "ask its administrator"
            )
        return read_device_answer(said, verifier)

    async def wait_for_device(self, provider: Provider, device: DeviceCode, wish: Wish) -> Person:
        """Ask as often as the provider permits until the person has answered there. Raises TokenRefused and Refusal."""
        interval = device.interval
        while True:
            await asyncio.sleep(interval)
            status, said = await self._post(
                provider, "token_endpoint", {"grant_type": GRANT, "device_code": device.code, "code_verifier": device.verifier}
            )
            if status == 200:
                return await self._read_person(provider, said, None, wish)
            interval = next_interval(said, interval)

    async def read_logout(self, provider: Provider, token: str) -> logout.Logout:
        claims = await self._issuers.verify(issuer_of(provider), token, logout.expected_of(provider.document))
        return logout.read_logout(claims, int(self._clock()))

    async def logout_url(self, provider: Provider) -> str:
        """RP-initiated logout (OpenID Connect RP-Initiated Logout 1.0), empty where the provider offers none."""
        endpoint = (await self.metadata(provider)).get("end_session_endpoint")
        if not isinstance(endpoint, str):
            return ""
        return endpoint + ("&" if "?" in endpoint else "?") + urlencode({"client_id": provider.document.client_id or ""})

    # ------------------------------------------------------------

    async def _read_person(self, provider: Provider, said: Mapping[str, Any], nonce: str | None, wish: Wish) -> Person:
        token = said.get("id_token")
        if not isinstance(token, str):
            raise TokenRefused(Code.TOKEN_MALFORMED, "the provider gave no ID token")
        claims = await self._issuers.verify(issuer_of(provider), token, answer.expected_of(provider.document))
        return answer.read_person(provider.document, claims, nonce, wish, int(self._clock()))

    async def _post(self, provider: Provider, endpoint: str, fields: Mapping[str, str]) -> tuple[int, dict[str, Any]]:
        """Client authentication by RFC 6749 §2.3.1: the secret in the header, in the form only where the provider knows nothing else."""
        metadata = await self.metadata(provider)
        secret = await self._secrets.read(provider.id, provider.document)
        client = provider.document.client_id or ""
        headers = {"content-type": FORM, "accept": "application/json"}
        methods = metadata.get("token_endpoint_auth_methods_supported", ["client_secret_basic"])
        body = dict(fields)
        if secret is None or (isinstance(methods, list) and "client_secret_basic" not in methods):
            body |= {"client_id": client} | ({} if secret is None else {"client_secret": secret})
        else:
            pair = f"{quote_plus(client)}:{quote_plus(secret)}"
            headers["authorization"] = "Basic " + base64.b64encode(pair.encode()).decode()
        url = str(metadata[endpoint])
        got = await self._outgoing.send("POST", url, reach_of(provider), headers=headers, content=urlencode(body).encode())
        return got.status, got.json()


def _client_refused(provider: Provider) -> Refusal:
    return Refusal(
        Code.SIGN_IN_FAILED,
        f"`{provider.name}` does not accept the client `{provider.document.client_id}` or its secret",
        "ask your administrator to compare `client_id` and the client secret with the provider's",
    )


def issuer_of(provider: Provider) -> Issuer:
    document = provider.document
    return Issuer(document.issuer, frozenset(document.algorithms), reach_of(provider), frozenset(document.endpoint_hosts))


def reach_of(provider: Provider) -> Reach:
    document = provider.document
    return Reach(frozenset(document.allow_internal), None if document.ca_file is None else Path(document.ca_file))
