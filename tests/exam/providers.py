"""The identity providers of the examination: two real ones (oidc-provider, tests/idp), and the browser that people sign in with there.

People without a provider have accounts of the exchange's own. Everything here runs where the exchange runs, so a provider needs no address of its own.
"""

import json
import ssl
from dataclasses import dataclass, field
from html.parser import HTMLParser
from pathlib import Path
from typing import Any
from urllib.parse import urljoin

import httpx
from deployment import Deployment, DeploymentError
from netlab import Machine

IDP = Path(__file__).parents[1] / "idp"
SECRET = "a secret of the provider that is long enough for every use of it"
STRONG = "urn:exam:mfa"
PATIENCE = 20.0
MAX_REDIRECTS = 20


class _Forms(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.forms: list[dict[str, Any]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        values = {key: value or "" for key, value in attrs}
        if tag == "form":
            self.forms.append({"action": values.get("action", ""), "method": values.get("method", "get"), "fields": {}})
        elif self.forms and "name" in values and (tag == "input" or (tag == "button" and values["name"] != "abort")):
            self.forms[-1]["fields"].setdefault(values["name"], values.get("value", ""))


@dataclass
class Browser:
    """Follows redirects, keeps cookies, fills in forms. It stands on `machine`."""

    machine: Machine
    context: ssl.SSLContext
    cookies: httpx.Cookies = field(default_factory=httpx.Cookies)

    def sign_in(self, url: str, account: str, **answers: str) -> None:
        """Say yes to the exchange, then fill in the provider's form."""

        def walk(web: httpx.Client) -> None:
            page = self._submit(web, self._open(web, url))
            if "/interaction/" in str(page.url):
                self._submit(web, page, account=account, **answers)

        self._go(walk)

    def leave(self, provider: str, client: str) -> None:
        """Sign out at the provider, which tells everybody that relies on it."""
        self._go(lambda web: self._submit(web, self._open(web, f"{provider}/session/end?client_id={client}"), logout="yes"))

    def _go(self, walk: Any) -> None:
        def body() -> None:
            with httpx.Client(verify=self.context, timeout=PATIENCE, cookies=self.cookies, trust_env=False) as web:
                walk(web)
                self.cookies = web.cookies

        self.machine.inside(body)

    def _open(self, web: httpx.Client, url: str) -> httpx.Response:
        return self._follow(web, web.get(url))

    def _submit(self, web: httpx.Client, page: httpx.Response, **values: str) -> httpx.Response:
        parser = _Forms()
        parser.feed(page.text)
        if not parser.forms:
            raise DeploymentError(f"no form to sign in with at `{page.url}`: {page.status_code} {page.text[:300]}")
        form = parser.forms[0]
        answer = web.request(form["method"].upper(), urljoin(str(page.url), form["action"]), data=form["fields"] | values)
        return self._follow(web, answer)

    def _follow(self, web: httpx.Client, answer: httpx.Response) -> httpx.Response:
        for _ in range(MAX_REDIRECTS):
            if not answer.has_redirect_location:
                return answer
            answer = web.get(urljoin(str(answer.url), answer.headers["location"]))
        raise DeploymentError(f"redirected without end at `{answer.url}`")


class Providers:
    """`documents` are those of the fixture: each identity provider in it is started, with every user of its issuer as an account."""

    def __init__(self, machine: Machine, deployment: Deployment, documents: list[dict[str, Any]]) -> None:
        self._machine = machine
        self._deployment = deployment
        self._providers = [document for document in documents if document["kind"] == "identity-provider"]
        self._users = [document for document in documents if document["kind"] == "user"]
        self._context = ssl.create_default_context(cadata=deployment.root())

    def start(self) -> None:
        if not (IDP / "node_modules").exists():
            raise DeploymentError("the identity provider is not installed: `make tests/idp/node_modules`")
        root = self._deployment.directory / "root.pem"
        root.write_text(self._deployment.root())
        for document in self._providers:
            accounts: dict[str, Any] = {user["subject"]: {} for user in self._users if user.get("issuer") == document["issuer"]}
            base = f"https://{self._deployment.address}/sign-in"
            client = {
                "client_id": document["client_id"],
                "client_secret": SECRET,
                "redirect_uris": [f"{base}/callback/{document['name']}"],
                "response_types": ["code"],
                "grant_types": ["authorization_code"],
                "backchannel_logout_uri": f"{base}/logout/{document['name']}",
                "backchannel_logout_session_required": True,
            }
            port = int(document["issuer"].rpartition(":")[2])
            settings = {"port": port, "clients": [client], "accounts": accounts, "acr": [STRONG]}
            environment = {"NODE_EXTRA_CA_CERTS": str(root), "NODE_NO_WARNINGS": "1"}
            self._deployment.start_announced(
                self._machine, f"idp-{port}", "node", "server.mjs", json.dumps(settings), environment=environment, directory=IDP
            )

    def give_secrets(self) -> None:
        for document in self._providers:
            self._deployment.call("PUT", f"/identity-providers/{document['name']}/secret", {"secret": SECRET})

    def of(self, user: dict[str, Any]) -> dict[str, Any] | None:
        """The provider of this user, None for an account of the exchange's own."""
        return next((document for document in self._providers if document["issuer"] == user.get("issuer")), None)

    def browser(self) -> Browser:
        return Browser(self._machine, self._context)
