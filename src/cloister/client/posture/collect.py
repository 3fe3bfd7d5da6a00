"""Collects facts, one group at a time. Runs in a thread: nothing here may be called on the loop."""

import glob
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime

from cloister import _core
from cloister.client.posture import parse, read
from cloister.client.posture.certificates import judge_certificate
from cloister.client.posture.parse import Block
from cloister.client.posture.types import Collected, Group, Unreadable
from cloister.model.posture import Asked

MAX_BLOCKS = 256
NFT_SECONDS = 5.0
GSETTINGS_SECONDS = 5.0
APT_SECONDS = 60.0
LISTS_DAYS = 7.0  # older lists of packages say nothing about what is missing
NO_DISKS = frozenset(
    {"overlay", "tmpfs", "ramfs", "rootfs", "squashfs", "nfs", "nfs4", "9p", "virtiofs", "zfs", "aufs", "fuse.fuse-overlayfs"}
)


class Collector:
    def __init__(self, owner: int) -> None:
        self._owner = owner
        self.commands = read.Commands()

    def collect(self, group: Group, asked: Asked) -> Collected:
        match group:
            case "watched":
                return self._watched(asked)
            case "plain":
                return self._plain()
            case "updates":
                return _each({"updates.security": self._updates})

    def stop(self) -> None:
        self.commands.stop()

    # ------------------------------------------------------------ what profiles name

    def _watched(self, asked: Asked) -> Collected:
        readers: dict[str, Callable[[], str]] = {}
        if asked.processes:
            try:
                running = read.process_names()
            except Unreadable as error:
                return Collected({}, dict.fromkeys(asked.processes, str(error)))
            readers |= {fact: _answer(_runs(name, running)) for fact, name in asked.processes.items()}
        for fact, path in asked.files.items():
            readers[fact] = lambda path=path: self._file(path)  # type: ignore[misc]  # mypy cannot infer a lambda's default
        for fact, check in asked.certificates.items():
            readers[fact] = lambda check=check: _certificate(check.path, check.ca)  # type: ignore[misc]
        return _each(readers)

    def _file(self, path: str) -> str:
        try:
            return read.hash_file(path, self.commands.stopping)
        except FileNotFoundError:
            return "absent"

    # ------------------------------------------------------------ the system

    def _plain(self) -> Collected:
        facts = {"os.platform": sys.platform, "client.version": _core.__version__}
        if sys.platform != "linux":
            return Collected(facts, {"os.name": f"this client knows no more of `{sys.platform}`"})
        system = _each(
            {
                "os.kernel": platform.release,
                "disk.encrypted": _disk,
                "firewall.enabled": self._firewall,
                "screenlock.enabled": self._screen_lock,
                "machine.virtual": _machine,
            }
        )
        try:
            release: Mapping[str, str] = parse.read_os_release(_first_text("/etc/os-release", "/usr/lib/os-release"))
        except Unreadable as error:
            return Collected(facts | dict(system.facts), {**system.unreadable, "os.name": str(error)})
        return Collected(facts | dict(release) | dict(system.facts), system.unreadable)

    def _firewall(self) -> str:
        if os.geteuid() != 0:
            raise Unreadable("only root may ask for the rules; start the client with `sudo cloister up`")
        return _truth(parse.firewall_is_on(self.commands.run("nft", "-j", "list", "ruleset", seconds=NFT_SECONDS)))

    def _screen_lock(self) -> str:
        session = {
            key: value
            for key in ("DBUS_SESSION_BUS_ADDRESS", "XDG_RUNTIME_DIR", "XDG_CURRENT_DESKTOP", "HOME")
            if (value := os.environ.get(key))
        }
        if "XDG_CURRENT_DESKTOP" not in session or os.geteuid() != self._owner:
            raise Unreadable("there is no desktop session to ask")
        arguments = ("get", "org.gnome.desktop.screensaver", "lock-enabled")
        return _truth(
            parse.screen_lock_is_on(self.commands.run("gsettings", *arguments, seconds=GSETTINGS_SECONDS, environment=session))
        )

    # ------------------------------------------------------------ security updates

    def _updates(self) -> str:
        try:
            age = time.time() - read.newest_change("/var/lib/apt/lists")
        except OSError:
            raise Unreadable("there are no package lists of apt") from None
        if age > LISTS_DAYS * 86400:
            raise Unreadable(f"the package lists are older than {LISTS_DAYS:.0f} days; run `apt-get update`")
        arguments = ("-s", "-q", "-o", "Debug::NoLocking=true", "upgrade")
        return str(parse.count_security_updates(self.commands.run("apt-get", *arguments, seconds=APT_SECONDS)))


def _each(readers: Mapping[str, Callable[[], str]]) -> Collected:
    facts: dict[str, str] = {}
    unreadable: dict[str, str] = {}
    for name, reader in readers.items():
        try:
            facts[name] = reader()
        except Unreadable as error:
            unreadable[name] = str(error)
        except (OSError, ValueError) as error:
            unreadable[name] = f"{type(error).__name__}"
    return Collected(facts, unreadable)


def _answer(value: str) -> Callable[[], str]:
    return lambda: value


def _runs(name: str, running: set[str]) -> str:
    return "running" if name in running else "absent"


def _truth(value: bool) -> str:  # noqa: FBT001 (it is the value itself)
    return "true" if value else "false"


def _certificate(path: str, ca: str) -> str:
    try:
        return judge_certificate(read.read_file(path), ca.encode(), datetime.now(UTC))
    except FileNotFoundError:
        return "absent"


def _first_text(*paths: str) -> str:
    for path in paths:
        try:
            return read.read_text(path)
        except FileNotFoundError:
            continue
    raise Unreadable("there is no os-release")


def _machine() -> str:
    container = read.read_text_if_any("/run/systemd/container")
    if not container and os.path.exists("/.dockerenv"):
        container = "docker"
    if not container and os.path.exists("/run/.containerenv"):
        container = "podman"
    names = ("sys_vendor", "product_name", "board_vendor")
    products = " ".join(read.read_text_if_any(f"/sys/class/dmi/id/{name}").strip() for name in names)
    return parse.virtual_kind(container, products, read.read_text_if_any("/proc/cpuinfo"))


def _disk() -> str:
    mount = parse.find_root_mount(read.read_text("/proc/self/mountinfo"))
    if mount.filesystem in NO_DISKS:
        raise Unreadable(f"the root file system is `{mount.filesystem}`, which lies on no disk of its own")
    device = _device_of(mount.device, mount.source)
    members = _members(device) if mount.filesystem == "btrfs" else [device]
    blocks: dict[str, Block] = {}
    waiting = list(members)
    while waiting:
        name = waiting.pop()
        if name in blocks:
            continue
        if len(blocks) >= MAX_BLOCKS:
            raise Unreadable("there are too many block devices")
        blocks[name] = _block(name)
        waiting.extend(blocks[name].below)
    return _truth(all(parse.is_encrypted(member, blocks) for member in members))


def _device_of(number: str, source: str) -> str:
    """The kernel's name of the block device, by its number or, where the file system has a number of its own (btrfs), by its source."""
    for path in (f"/sys/dev/block/{number}", f"/sys/class/block/{os.path.basename(os.path.realpath(source))}"):
        if os.path.isdir(path):
            return os.path.basename(os.path.realpath(path))
    raise Unreadable("the disk of the root file system is not to be seen from here")


def _members(device: str) -> list[str]:
    """The devices of the btrfs file system that this one belongs to."""
    for folder in glob.glob("/sys/fs/btrfs/*/devices"):
        names = os.listdir(folder)
        if device in names:
            return names
    return [device]


def _block(name: str) -> Block:
    folder = f"/sys/class/block/{name}"
    try:
        below = tuple(sorted(os.listdir(f"{folder}/slaves")))
    except OSError:
        below = ()
    return Block(read.read_text_if_any(f"{folder}/dm/uuid").strip(), below)
