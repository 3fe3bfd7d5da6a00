"""The face of the core: the stub says exactly what the extension has, and codes are the same on both sides."""

import ast
import inspect
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from cloister import _core, _stale
from cloister.model.reasons import Code

ROOT = Path(__file__).parents[3]
STUB = ROOT / "src" / "cloister" / "_core.pyi"


def stub_names(body: list[ast.stmt]) -> dict[str, ast.stmt]:
    names: dict[str, ast.stmt] = {}
    for node in body:
        match node:
            case ast.ClassDef(name=name) | ast.FunctionDef(name=name):
                names[name] = node
            case ast.AnnAssign(target=ast.Name(id=name)):
                names[name] = node
            case _:
                pass
    return names


def public(names: dict[str, object] | list[str]) -> set[str]:
    return {name for name in names if not name.startswith("_")}


def test_the_stub_names_what_the_module_has() -> None:
    stub = stub_names(ast.parse(STUB.read_text()).body)
    aliases = {
        name for name, node in stub.items() if isinstance(node, ast.AnnAssign) and ast.unparse(node.annotation) == "TypeAlias"
    }
    assert public(list(stub)) - aliases == public(dir(_core)) - aliases  # an alias says of what form an argument is
    for name, node in stub.items():
        if not isinstance(node, ast.ClassDef) or issubclass(getattr(_core, name), Exception):
            continue
        members = stub_names(node.body)
        actual = getattr(_core, name)
        assert public(list(members)) == public(dir(actual)), name
        fields = [field for field, member in members.items() if isinstance(member, ast.AnnAssign)]
        if hasattr(actual, "__match_args__"):
            assert list(actual.__match_args__) == fields, name


def test_parameters_are_those_of_the_stub() -> None:
    checked = 0
    for name, node in stub_names(ast.parse(STUB.read_text()).body).items():
        functions = {name: node} if isinstance(node, ast.FunctionDef) else {}
        if isinstance(node, ast.ClassDef):
            functions = {f"{name}.{n}": f for n, f in stub_names(node.body).items() if isinstance(f, ast.FunctionDef)}
        for path, function in functions.items():
            assert isinstance(function, ast.FunctionDef)
            actual: object = _core
            for part in path.removesuffix(".__new__").split("."):
                actual = getattr(actual, part)
            signature = inspect.signature(actual)  # type: ignore[arg-type]
            expected = [*(a.arg for a in function.args.args), *(a.arg for a in function.args.kwonlyargs)]
            actual_names = [parameter for parameter in signature.parameters if parameter != "self"]
            assert actual_names == [name for name in expected if name not in ("self", "cls")], path
            keyword_only = {n for n, p in signature.parameters.items() if p.kind is inspect.Parameter.KEYWORD_ONLY}
            assert keyword_only == {a.arg for a in function.args.kwonlyargs}, path
            checked += 1
    assert checked > 40


def test_reason_codes_of_the_core_are_those_of_python() -> None:
    """The core knows whatever can end or refuse a flow; codes of sign-in, tokens and documents that it never sees live in Python alone."""
    rust = (ROOT / "crates" / "core" / "src" / "code.rs").read_text()
    listed = re.findall(r'^    \w+ = "(\w+)",$', rust, re.MULTILINE)
    assert len(listed) == len(set(listed))
    codes = [code.value for code in Code]
    assert set(listed) <= set(codes)
    of_flows = codes[: codes.index(Code.PEER_SILENT)]
    assert set(of_flows) <= set(listed)


def test_errors_carry_their_code() -> None:
    with pytest.raises(_core.CoreError) as refused:
        _core.Core().set_proxy("ftp://secret@host")
    assert isinstance(refused.value, ValueError)
    assert refused.value.code == "argument_invalid"
    assert "secret" not in str(refused.value)


def test_events_cannot_be_changed() -> None:
    core = _core.Core()
    core.dial_link("127.0.0.1:1", role="client")
    while not (events := core.take_events()):
        pass
    event = events[0]
    assert isinstance(event, _core.LinkDown)
    assert isinstance(event, _core.Event)
    assert repr(event).startswith("LinkDown(link=1, reason='argument_invalid', ")
    with pytest.raises(AttributeError):
        event.link = 2
    core.shutdown()


def test_the_build_stamp_is_that_of_the_sources() -> None:
    assert _stale.source_digest(ROOT) == _core.SOURCE_DIGEST


def test_other_sources_are_noticed_and_no_sources_are_fine(tmp_path: Path) -> None:
    _stale.check(_core.SOURCE_DIGEST, tmp_path)
    (tmp_path / "crates" / "python").mkdir(parents=True)
    (tmp_path / "Cargo.lock").write_text("")
    (tmp_path / "crates" / "python" / "build.rs").write_text("fn main() {}")
    digest = _stale.source_digest(tmp_path)
    assert digest is not None
    _stale.check(digest, tmp_path)
    (tmp_path / "crates" / "python" / "build.rs").write_text("fn main() { }")
    with pytest.raises(ImportError, match="run `make build`"):
        _stale.check(digest, tmp_path)


def test_stale_extension_refuses_its_own_import(tmp_path: Path) -> None:
    package = tmp_path / "src" / "cloister"
    package.mkdir(parents=True)
    assert _core.__file__ is not None
    for file in (Path(_stale.__file__), Path(_core.__file__)):
        shutil.copy(file, package)
    (package / "__init__.py").touch()
    command = [sys.executable, "-c", "import cloister._core"]
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "src")}
    assert subprocess.run(command, cwd=tmp_path, env=environment, check=False).returncode == 0
    (tmp_path / "crates" / "python").mkdir(parents=True)
    (tmp_path / "Cargo.lock").touch()
    (tmp_path / "crates" / "python" / "build.rs").touch()
    refused = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, check=False)
    assert "run `make build`" in refused.stderr
