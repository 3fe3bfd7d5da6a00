"""The systemd units, read by systemd itself."""

import shutil
import subprocess
from pathlib import Path

import pytest

UNITS = sorted((Path(__file__).parents[3] / "deploy" / "systemd").glob("*.service"))
pytestmark = pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="no systemd here")


def _verify(unit: Path) -> str:
    """What systemd has to say against it; it only warns of keys that it does not know."""
    result = subprocess.run(
        ["systemd-analyze", "verify", "--man=no", str(unit)], capture_output=True, text=True, timeout=30, check=False
    )
    return result.stdout + result.stderr + (f"exit {result.returncode}" if result.returncode else "")


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_systemd_finds_no_fault(unit: Path) -> None:
    assert _verify(unit) == ""


def test_systemd_would_find_one(tmp_path: Path) -> None:
    broken = tmp_path / "broken.service"
    broken.write_text(UNITS[0].read_text().replace("ProtectSystem=strict", "ProtectSystm=strict"))
    assert "ProtectSystm" in _verify(broken)


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: str(unit.stem))
def test_unit_is_confined(unit: Path) -> None:
    text = unit.read_text()
    wanted = (
        "DynamicUser=yes",
        "NoNewPrivileges=yes",
        "ProtectSystem=strict",
        "PrivateTmp=yes",
        "SystemCallFilter=@system-service",
    )
    assert [setting for setting in wanted if setting not in text] == []
