"""A provider that lies: what its token endpoint gives is made up by the test, signed with keys that are really its own."""

import base64
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

from tests.unit.exchange.conftest import World
from tests.unit.exchange.outside import Outside, outside, respond
from tests.unit.exchange.signin.conftest import SignInLab, Terminal
from tests.unit.exchange.signin.provider import Browser
from tests.unit.identity.tokens.minting import Minted, jwks, rsa

NAME = "scripted"


@dataclass
class Scripted:
    """`claims` and `header` change the next ID token; `token` replaces it."""

    world: World
    service: Outside
    claims: dict[str, Any] = field(default_factory=dict)
    header: dict[str, Any] = field(default_factory=dict)
    token: str | None = None
    answer: dict[str, str] = field(default_factory=dict)  # changes of the callback's query
    asked: dict[str, list[str]] = field(default_factory=dict)  # the last authorization request
    posted: list[dict[str, list[str]]] = field(default_factory=list)  # token requests
    given: list[str] = field(default_factory=list)  # ID tokens

    def __post_init__(self) -> None:
        url = self.service.url
        self.metadata: dict[str, Any] = {
            "issuer": url,
            "authorization_endpoint": f"{url}/authorize",
            "token_endpoint": f"{url}/token",
            "jwks_uri": f"{url}/jwks",
        }
        self.describe()
        self.service.answers["/jwks"] = respond(jwks(rsa(NAME)))
        self.service.answers["/token"] = self._token

    def describe(self, **changes: Any) -> None:
        self.metadata |= changes
        self.service.answers["/.well-known/openid-configuration"] = respond(self.metadata)

    def document(self, **changes: Any) -> str:
        fields = {
            "kind": "identity-provider",
            "name": NAME,
            "issuer": self.service.url,
            "client_id": "cloister",
            "allow_internal": [self.service.name],
            "ca_file": str(self.service.ca_file),
            **changes,
        }
        return json.dumps({key: value for key, value in fields.items() if value is not ...})

    def mint(self, **claims: Any) -> str:
        now = int(self.world.clock())
        said = {"iss": self.service.url, "aud": "cloister", "sub": "u-1", "iat": now, "exp": now + 300, **claims}
        return str(Minted(said, self.header, rsa(NAME)))

    async def go(self, browser: Browser, terminal: Terminal) -> str:
        """A person says yes; the callback URL that an honest provider would answer with, as `answer` changes it."""
        page = await browser.open(terminal.started.url)
        sent = await browser.submit(page, until="/authorize")
        self.asked = parse_qs(urlsplit(sent.headers["location"]).query)
        query = {"code": "c-1", "state": self.asked["state"][0], **self.answer}
        pairs = "&".join(f"{key}={value}" for key, value in query.items() if value != "-")
        return f"{self.asked['redirect_uri'][0]}?{pairs}"

    def _token(self, request: str) -> bytes:
        self.posted.append(parse_qs(request.split("\r\n\r\n", 1)[1]))
        token = self.token or self.mint(**{"nonce": self.asked["nonce"][0], **self.claims})
        self.given.append(token)
        return respond({"access_token": "x", "token_type": "Bearer", "id_token": token})


@asynccontextmanager
async def scripted_provider(lab: World, directory: Path, **document: Any) -> AsyncIterator[tuple[SignInLab, Scripted]]:
    async with outside(directory / "idp", "127.0.0.1") as service:
        made = Scripted(lab, service)
        await lab.apply(made.document(**document))
        signing = SignInLab(lab, None)  # type: ignore[arg-type]  # no real provider behind it
        yield signing, made
        for browser in signing.browsers:
            await browser.close()


def basic(client: str, secret: str) -> str:
    return "Basic " + base64.b64encode(f"{client}:{secret}".encode()).decode()
