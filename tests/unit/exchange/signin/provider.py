"""A real OpenID provider (oidc-provider, tests/idp) as a child process, and a browser without script that walks its pages and ours."""

import asyncio
import json
import os
import shutil
import socket
import ssl
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
import pytest

IDP = Path(__file__).parents[3] / "idp"
MFA, HARDWARE = "urn:test:mfa", "urn:test:hardware"
ACCOUNTS: Mapping[str, Any] = {
    "ada": {"name": "Ada Example", "groups": ["science"], "email": "ada@example.org"},
    "eve": {"name": "Eve Example", "groups": [], "email": "ada@example.org"},
}
SECRET = "a secret of the provider that is long enough for every use of it"
PATIENCE = 20.0


@dataclass
class Idp:
    port: int
    process: asyncio.subprocess.Process

    @property
    def issuer(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def set_account(self, account: str, /, **claims: Any) -> None:
        async with httpx.AsyncClient() as web:
            (await web.post(f"{self.issuer}/control/accounts", json={account: claims})).raise_for_status()

    def document(self, name: str = "corp", **changes: Any) -> str:
        fields = {
            "kind": "identity-provider",
            "name": name,
            "issuer": self.issuer,
            "client_id": name,
            "scopes": ["openid", "profile", "groups"],
            "allow_internal": ["127.0.0.1"],
            "groups": {"claim": "groups"},
            "acr": {"mfa": [MFA], "hardware": [HARDWARE]},
            **changes,
        }
        return json.dumps({key: value for key, value in fields.items() if value is not ...})


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


@asynccontextmanager
async def start_idp(
    exchange: str, roots: Path, names: tuple[str, ...] = ("corp",), accounts: Mapping[str, Any] = ACCOUNTS
) -> AsyncIterator[Idp]:
    """One provider, with a client for each name, registered for the exchange at this address."""
    if not (IDP / "node_modules").exists() or shutil.which("node") is None:
        if os.environ.get("CI"):
            raise AssertionError("the provider of the tests is not installed: `make tests/idp/node_modules`")
        pytest.skip("needs node and `make tests/idp/node_modules`")
    port = free_port()
    base = f"https://{exchange}"
    clients = [
        {
            "client_id": name,
            "client_secret": SECRET,
            "redirect_uris": [f"{base}/sign-in/callback/{name}"],
            "response_types": ["code"],
            "grant_types": ["authorization_code", "urn:ietf:params:oauth:grant-type:device_code"],
            "backchannel_logout_uri": f"{base}/sign-in/logout/{name}",
            "backchannel_logout_session_required": True,
        }
        for name in names
    ]
    log = os.open(roots.with_name("idp.log"), os.O_CREAT | os.O_APPEND | os.O_WRONLY)
    settings = {"port": port, "clients": clients, "accounts": dict(accounts), "acr": [MFA, HARDWARE]}
    process = await asyncio.create_subprocess_exec(
        "node",
        "server.mjs",
        json.dumps(settings),
        cwd=IDP,
        env={**os.environ, "NODE_EXTRA_CA_CERTS": str(roots), "NODE_NO_WARNINGS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=log,
    )
    os.close(log)
    assert process.stdout is not None
    try:
        async with asyncio.timeout(PATIENCE):
            while (line := await process.stdout.readline()) != b"ready\n":
                assert line, "the provider did not start"
        draining = asyncio.ensure_future(process.stdout.read())
        yield Idp(port, process)
    finally:
        process.terminate()
        await process.wait()
        await draining


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "form":
            self.forms.append(
                {"action": values.get("action", ""), "method": values.get("method", "get"), "fields": {}, "buttons": []}
            )
        elif tag == "input" and self.forms and "name" in values:
            self.forms[-1]["fields"][values["name"]] = values.get("value", "")
        elif tag == "button" and self.forms and "name" in values:
            self.forms[-1]["buttons"].append((values["name"], values.get("value", "")))


@dataclass
class Browser:
    """Follows redirects one by one, keeps cookies, fills in forms. `way` is every URL that it was at."""

    context: ssl.SSLContext
    way: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.web = httpx.AsyncClient(verify=self.context, timeout=PATIENCE, follow_redirects=False)

    def trust_loopback(self) -> None:
        """As browsers do: what 127.0.0.1 sets as `Secure` over plain http is sent to it again."""

        async def relax(_response: httpx.Response) -> None:
            for cookie in self.web.cookies.jar:
                cookie.secure = False

        self.web.event_hooks = {"response": [relax]}

    async def open(self, url: str, *, until: str = "\0") -> httpx.Response:
        """GET, and follow; stops before a URL that contains `until`."""
        return await self._follow(await self.web.get(url), until)

    async def submit(self, page: httpx.Response, form: int = 0, *, until: str = "\0", **values: str) -> httpx.Response:
        """The form of a page, with some fields changed and its first button pressed."""
        found = forms_of(page)[form]
        buttons = [(name, value) for name, value in found["buttons"] if name != "abort"]
        fields = dict(buttons[:1]) | found["fields"] | values
        self.way.append(str(page.url))
        answer = await self.web.request(found["method"].upper(), urljoin(str(page.url), found["action"]), data=fields)
        return await self._follow(answer, until)

    async def close(self) -> None:
        await self.web.aclose()

    async def _follow(self, answer: httpx.Response, until: str) -> httpx.Response:
        for _ in range(20):
            self.way.append(str(answer.url))
            if not answer.has_redirect_location:
                return answer
            url = urljoin(str(answer.url), answer.headers["location"])
            if until in url:
                return answer
            answer = await self.web.get(url)
        raise AssertionError("redirected without end")


def forms_of(page: httpx.Response) -> list[dict[str, Any]]:
    parser = _Forms()
    parser.feed(page.text)
    return parser.forms
