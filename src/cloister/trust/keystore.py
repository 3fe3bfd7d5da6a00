"""The keyring on disk: one PEM file per key and one index, all 0600 in a directory of 0700.

The index is replaced last and atomically; key files it does not name are leftovers of a crash and are removed at the next save.
"""

import json
from pathlib import Path
from typing import cast

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from pydantic import BaseModel, ConfigDict

from cloister.trust.certificates import Issuer, fingerprint, to_pem
from cloister.trust.files import make_private_directory, sync_directory, write_private
from cloister.trust.keyring import Authority, Keyring, State, TicketKey

INDEX = "keyring.json"


class _Entry(BaseModel):
    model_config = ConfigDict(extra="forbid")


class _AuthorityEntry(_Entry):
    state: State
    since: int
    root: str
    root_key: str
    issuing: str
    issuing_key: str
    cross: str | None = None


class _TicketEntry(_Entry):
    state: State
    since: int
    key: str


class _Index(_Entry):
    version: int
    trust_domain: str
    epoch: int
    control_id: str
    relay_id: str
    authorities: list[_AuthorityEntry]
    ticket_keys: list[_TicketEntry]


def load_keyring(directory: Path) -> Keyring | None:
    """The keyring in `directory`, or None before the first start. A damaged one raises: nothing is ever made anew over it."""
    try:
        text = (directory / INDEX).read_bytes()
    except FileNotFoundError:
        return None
    index = _Index.model_validate_json(text)
    return Keyring(
        trust_domain=index.trust_domain,
        epoch=index.epoch,
        control_id=index.control_id,
        relay_id=index.relay_id,
        authorities=tuple(_read_authority(directory, entry) for entry in index.authorities),
        ticket_keys=tuple(
            TicketKey(entry.state, entry.since, cast("ed25519.Ed25519PrivateKey", _read_key(directory / entry.key)))
            for entry in index.ticket_keys
        ),
    )


def save_keyring(directory: Path, keyring: Keyring) -> None:
    make_private_directory(directory)
    files: dict[str, bytes] = {}
    index = _Index(
        version=1,
        trust_domain=keyring.trust_domain,
        epoch=keyring.epoch,
        control_id=keyring.control_id,
        relay_id=keyring.relay_id,
        authorities=[_add_authority(files, item) for item in keyring.authorities],
        ticket_keys=[_add_ticket_key(files, item) for item in keyring.ticket_keys],
    )
    for name, data in files.items():
        if not (directory / name).exists():  # a key file never changes: its name is its key's
            write_private(directory / name, data)
    write_private(directory / INDEX, json.dumps(index.model_dump(), indent=1).encode())
    for path in directory.glob("*.key"):
        if path.name not in files:
            path.unlink()
    sync_directory(directory)


def list_key_files(directory: Path) -> list[Path]:
    """Everything a backup needs, the index last."""
    return [*sorted(directory.glob("*.key")), directory / INDEX]


def _add_authority(files: dict[str, bytes], item: Authority) -> _AuthorityEntry:
    root_key = f"root-{item.id}.key"
    issuing_key = f"issuing-{fingerprint(item.issuing.certificate)[:16]}.key"
    files[root_key] = _key_bytes(item.root.key)
    files[issuing_key] = _key_bytes(item.issuing.key)
    return _AuthorityEntry(
        state=item.state,
        since=item.since,
        root=to_pem(item.root.certificate),
        root_key=root_key,
        issuing=to_pem(item.issuing.certificate),
        issuing_key=issuing_key,
        cross=to_pem(item.cross) if item.cross else None,
    )


def _add_ticket_key(files: dict[str, bytes], item: TicketKey) -> _TicketEntry:
    name = f"ticket-{item.kid}.key"
    files[name] = _key_bytes(item.key)
    return _TicketEntry(state=item.state, since=item.since, key=name)


def _read_authority(directory: Path, entry: _AuthorityEntry) -> Authority:
    return Authority(
        entry.state,
        entry.since,
        Issuer(x509.load_pem_x509_certificate(entry.root.encode()), _read_p256(directory / entry.root_key)),
        Issuer(x509.load_pem_x509_certificate(entry.issuing.encode()), _read_p256(directory / entry.issuing_key)),
        x509.load_pem_x509_certificate(entry.cross.encode()) if entry.cross else None,
    )


def _read_p256(path: Path) -> ec.EllipticCurvePrivateKey:
    return cast("ec.EllipticCurvePrivateKey", _read_key(path))


def _read_key(path: Path) -> object:
    return serialization.load_pem_private_key(path.read_bytes(), password=None)


def _key_bytes(key: ec.EllipticCurvePrivateKey | ed25519.Ed25519PrivateKey) -> bytes:
    return key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
