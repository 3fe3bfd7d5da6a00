"""A transmitter of security events for tests: real keys, real tokens, pushed over the public port."""

import itertools
import json
from dataclasses import dataclass, field
from typing import Any

import httpx
from tests.unit.exchange.conftest import Agent, World
from tests.unit.identity.tokens.minting import Minted, jwks, rsa

from cloister.identity.signals.events import CAEP
from cloister.model.messages.from_agent import WantSession
from cloister.model.messages.from_exchange import Refused, Session

ISSUER = "https://ssf.corp.example"
AUDIENCE = "https://exchange.corp.example"
ADA = {"format": "iss_sub", "iss": "local", "sub": "ada"}
BOB = {"format": "iss_sub", "iss": "local", "sub": "bob"}
_numbers = itertools.count()


def document(**fields: Any) -> str:
    return json.dumps(
        {
            "kind": "signal-transmitter",
            "name": "corp",
            "issuer": ISSUER,
            "audience": AUDIENCE,
            "algorithms": ["RS256"],
            "keys": jwks(rsa())["keys"],
            "users": {"issuer": "local"},
            "devices": {"label": "serial"},
            **fields,
        }
    )


@dataclass
class Transmitter:
    lab: World
    secret: str = ""
    name: str = "corp"
    key: Any = field(default_factory=rsa)

    async def set_up(self, **fields: Any) -> "Transmitter":
        await self.lab.apply(document(name=self.name, **fields))
        answer = await self.lab.api.ok("POST", f"/signal-transmitters/{self.name}/secret")
        self.secret = answer["secret"]
        return self

    def token(
        self,
        event: str,
        body: dict[str, Any] | None = None,
        subject: dict[str, Any] | None = None,
        *,
        header: dict[str, Any] | None = None,
        algorithm: str = "RS256",
        **claims: Any,
    ) -> str:
        said = {
            "iss": ISSUER,
            "aud": AUDIENCE,
            "sub": ...,
            "exp": ...,
            "iat": int(self.lab.clock()),
            "jti": f"event-{next(_numbers)}",
            "sub_id": subject or ADA,
            "events": {event if "/" in event else CAEP + event: body or {}},
            **claims,
        }
        return str(Minted(said, {"typ": "secevent+jwt", **(header or {})}, self.key, algorithm))

    async def push(self, token: str, secret: str | None = None, **headers: str) -> httpx.Response:
        sent = {"content-type": "application/secevent+jwt", "authorization": f"Bearer {secret or self.secret}", **headers}
        return await self.lab.api.http.post(f"/api/v1/signals/{self.name}", headers=sent, content=token)

    async def say(
        self, event: str, body: dict[str, Any] | None = None, subject: dict[str, Any] | None = None, **claims: Any
    ) -> None:
        answer = await self.push(self.token(event, body, subject, **claims))
        assert (answer.status_code, answer.content) == (202, b""), answer.text


async def want(client: Agent, ref: int = 1) -> Any:
    client.send(WantSession(ref=ref, host="jupyter.lab.internal", port=8888, protocol="tcp"))
    answer = await client.until(lambda: next((m for m in client.inbox if isinstance(m, Session | Refused) and m.ref == ref), None))
    client.inbox.remove(answer)
    return answer


async def rule(lab: World, rest: str = "") -> None:
    text = "kind: rule\nname: science-uses-jupyter\neffect: permit\nwho: {groups: [science]}\nwhat: {segments: [jupyter]}\n"
    await lab.apply(text + rest)


async def laptop_of(lab: World, client: Agent, serial: str = "S-1", name: str = "laptop") -> None:
    await lab.apply(f"{{kind: device, name: {name}, labels: {{serial: {serial}}}}}")
    await lab.api.ok("PUT", f"/agents/{client.id}/device", json={"device": name})


async def outcomes(lab: World) -> list[str]:
    """What became of every event so far, oldest first."""
    rows = (await lab.api.ok("GET", "/audit", params={"action": "signal.receive", "limit": 1000}))["entries"]
    return [row["detail"].get("outcome") or row["code"] for row in reversed(rows)]
