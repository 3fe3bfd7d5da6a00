"""Case 17, whole: every signed or secret thing of this exchange, shown at every place that accepts one.

The worst company there is: its sign-ins, logouts, security events, programs and people's tokens all bear one issuer and one key. What keeps them
apart is audience and type alone.
"""

import json
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.exchange.conftest import Agent, World, end_world, furnish, start_world
from tests.unit.exchange.scim.conftest import make_corp
from tests.unit.exchange.signin.conftest import SignInLab
from tests.unit.exchange.signin.scripted import NAME, Scripted, scripted_provider
from tests.unit.identity.tokens.minting import Minted, jwks, rsa

from cloister import _core
from cloister.exchange.greeting import proves_resume
from cloister.exchange.settings import Limits, Settings
from cloister.exchange.signin.browsers import COOKIE
from cloister.identity.oidc.logout import EVENT
from cloister.identity.signals.events import CAEP
from cloister.model.messages.common import PROTOCOL_VERSION
from cloister.model.messages.from_agent import Delegate, EnrolByToken, Hello, WantSession
from cloister.model.messages.from_exchange import Delegated, Enrolled, Session

AUDIENCE = "https://exchange.corp.example"
PASSWORD = "correct horse"

BELONGS = {
    "api token": {"api", "facts"},  # an administrator's may do what a source may
    "source token": {"facts"},
    "directory token": {"scim"},
    "push secret": {"push"},
    "password": {"sign-in", "enrol by password"},
    "provisioning key": {"enrol by key"},
    "program token": {"enrol by token"},
    "person's token": {"act for"},
    "delegation": {"act for"},
    "ID token": {"callback"},
    "logout token": {"logout"},
    "security event": {"event"},
    "ticket": {"tunnel"},
    "resume secret": {"resume"},
    "sign-in secret": {"wait"},
    "browser cookie": {"cookie"},
    "form token": {"form"},
}
"""Where each is accepted: nowhere else."""

Place = Callable[[str], Awaitable[bool]]


class Matrix:
    """The things, fresh for each place, and the places."""

    def __init__(self, world: World, signing: SignInLab, company: Scripted) -> None:
        self.world, self.signing, self.company = world, signing, company
        self._number = 0

    async def set_up(self) -> None:
        world, issuer = self.world, self.company.service.url
        keys = json.dumps(jwks(rsa(NAME)))
        inside = f"allow_internal: [{self.company.service.name}]"
        await world.apply(f"""
kind: token-issuer
name: programs
issuer: {issuer}
keys: {keys}
---
kind: token-issuer
name: people
issuer: {issuer}
keys: {keys}
audience: people
people: true
---
kind: workload
name: trainer
issuer: programs
subject: trainer
---
kind: rule
name: programs-act
effect: permit
who: {{users: [ada, eve], via: [trainer]}}
what: {{segments: [postgres]}}
---
kind: user
name: eve
issuer: {issuer}
subject: u-1
---
kind: signal-transmitter
name: events
issuer: {issuer}
audience: {AUDIENCE}
keys: {json.dumps(jwks(rsa(NAME))["keys"])}
users: {{issuer: local}}
{inside}
""")
        await world.connector()
        self.ada = await world.client("ada")
        self.directory = await make_corp(world, "directory")
        self.pushing = (await world.api.ok("POST", "/signal-transmitters/events/secret"))["secret"]
        await world.api.ok("POST", "/users", json={"name": "mdm", "role": "user"})
        form = {"account": "mdm", "seconds": 3600}
        self.source = (await world.api.ok("POST", "/fact-sources/mdm/tokens", json=form))["token"]

    # ------------------------------------------------------------ things

    def mint(self, typ: str = "JWT", **claims: Any) -> str:
        now = int(self.world.clock())
        self._number += 1
        said = {"iss": self.company.service.url, "iat": now, "exp": now + 300, "jti": f"t-{self._number}", **claims}
        return str(Minted({"aud": ..., "sub": ..., **said}, {"typ": typ}, rsa(NAME)))

    async def make(self, thing: str) -> str:
        """A fresh one, good now."""
        issuer = self.company.service.url
        match thing:
            case "program token":
                return self.mint(aud=f"https://{self.world.running.state.keyring.trust_domain}", sub="trainer")
            case "person's token":
                return self.mint(aud="people", sub="u-1", may_act={"iss": issuer, "sub": "trainer"})
            case "ID token":
                return self.mint(aud="cloister", sub="u-1", nonce="of the attempt")
            case "logout token":
                return self.mint("logout+jwt", aud="cloister", sub="u-9", events={EVENT: {}})
            case "security event":
                subject = {"format": "iss_sub", "iss": "local", "sub": "bob"}
                return self.mint("secevent+jwt", aud=AUDIENCE, exp=..., sub_id=subject, events={CAEP + "session-revoked": {}})
            case _:
                return await self._own(thing)

    async def _own(self, thing: str) -> str:
        """What this exchange itself gives out."""
        kept = {
            "api token": self.world.api.token, "source token": self.source, "directory token": self.directory.token,
            "push secret": self.pushing, "password": PASSWORD, "resume secret": self.ada.resume or "",
        }  # fmt: skip
        match thing:
            case "provisioning key":
                return str((await self.world.api.ok("POST", "/keys", json={"role": "connector", "group": "lab"}))["key"])
            case "delegation":
                self.ada.send(Delegate(ref=7, workload="trainer", seconds=3600))
                return (await self.ada.receive(Delegated)).delegation
            case "ticket":
                self.ada.send(WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp"))
                return (await self.ada.receive(Session)).ticket
            case "sign-in secret":
                return str((await self._offer())["secret"])
            case "browser cookie":
                return (await self._page(await self._offer()))[0]
            case "form token":
                self.form = await self._offer()
                self.cookie, token = await self._page(self.form)
                return token
            case _:
                return kept[thing]

    async def _offer(self) -> dict[str, Any]:
        offer: dict[str, Any] = await self.world.api.ok("POST", "/sign-in/provider", json={"provider": NAME, "device": "laptop"})
        return offer

    async def _page(self, offer: dict[str, Any]) -> tuple[str, str]:
        """The cookie and the form token of a browser that opens the offer's page."""
        answer = await self.world.api.http.get(offer["url"])
        token = re.search(r'name="token" value="([0-9a-f]+)"', answer.text)
        assert token is not None, answer.text
        cookie = answer.cookies[COOKIE]
        self.world.api.http.cookies.clear()
        return cookie, token[1]

    # ------------------------------------------------------------ places

    @property
    def places(self) -> dict[str, Place]:
        return {
            "api": self.at_api, "facts": self.at_facts, "scim": self.at_scim, "push": self.at_push, "event": self.at_event,
            "sign-in": self.at_sign_in, "enrol by password": self.at_enrol_by_password, "enrol by key": self.at_enrol_by_key,
            "enrol by token": self.at_enrol_by_token, "act for": self.at_act_for, "callback": self.at_callback, "logout": self.at_logout,
            "tunnel": self.at_tunnel, "resume": self.at_resume, "wait": self.at_wait, "cookie": self.at_cookie, "form": self.at_form,
        }  # fmt: skip

    async def _bearer(self, method: str, path: str, text: str, **what: Any) -> int:
        headers = {"authorization": f"Bearer {text}", **what.pop("headers", {})}
        return (await self.world.api.http.request(method, path, headers=headers, **what)).status_code

    async def at_api(self, text: str) -> bool:
        return await self._bearer("GET", "/api/v1/documents", text) == 200

    async def at_facts(self, text: str) -> bool:
        return await self._bearer("PUT", f"/api/v1/agents/{self.ada.id}/facts/mdm", text, json={"facts": []}) < 300

    async def at_scim(self, text: str) -> bool:
        return await self._bearer("GET", "/scim/v2/Users", text) == 200

    async def at_push(self, text: str) -> bool:
        return await self._push(text, await self.make("security event"))

    async def at_event(self, text: str) -> bool:
        return await self._push(self.pushing, text)

    async def _push(self, secret: str, body: str) -> bool:
        headers = {"content-type": "application/secevent+jwt"}
        return await self._bearer("POST", "/api/v1/signals/events", secret, content=body, headers=headers) == 202

    async def at_sign_in(self, text: str) -> bool:
        answer = await self.world.api.http.post("/api/v1/sign-in", json={"user": "ada", "password": text})
        return answer.status_code == 200

    async def at_enrol_by_password(self, text: str) -> bool:
        return isinstance(await self.world.agent("client").enrol_by_password("ada", text[:1024]), Enrolled)

    async def at_enrol_by_key(self, text: str) -> bool:
        return isinstance(await self.world.agent("connector").enrol_by_key(text[:256]), Enrolled)

    async def at_enrol_by_token(self, text: str) -> bool:
        return await self._enrol(text, None)

    async def at_act_for(self, text: str) -> bool:
        return await self._enrol(await self.make("program token"), text)

    async def _enrol(self, token: str, subject: str | None) -> bool:
        agent: Agent = self.world.agent("client")
        request = EnrolByToken(token=token, csr=agent.csr(), hostname="job", subject_token=subject)
        return isinstance(await agent.ask_enrolment(request), Enrolled)

    async def at_callback(self, text: str) -> bool:
        """As the ID token that the provider's token endpoint gives. A true one is of the very attempt."""
        company, browser = self.company, self.signing.browser()
        terminal = await self.signing.offer(NAME)
        callback = await company.go(browser, terminal)
        payload = text.split(".")[1] if text.count(".") == 2 else ""
        is_own = '"nonce":"of the attempt"' in _decoded(payload)
        company.token = self.mint(aud="cloister", sub="u-1", nonce=company.asked["nonce"][0]) if is_own else text
        page = await browser.open(callback)
        await terminal.outcome()
        return page.status_code == 200

    async def at_logout(self, text: str) -> bool:
        answer = await self.world.api.http.post(f"/sign-in/logout/{NAME}", data={"logout_token": text})
        return answer.status_code == 200

    async def at_tunnel(self, text: str) -> bool:
        keys = self.world.running.state.keyring.ticket_verification_keys()
        try:
            _core.verify_ticket(text, keys, int(self.world.clock()))
        except _core.CoreError:
            return False
        return True

    async def at_resume(self, text: str) -> bool:
        hello = Hello(version=PROTOCOL_VERSION, software="test", resume=text[:1024], boot=self.ada.boot)
        return proves_resume(hello, self.world.running.state.agents[self.ada.id])

    async def at_wait(self, text: str) -> bool:
        """Who has the secret of an attempt waits for it; anybody else is told so at once."""
        try:
            answer = await self.world.api.http.post("/api/v1/sign-in/wait", json={"secret": text[:256]}, timeout=2.0)
        except httpx.ReadTimeout:
            return True
        assert answer.json()["code"] != "sign_in_pending"
        return answer.is_success

    async def at_cookie(self, text: str) -> bool:
        """A browser that is known is given no other cookie."""
        answer = await self.world.api.http.get((await self._offer())["url"], headers={"cookie": f"{COOKIE}={text}"})
        self.world.api.http.cookies.clear()
        assert answer.status_code == 200
        return COOKIE not in answer.headers.get("set-cookie", "")

    async def at_form(self, text: str) -> bool:
        """In the form of the attempt that the last form token was made for, by that very browser."""
        fields = {"token": text, "provider": NAME}
        answer = await self.world.api.http.post(self.form["url"], data=fields, headers={"cookie": f"{COOKIE}={self.cookie}"})
        self.world.api.http.cookies.clear()
        return answer.status_code == 303


def _decoded(payload: str) -> str:
    import base64

    try:
        return base64.urlsafe_b64decode(payload + "=" * (-len(payload) % 4)).decode()
    except ValueError:
        return ""


@pytest.fixture
async def matrix(tmp_path: Path) -> AsyncIterator[Matrix]:
    """Nobody is turned away for having tried too often: that is case 16."""
    limits = Limits(attempts_per_account=10_000, attempts_per_source=10_000, attempts_in_all=10_000, requests_per_minute=100_000)
    stack: list[Callable[[], Awaitable[object]]] = []
    world = await start_world(Settings(tmp_path / "data", listen="127.0.0.1:0", drain_grace=0, limits=limits), stack)
    await furnish(world)
    async with scripted_provider(world, tmp_path) as (signing, company):
        made = Matrix(world, signing, company)
        await made.set_up()
        yield made
    await end_world(world, stack)


@pytest.mark.parametrize("place", sorted(set().union(*BELONGS.values())))
async def test_case_17_each_place_accepts_what_belongs_there_and_nothing_else(matrix: Matrix, place: str) -> None:
    await matrix.make("form token")
    at = matrix.places[place]
    accepted = {thing for thing in BELONGS if await at(await matrix.make(thing))}
    assert accepted == {thing for thing, places in BELONGS.items() if place in places}


def test_case_17_every_place_has_its_row() -> None:
    assert {name for name in vars(Matrix) if name.startswith("at_")} == {
        f"at_{place.replace(' ', '_').replace('-', '_')}" for place in set().union(*BELONGS.values())
    }
