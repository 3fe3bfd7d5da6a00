"""How agents live: enrolment, renewal, long absences, rotations, revocation, twins. Real processes; only the age of a certificate is made."""

import json
import signal
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from lab import Lab, Process, agent_id, free_port, leaf_of, wait_for

from cloister.trust.files import make_private_directory
from cloister.trust.keyring import create_keyring
from cloister.trust.keystore import load_keyring, save_keyring
from cloister.trust.types import parse_identity

HOUR = 3600


@pytest.fixture(scope="module")
def lab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Lab]:
    with Lab(tmp_path_factory.mktemp("agents")) as lab:
        # An exchange with a past, so that a certificate can be old without being older than its issuer.
        make_private_directory(lab.directory / "exchange")
        save_keyring(lab.directory / "exchange" / "keys", create_keyring(int(time.time()) - 100 * 24 * HOUR))
        lab.start_exchange()
        yield lab


def _age(lab: Lab, state: Path, seconds: int) -> None:
    """Replace the agent's certificate by one that the exchange issued so long ago."""
    keyring = load_keyring(lab.directory / "exchange" / "keys")
    assert keyring is not None
    leaf = leaf_of(state)
    names = leaf.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    identity = parse_identity(names.get_values_for_type(x509.UniformResourceIdentifier)[0])
    key = leaf.public_key()
    assert identity is not None
    assert isinstance(key, ec.EllipticCurvePublicKey)
    _, chain = keyring.issue(key, identity, int(time.time()) - seconds)
    fields = json.loads((state / "identity.json").read_text())
    (state / "identity.json").write_text(json.dumps({**fields, "chain": chain}))


def _relay(lab: Lab, name: str) -> tuple[Process, Path]:
    return lab.start_relay(name), lab.directory / name


def _again(lab: Lab, name: str) -> Process:
    """The same relay, started once more from its state directory; no key is needed."""
    where = f"127.0.0.1:{free_port()}"
    arguments = ["--exchange", lab.exchange.address, "--state", str(lab.directory / name)]
    return lab.start_notifying(name, "relay", *arguments, "--listen", where, "--advertise", where)


def _agent(lab: Lab, id: str) -> dict[str, object]:
    found: dict[str, object] = lab.call("GET", f"/agents/{id}")
    return found


def test_key_file_is_needed_once_and_the_identity_stays(lab: Lab) -> None:
    process, state = _relay(lab, "once")
    before = agent_id(state)
    assert process.end() == 0
    process = _again(lab, "once")
    assert agent_id(state) == before
    assert process.end() == 0


def test_agent_without_identity_and_key_says_what_is_missing(lab: Lab, tmp_path: Path) -> None:
    where = ("--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1")
    result = lab.run("relay", "--exchange", lab.exchange.address, "--state", str(tmp_path / "s"), *where)
    assert result.returncode == 2
    assert b"--key-file" in result.stderr


def test_used_up_key_is_refused_for_good(lab: Lab, tmp_path: Path) -> None:
    key = lab.make_key("relay", uses=1)
    arguments = [
        "--exchange",
        lab.exchange.address,
        "--key-file",
        str(key),
        "--listen",
        "127.0.0.1:0",
        "--advertise",
        "127.0.0.1:1",
    ]
    lab.start_notifying("first", "relay", *arguments, "--state", str(tmp_path / "1")).end()
    result = lab.run("relay", *arguments, "--state", str(tmp_path / "2"))
    assert result.returncode == 3
    assert b"[key_used_up]" in result.stderr
    assert key.read_bytes() not in result.stderr


def test_key_of_another_exchange_sends_nothing(lab: Lab, tmp_path: Path) -> None:
    key = lab.make_key("relay")
    text = key.read_text()
    key.write_text(text[:-64] + "0" * 64)
    arguments = [
        "--exchange",
        lab.exchange.address,
        "--key-file",
        str(key),
        "--listen",
        "127.0.0.1:0",
        "--advertise",
        "127.0.0.1:1",
    ]
    result = lab.run("relay", *arguments, "--state", str(tmp_path / "s"))
    assert result.returncode == 3
    assert b"[root_mismatch]" in result.stderr


def test_certificate_past_two_thirds_of_its_life_is_renewed_over_the_link(lab: Lab) -> None:
    process, state = _relay(lab, "renewing")
    process.end()
    _age(lab, state, 20 * HOUR)
    old = leaf_of(state)
    process = _again(lab, "renewing")
    new = wait_for(lambda: leaf if (leaf := leaf_of(state)) != old else None, "the renewed certificate")
    assert new.not_valid_after_utc > old.not_valid_after_utc
    assert new.public_key() == old.public_key()
    assert process.end() == 0


def test_agent_returns_after_the_exchange_was_away_for_48_hours(lab: Lab) -> None:
    process, state = _relay(lab, "absent")
    process.end()
    _age(lab, state, 24 * HOUR + 48 * HOUR)
    process = _again(lab, "absent")
    assert leaf_of(state).not_valid_after_utc.timestamp() > time.time()
    assert _agent(lab, agent_id(state))["up"]
    assert process.end() == 0


def test_agent_away_for_longer_than_the_grace_has_to_enrol_again(lab: Lab) -> None:
    process, state = _relay(lab, "too-late")
    process.end()
    _age(lab, state, 24 * HOUR + 31 * 24 * HOUR)
    arguments = ["--exchange", lab.exchange.address, "--state", str(state), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1"]
    process = lab.start("too-late", "relay", *arguments)
    wait_for(lambda: "certificate_expired" in process.output or "handshake_failed" in process.output, "the refusal")
    assert not _agent(lab, agent_id(state))["up"]
    process.end()


def test_case_27_second_process_with_a_copied_key_is_not_served(lab: Lab, tmp_path: Path) -> None:
    process, state = _relay(lab, "original")
    copy = lab.directory / "copy"
    copy.mkdir(mode=0o700)
    for file in ("key.pem", "identity.json"):
        (copy / file).write_bytes((state / file).read_bytes())
    arguments = ["--exchange", lab.exchange.address, "--state", str(copy), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1"]
    twin = lab.start("copy", "relay", *arguments)
    wait_for(lambda: _agent(lab, agent_id(state))["twin_seen_at"], "the twin to be noticed", 30.0)
    assert "agent_twin" in wait_for(lambda: twin.output if "agent_twin" in twin.output else None, "the refusal")
    assert _agent(lab, agent_id(state))["up"]
    twin.kill()
    process.end()


def test_one_state_directory_runs_one_process(lab: Lab) -> None:
    process, state = _relay(lab, "locked")
    arguments = ["--exchange", lab.exchange.address, "--state", str(state), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1"]
    result = lab.run("relay", *arguments)
    assert result.returncode == 6
    process.end()


def test_agent_killed_returns_at_once(lab: Lab) -> None:
    process, state = _relay(lab, "killed")
    process.kill()
    process = _again(lab, "killed")
    assert not _agent(lab, agent_id(state))["twin_seen_at"]
    assert process.end() == 0


def test_revoked_agent_stops_with_its_own_exit_code(lab: Lab) -> None:
    process, state = _relay(lab, "revoked")
    lab.call("POST", f"/agents/{agent_id(state)}/revoke")
    assert process.popen.wait(20) == 3
    assert "[agent_revoked]" in process.output


def test_agent_revoked_while_it_was_away_says_so_at_its_next_start(lab: Lab) -> None:
    process, state = _relay(lab, "revoked-away")
    process.end()
    lab.call("POST", f"/agents/{agent_id(state)}/revoke")
    arguments = ["--exchange", lab.exchange.address, "--state", str(state), "--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1"]
    result = lab.run("relay", *arguments)
    assert result.returncode == 3
    assert b"[agent_revoked]" in result.stderr


def test_second_signal_ends_at_once(lab: Lab) -> None:
    process, _ = _relay(lab, "impatient")
    process.popen.send_signal(signal.SIGTERM)
    assert process.end(signal.SIGTERM) == 0


def test_planned_rotation_keeps_agents_and_tells_them_the_new_root(lab: Lab) -> None:
    process, state = _relay(lab, "rotating")
    asleep, asleep_state = _relay(lab, "asleep")
    asleep.end()
    old_roots = json.loads((state / "identity.json").read_text())["roots"]
    lab.call("POST", "/trust/rotate-ca", {})
    wait_for(lambda: json.loads((state / "identity.json").read_text())["roots"] != old_roots, "the new root")
    assert process.popen.poll() is None
    assert _agent(lab, agent_id(state))["up"]
    asleep = _again(lab, "asleep")
    wait_for(lambda: json.loads((asleep_state / "identity.json").read_text())["roots"] != old_roots, "the new root")
    assert asleep.end() == 0
    assert process.end() == 0


def test_compromised_rotation_ends_every_agent_and_new_keys_work(lab: Lab) -> None:
    """The last test of this file: nothing of before is in force afterwards."""
    process, state = _relay(lab, "compromised")
    old_root = lab.exchange.root_sha256
    old_key = lab.make_key("relay")
    answer = lab.call("POST", "/trust/rotate-ca", {"compromised": True})
    assert process.popen.wait(30) == 3
    active = [authority["root_sha256"] for authority in answer["authorities"] if authority["state"] == "active"]
    assert active != [old_root]
    where = ("--listen", "127.0.0.1:0", "--advertise", "127.0.0.1:1")
    result = lab.run("relay", "--exchange", lab.exchange.address, "--key-file", str(old_key), "--state", str(state) + "-2", *where)
    assert result.returncode == 3
    lab.exchange.process.kill()
    lab.start_exchange()
    assert [lab.exchange.root_sha256] == active
    process, _ = _relay(lab, "after")
    assert process.end() == 0
