"""An exchange with a real OpenID provider, and people who sign in at it."""

import asyncio
import ssl
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from tests.unit.exchange.conftest import Agent, World
from tests.unit.exchange.signin.provider import SECRET, Browser, Idp, start_idp

from cloister.model.messages.common import SignInMethod
from cloister.model.messages.from_agent import EnrolBySignIn
from cloister.model.messages.from_exchange import Enrolled, Refused, SignInStarted

GROUPS = """
kind: group
name: corp.science
---
kind: rule
name: corp-science-uses-jupyter
effect: permit
who: {groups: [corp.science]}
what: {segments: [jupyter]}
---
kind: rule
name: everybody-of-corp-uses-postgres-after-mfa
effect: permit
who: {any: true}
what: {segments: [postgres]}
when: {strength: mfa, signed_in_within: 1h}
"""


@dataclass
class SignInLab:
    world: World
    idp: Idp
    browsers: list[Browser] = field(default_factory=list)
    trusts_loopback: bool = False

    def browser(self) -> Browser:
        context = ssl.create_default_context(cadata=self.world.running.state.keyring.roots_pem())
        browser = Browser(context)
        if self.trusts_loopback:
            browser.trust_loopback()
        self.browsers.append(browser)
        return browser

    async def offer(self, provider: str = "", method: SignInMethod = "browser", hostname: str = "laptop") -> "Terminal":
        """A terminal that asks to be enrolled, and is told where to sign in."""
        agent = self.world.agent("client")
        agent.link = agent.core.dial_link(agent.address, role=None, root_sha256=agent.root_sha256)
        await agent.until(lambda: agent.up or None)
        agent.send(EnrolBySignIn(provider=provider, method=method, csr=agent.csr(), hostname=hostname))
        return Terminal(agent, await agent.receive(SignInStarted))

    async def walk(
        self, started: SignInStarted, account: str = "ada", *, browser: Browser | None = None, **login: str
    ) -> httpx.Response:
        """A person opens the URL, says yes and signs in; the last page."""
        browser = browser or self.browser()
        page = await browser.open(started.url)
        login_page = await browser.submit(page)
        if "Sign in" not in login_page.text or login_page.status_code != 200 or "/interaction/" not in str(login_page.url):
            return login_page
        return await browser.submit(login_page, account=account, **login)

    async def sign_in(self, account: str = "ada", provider: str = "", browser: Browser | None = None, **login: str) -> Agent:
        """An enrolled and connected client of this person."""
        terminal = await self.offer(provider)
        page = await self.walk(terminal.started, account, browser=browser, **login)
        assert "You are signed in" in page.text, page.text
        assert isinstance(await terminal.outcome(), Enrolled)
        await terminal.agent.connect()
        return terminal.agent

    def user_of(self, agent: Agent) -> str:
        return self.world.running.state.name_of(self.world.running.state.agents[agent.id].principal)

    async def audit(self, action: str) -> list[dict[str, Any]]:
        await asyncio.sleep(0)
        entries = (await self.world.api.ok("GET", "/audit", params={"limit": 1000}))["entries"]
        return [entry for entry in entries if entry["action"] == action]


@dataclass
class Terminal:
    agent: Agent
    started: SignInStarted

    async def outcome(self) -> Enrolled | Refused:
        agent = self.agent
        answer: Enrolled | Refused = await agent.until(
            lambda: next((message for message in agent.inbox if isinstance(message, Enrolled | Refused)), None)
        )
        agent.core.close_link(agent.link, "stopped")
        agent.up = False
        if isinstance(answer, Enrolled):
            agent.inbox.remove(answer)
            agent.use(answer)
        return answer


@pytest.fixture
async def corp(lab: World, tmp_path: Path) -> AsyncIterator[SignInLab]:
    """The lab, a provider with the client `corp`, and the document for it."""
    roots = tmp_path / "roots.pem"
    roots.write_text(lab.running.state.keyring.roots_pem())
    async with start_idp(lab.running.address, roots, ("corp", "partner")) as idp:
        await lab.apply(GROUPS)
        await lab.apply(idp.document())
        await lab.api.ok("PUT", "/identity-providers/corp/secret", json={"secret": SECRET})
        made = SignInLab(lab, idp)
        yield made
        for browser in made.browsers:
            await browser.close()
