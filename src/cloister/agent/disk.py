"""The state directory of an agent: its key and identity (0600, replaced atomically), and the lock that keeps it to one process.

```
key.pem         PKCS#8 P-256 key, made here, never leaves
identity.json   exchange address, chain, roots
resume          secret of the last link: proves that a returning agent is not a twin
spool/          connectors: access records not yet acknowledged
lock            held while a process uses this directory
```
"""

import fcntl
import json
import os
import tempfile
from contextlib import suppress
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from cloister.agent.errors import AgentError
from cloister.agent.types import Identity, Role, read_identity
from cloister.model.reasons import Code

MAX_FILE_BYTES = 1 << 20


class StateDir:
    def __init__(self, path: Path) -> None:
        self.path = path
        self._lock: int | None = None

    @property
    def spool(self) -> Path:
        return self.path / "spool"

    def open(self) -> None:
        """Make the directory (0700). Raises AgentError if that is not possible or if others may read it."""
        try:
            _make_directories(self.path)
            if self.path.stat().st_mode & 0o022:
                raise AgentError(
                    Code.ARGUMENT_INVALID, f"others may write to the state directory `{self.path}`", f"run `chmod go-w {self.path}`"
                )
        except OSError as error:
            raise AgentError(
                Code.ARGUMENT_INVALID,
                f"the state directory `{self.path}` cannot be used: {error.strerror}",
                "choose another one with --state",
            ) from error

    def lock(self) -> None:
        """Keep this directory to this process until it ends: two processes with one key would be twins."""
        handle = os.open(self.path / "lock", os.O_CREAT | os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        _give_to_owner(handle, self.path)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            os.close(handle)
            raise AgentError(
                Code.CONFLICT,
                f"another process already uses `{self.path}`",
                "stop it first, or choose another directory with --state",
            ) from error
        self._lock = handle

    def unlock(self) -> None:
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    # ------------------------------------------------------------ the key

    def load_or_make_key(self) -> str:
        """The agent's own key, PKCS#8 PEM; made at the first call."""
        existing = self._read("key.pem")
        if existing is not None:
            return existing
        key = ec.generate_private_key(ec.SECP256R1())
        pem = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
        self._replace("key.pem", pem)
        return pem

    # ------------------------------------------------------------ the identity

    def load_identity(self, role: Role) -> Identity | None:
        """What enrolment left here, or None. Raises AgentError if it is damaged or of another role."""
        text, key_pem = self._read("identity.json"), self._read("key.pem")
        if text is None or key_pem is None:
            return None
        try:
            fields = json.loads(text)
            return read_identity(
                role=role,
                address=str(fields["address"]),
                chain_pem=str(fields["chain"]),
                key_pem=key_pem,
                roots_pem=str(fields["roots"]),
                api=str(fields.get("api", "")),
            )
        except (ValueError, KeyError, TypeError) as error:
            raise AgentError(
                Code.ARGUMENT_INVALID, f"the identity in `{self.path}` cannot be read", "remove that directory and enrol again"
            ) from error

    def save_identity(self, identity: Identity) -> None:
        fields = {"address": identity.address, "chain": identity.chain_pem, "roots": identity.roots_pem, "api": identity.api}
        self._replace("identity.json", json.dumps(fields, indent=1))

    def load_resume(self) -> str | None:
        return self._read("resume")

    def save_resume(self, secret: str) -> None:
        self._replace("resume", secret)

    def forget(self) -> None:
        """Remove key and identity: this agent can no longer act; a new enrolment makes a new one."""
        for name in ("identity.json", "resume", "key.pem"):
            with suppress(FileNotFoundError):
                (self.path / name).unlink()

    def forget_identity(self) -> None:
        """Remove the identity and keep the key: a token that is bound to this key is good for a new enrolment."""
        for name in ("identity.json", "resume"):
            with suppress(FileNotFoundError):
                (self.path / name).unlink()

    # ------------------------------------------------------------ files

    def _read(self, name: str) -> str | None:
        try:
            with open(self.path / name, encoding="utf-8") as file:
                return file.read(MAX_FILE_BYTES)
        except FileNotFoundError:
            return None
        except (OSError, UnicodeDecodeError) as error:
            raise AgentError(Code.ARGUMENT_INVALID, f"`{self.path / name}` cannot be read: {error}") from error

    def _replace(self, name: str, text: str) -> None:
        """Write a file so that a crash leaves the old or the new one, whole; mode 0600 from the first byte."""
        try:
            handle, temporary = tempfile.mkstemp(prefix=f".{name}.", dir=self.path)
            try:
                _give_to_owner(handle, self.path)
                with open(handle, "w", encoding="utf-8") as file:
                    file.write(text)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, self.path / name)
            except BaseException:
                with suppress(FileNotFoundError):
                    os.unlink(temporary)
                raise
            directory = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY)
            try:
                os.fsync(directory)
            finally:
                os.close(directory)
        except OSError as error:
            raise AgentError(Code.ARGUMENT_INVALID, f"`{self.path / name}` cannot be written: {error.strerror}") from error


def _make_directories(path: Path) -> None:
    """Missing directories, 0700, each for the owner of the one above: root may run this for a user (sudo)."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        _give_to_owner(handle, path.parent)
    finally:
        os.close(handle)


def _give_to_owner(handle: int, directory: Path) -> None:
    """What root makes in a user's directory belongs to that user."""
    if os.geteuid() == 0:
        owner = directory.stat()
        os.fchown(handle, owner.st_uid, owner.st_gid)
