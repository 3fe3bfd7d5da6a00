"""Backup and restore: database, keys and the secrets that were stored through the API, in one file.

Files that documents name (client secrets, certificates of CAs) are the operator's own and are not part of it.

A restore is a step back in time that everybody else did not take. So it starts a new epoch: a new ticket key (every ticket made before is
void), no sessions, no API tokens, no provisioning keys in force (their counts may be older than their uses), nothing approved (it may have been
taken back since), every agent unconfirmed until an administrator says otherwise, and generations above all that were ever given out.
"""

import io
import os
import re
import tarfile
import tempfile
from pathlib import Path

from cloister.exchange.errors import Refusal
from cloister.model.reasons import Code
from cloister.store import agents as agent_rows
from cloister.store import directories as directory_rows
from cloister.store import documents as document_rows
from cloister.store import programs as program_rows
from cloister.store import requests as request_rows
from cloister.store import sessions as session_rows
from cloister.store.service import EPOCH_SHIFT, Store, raise_generation
from cloister.store.types import Actor, AuditEntry
from cloister.trust.files import make_private_directory, sync_directory
from cloister.trust.keyring import start_epoch
from cloister.trust.keystore import INDEX, list_key_files, load_keyring, save_keyring

DATABASE = "exchange.db"
KEYS = "keys"
SECRETS = "secrets"
MAX_SECRETS = 4000
MAX_MEMBERS = MAX_SECRETS + 64
MAX_KEY_BYTES = 64 * 1024
MAX_DATABASE_BYTES = 1 << 36
_SECRET_NAME = re.compile(r"[0-9a-f]{16}", re.ASCII)  # the id of the document that it belongs to


def write_backup(data: Path, target: Path) -> None:
    """Copy everything an exchange needs into `target` (0600), while it runs or not. Access records are not part of it."""
    need_exchange(data)
    try:
        descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise Refusal(Code.CONFLICT, f"`{target}` exists already", "name a new file") from None
    try:
        with os.fdopen(descriptor, "wb") as file:
            _write_archive(data, file)
            file.flush()
            os.fsync(file.fileno())
    except BaseException:
        target.unlink()
        raise


def need_exchange(data: Path) -> None:
    """Refuse a directory that is not the data directory of an exchange."""
    if load_keyring(data / KEYS) is None or not (data / DATABASE).exists():
        raise Refusal(Code.ARGUMENT_INVALID, f"`{data}` holds no exchange", "name its data directory")


def _write_archive(data: Path, file: io.BufferedWriter) -> None:
    with tempfile.TemporaryDirectory(dir=data, prefix=".backup-") as directory:
        copy = Path(directory) / DATABASE
        # The index of the keys is read last: a key file never changes, and a rotation in between only adds some.
        with Store(data / DATABASE) as store:
            store.copy_to(copy)
        with tarfile.open(fileobj=file, mode="w") as archive:
            archive.add(copy, DATABASE)
            for path in list_key_files(data / KEYS):
                archive.add(path, f"{KEYS}/{path.name}")
            for path in _list_secrets(data, copy):
                archive.add(path, f"{SECRETS}/{path.name}")


def _list_secrets(data: Path, copy: Path) -> list[Path]:
    """One file per document of the copy that has a stored secret; what is left of documents that are gone is not kept any longer."""
    with Store(copy) as store, store.read() as connection:
        ids = {document.id for document in document_rows.list_documents(connection)}
    found = sorted(path for path in (data / SECRETS).glob("*") if path.name in ids)
    if len(found) > MAX_SECRETS:
        raise Refusal(
            Code.LIMIT_REACHED, f"`{data / SECRETS}` holds more than `{MAX_SECRETS}` secrets", "remove documents that nobody uses"
        )
    return found


def restore_backup(source: Path, data: Path, now: int) -> int:
    """Make `data`, which must not exist or be empty, the exchange of the backup, in a new epoch. Returns the number of agents to confirm."""
    if data.exists() and any(data.iterdir()):
        raise Refusal(Code.CONFLICT, f"`{data}` is not empty", "move it away first: a restore replaces nothing")
    make_private_directory(data)
    _unpack(source, data)
    keyring = load_keyring(data / KEYS)
    if keyring is None:
        raise Refusal(Code.ARGUMENT_INVALID, f"`{source}` is not a backup of an exchange")
    keyring = start_epoch(keyring, now)
    with Store.open(data / DATABASE) as store:
        entry = AuditEntry(now, Actor("operator"), "exchange.restore", f"epoch {keyring.epoch}")
        with store.change(entry) as change:
            connection = change.connection
            raise_generation(connection, keyring.epoch << EPOCH_SHIFT)
            session_rows.delete_all_sessions(connection)
            agent_rows.unconfirm_all(connection)
            agent_rows.revoke_all_provisioning_keys(connection, now)
            directory_rows.revoke_all_directories(connection, now)
            program_rows.revoke_all_delegations(connection, now)
            request_rows.end_approved_requests(connection, now, "the exchange was restored from a backup")
            agents = [agent for agent in agent_rows.list_agents(connection) if agent.revoked_at is None]
    save_keyring(data / KEYS, keyring)
    sync_directory(data)
    return len(agents)


def _unpack(source: Path, data: Path) -> None:
    """Only the members that a backup has, by name: an archive cannot put a file anywhere else."""
    for directory in (KEYS, SECRETS):
        (data / directory).mkdir(mode=0o700)
    try:
        with tarfile.open(source, mode="r:") as archive:
            members = archive.getmembers()
            if len(members) > MAX_MEMBERS:
                raise Refusal(Code.ARGUMENT_INVALID, f"`{source}` is not a backup of an exchange")
            for member in members:
                _unpack_member(archive, member, _target_of(member, data, source))
    except tarfile.TarError:
        raise Refusal(Code.ARGUMENT_INVALID, f"`{source}` is not a backup of an exchange") from None


def _target_of(member: tarfile.TarInfo, data: Path, source: Path) -> Path:
    directory, _, name = member.name.rpartition("/")
    is_key = directory == KEYS and (name == INDEX or (name.endswith(".key") and not name.startswith(".")))
    is_secret = directory == SECRETS and _SECRET_NAME.fullmatch(name) is not None
    is_database = member.name == DATABASE
    bound = MAX_DATABASE_BYTES if is_database else MAX_KEY_BYTES
    if not member.isfile() or not (is_key or is_secret or is_database) or member.size > bound:
        raise Refusal(Code.ARGUMENT_INVALID, f"`{source}` is not a backup of an exchange")
    return data / DATABASE if is_database else data / directory / name


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, target: Path) -> None:
    content = archive.extractfile(member)
    descriptor = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        while content is not None and (block := content.read(1 << 20)):
            file.write(block)
        file.flush()
        os.fsync(file.fileno())
