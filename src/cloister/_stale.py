"""Notices an extension that was built from other sources than those beside it; called by the extension when it is imported."""

import zlib
from pathlib import Path


def source_digest(root: Path) -> str | None:
    """What `SOURCE_DIGEST` of an extension built from the sources at `root` is; None where there are no sources (an installed wheel)."""
    lock = root / "Cargo.lock"
    if not lock.is_file() or not (root / "crates" / "python" / "build.rs").is_file():
        return None
    files = [lock, *(root / "crates").rglob("*.rs")]
    crc = 0
    for path, file in sorted((file.relative_to(root).as_posix(), file) for file in files):
        content = file.read_bytes()
        crc = zlib.crc32(content, zlib.crc32(f"{path}\n{len(content)}\n".encode(), crc))
    return f"{len(files)}-{crc:08x}"


def check(built_from: str, root: Path) -> None:
    """Raises ImportError if the sources at `root` are not those the extension was built from."""
    if source_digest(root) not in (None, built_from):
        raise ImportError("the Rust extension is older than its sources: run `make build`")


def refuse_stale(built_from: str) -> None:
    """The same for the source tree that this package lies in."""
    check(built_from, Path(__file__).parents[2])
