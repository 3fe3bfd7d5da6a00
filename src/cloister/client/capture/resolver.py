"""The host's resolver while the client answers names: /etc/resolv.conf, and systemd-resolved where it runs."""

import errno
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

from cloister.client.capture.rules import MAX_RESOLVER_BYTES, Owner, read_nameservers, write_resolver, written_for
from cloister.client.capture.run import run
from cloister.client.errors import ClientError
from cloister.model.reasons import Code

RESOLVER = Path("/etc/resolv.conf")
RUNTIME = Path("/run/systemd/resolve")
DROP_INS = Path("/run/systemd/resolved.conf.d")
STUBS = ("127.0.0.53", "127.0.0.54")


class ResolverFile:
    """/etc/resolv.conf while the client answers names.

    The file before is kept as it is (a second link to the same inode, symbolic links included) and renamed back. Where the file is
    a mount point, as in containers, it cannot be renamed: then it is rewritten in place, and its text is kept in the state directory.
    """

    def __init__(self, path: Path, copy: Path, owner: Owner) -> None:
        self._path = path
        self._link = path.with_name(f".{path.name}.before-cloister-{owner.uid}")
        self._copy = copy
        self._owner = owner

    def previous(self) -> str:
        """The text that counts while the client does not run: of the kept file if ours is in place."""
        if not self.is_ours():
            return _read(self._path)
        return _read(self._link) or _read(self._copy)

    def is_ours(self) -> bool:
        return written_for(_read(self._path)) == self._owner.uid

    def upstreams(self) -> list[str]:
        return [address for address in read_nameservers(self.previous()) if address != self._owner.nameserver]

    def install(self) -> None:
        """Replace the file; a file that a killed process left is taken over, and what was before it stays kept."""
        present = _read(self._path)
        writer = written_for(present)
        if writer is not None and writer != self._owner.uid:
            raise ClientError(
                Code.CONFLICT,
                f"the client of uid `{writer}` answers names on this host already",
                "end it first, or use `cloister proxy`",
            )
        text = write_resolver(self.previous(), self._owner)
        try:
            self._replace(text, keep=writer is None)
        except OSError as error:
            if error.errno not in (errno.EBUSY, errno.EXDEV):
                raise
            if writer is None:
                self._link.unlink(missing_ok=True)
                _write_beside(self._copy, self._path.read_bytes())
            self._rewrite(text.encode())

    def restore(self) -> None:
        """Put the file before back if ours is still in place; if somebody else has written since, theirs stays."""
        ours = self.is_ours()
        if self._link.is_symlink() or self._link.exists():
            if ours:
                self._link.rename(self._path)
            else:
                self._link.unlink()
        elif self._copy.exists():
            if ours:
                self._rewrite(self._copy.read_bytes())
            self._copy.unlink()
        elif ours:
            # there was none before
            with suppress(OSError):
                self._path.unlink()

    def _replace(self, text: str, *, keep: bool) -> None:
        temporary = self._path.with_name(f".{self._path.name}.new-cloister-{self._owner.uid}")
        temporary.unlink(missing_ok=True)
        _write_new(temporary, text.encode(), 0o644)
        try:
            if keep:
                self._link.unlink(missing_ok=True)
                with suppress(FileNotFoundError):
                    os.link(self._path, self._link, follow_symlinks=False)
            temporary.rename(self._path)
        except OSError:
            temporary.unlink(missing_ok=True)
            raise

    def _rewrite(self, content: bytes) -> None:
        with self._path.open("r+b") as file:
            file.write(content)
            file.truncate()
            file.flush()
            os.fsync(file.fileno())


class Resolved:
    """systemd-resolved: a drop-in under /run that sends every name to the owner's client (resolved.conf(5), `Domains=~.`)."""

    def __init__(self, runtime: Path, drop_ins: Path, owner: Owner) -> None:
        self._runtime = runtime
        self._file = drop_ins / f"90-cloister-{owner.uid}.conf"
        self._owner = owner

    def is_running(self) -> bool:
        return (self._runtime / "stub-resolv.conf").exists() and shutil.which("systemctl") is not None

    def is_ours(self) -> bool:
        return self._file.exists()

    def is_asked_by(self, file: ResolverFile) -> bool:
        """Whether the resolver file sends look-ups to resolved."""
        return any(address in STUBS for address in file.upstreams())

    def upstreams(self) -> list[str]:
        """What resolved itself asks, without this owner's client."""
        if not self.is_running():
            return []
        found = read_nameservers(_read(self._runtime / "resolv.conf"))
        return [address for address in found if address not in (self._owner.nameserver, *STUBS)]

    def install(self) -> None:
        self._file.parent.mkdir(parents=True, exist_ok=True)
        self._file.unlink(missing_ok=True)
        _write_new(self._file, f"[Resolve]\nDNS={self._owner.nameserver}\nDomains=~.\n".encode(), 0o644)
        self._reload()

    def restore(self) -> None:
        if self._file.exists():
            self._file.unlink()
            self._reload()

    def _reload(self) -> None:
        run(["systemctl", "try-reload-or-restart", "systemd-resolved.service"])


def _read(path: Path) -> str:
    try:
        with path.open(encoding="utf-8", errors="replace") as file:
            return file.read(MAX_RESOLVER_BYTES)
    except FileNotFoundError:
        return ""


def _write_new(path: Path, content: bytes, mode: int) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
    with open(descriptor, "wb") as file:
        os.fchmod(descriptor, mode)
        file.write(content)
        file.flush()
        os.fsync(descriptor)


def _write_beside(path: Path, content: bytes) -> None:
    with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    Path(file.name).replace(path)
