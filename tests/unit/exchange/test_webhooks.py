"""Webhooks against a real TLS server: signed as the standard says, tried again, never where they must not go."""

import base64
import hashlib
import hmac
import json
from pathlib import Path

import pytest
from tests.unit.exchange.conftest import World, eventually
from tests.unit.exchange.outside import HOST, outside, resolve_to_loopback, respond

from cloister.exchange.outgoing import Outgoing, Reach
from cloister.exchange.webhooks import Webhooks
from cloister.store.types import AccessRequest

SECRET = bytes(range(32))


class _Trusting(Outgoing):
    """The guarded door, with the test's CA and name service."""

    def __init__(self, ca_file: Path) -> None:
        super().__init__(resolve_to_loopback)
        self._ca_file = ca_file

    async def send(self, method, url, reach, **rest):  # type: ignore[no-untyped-def,override]
        return await super().send(method, url, Reach(reach.internal, self._ca_file), **rest)


def _request(lab: World, reason: str = "fix <b>order</b> & go") -> AccessRequest:
    ada, jupyter = lab.running.state.find("user", "ada"), lab.running.state.find("segment", "jupyter")
    assert ada is not None
    assert jupyter is not None
    return AccessRequest("ab" * 8, ada.id, "1" * 16, jupyter.id, reason, 600, "pending", 0, 10)


async def test_a_request_is_told_once_signed_and_after_failures(lab: World, tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("whsec_" + base64.b64encode(SECRET).decode() + "\n")
    async with outside(tmp_path) as there:
        answers = [respond(b"", 503), respond(b"", 302, f"location: {there.url}/elsewhere\r\n"), respond(b"")]
        there.answers["/hook"] = lambda _: answers.pop(0)
        hook = f"{{kind: webhook, name: chat, url: '{there.url}/hook', allow_internal: [{HOST}], secret_file: {secret}}}"
        await lab.apply(hook)
        webhooks = Webhooks(lab.running.state, _Trusting(there.ca_file), lab.clock, (0.0, 0.0))
        webhooks.tell(_request(lab))
        await eventually(lambda: not answers)
        assert there.count("/hook") == 3
        assert there.count("/elsewhere") == 0
    head, _, body = there.asked[-1].partition("\r\n\r\n")
    headers = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
    signed = ".".join((headers["webhook-id"], headers["webhook-timestamp"], body)).encode()
    raw = dict(line.split(": ", 1) for line in head.split("\r\n")[1:])
    expected = base64.b64encode(hmac.digest(SECRET, signed, hashlib.sha256)).decode()
    assert next(value for key, value in raw.items() if key.lower() == "webhook-signature") == f"v1,{expected}"
    told = json.loads(body)
    assert told["type"] == "access_request.pending"
    assert told["text"].startswith("ada asks for jupyter for 600 s: fix ‹b›order‹/b› + go.")
    assert told["request"]["reason"] == "fix <b>order</b> & go"


async def test_case_93_a_webhook_leads_nowhere_inside_unless_its_host_is_listed(lab: World, tmp_path: Path) -> None:
    async with outside(tmp_path) as there:
        there.answers["/hook"] = respond(b"")
        await lab.apply(f"{{kind: webhook, name: chat, url: '{there.url}/hook'}}")
        webhooks = Webhooks(lab.running.state, _Trusting(there.ca_file), lab.clock, ())
        webhooks.tell(_request(lab))
        await eventually(lambda: not webhooks.waiting)
        assert there.connections == 0
        await lab.apply(f"{{kind: webhook, name: chat, url: '{there.url}/hook', allow_internal: [{HOST}]}}")
        webhooks.tell(_request(lab))
        await eventually(lambda: there.count("/hook") == 1)  # negative control


async def test_an_event_that_is_not_listed_is_not_told(lab: World, tmp_path: Path) -> None:
    async with outside(tmp_path) as there:
        await lab.apply(f"{{kind: webhook, name: chat, url: '{there.url}/hook', allow_internal: [{HOST}], events: [denied]}}")
        webhooks = Webhooks(lab.running.state, _Trusting(there.ca_file), lab.clock, ())
        webhooks.tell(_request(lab))
        assert webhooks.waiting == 0


@pytest.mark.parametrize("url", ["ftp://x.example/", "https://user@x.example/", "https://x.example/#a", "https://x.example/ a"])
async def test_a_url_that_is_not_plain_is_refused_when_it_is_written(lab: World, url: str) -> None:
    assert (await lab.api.call("POST", "/documents", content=f"{{kind: webhook, name: chat, url: '{url}'}}")).status_code == 422
