"""Laws of the keyring: rotation overlaps, compromise does not, and the files are private."""

import stat
from pathlib import Path

import pytest
from cryptography import x509

from cloister.trust.certificates import fingerprint, make_key
from cloister.trust.keyring import (
    Keyring,
    activate_authority,
    activate_ticket_key,
    announce_authority,
    announce_ticket_key,
    create_keyring,
    remove_retired_authorities,
    remove_retired_ticket_keys,
    renew_issuing,
    replace_compromised,
    start_epoch,
)
from cloister.trust.keystore import load_keyring, save_keyring

NOW = 1_800_000_000
YEAR = 365 * 86400


@pytest.fixture(scope="module")
def keyring() -> Keyring:
    return create_keyring(NOW)


def _roots(keyring: Keyring) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(keyring.roots_pem().encode())


def test_one_key_per_purpose(keyring: Keyring) -> None:
    authority = keyring.authority
    assert authority.root.key.public_key() != authority.issuing.key.public_key()
    assert len(keyring.ticket_verification_keys()) == 1


def test_planned_rotation_announces_before_use_and_removes_last(keyring: Keyring) -> None:
    announced = announce_authority(keyring, NOW)
    assert announced.authority.id == keyring.authority.id
    assert len(_roots(announced)) == 2
    active = activate_authority(announced, NOW + 60)
    assert active.authority.id != keyring.authority.id
    assert set(map(fingerprint, _roots(active))) == set(map(fingerprint, _roots(announced)))
    assert remove_retired_authorities(active, NOW + 60) is active
    done = remove_retired_authorities(active, NOW + 61)
    assert [fingerprint(root) for root in _roots(done)] == [done.root_sha256]
    assert done.authority.cross is None


def test_leaf_of_a_rotation_verifies_below_the_old_root_too(keyring: Keyring) -> None:
    active = activate_authority(announce_authority(keyring, NOW), NOW + 60)
    _, chain = active.issue_own(make_key().public_key(), active.control, NOW + 61)
    leaf, by_new, by_old, *roots = x509.load_pem_x509_certificates(chain.encode())
    assert roots == [active.authority.root.certificate, keyring.authority.root.certificate]
    for issuing, root in ((by_new, active.authority.root), (by_old, keyring.authority.root)):
        leaf.verify_directly_issued_by(issuing)
        issuing.verify_directly_issued_by(root.certificate)


def test_rotation_steps_repeat_without_effect(keyring: Keyring) -> None:
    announced = announce_authority(keyring, NOW)
    assert announce_authority(announced, NOW) is announced
    assert activate_authority(keyring, NOW) is keyring
    assert activate_ticket_key(keyring, NOW) is keyring


def test_compromise_leaves_no_old_key(keyring: Keyring) -> None:
    fresh = replace_compromised(announce_authority(keyring, NOW), NOW + 1)
    assert len(_roots(fresh)) == 1
    assert fresh.root_sha256 != keyring.root_sha256
    assert not fresh.ticket_verification_keys().keys() & keyring.ticket_verification_keys().keys()
    assert fresh.trust_domain == keyring.trust_domain


def test_ticket_keys_overlap(keyring: Keyring) -> None:
    announced = announce_ticket_key(keyring, NOW)
    assert announced.ticket_key.kid == keyring.ticket_key.kid
    active = activate_ticket_key(announced, NOW + 5)
    assert active.ticket_key.kid != keyring.ticket_key.kid
    assert active.ticket_verification_keys().keys() == announced.ticket_verification_keys().keys()
    done = remove_retired_ticket_keys(active, NOW + 6)
    assert list(done.ticket_verification_keys()) == [active.ticket_key.kid]


def test_issuing_ca_is_renewed_before_it_ends_below_the_same_root(keyring: Keyring) -> None:
    assert renew_issuing(keyring, NOW + 200 * 86400) is keyring
    renewed = renew_issuing(keyring, NOW + 300 * 86400)
    assert renewed.root_sha256 == keyring.root_sha256
    assert renewed.authority.issuing.certificate.not_valid_after_utc > keyring.authority.issuing.certificate.not_valid_after_utc


def test_new_epoch_voids_every_ticket_key(keyring: Keyring) -> None:
    fresh = start_epoch(keyring, NOW)
    assert fresh.epoch == keyring.epoch + 1
    assert not fresh.ticket_verification_keys().keys() & keyring.ticket_verification_keys().keys()
    assert fresh.root_sha256 == keyring.root_sha256


def test_keyring_survives_the_disk_with_private_files(tmp_path: Path, keyring: Keyring) -> None:
    directory = tmp_path / "keys"
    rotated = activate_authority(announce_authority(announce_ticket_key(keyring, NOW), NOW), NOW)
    assert load_keyring(directory) is None
    save_keyring(directory, rotated)
    loaded = load_keyring(directory)
    assert loaded is not None
    assert loaded.roots_pem() == rotated.roots_pem()
    assert loaded.ticket_verification_keys() == rotated.ticket_verification_keys()
    assert loaded.authority.cross == rotated.authority.cross
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert {stat.S_IMODE(path.stat().st_mode) for path in directory.iterdir()} == {0o600}


def test_keys_no_longer_used_leave_the_disk(tmp_path: Path, keyring: Keyring) -> None:
    save_keyring(tmp_path, keyring)
    before = {path.name for path in tmp_path.glob("*.key")}
    save_keyring(tmp_path, replace_compromised(keyring, NOW))
    after = {path.name for path in tmp_path.glob("*.key")}
    assert len(before) == len(after) == 3
    assert not before & after


def test_damaged_index_is_never_replaced_by_a_new_one(tmp_path: Path, keyring: Keyring) -> None:
    save_keyring(tmp_path, keyring)
    (tmp_path / "keyring.json").write_text("{")
    with pytest.raises(ValueError):
        load_keyring(tmp_path)
