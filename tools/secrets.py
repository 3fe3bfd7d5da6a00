"""Find what every installation would share: key material, tokens and default passwords (attack case 30).

`python tools/secrets.py DIRECTORY…` names what it finds and exits with 1; used on the image's root file system, and by a test on the repository.
"""

import re
import sys
from collections.abc import Iterable, Iterator
from pathlib import Path

MAX_BYTES = 64 << 20  # of one file
PATTERNS = {
    "private key": re.compile(rb"-----BEGIN (?:[A-Z]+ )*PRIVATE KEY-----\s*[A-Za-z0-9+/=]{20}"),
    "provisioning key": re.compile(rb"cloister-key-1[-.:][A-Za-z0-9_=-]{16}"),
    "signed token": re.compile(rb"\beyJ[A-Za-z0-9_-]{16,}\.eyJ[A-Za-z0-9_-]{16,}\.[A-Za-z0-9_-]{40,}"),
    "password hash": re.compile(rb"\$(?:argon2id?\$v=\d+\$m=\d+|[156y]\$)[^\s:'\"]{20,}"),
}


def find(files: Iterable[Path]) -> Iterator[str]:
    """`PATH: what`, for every file that holds something; links and special files are not followed."""
    for path in files:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            continue
        content = path.read_bytes()
        yield from (f"{path}: {what}" for what, pattern in PATTERNS.items() if pattern.search(content))


def of_root(root: Path) -> Iterator[str]:
    """In a root file system: also an account that has a password, or an identity that every container would share."""
    yield from find(path for path in root.rglob("*") if path.relative_to(root).parts[0] not in ("proc", "sys", "dev"))
    shadow = root / "etc" / "shadow"
    for line in shadow.read_text().splitlines() if shadow.exists() else ():
        name, password = line.split(":")[:2]
        if not password.startswith(("*", "!")):
            yield f"{shadow}: the account `{name}` is not locked"
    machine = root / "etc" / "machine-id"
    if machine.exists() and machine.read_text().strip() not in ("", "uninitialized"):
        yield f"{machine}: an identity of its own"


def main(directories: list[str]) -> int:
    found = [text for directory in directories for text in of_root(Path(directory))]
    for text in found:
        print(text)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
