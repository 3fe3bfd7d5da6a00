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
    "password hash": re.compile(
        rb"\$argon2id?\$v=\d+\$m=\d+,t=\d+,p=\d+\$[A-Za-z0-9+/]{11,}\$[A-Za-z0-9+/]{16,}"
        rb"|\$(?:[156]|y\$[./0-9A-Za-z]{1,8})\$[./0-9A-Za-z=,]{1,32}\$[./0-9A-Za-z]{22,}"
    ),
}


def find(files: Iterable[Path]) -> Iterator[str]:
    """`PATH: what`, for every file that holds something; links and special files are not followed."""
    for path in files:
        if path.is_symlink() or not path.is_file() or path.stat().st_size > MAX_BYTES:
            continue
        content = path.read_bytes()
        yield from (f"{path}: {what}" for what, pattern in PATTERNS.items() if pattern.search(content))


def of_root(root: Path) -> Iterator[str]:
    """In a root file system: also an account that has a password, or an identity that every container would share.

    What a Python package says of itself (`METADATA`) shows examples, and the base's own libraries hold keys for their self-tests (GnuTLS):
    both are left out.
    """
    for path in root.rglob("*"):
        parts = path.relative_to(root).parts
        of_base = parts[:2] == ("usr", "lib") and ".so" in path.name
        if parts[0] not in ("proc", "sys", "dev") and path.name != "METADATA" and not of_base:
            yield from find([path])
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
