"""Attack case 30: nothing secret is shipped. The image's own file system is looked at by `make image`, with the same code."""

import importlib.util
import subprocess
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[3]
OTHERS = ("tests/data/x509-limbo/", "tests/data/wycheproof/")  # other people's test vectors, keys published with them


@pytest.fixture(scope="module")
def secrets() -> ModuleType:
    spec = importlib.util.spec_from_file_location("tools_secrets", ROOT / "tools" / "secrets.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_case_30_no_key_material_in_the_repository(secrets: ModuleType) -> None:
    listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout.decode()
    names = [name for name in listed.split("\0") if name and not name.startswith(OTHERS)]
    assert len(names) > 100
    assert list(secrets.find(ROOT / name for name in names)) == []


def test_case_30_control_what_is_planted_is_found(secrets: ModuleType, tmp_path: Path) -> None:
    (tmp_path / "etc").mkdir()
    planted = {
        "opt/core.so": "-----BEGIN EC PRIVATE " + "KEY-----\n" + "A" * 40,
        "key.pem": "-----BEGIN EC PRIVATE " + "KEY-----\n" + "A" * 40,
        "join": "cloister-key-" + "1." + "x" * 32,
        "token": ".".join(("eyJ" + "a" * 20, "eyJ" + "b" * 20, "c" * 43)),
        "users": "$" + "argon2id$v=19$m=65536,t=3,p=4$" + "d" * 22 + "$" + "e" * 43,
        "crypt": "$" + "6$" + "d" * 16 + "$" + "e" * 86,
        "yescrypt": "$" + "y$j9T$" + "d" * 22 + "$" + "e" * 43,
        "etc/shadow": "root:*:1:0:99999:7:::\nadmin::1:0:99999:7:::\n",
        "etc/machine-id": "0" * 32 + "\n",
    }
    (tmp_path / "opt").mkdir()
    for name, text in planted.items():
        (tmp_path / name).write_text(text)
    found = "\n".join(secrets.of_root(tmp_path))
    assert [name for name in planted if str(tmp_path / name) not in found] == []
    assert "`root`" not in found


def test_case_30_a_program_is_not_taken_for_a_password_hash(secrets: ModuleType, tmp_path: Path) -> None:
    """Bytes of a table, as in libraries of character sets, and the example in a package's description."""
    (tmp_path / "usr" / "bin").mkdir(parents=True)
    (tmp_path / "usr" / "bin" / "table").write_bytes(b"\0$1$" + bytes(range(128, 200)) + b"$5$\xf0\xf1" + b"a" * 40)
    (tmp_path / "METADATA").write_text("hash: $" + "argon2id$v=19$m=65536,t=3,p=4$" + "d" * 22 + "$" + "e" * 43)
    assert list(secrets.of_root(tmp_path)) == []


def test_case_30_no_account_and_no_password_in_what_is_deployed() -> None:
    """Whoever installs makes the secrets: the files that install name none."""
    for path in (ROOT / "deploy").rglob("*"):
        if path.is_file():
            text = path.read_text().lower()
            assert [word for word in ("password=", "passwd=", "secret=", "token=") if word in text] == [], path
