"""The command line against a real exchange: recognising it, documents, accounts, keys, and what goes wrong."""

import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from lab import PASSWORD, Client, Lab

BUNDLE = """
kind: connector-group
name: lab
suffixes: [lab.internal]
---
kind: segment
name: web
hosts: [web.lab.internal]
ports: [8080]
groups: [lab]
---
kind: rule
name: ada-may
effect: permit
who: {users: [ada]}
what: {segments: [web]}
"""


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("cli")) as lab:
        lab.start_exchange()
        yield lab


@pytest.fixture(scope="module")
def admin(lab: Lab) -> Client:
    admin = Client(lab, lab.directory / "administrator")
    who = lab.exchange.administrator
    assert who is not None
    result = admin.run(
        "admin", "sign-in", lab.exchange.login_line, "--user", who["name"], "--password-stdin", stdin=who["password"].encode()
    )
    assert result.returncode == 0, result.stderr
    (lab.directory / "bundle.yaml").write_text(BUNDLE)
    assert admin.run("create", "user", "ada", "--password-stdin", stdin=PASSWORD.encode()).returncode == 0
    assert admin.run("apply", "-f", "bundle.yaml").returncode == 0
    return admin


class Eavesdropper:
    """Somebody else's TLS server in the place of the exchange: keeps every byte that it is sent."""

    def __init__(self, directory: Path) -> None:
        from tests.unit.agent.certificates import Authority, key_pem, make_authority, new_key

        authority: Authority = make_authority()
        key = new_key()
        (directory / "false.pem").write_text(authority.chain(key, "https://x") + authority.roots_pem)
        (directory / "false.key").write_text(key_pem(key))
        self._context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        self._context.load_cert_chain(directory / "false.pem", directory / "false.key")
        self._context.set_alpn_protocols(["cloister-enrol/1", "http/1.1"])
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.heard = b""
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            try:
                connection.settimeout(2)
                with self._context.wrap_socket(connection, server_side=True) as tls:
                    while part := tls.recv(65536):
                        self.heard += part
                        tls.sendall(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\n{}")
            except OSError:
                connection.close()

    def close(self) -> None:
        self._listener.close()


@pytest.mark.parametrize("with_fingerprint", [True, False])
@pytest.mark.parametrize("command", [("login",), ("admin", "sign-in")])
def test_man_in_the_middle_hears_no_secret(lab: Lab, tmp_path: Path, command: tuple[str, ...], with_fingerprint: bool) -> None:
    false = Eavesdropper(tmp_path)
    address = f"127.0.0.1:{false.port}" + (f"#sha256-{lab.exchange.root_sha256}" if with_fingerprint else "")
    client = Client(lab, tmp_path / "state")
    result = client.run(*command, address, "--user", "ada", "--password-stdin", stdin=PASSWORD.encode())
    false.close()
    assert result.returncode in (3, 5), result.stderr
    assert PASSWORD.encode() not in false.heard
    assert b"ada" not in false.heard
    assert result.stderr.count(b"\n") == 1
    assert not (tmp_path / "state" / "identity.json").exists()


def test_the_eavesdropper_would_hear(tmp_path: Path) -> None:
    false = Eavesdropper(tmp_path)
    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    with socket.create_connection(("127.0.0.1", false.port)) as plain, context.wrap_socket(plain) as tls:
        tls.sendall(PASSWORD.encode())
        tls.recv(10)
    false.close()
    assert PASSWORD.encode() in false.heard


def test_wrong_password_is_told_and_leaves_nothing(lab: Lab, admin: Client, tmp_path: Path) -> None:
    client = Client(lab, tmp_path / "state")
    result = client.run("login", lab.exchange.login_line, "--user", "ada", "--password-stdin", stdin=b"wrong password")
    assert result.returncode == 3
    assert b"[sign_in_failed]" in result.stderr
    assert client.run("apps").returncode == 7


def test_signing_in_enrols_a_device_and_signing_out_removes_the_key(lab: Lab, admin: Client) -> None:
    client = lab.sign_in("ada")
    device = json.loads(client.run("status", "--json").stdout or b"{}")
    assert device == {"running": False}
    assert (client.state / "key.pem").stat().st_mode & 0o777 == 0o600
    again = client.run("login", "--user", "ada", "--password-stdin", stdin=PASSWORD.encode())
    assert f"signed in to {lab.exchange.address} as ada" in again.stdout.decode(), again.stderr
    assert client.run("logout").returncode == 0
    assert not (client.state / "key.pem").exists()
    assert client.run("apps").returncode == 7
    result = client.run("login", "--user", "ada", "--password-stdin", stdin=PASSWORD.encode())
    assert (result.returncode, b"no exchange is named" in result.stderr) == (2, True)


def test_applying_twice_changes_nothing(lab: Lab, admin: Client) -> None:
    assert admin.json("apply", "-f", "bundle.yaml") | {"generation": 0} == {
        "created": [],
        "changed": [],
        "deleted": [],
        "dry_run": False,
        "generation": 0,
        "notices": [],
    }


def test_dry_run_changes_nothing(lab: Lab, admin: Client) -> None:
    (lab.directory / "more.yaml").write_text("kind: group\nname: dry\n")
    assert admin.json("apply", "-f", "more.yaml", "--dry-run")["created"] == ["group dry"]
    assert admin.run("get", "groups", "dry").returncode == 4


def test_every_error_of_a_file_is_told_at_its_place(lab: Lab, admin: Client) -> None:
    (lab.directory / "bad.yaml").write_text("kind: segment\nname: x\nhosts: [a.lab.internal]\nports: [0]\n---\nkind: rul\n")
    result = admin.run("apply", "-f", "bad.yaml")
    assert result.returncode == 2
    lines = result.stderr.decode().splitlines()
    assert all(line.startswith("bad.yaml:") for line in lines[:-1])
    assert len(lines) >= 3
    assert "[document_malformed]" in lines[-1]
    refused = json.loads(admin.run("apply", "-f", "bad.yaml", "--json").stderr)
    assert len(refused["errors"]) == len(lines) - 1
    assert {error["file"] for error in refused["errors"]} == {"bad.yaml"}
    assert (
        f"bad.yaml:{refused['errors'][0]['line']}:{refused['errors'][0]['column']}: {refused['errors'][0]['message']}" == lines[0]
    )
    assert admin.run("get", "segments", "x").returncode == 4


def test_every_kind_is_listed_as_table_and_as_json(lab: Lab, admin: Client) -> None:
    from cloister.cli.listing import Kind

    for kind in Kind:
        result = admin.run("get", kind.value)
        assert result.returncode == 0, (kind, result.stderr)
        assert result.stdout.strip()
        assert isinstance(admin.json("get", kind.value), list)


def test_key_is_printed_once_and_never_listed(lab: Lab, admin: Client) -> None:
    result = admin.run("create", "key", "--role", "connector", "--group", "lab")
    key = result.stdout.strip()
    assert key.startswith(b"cloister-key-1.")
    assert key.split(b".")[2] not in admin.run("get", "keys", "--json").stdout


def test_what_is_gone_is_not_found(lab: Lab, admin: Client) -> None:
    for arguments, named in (
        (("get", "segments", "nothing"), b"there is no segment `nothing`"),
        (("delete", "connector-group", "nothing"), b"there is no connector group `nothing`"),
        (("disable", "nobody"), b"there is no user `nobody`"),
        (("revoke", "agent", "0" * 16), b"there is no agent `0000000000000000`"),
    ):
        result = admin.run(*arguments)
        assert (result.returncode, named in result.stderr) == (4, True), (arguments, result.stderr)


def test_a_missing_choice_is_told_on_one_line(admin: Client) -> None:
    result = admin.run("kill")
    assert result.returncode == 2
    assert b"Choose from: all, user, device, segment" in result.stderr


def test_hostile_names_reach_no_other_path(lab: Lab, admin: Client) -> None:
    for name in ("../users/admin", "a/b", "a?x=1", "%2e%2e/trust", "x\n"):
        assert admin.run("get", "segments", name).returncode in (2, 4)


def test_unreachable_exchange_has_its_own_exit_code(lab: Lab, tmp_path: Path) -> None:
    client = Client(lab, tmp_path / "state")
    result = client.run("login", f"127.0.0.1:1#sha256-{'0' * 64}", "--user", "a", "--password-stdin", stdin=b"x")
    assert result.returncode == 5
    assert result.stderr.count(b"\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        (),
        ("nonsense",),
        ("login",),
        ("login", "http://x"),
        ("get", "nonsense"),
        ("connector",),
        ("create", "key", "--role", "king"),
        ("apps", "--nonsense"),
    ],
)
def test_misuse_is_one_line_with_exit_code_2(lab: Lab, tmp_path: Path, arguments: tuple[str, ...]) -> None:
    result = Client(lab, tmp_path).run(*arguments, *([] if arguments == () else ["--json"] if arguments[0] == "get" else []))
    assert result.returncode == 2
    if arguments:
        assert result.stderr.count(b"\n") == 1, result.stderr


def test_command_without_a_subcommand_shows_its_help(lab: Lab, tmp_path: Path) -> None:
    for arguments in ((), ("exchange",)):
        result = Client(lab, tmp_path).run(*arguments)
        assert (result.returncode, result.stdout) == (2, b"")
        assert result.stderr.startswith(b"Usage: ")
        assert result.stderr.count(b"\n") > 5


@pytest.mark.parametrize(
    ("arguments", "code", "told"),
    [
        (("create", "user", "eve", "--group", "nowhere", "--password-stdin"), 4, b"there is no group `nowhere`"),
        (("create", "user", "ada", "--password-stdin"), 6, b"exists already; choose another name"),
        (("create", "key", "--role", "connector"), 2, b"pass `--group NAME`"),
        (("kill", "user"), 2, b"a kill switch for one user names it"),
        (("create", "key", "--role", "king"), 2, b"'--role': 'king' is not one of"),
    ],
)
def test_what_a_new_administrator_gets_wrong_is_named(admin: Client, arguments: tuple[str, ...], code: int, told: bytes) -> None:
    result = admin.run(*arguments, stdin=PASSWORD.encode())
    assert result.returncode == code
    assert told in result.stderr
    assert "eve" not in {user["name"] for user in admin.json("get", "users")}


def test_why_says_what_the_person_is_not_told(admin: Client) -> None:
    assert admin.run("create", "user", "mallory", "--password-stdin", stdin=PASSWORD.encode()).returncode == 0
    result = admin.run("why", "mallory", "web.lab.internal:8080")
    assert (result.returncode, b"no rule permits this [denied_by_default]" in result.stdout) == (3, True)


def test_agent_that_was_revoked_says_so_and_stops(lab: Lab, admin: Client) -> None:
    client = lab.sign_in("ada")
    assert [app["name"] for app in client.json("apps")] == ["web"]
    agents = [agent for agent in admin.json("get", "agents") if agent["principal"] == "ada" and agent["revoked_at"] is None]
    for agent in agents:
        assert admin.run("revoke", "agent", agent["id"]).returncode == 0
    result = client.run("apps")
    assert result.returncode == 3
    assert b"revoked" in result.stderr


def test_backup_and_restore_bring_the_documents_back(lab: Lab, admin: Client, tmp_path: Path) -> None:
    data = str(lab.directory / "exchange")
    file = tmp_path / "backup"
    assert admin.run("exchange", "backup", "--data-dir", data, "--out", str(file)).returncode == 0
    assert file.stat().st_mode & 0o777 == 0o600
    assert admin.run("exchange", "restore", "--from", str(file), "--data-dir", data).returncode == 6
    assert admin.run("exchange", "restore", "--from", str(file), "--data-dir", str(tmp_path / "new")).returncode == 0
    assert (tmp_path / "new" / "exchange.db").exists()


def test_taken_port_is_told_in_one_sentence(lab: Lab, tmp_path: Path) -> None:
    result = lab.run("exchange", "run", "--data-dir", str(tmp_path / "data"), "--listen", lab.exchange.address)
    assert result.returncode != 0
    assert result.stderr.decode().strip().splitlines()[-1].startswith("error: ")


def test_case_30_no_secret_is_left_in_logs(lab: Lab, admin: Client) -> None:
    who = lab.exchange.administrator
    assert who is not None
    for log in lab.directory.glob("*.log"):
        text = log.read_text()
        assert who["password"] not in text
        assert PASSWORD not in text
        assert "cloister-key-1" not in text
    assert os.environ.get("CLOISTER_STATE") is None
