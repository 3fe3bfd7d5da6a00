"""A directory with its token, and the calls that it makes."""

from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from tests.unit.exchange.conftest import World
from tests.unit.exchange.conftest import lab as lab  # noqa: PLC0414 (fixtures, for the tests beside this file)
from tests.unit.exchange.conftest import world as world  # noqa: PLC0414

USER = "urn:ietf:params:scim:schemas:core:2.0:User"
GROUP = "urn:ietf:params:scim:schemas:core:2.0:Group"
ENTERPRISE = "urn:ietf:params:scim:schemas:extension:enterprise:2.0:User"
PATCH = "urn:ietf:params:scim:api:messages:2.0:PatchOp"


@dataclass
class Corp:
    """One directory, as the identity provider behind it sees the exchange."""

    world: World
    name: str
    issuer: str
    token: str

    async def call(self, method: str, path: str, body: Any = None, **arguments: Any) -> httpx.Response:
        headers = {"authorization": f"Bearer {self.token}"} | arguments.pop("headers", {})
        return await self.world.api.http.request(method, f"/scim/v2{path}", json=body, headers=headers, **arguments)

    async def ok(self, method: str, path: str, body: Any = None, **arguments: Any) -> Any:
        answer = await self.call(method, path, body, **arguments)
        assert answer.is_success, (method, path, answer.status_code, answer.text)
        return answer.json() if answer.content else None

    async def user(self, name: str, external_id: str | None = None, **fields: Any) -> Any:
        body = {"schemas": [USER], "userName": name, "externalId": external_id or f"ext-{name}", **fields}
        return await self.ok("POST", "/Users", body)

    async def group(self, name: str, *members: str, **fields: Any) -> Any:
        body = {"schemas": [GROUP], "displayName": name, "members": [{"value": id} for id in members], **fields}
        return await self.ok("POST", "/Groups", body)

    async def patch(self, path: str, *operations: dict[str, Any], **arguments: Any) -> httpx.Response:
        return await self.call("PATCH", path, {"schemas": [PATCH], "Operations": list(operations)}, **arguments)


async def make_corp(world: World, name: str = "corp", subject: str = "externalId") -> Corp:
    issuer = f"https://{name}.example"
    made = await world.api.ok("POST", "/directories", json={"name": name, "issuer": issuer, "subject": subject})
    return Corp(world, name, issuer, made["token"])


@pytest.fixture
async def corp(world: World) -> Corp:
    return await make_corp(world)
