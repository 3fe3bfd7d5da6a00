import os
import stat
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from tests.unit.agent.certificates import make_authority, spiffe_id

from cloister.agent.disk import StateDir
from cloister.agent.errors import AgentError
from cloister.agent.types import read_identity
from cloister.model.reasons import Code


@pytest.fixture
def state(tmp_path: Path) -> StateDir:
    state = StateDir(tmp_path / "state")
    state.open()
    return state


def _load_key(pem: str) -> ec.EllipticCurvePrivateKey:
    key = load_pem_private_key(pem.encode(), None)
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    return key


def test_key_is_made_once_and_is_private(state: StateDir) -> None:
    first = state.load_or_make_key()
    assert state.load_or_make_key() == first
    assert stat.S_IMODE((state.path / "key.pem").stat().st_mode) == 0o600
    assert stat.S_IMODE(state.path.stat().st_mode) == 0o700


def test_identity_reads_back_as_saved(state: StateDir) -> None:
    authority, pem = make_authority(), state.load_or_make_key()
    chain = authority.chain(_load_key(pem), spiffe_id("connector"))
    identity = read_identity(
        role="connector", address="x:1", chain_pem=chain, key_pem=pem, roots_pem=authority.roots_pem, api="https://x"
    )
    state.save_identity(identity)
    assert state.load_identity("connector") == identity
    assert stat.S_IMODE((state.path / "identity.json").stat().st_mode) == 0o600
    with pytest.raises(AgentError) as caught:
        state.load_identity("client")
    assert caught.value.code == Code.ROLE_MISMATCH


@pytest.mark.parametrize("text", ["", "{", "[]", '{"address": 1}', "\0"])
def test_damaged_identity_is_refused_and_not_replaced(state: StateDir, text: str) -> None:
    state.load_or_make_key()
    (state.path / "identity.json").write_text(text)
    with pytest.raises(AgentError):
        state.load_identity("client")
    assert (state.path / "identity.json").read_text() == text


def test_second_process_does_not_get_the_directory(state: StateDir) -> None:
    other = StateDir(state.path)
    state.lock()
    with pytest.raises(AgentError) as caught:
        other.lock()
    assert caught.value.code == Code.CONFLICT
    state.unlock()
    other.lock()
    other.unlock()


def test_directory_that_others_may_write_is_refused(state: StateDir) -> None:
    state.path.chmod(0o777)
    with pytest.raises(AgentError):
        state.open()


def test_failed_write_leaves_the_old_file_whole(state: StateDir, monkeypatch: pytest.MonkeyPatch) -> None:
    state.save_resume("old")

    def fail(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", fail)
    with pytest.raises(AgentError):
        state.save_resume("new")
    assert state.load_resume() == "old"
    assert [path.name for path in state.path.iterdir()] == ["resume"]
