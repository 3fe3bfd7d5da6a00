"""Programs with real processes: a connector and jobs that come with tokens, reach what they may, and leave nothing behind."""

import http.server
import json
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from lab import PASSWORD, Lab, Service, free_port, greet, wait_for
from tests.unit.exchange.outside import make_tls
from tests.unit.identity.tokens.minting import as_json, jwks, rsa, sign

CLUSTER, GITHUB = "https://kubernetes.default.svc.cluster.local", "https://token.actions.githubusercontent.com"


class World:
    def __init__(self, lab: Lab) -> None:
        self.lab, self.web = lab, Service(greet(b"hello"))
        lab.start_exchange()
        self.serial = 0
        self.domain = _domain(lab)
        lab.call("POST", "/users", {"name": "ada", "password": PASSWORD})
        lab.apply(f"""
kind: connector-group
name: lab
suffixes: ["*"]
---
kind: segment
name: web
hosts: [localhost]
ports: [{self.web.port}]
groups: [lab]
allow: [127.0.0.1, '::1']
---
kind: token-issuer
name: cluster
type: kubernetes
issuer: {CLUSTER}
keys: {json.dumps(jwks(rsa("cluster")))}
connectors: {{group: lab, subjects: ["system:serviceaccount:cloister:connector"]}}
---
kind: token-issuer
name: github
type: github
issuer: {GITHUB}
keys: {json.dumps(jwks(rsa("github")))}
---
kind: workload
name: trainer
issuer: cluster
claims: {{namespace: ml}}
---
kind: workload
name: release
issuer: github
claims: {{repository: lab/models}}
---
kind: rule
name: jobs
effect: permit
who: {{workloads: [trainer, release]}}
what: {{segments: [web]}}
---
kind: rule
name: for-ada
effect: permit
who: {{users: [ada], via: [trainer]}}
what: {{segments: [web]}}
""")
        arguments = ["--exchange", lab.exchange.login_line, "--token-file", str(self.pod_file("cloister", "connector"))]
        self.connector_command = ["connector", *arguments, "--state", str(lab.directory / "connector")]
        self.connector = lab.start_notifying("connector", *self.connector_command)

    def mint(self, issuer: str, key: str, **claims: Any) -> str:
        now = int(time.time())
        body = {"iss": issuer, "aud": f"https://{self.domain}", "iat": now, "exp": now + 600, **claims}
        return sign({"alg": "RS256", "kid": key}, as_json(body), rsa(key), "RS256")

    def pod(self, namespace: str, account: str) -> str:
        inside = {"namespace": namespace, "serviceaccount": {"name": account, "uid": "u"}}
        self.serial += 1
        subject = f"system:serviceaccount:{namespace}:{account}"
        return self.mint(CLUSTER, "cluster", sub=subject, jti=str(self.serial), **{"kubernetes.io": inside})

    def pod_file(self, namespace: str = "ml", account: str = "trainer") -> Path:
        path = self.lab.directory / f"token-{time.monotonic_ns()}"
        path.write_text(self.pod(namespace, account) + "\n")
        path.chmod(0o600)
        return path

    def run(self, *arguments: str, environment: dict[str, str] | None = None) -> Any:
        where = {"CLOISTER_EXCHANGE": self.lab.exchange.login_line, "NO_PROXY": "", **(environment or {})}
        return self.lab.run("run", *arguments, environment=where, seconds=60)

    @property
    def url(self) -> str:
        return f"http://localhost:{self.web.port}/"

    def opened_by_trainer(self) -> list[dict[str, Any]] | None:
        entries = self.lab.call("GET", "/records?kind=open")["entries"]
        return [entry for entry in entries if entry.get("principal_name") == "trainer"] or None

    def programs(self) -> list[dict[str, Any]]:
        return [agent for agent in self.lab.call("GET", "/agents?role=client") if agent["vouched_until"] is not None]


def _domain(lab: Lab) -> str:
    answer = lab.api.get(f"https://{lab.exchange.address}/.well-known/cloister")
    return str(answer.json()["exchange"])


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with Lab(tmp_path_factory.mktemp("run")) as lab:
        world = World(lab)
        yield world
        world.web.close()


@pytest.fixture
def memory(world: World, tmp_path: Path) -> dict[str, str]:
    """Where the command keeps its state, so that what is left can be seen."""
    path = tmp_path / "memory"
    path.mkdir(mode=0o700)
    return {"XDG_RUNTIME_DIR": str(path)}


def test_job_reaches_its_application_and_leaves_nothing(world: World, memory: dict[str, str]) -> None:
    before = len(world.programs())
    result = world.run("--token-file", str(world.pod_file()), "--", "curl", "-sS", world.url, environment=memory)
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()
    assert list(Path(memory["XDG_RUNTIME_DIR"]).iterdir()) == []
    programs = world.programs()
    assert len(programs) == before + 1
    assert all(agent["revoked_at"] is not None and not agent["up"] for agent in programs)
    assert world.lab.call("GET", "/sessions") == []
    wait_for(world.opened_by_trainer, "the connector's record of the flow")  # records travel behind the flow, at least once


def test_job_with_a_local_port(world: World, memory: dict[str, str]) -> None:
    local = free_port()
    forward = f"localhost:{world.web.port}={local}"
    token = str(world.pod_file())
    result = world.run(
        "--token-file", token, "--forward", forward, "--", "curl", "-sS", f"http://127.0.0.1:{local}/", environment=memory
    )
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()


def test_exit_code_is_the_commands(world: World, memory: dict[str, str]) -> None:
    for command, code in ((["sh", "-c", "exit 7"], 7), (["sh", "-c", "kill -KILL $$"], 137), (["no-such-command"], 127)):
        result = world.run("--token-file", str(world.pod_file()), "--", *command, environment=memory)
        assert result.returncode == code, result.stderr.decode()
    assert list(Path(memory["XDG_RUNTIME_DIR"]).iterdir()) == []
    assert all(agent["revoked_at"] is not None for agent in world.programs())


def test_signals_reach_the_command(world: World, memory: dict[str, str]) -> None:
    script = 'trap "echo got; exit 9" TERM; echo \'{"ready": 1}\'; while :; do sleep 0.05; done'
    process = world.lab.start(
        "signalled", "run", "--exchange", world.lab.exchange.login_line, "--token-file", str(world.pod_file()), "--", "sh", "-c", script,
        environment=memory,
    )  # fmt: skip
    assert world.lab.first_line(process) == {"ready": 1}
    assert process.end(signal.SIGTERM) == 9
    assert process.popen.stdout is not None
    assert process.popen.stdout.read() == b"got\n"
    assert list(Path(memory["XDG_RUNTIME_DIR"]).iterdir()) == []
    assert all(agent["revoked_at"] is not None for agent in world.programs())


def test_case_31_token_is_not_handed_on(world: World, memory: dict[str, str]) -> None:
    token = world.pod("ml", "trainer")
    result = world.run("--token-env", "JOB_TOKEN", "--", "env", environment={**memory, "JOB_TOKEN": token})
    assert result.returncode == 0, result.stderr.decode()
    assert token.encode() not in result.stdout + result.stderr
    variables = dict(line.split("=", 1) for line in result.stdout.decode().splitlines() if "=" in line)
    assert variables["HTTPS_PROXY"].startswith("http://127.0.0.1:")
    assert Path(variables["CLOISTER_STATE"]).parent == Path(memory["XDG_RUNTIME_DIR"])


def test_refused_token_runs_nothing(world: World, memory: dict[str, str], tmp_path: Path) -> None:
    for token in (world.pod_file("web", "trainer"), world.pod_file()):
        mark = tmp_path / token.name
        first = world.run("--token-file", str(token), "--", "touch", str(mark), environment=memory)
        again = world.run("--token-file", str(token), "--", "touch", str(mark) + "-again", environment=memory)
        assert again.returncode == 3
        assert not Path(f"{mark}-again").exists()
        assert (first.returncode, mark.exists()) in ((3, False), (0, True))
    assert b"token_replayed" in again.stderr
    assert world.run("--", "true", environment=memory).returncode == 7
    assert list(Path(memory["XDG_RUNTIME_DIR"]).iterdir()) == []


def test_github_job_asks_for_a_token_with_the_exchanges_audience(world: World, memory: dict[str, str], tmp_path: Path) -> None:
    asked: list[dict[str, list[str]]] = []

    class Actions(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(parse_qs(urlsplit(self.path).query))
            token = world.mint(
                GITHUB, "github", aud=asked[-1]["audience"][0], sub="repo:lab/models", repository="lab/models", jti=f"g{len(asked)}"
            )
            good = self.headers["authorization"] == "Bearer job-secret"
            body = json.dumps({"value": token if good else ""}).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    ca_file, context = make_tls(tmp_path / "tls", "localhost")
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Actions)
    server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        environment = {
            **memory,
            "SSL_CERT_FILE": str(ca_file),
            "ACTIONS_ID_TOKEN_REQUEST_URL": f"https://localhost:{server.server_port}/token?api-version=2",
            "ACTIONS_ID_TOKEN_REQUEST_TOKEN": "job-secret",
        }
        result = world.run("--", "curl", "-sS", world.url, environment=environment)
    finally:
        server.shutdown()
        server.server_close()
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()
    assert asked[0] == {"api-version": ["2"], "audience": [f"https://{world.domain}"]}


def test_program_acts_for_a_person_until_the_person_ends_it(world: World, memory: dict[str, str], tmp_path: Path) -> None:
    ada = world.lab.sign_in("ada")
    made = ada.json("delegate", "trainer", "--for", "10m")
    word = tmp_path / "word"
    word.write_text(made["delegation"])
    arguments = ["--token-file", str(world.pod_file()), "--subject-file", str(word), "--", "curl", "-sS", world.url]
    result = world.run(*arguments, environment=memory)
    assert (result.returncode, result.stdout) == (0, b"hello"), result.stderr.decode()
    newest = max(world.programs(), key=lambda agent: agent["enrolled_at"])
    assert (newest["principal"], newest["actor"]) == ("ada", "trainer")
    assert ada.run("delegate", "--end", made["id"]).returncode == 0
    result = world.run("--token-file", str(world.pod_file()), "--subject-file", str(word), "--", "true", environment=memory)
    assert result.returncode == 3
    assert b"delegation_invalid" in result.stderr


def test_connector_that_was_ended_comes_back_under_another_name(world: World) -> None:
    """With the key that its token is bound to: a container that restarts needs no new token."""
    (before,) = world.lab.call("GET", "/agents?role=connector")
    assert (before["group"], before["up"]) == ("lab", True)
    world.lab.call("POST", f"/agents/{before['id']}/revoke")
    assert world.connector.popen.wait(20) == 3
    state = world.lab.directory / "connector"
    assert (state / "key.pem").exists()
    assert not (state / "identity.json").exists()
    world.connector = world.lab.start_notifying("connector", *world.connector_command)
    after = [agent for agent in world.lab.call("GET", "/agents?role=connector") if agent["revoked_at"] is None]
    assert [(agent["group"], agent["id"] != before["id"]) for agent in after] == [("lab", True)]
