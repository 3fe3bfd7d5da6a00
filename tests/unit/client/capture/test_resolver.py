"""The resolver file: replaced, kept, and put back as the same file."""

import errno
import os
from pathlib import Path

import pytest

from cloister.client.capture.resolver import Resolved, ResolverFile
from cloister.client.capture.rules import Owner
from cloister.client.errors import ClientError

OWNER = Owner(1000)
BEFORE = "# mine\nnameserver 192.0.2.53\noptions ndots:1\n"


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "etc" / "resolv.conf"
    path.parent.mkdir()
    path.write_text(BEFORE)
    return path


def resolver(path: Path) -> ResolverFile:
    return ResolverFile(path, path.parent.parent / "kept", OWNER)


def test_file_comes_back_as_the_same_inode_and_nothing_else_stays(path: Path) -> None:
    path.chmod(0o640)
    before = path.stat()
    resolver(path).install()
    assert OWNER.nameserver in path.read_text()
    assert path.stat().st_mode & 0o777 == 0o644
    resolver(path).restore()
    after = path.stat()
    assert (after.st_ino, after.st_mode, after.st_mtime_ns) == (before.st_ino, before.st_mode, before.st_mtime_ns)
    assert [entry.name for entry in path.parent.iterdir()] == ["resolv.conf"]


def test_symbolic_link_comes_back_as_a_link(path: Path) -> None:
    target = path.with_name("real.conf")
    path.rename(target)
    path.symlink_to("real.conf")
    resolver(path).install()
    assert not path.is_symlink()
    assert target.read_text() == BEFORE, "what the link leads to is not written"
    resolver(path).restore()
    assert path.readlink() == Path("real.conf")


def test_missing_file_is_missing_again(path: Path) -> None:
    path.unlink()
    resolver(path).install()
    assert path.exists()
    resolver(path).restore()
    assert not path.exists()


def test_case_71_second_start_keeps_what_was_before_the_first(path: Path) -> None:
    resolver(path).install()
    again = resolver(path)
    assert again.upstreams() == ["192.0.2.53"]
    again.install()
    assert again.upstreams() == ["192.0.2.53"]
    again.restore()
    assert path.read_text() == BEFORE


def test_file_that_somebody_else_wrote_since_stays(path: Path) -> None:
    resolver(path).install()
    path.write_text("nameserver 198.51.100.1\n")
    resolver(path).restore()
    assert path.read_text() == "nameserver 198.51.100.1\n"
    assert [entry.name for entry in path.parent.iterdir()] == ["resolv.conf"]


def test_mount_point_is_rewritten_in_place_and_comes_back(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rename = Path.rename

    def busy(self: Path, target: Path) -> Path:
        if target == path:
            raise OSError(errno.EBUSY, "mounted")
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", busy)
    inode = path.stat().st_ino
    resolver(path).install()
    assert OWNER.nameserver in path.read_text()
    assert resolver(path).upstreams() == ["192.0.2.53"]
    resolver(path).install()
    resolver(path).restore()
    assert (path.read_text(), path.stat().st_ino) == (BEFORE, inode)
    assert [entry.name for entry in path.parent.iterdir()] == ["resolv.conf"]
    assert not (path.parent.parent / "kept").exists()


def test_other_owners_file_is_not_taken(path: Path) -> None:
    ResolverFile(path, path.parent.parent / "other", Owner(7)).install()
    text = path.read_text()
    with pytest.raises(ClientError, match="uid `7`"):
        resolver(path).install()
    resolver(path).restore()
    assert path.read_text() == text


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sees who owns a file of root's")
def test_written_file_is_readable_by_all_and_writable_by_root_only(path: Path) -> None:
    resolver(path).install()
    assert (path.stat().st_uid, path.stat().st_mode & 0o777) == (0, 0o644)


# ------------------------------------------------------------------ systemd-resolved


def test_resolved_sends_every_name_here_until_the_drop_in_is_taken_back(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A script stands for `systemctl` and writes down what it is told."""
    said = tmp_path / "said"
    (tmp_path / "systemctl").write_text(f'#!/bin/sh\necho "$@" >> {said}\n')
    (tmp_path / "systemctl").chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    runtime, drop_ins = tmp_path / "resolve", tmp_path / "conf.d"
    resolved = Resolved(runtime, drop_ins, OWNER)
    assert not resolved.is_running()
    assert resolved.upstreams() == []
    resolved.restore()
    assert not said.exists(), "nothing to take back, nothing restarted"
    runtime.mkdir()
    (runtime / "stub-resolv.conf").write_text("nameserver 127.0.0.53\n")
    (runtime / "resolv.conf").write_text(f"nameserver {OWNER.nameserver}\nnameserver 192.0.2.99\nnameserver 2001:db8::53\n")
    assert resolved.upstreams() == ["192.0.2.99", "2001:db8::53"]
    file = tmp_path / "resolv.conf"
    file.symlink_to(runtime / "stub-resolv.conf")
    assert resolved.is_asked_by(ResolverFile(file, tmp_path / "kept", OWNER))
    resolved.install()
    resolved.install()
    [drop_in] = drop_ins.iterdir()
    assert drop_in.read_text() == f"[Resolve]\nDNS={OWNER.nameserver}\nDomains=~.\n"
    resolved.restore()
    assert list(drop_ins.iterdir()) == []
    assert said.read_text().splitlines() == ["try-reload-or-restart systemd-resolved.service"] * 3
