"""Laws of reading a cluster's keys: only over the cluster's own TLS, only public members, only so much; and nothing of it in a complaint."""

import asyncio
import json
import os
import ssl
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest
from tests.unit.identity.tokens.minting import jwks, rsa

from cloister.agent.errors import AgentError
from cloister.connector.cluster import MAX_BYTES, ApiServer, KeyReports, KeysUnreadable, find_cluster, read_jwks
from cloister.model.messages.from_agent import ClusterKeys
from cloister.model.messages.from_exchange import KeysTaken

TOKEN = "a.service-account.token"


class ApiStub:
    """Stands for the API server: serves one body over TLS to whoever has the token of the service account."""

    def __init__(self, directory: Path) -> None:
        self.body, self.status = json.dumps(jwks(rsa("east"))).encode(), 200
        certificate, key = directory / "ca.crt", directory / "key.pem"
        subprocess.run(
            ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-subj", "/CN=api",
             "-addext", "subjectAltName=IP:127.0.0.1", "-keyout", key, "-out", certificate],
            check=True, capture_output=True,
        )  # fmt: skip
        (directory / "token").write_text(TOKEN + "\n")
        stub = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                allowed = self.headers["authorization"] == f"Bearer {TOKEN}" and self.path == "/openid/v1/jwks"
                self.send_response(stub.status if allowed else 401)
                self.send_header("location", "https://127.0.0.1:1/")
                self.end_headers()
                self.wfile.write(stub.body)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = HTTPServer(("127.0.0.1", 0), Handler)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate, key)
        self.server.socket = context.wrap_socket(self.server.socket, server_side=True)
        self.thread = threading.Thread(target=self.server.serve_forever)
        self.thread.start()

    @property
    def port(self) -> int:
        return int(self.server.server_address[1])

    def close(self) -> None:
        self.server.shutdown()
        self.thread.join()
        self.server.server_close()


@pytest.fixture
def api(tmp_path: Path) -> Iterator[ApiStub]:
    stub = ApiStub(tmp_path)
    yield stub
    stub.close()


def in_pod(api: ApiStub, account: Path) -> ApiServer:
    environment = {"KUBERNETES_SERVICE_HOST": "127.0.0.1", "KUBERNETES_SERVICE_PORT": str(api.port)}
    found = find_cluster("auto", environment, account)
    assert found is not None
    return found


def test_keys_come_from_the_pods_own_api_server(api: ApiStub, tmp_path: Path) -> None:
    (key,) = in_pod(api, tmp_path).read()
    assert (key["kid"], key["kty"], sorted(key)) == ("east", "RSA", ["e", "kid", "kty", "n"])


def test_a_server_that_the_clusters_ca_does_not_vouch_for_gets_no_token(api: ApiStub, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    stub = ApiStub(other)
    try:
        account = tmp_path / "account"
        account.mkdir()
        os.link(tmp_path / "token", account / "token")
        os.link(other / "ca.crt", account / "ca.crt")
        with pytest.raises(KeysUnreadable, match="cannot be asked: ConnectError"):
            in_pod(api, account).read()
    finally:
        stub.close()


@pytest.mark.parametrize("status", [302, 401, 500])
def test_any_other_answer_is_none(api: ApiStub, tmp_path: Path, status: int) -> None:
    api.status = status
    with pytest.raises(KeysUnreadable, match=f"status `{status}`"):
        in_pod(api, tmp_path).read()


def test_an_answer_without_end_is_read_to_its_bound(api: ApiStub, tmp_path: Path) -> None:
    api.body = b" " * (MAX_BYTES + 1)
    with pytest.raises(KeysUnreadable, match="more than"):
        in_pod(api, tmp_path).read()
    body = json.dumps(jwks(rsa("east"))).encode()
    api.body = body + b" " * (MAX_BYTES - len(body))
    assert in_pod(api, tmp_path).read()


@pytest.mark.parametrize(
    "body",
    [
        b"", b"[]", b"{}", b'{"keys": []}', b'{"keys": [1]}', b'{"keys": {}}', b"\xff", b"[" * 100_000,
        json.dumps({"keys": [{"kty": "RSA"}] * 17}).encode(),
        json.dumps({"keys": [rsa("secret").as_dict(private=True)]}).encode(),
        json.dumps({"keys": [{"kty": "oct", "k": "c2VjcmV0"}]}).encode(),
    ],
    ids=["empty", "list", "no keys", "none", "no key", "no list", "no text", "deep", "too many", "private", "symmetric"],
)  # fmt: skip
def test_what_is_no_set_of_public_keys_is_not_passed_on(body: bytes) -> None:
    with pytest.raises(KeysUnreadable) as told:
        read_jwks(body)
    assert "c2VjcmV0" not in str(told.value)


def test_a_complaint_holds_neither_token_nor_key(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("a token\nwith two lines")
    (tmp_path / "ca.crt").write_text("no certificate")
    with pytest.raises(KeysUnreadable) as told:
        ApiServer("https://127.0.0.1:1/openid/v1/jwks", tmp_path).read()
    assert "token" not in str(told.value)


def test_outside_a_pod_nothing_is_asked(tmp_path: Path) -> None:
    assert find_cluster("auto", {}, tmp_path) is None
    assert find_cluster("auto", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path) is None  # no token was given to this pod
    (tmp_path / "token").write_text(TOKEN)
    assert find_cluster("off", {"KUBERNETES_SERVICE_HOST": "10.0.0.1"}, tmp_path) is None
    found = find_cluster("auto", {"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "6443"}, tmp_path)
    assert found is not None
    assert found.url == "https://[fd00::1]:6443/openid/v1/jwks"


@pytest.mark.parametrize("text", ["", "on", "http://10.0.0.1/openid/v1/jwks", "https://", "https://a@b/", "https://[::1/x"])
def test_a_place_that_is_no_https_url_is_refused(text: str) -> None:
    with pytest.raises(AgentError, match="no `https` URL"):
        find_cluster(text, {})


class FakeLink:
    def __init__(self) -> None:
        self.up, self.asked = True, 0
        self.sent: list[list[Any]] = []
        self.changed = asyncio.Event()

    @property
    def is_up(self) -> bool:
        self.asked += 1
        return self.up

    def send(self, message: ClusterKeys) -> bool:
        self.sent.append([key["kid"] for key in message.keys])
        self.changed.set()
        return True

    async def has_sent(self, count: int) -> None:
        async with asyncio.timeout(10):
            while len(self.sent) < count:
                self.changed.clear()
                await self.changed.wait()


class FakeCluster:
    """Counts the looks; what it shows is what the test says."""

    def __init__(self) -> None:
        self.kids: list[str] | None = ["east"]
        self.looks = 0

    def read(self) -> list[Any]:
        self.looks += 1
        if self.kids is None:
            raise KeysUnreadable("not now")
        return [{"kty": "RSA", "kid": kid} for kid in self.kids]

    async def is_looked_at(self, times: int) -> None:
        until = self.looks + times
        async with asyncio.timeout(10):
            while self.looks < until:
                await asyncio.sleep(0.001)


async def test_what_is_new_is_told_and_what_is_not_is_told_on_each_link_only() -> None:
    link, cluster = FakeLink(), FakeCluster()
    reports = KeyReports(link, cluster, look_every=0.001)
    try:
        await link.has_sent(1)
        await cluster.is_looked_at(3)
        assert link.sent == [["east"]]
        cluster.kids = None
        await cluster.is_looked_at(3)
        cluster.kids = ["east", "next"]
        await link.has_sent(2)
        reports.on_up()
        await link.has_sent(3)
        await cluster.is_looked_at(3)
        assert link.sent == [["east"], ["east", "next"], ["east", "next"]]
    finally:
        reports.close()


async def test_a_link_that_is_down_is_told_nothing_and_a_refusal_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    link, cluster = FakeLink(), FakeCluster()
    link.up = False
    reports = KeyReports(link, cluster, look_every=0.001)
    try:
        async with asyncio.timeout(10):
            while link.asked < 3:
                await asyncio.sleep(0.001)
        assert cluster.looks == 0
        link.up = True
        await link.has_sent(1)
        for _ in range(3):
            reports.on_taken(KeysTaken(code="not_authorised", message="not of this group"))
        assert [record.message for record in caplog.records] == [
            "the exchange does not take the keys of this cluster: not of this group [not_authorised]"
        ]
    finally:
        reports.close()
