"""From the text of files and commands to facts. Pure: every function takes what was read and returns a value, or raises `Unreadable`."""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from cloister.client.posture.types import Unreadable

# ------------------------------------------------------------------ operating system

_ASSIGNMENT = re.compile(r"""^([A-Z_]+)=(?:"((?:[^"\\]|\\.)*)"|'([^']*)'|([^\s"']*))\s*$""", re.MULTILINE)


def read_os_release(text: str) -> Mapping[str, str]:
    """`os.name` and `os.version` of os-release(5): ID and VERSION_ID. A rolling distribution has no version."""
    fields: dict[str, str] = {}
    for key, double, single, bare in _ASSIGNMENT.findall(text):
        fields[key] = re.sub(r"\\(.)", r"\1", double) if double else single or bare
    if not fields.get("ID"):
        raise Unreadable("os-release has no ID")
    found = {"os.name": fields["ID"]}
    if fields.get("VERSION_ID"):
        found["os.version"] = fields["VERSION_ID"]
    return found


# ------------------------------------------------------------------ disk encryption


@dataclass(frozen=True, slots=True)
class Mount:
    device: str  # `major:minor`
    filesystem: str
    source: str


def find_root_mount(mountinfo: str) -> Mount:
    """The mount at `/` of proc_pid_mountinfo(5); the last one is what is seen."""
    found = None
    for line in mountinfo.splitlines():
        before, separator, after = line.partition(" - ")
        fields, rest = before.split(" "), after.split(" ")
        if separator and len(fields) >= 6 and len(rest) >= 2 and fields[4] == "/":
            found = Mount(fields[2], rest[0], rest[1])
    if found is None:
        raise Unreadable("no root file system is listed")
    return found


@dataclass(frozen=True, slots=True)
class Block:
    """One block device: its device-mapper uuid if it has one, and the devices below it."""

    uuid: str = ""
    below: tuple[str, ...] = ()


def is_encrypted(device: str, blocks: Mapping[str, Block]) -> bool:
    """Whether everything that is written to `device` passes through dm-crypt: it is such a mapping itself, or all of what lies below it is."""
    seen: set[str] = set()

    def covered(name: str) -> bool:
        if name in seen or name not in blocks:
            return False
        seen.add(name)
        block = blocks[name]
        covers = block.uuid.startswith("CRYPT-") or (bool(block.below) and all(covered(below) for below in block.below))
        seen.discard(name)
        return covers

    return covered(device)


# ------------------------------------------------------------------ firewall


def firewall_is_on(ruleset: str) -> bool:
    """`nft -j list ruleset` (libnftables-json(5)): some chain at the input hook drops or rejects what no rule accepts."""
    try:
        entries = json.loads(ruleset)["nftables"]
        chains = [entry["chain"] for entry in entries if "chain" in entry]
        rules = [entry["rule"] for entry in entries if "rule" in entry]
    except (ValueError, KeyError, TypeError, RecursionError):
        raise Unreadable("the list of nft cannot be read") from None
    for chain in chains:
        if not isinstance(chain, dict) or (chain.get("hook"), chain.get("type")) != ("input", "filter"):
            continue
        if chain.get("policy") == "drop" or _ends_refusing(chain, rules):
            return True
    return False


def _ends_refusing(chain: dict[str, Any], rules: list[Any]) -> bool:
    """The last rule of the chain refuses whatever reaches it."""
    key = (chain.get("family"), chain.get("table"), chain.get("name"))
    own = [rule for rule in rules if isinstance(rule, dict) and (rule.get("family"), rule.get("table"), rule.get("chain")) == key]
    statements = own[-1].get("expr", []) if own else []
    if not isinstance(statements, list) or any(not isinstance(statement, dict) or "match" in statement for statement in statements):
        return False
    return any("drop" in statement or "reject" in statement for statement in statements)


# ------------------------------------------------------------------ screen lock


def screen_lock_is_on(text: str) -> bool:
    """The answer of `gsettings get org.gnome.desktop.screensaver lock-enabled`."""
    match text.strip():
        case "true":
            return True
        case "false":
            return False
        case _:
            raise Unreadable("gsettings has no answer")


# ------------------------------------------------------------------ security updates

_INSTALL = re.compile(r"^Inst \S+ (?:\[[^\]]*\] )?\((\S+) ([^)]*)\)", re.MULTILINE)


def count_security_updates(text: str) -> int:
    """`apt-get -s upgrade`: packages that would be installed out of a security archive."""
    if "\nConf " not in text and "Inst " not in text and "upgraded," not in text:
        raise Unreadable("apt-get has no answer")
    return sum("security" in archive.lower() for _, archive in _INSTALL.findall(text))


# ------------------------------------------------------------------ machine

_PRODUCTS = {
    "kvm": "kvm",
    "qemu": "qemu",
    "vmware": "vmware",
    "virtualbox": "virtualbox",
    "innotek": "virtualbox",
    "xen": "xen",
    "microsoft corporation virtual machine": "hyper-v",
    "amazon ec2": "amazon-ec2",
    "google compute engine": "google-compute-engine",
    "parallels": "parallels",
    "bochs": "bochs",
}


def virtual_kind(container: str, products: str, cpu: str) -> str:
    """`none`, the kind of container, or the kind of virtual machine, as far as the system gives itself away. `container` is what systemd or a file of
    the container's engine says, `products` what DMI says of vendor and product, `cpu` is /proc/cpuinfo.
    """
    if container.strip():
        kind = container.strip().split()[0].lower()
        return kind if re.fullmatch(r"[a-z0-9-]{1,32}", kind) else "container"
    told = " ".join(products.lower().split())
    for word, kind in _PRODUCTS.items():
        if word in told:
            return kind
    flags = re.search(r"^flags\s*:(.*)$", cpu, re.MULTILINE)
    if flags is None and not told:
        raise Unreadable("neither DMI nor the processor says what this machine is")
    return "vm" if flags is not None and "hypervisor" in flags.group(1).split() else "none"
