"""The conformance test of the SCIM world (scim2-tester) against a real exchange process."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from lab import Lab
from scim2_client.client import BaseSyncSCIMClient
from scim2_tester import Status, check_server


class Client(BaseSyncSCIMClient):
    """Requests of scim2-client over httpx."""

    def __init__(self, web: httpx.Client) -> None:
        super().__init__()
        self.web = web

    def _parse_json(self, response: Any) -> Any:
        return response.json()

    def _stays_under_base_url(self, endpoint: str) -> bool:
        return True

    def request(self, method: str, url: str, **arguments: Any) -> httpx.Response:
        return self.web.request(method, url, **arguments)


@pytest.fixture
def lab(tmp_path: Path) -> Iterator[Lab]:
    with Lab(tmp_path) as lab:
        lab.start_exchange()
        yield lab


def test_scim2_tester_finds_no_error_and_no_deviation(lab: Lab) -> None:
    made = lab.call("POST", "/directories", {"name": "corp", "issuer": "https://idp.example", "subject": "userName"})
    headers = {"authorization": f"Bearer {made['token']}"}
    with httpx.Client(base_url=f"https://{lab.exchange.address}/scim/v2", verify=False, headers=headers, timeout=30) as web:
        results = check_server(Client(web))
    bad = [result for result in results if result.status in (Status.ERROR, Status.CRITICAL, Status.DEVIATION)]
    assert bad == [], "\n".join(f"{result.title} ({result.resource_type}): {result.reason}" for result in bad)
    assert sum(result.status is Status.SUCCESS for result in results) >= 100
    skipped = {result.title for result in results if result.status is Status.SKIPPED}
    assert skipped == set()
