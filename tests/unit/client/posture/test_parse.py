"""Facts from what real systems print."""

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cloister.client.posture import parse
from cloister.client.posture.parse import Block
from cloister.client.posture.types import Unreadable

UBUNTU = """PRETTY_NAME="Ubuntu 24.04.1 LTS"
NAME="Ubuntu"
VERSION_ID="24.04"
VERSION="24.04.1 LTS (Noble Numbat)"
ID=ubuntu
ID_LIKE=debian
"""
ARCH = "NAME='Arch Linux'\nID=arch\nBUILD_ID=rolling\n"


def test_os_release() -> None:
    assert parse.read_os_release(UBUNTU) == {"os.name": "ubuntu", "os.version": "24.04"}
    assert parse.read_os_release(ARCH) == {"os.name": "arch"}
    assert parse.read_os_release("ID='opensuse-leap'\nVERSION_ID=\"15\\.6\"\n") == {
        "os.name": "opensuse-leap",
        "os.version": "15.6",
    }
    with pytest.raises(Unreadable):
        parse.read_os_release("VERSION_ID=1\n")


MOUNTINFO = """22 28 0:20 / /sys rw,nosuid,nodev,noexec,relatime shared:7 - sysfs sysfs rw
28 1 253:1 / / rw,relatime shared:1 - ext4 /dev/mapper/vgubuntu-root rw,errors=remount-ro
33 28 0:28 / /run/lock rw,nosuid,nodev,noexec,relatime shared:6 - tmpfs tmpfs rw,size=5120k
"""


def test_root_mount() -> None:
    assert parse.find_root_mount(MOUNTINFO) == parse.Mount("253:1", "ext4", "/dev/mapper/vgubuntu-root")
    later = MOUNTINFO + "40 28 0:55 / / rw - overlay overlay rw\n"
    assert parse.find_root_mount(later).filesystem == "overlay"
    with pytest.raises(Unreadable):
        parse.find_root_mount("garbage\n\n - \n")


CRYPT = Block("CRYPT-LUKS2-0d6f7c-dm_crypt-0", ("nvme0n1p3",))


@pytest.mark.parametrize(
    ("blocks", "encrypted"),
    [
        ({"dm-1": Block("LVM-x", ("dm-0",)), "dm-0": CRYPT, "nvme0n1p3": Block()}, True),  # LVM on LUKS
        ({"dm-1": CRYPT, "nvme0n1p3": Block()}, True),
        ({"dm-1": Block()}, False),  # a bare partition
        ({"dm-1": Block("LVM-x", ("sda2",)), "sda2": Block()}, False),
        ({"dm-1": Block("LVM-x", ("dm-0", "sdb1")), "dm-0": CRYPT, "nvme0n1p3": Block(), "sdb1": Block()}, False),  # half of it
        ({"dm-1": Block("", ("md0",)), "md0": Block("", ("dm-2", "dm-3")), "dm-2": CRYPT, "dm-3": CRYPT}, True),
        ({"dm-1": Block("LVM-x", ("dm-2",)), "dm-2": Block("", ("dm-1",))}, False),  # a circle
        ({"dm-1": Block("xCRYPT-", ())}, False),
        ({}, False),
    ],
)
def test_disk_is_encrypted_only_if_all_below_is(blocks: dict[str, Block], encrypted: bool) -> None:
    assert parse.is_encrypted("dm-1", blocks) is encrypted


def _nft(*entries: dict[str, Any]) -> str:
    return json.dumps({"nftables": [{"metainfo": {"version": "1.0.9", "json_schema_version": 1}}, *entries]})


def _chain(policy: str | None = "accept", **more: Any) -> dict[str, Any]:
    chain = {
        "family": "inet",
        "table": "filter",
        "name": "input",
        "handle": 1,
        "type": "filter",
        "hook": "input",
        "prio": 0,
        **more,
    }
    return {"chain": chain | ({"policy": policy} if policy else {})}


def _rule(*expr: Any, **more: Any) -> dict[str, Any]:
    return {"rule": {"family": "inet", "table": "filter", "chain": "input", "handle": 5, "expr": list(expr), **more}}


MATCH = {"match": {"op": "==", "left": {"meta": {"key": "iifname"}}, "right": "lo"}}


@pytest.mark.parametrize(
    ("ruleset", "on"),
    [
        (_nft(), False),
        (_nft(_chain("drop")), True),
        (_nft(_chain("accept")), False),
        (_nft(_chain("drop", hook="forward")), False),
        (_nft(_chain("drop", type="nat")), False),
        (_nft(_chain(), _rule(MATCH, {"accept": None}), _rule({"counter": {}}, {"reject": None})), True),
        (_nft(_chain(), _rule({"drop": None}), _rule(MATCH, {"accept": None})), False),  # not the last one
        (_nft(_chain(), _rule(MATCH, {"drop": None})), False),
        (_nft(_chain(), _rule({"drop": None}, table="other")), False),
    ],
)
def test_firewall(ruleset: str, on: bool) -> None:
    assert parse.firewall_is_on(ruleset) is on


@pytest.mark.parametrize(
    "text", ["", "{}", "[]", '{"nftables": 1}', '{"nftables": null}', "[" * 100_000, '{"nftables": [{"chain": 1}]}x']
)
def test_case_87_garbage_of_nft_is_unreadable(text: str) -> None:
    with pytest.raises(Unreadable):
        parse.firewall_is_on(text)


_WORDS = st.sampled_from(["chain", "rule", "hook", "type", "expr", "drop"])
_LEAVES = st.none() | st.booleans() | st.integers() | st.text(max_size=5)


@given(st.recursive(_LEAVES, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(_WORDS, inner, max_size=3)))
def test_case_87_no_shape_breaks_the_firewall_parser(value: Any) -> None:
    with contextlib.suppress(Unreadable):
        parse.firewall_is_on(json.dumps({"nftables": value}))


def test_screen_lock() -> None:
    assert parse.screen_lock_is_on("true\n")
    assert not parse.screen_lock_is_on("false\n")
    with pytest.raises(Unreadable):
        parse.screen_lock_is_on("")


APT = """NOTE: This is only a simulation!
Reading package lists...
Building dependency tree...
The following packages will be upgraded:
  base-files libssl3 openssl
3 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.
Inst base-files [12.4+deb12u5] (12.4+deb12u8 Debian:12.8/stable [amd64])
Inst libssl3 [3.0.11-1~deb12u2] (3.0.15-1~deb12u1 Debian-Security:12/stable-security [amd64])
Inst openssl [3.0.2-0ubuntu1.15] (3.0.2-0ubuntu1.18 Ubuntu:22.04/jammy-updates, Ubuntu:22.04/jammy-security [amd64])
Inst fresh (1.0 Ubuntu:22.04/jammy-security [amd64])
Conf base-files (12.4+deb12u8 Debian:12.8/stable [amd64])
"""


def test_security_updates() -> None:
    assert parse.count_security_updates(APT) == 3
    nothing = "Reading package lists...\n0 upgraded, 0 newly installed, 0 to remove and 0 not upgraded.\n"
    assert parse.count_security_updates(nothing) == 0
    with pytest.raises(Unreadable):
        parse.count_security_updates("E: Could not open lock file\n")


@pytest.mark.parametrize(
    ("container", "products", "cpu", "kind"),
    [
        ("docker", "QEMU", "", "docker"),
        ("systemd-nspawn\n", "", "", "systemd-nspawn"),
        ("\x1b[31m", "", "", "container"),
        ("", "QEMU Standard PC (Q35 + ICH9, 2009)", "", "qemu"),
        ("", "VMware, Inc. VMware Virtual Platform", "", "vmware"),
        ("", "Microsoft Corporation Virtual Machine", "", "hyper-v"),
        ("", "Microsoft Corporation Surface Pro", "flags : fpu vme\n", "none"),
        ("", "LENOVO 20XW", "flags\t\t: fpu vme hypervisor\n", "vm"),
        ("", "LENOVO 20XW", "flags\t\t: fpu vme\n", "none"),
    ],
)
def test_virtual_machines(container: str, products: str, cpu: str, kind: str) -> None:
    assert parse.virtual_kind(container, products, cpu) == kind


def test_a_machine_that_says_nothing_of_itself_is_unreadable() -> None:
    with pytest.raises(Unreadable):
        parse.virtual_kind("", "", "")
