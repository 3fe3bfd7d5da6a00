"""Laws of backup and restore, and of a restart."""

import io
import stat
import tarfile
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from tests.unit.exchange.conftest import BUNDLE, Agent, World, end_world, start_world

from cloister import _core
from cloister.exchange.backup import restore_backup, write_backup
from cloister.exchange.errors import Refusal
from cloister.exchange.settings import Settings
from cloister.exchange.signin.secrets import ProviderSecrets
from cloister.model.messages.from_agent import WantSession
from cloister.model.messages.from_exchange import Refused, Session, Snapshot, Welcome
from cloister.model.providers import IdentityProvider
from cloister.trust.keystore import load_keyring

WANT = WantSession(ref=1, host="jupyter.lab.internal", port=8888, protocol="tcp")
Stack = list[Callable[[], Awaitable[object]]]


def _settings(path: Path) -> Settings:
    return Settings(path, listen="127.0.0.1:0", drain_grace=0)


async def _prepare(world: World) -> tuple[Agent, Agent, Session]:
    await world.add_user("ada")
    await world.apply(BUNDLE)
    connector, client = await world.connector(), await world.client("ada")
    client.send(WANT)
    return connector, client, await client.receive(Session)


async def test_restart_keeps_agents_sessions_and_documents(tmp_path: Path) -> None:
    stack: Stack = []
    world = await start_world(_settings(tmp_path / "data"), stack)
    connector, client, session = await _prepare(world)
    before = world.running.state.policy.generation
    token = world.api.token
    for close in reversed(stack):
        await close()
    stack = []
    again = await start_world(_settings(tmp_path / "data"), stack)
    assert again.running.first_administrator is None
    again.api.token = token
    assert [row["document"]["name"] for row in await again.api.ok("GET", "/segments")] == ["jupyter", "postgres"]
    for agent in (connector, client):
        agent.address = again.running.address
        agent.inbox.clear()
        await agent.connect()
    snapshot = await connector.receive(Snapshot)
    assert snapshot.sessions == [session.session]
    assert snapshot.generation > before
    again.clock.offset += 151
    renewed = await client.receive(Session)
    assert (renewed.session, renewed.ref) == (session.session, None)  # in use before, so renewed at its half-life, unasked
    again.agents = [connector, client]
    await end_world(again, stack)


async def test_restore_starts_an_epoch_in_which_nothing_old_is_worth_anything(tmp_path: Path) -> None:
    stack: Stack = []
    world = await start_world(_settings(tmp_path / "data"), stack)
    connector, client, session = await _prepare(world)
    key = (await world.api.ok("POST", "/keys", json={"role": "connector", "group": "lab"}))["key"]
    write_backup(tmp_path / "data", tmp_path / "backup.tar")
    password = world.running.first_administrator.password  # type: ignore[union-attr]
    generation, token = world.running.generations.current, world.api.token
    for close in reversed(stack):
        await close()
    stack = []
    assert restore_backup(tmp_path / "backup.tar", tmp_path / "restored", int(world.clock())) == 2
    again = await start_world(_settings(tmp_path / "restored"), stack)
    again.agents = [connector, client]

    assert again.running.generations.current > generation
    assert len(again.running.book) == 0
    with pytest.raises(_core.CoreError):
        _core.verify_ticket(session.ticket, again.running.state.keyring.ticket_verification_keys(), int(world.clock()))
    again.api.token = token
    assert (await again.api.call("GET", "/me")).status_code == 401
    late = again.agent("connector")
    assert (await late.enrol_by_key(key)).code == "key_revoked"  # type: ignore[union-attr]

    assert (await again.api.sign_in("admin", password)).status_code == 200
    connector.address = again.running.address
    connector.inbox.clear()
    connector.dial()
    await connector.until(lambda: connector.up or None)
    connector.greet()
    assert (await connector.receive(Refused)).code == "agent_unconfirmed"
    await again.api.ok("POST", "/agents/confirm")
    connector.inbox.clear()
    await connector.until(lambda: connector.up or None)  # the core dials again by itself
    connector.greet()
    assert (await connector.receive(Welcome)).agent == connector.id
    await end_world(again, stack)


PROVIDERS = """
kind: identity-provider
name: corp
issuer: https://id.example.org
client_id: cloister
disabled: true
---
kind: identity-provider
name: gone
issuer: https://gone.example.org
client_id: cloister
disabled: true
---
kind: signal-transmitter
name: polled
issuer: https://signals.example.org
audience: cloister
users: {issuer: https://id.example.org}
delivery: poll
poll: {url: "https://signals.example.org/poll"}
---
kind: signal-transmitter
name: pushing
issuer: https://push.example.org
audience: cloister
users: {issuer: https://id.example.org}
"""


async def test_what_was_stored_through_the_api_works_after_a_restore(tmp_path: Path) -> None:
    """Client secrets of providers, secrets to poll with, and what transmitters push with; of documents that are gone nothing is kept."""
    stack: Stack = []
    world = await start_world(_settings(tmp_path / "data"), stack)
    await world.apply(PROVIDERS)
    for name in ("corp", "gone"):
        await world.api.ok("PUT", f"/identity-providers/{name}/secret", json={"secret": f"the secret of {name}"})
    await world.api.ok("PUT", "/signal-transmitters/polled/secret", json={"secret": "the secret to poll with"})
    pushed = (await world.api.ok("POST", "/signal-transmitters/pushing/secret"))["secret"]
    await world.api.ok("DELETE", "/identity-providers/gone")
    write_backup(tmp_path / "data", tmp_path / "backup.tar")
    for close in reversed(stack):
        await close()
    stack = []
    restore_backup(tmp_path / "backup.tar", tmp_path / "restored", int(world.clock()))
    assert b"the secret of gone" not in (tmp_path / "backup.tar").read_bytes()
    again = await start_world(_settings(tmp_path / "restored"), stack)
    state, process = again.running.state, again.running
    kept = sorted((tmp_path / "restored" / "secrets").iterdir())
    assert [stat.S_IMODE(path.stat().st_mode) for path in kept] == [0o600, 0o600]
    assert stat.S_IMODE(kept[0].parent.stat().st_mode) == 0o700
    corp = state.find("identity-provider", "corp")
    assert corp is not None
    provider = state.parsed[corp.id]
    assert isinstance(provider, IdentityProvider)
    assert await ProviderSecrets(process.settings.data / "secrets").read(corp.id, provider) == "the secret of corp"
    polled = state.find("signal-transmitter", "polled")
    assert polled is not None
    assert (tmp_path / "restored" / "secrets" / polled.id).read_text() == "the secret to poll with"
    for secret, known in ((pushed, True), (pushed[:-1], False)):
        headers = {"authorization": f"Bearer {secret}", "content-type": "application/secevent+jwt"}
        answer = await again.api.http.post("/api/v1/signals/pushing", content="no event", headers=headers)
        assert (answer.status_code != 401) is known
    await end_world(again, stack)


async def test_backup_is_private_and_never_overwrites(world: World, tmp_path: Path) -> None:
    target = tmp_path / "backup.tar"
    write_backup(world.running.settings.data, target)
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    with pytest.raises(Refusal, match="exists already"):
        write_backup(world.running.settings.data, target)
    with pytest.raises(Refusal, match="not empty"):
        restore_backup(target, world.running.settings.data, 0)
    assert load_keyring(world.running.settings.keys) is not None


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("../evil.key", tarfile.REGTYPE),
        ("keys/../../evil.key", tarfile.REGTYPE),
        ("/etc/evil.key", tarfile.REGTYPE),
        ("keys/a.sh", tarfile.REGTYPE),
        ("secrets/../../evil.key", tarfile.REGTYPE),
        ("secrets/0123456789abcdeF", tarfile.REGTYPE),
        ("secrets/0123456789abcdef", tarfile.SYMTYPE),
        ("secrets/0123456789abcdef/0123456789abcdef", tarfile.REGTYPE),
        ("keys/a.key", tarfile.SYMTYPE),
        ("exchange.db", tarfile.LNKTYPE),
    ],
)
def test_case_83_archive_with_anything_else_is_refused(tmp_path: Path, name: str, kind: bytes) -> None:
    source = tmp_path / "evil.tar"
    with tarfile.open(source, "w") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member, io.BytesIO())
    with pytest.raises(Refusal, match="not a backup"):
        restore_backup(source, tmp_path / "restored", 0)
    assert not (tmp_path / "evil.key").exists()


def test_garbage_is_no_backup(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"garbage" * 1000)
    with pytest.raises(Refusal, match="not a backup"):
        restore_backup(tmp_path / "x", tmp_path / "restored", 0)


async def test_first_start_makes_one_secret_and_stores_only_its_hash(world: World) -> None:
    """Case 30: nothing that opens this exchange was there before its first start, and the password is in no file of it."""
    first = world.running.first_administrator
    assert first is not None
    assert len(first.password) >= 24
    for path in world.running.settings.data.rglob("*"):
        if path.is_file():
            assert first.password.encode() not in path.read_bytes(), path
            assert stat.S_IMODE(path.stat().st_mode) & 0o077 == 0 or path.parent.name == "journal", path
