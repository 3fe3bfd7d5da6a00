"""Whose client this is, and where its state is (XDG Base Directory)."""

import os
import pwd
from pathlib import Path


def owner() -> int:
    """The operating-system user whose client this is: under sudo the one who typed it, not root."""
    behind_sudo = os.environ.get("SUDO_UID", "")
    if os.geteuid() == 0 and behind_sudo.isascii() and behind_sudo.isdigit():
        return int(behind_sudo)
    return os.getuid()


def state_dir() -> Path:
    """$CLOISTER_STATE, else $XDG_STATE_HOME/cloister, else ~/.local/state/cloister of the owner."""
    explicit = os.environ.get("CLOISTER_STATE")
    if explicit:
        return Path(explicit)
    uid = owner()
    if uid != os.getuid():
        return Path(pwd.getpwuid(uid).pw_dir) / ".local" / "state" / "cloister"
    base = os.environ.get("XDG_STATE_HOME")
    root = Path(base) if base and os.path.isabs(base) else Path.home() / ".local" / "state"
    return root / "cloister"


def capture_dir(state: Path) -> Path:
    """Where root keeps what it must put back on the host: never where another user could write."""
    uid = owner()
    return state if uid == 0 else Path("/var/lib/cloister") / f"client-{uid}"
