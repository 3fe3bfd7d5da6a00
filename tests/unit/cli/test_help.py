"""The help texts are golden files: BLESS=1 writes them anew."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from typer.main import get_command

from cloister.cli.app import app

GOLDEN = Path(__file__).parent / "golden"


def _commands() -> Iterator[tuple[str, ...]]:
    def walk(command: object, path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
        yield path
        for name, child in sorted(getattr(command, "commands", {}).items()):
            yield from walk(child, (*path, name))

    yield from walk(get_command(app), ())


def _help(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> str:
    monkeypatch.setenv("COLUMNS", "110")
    monkeypatch.setenv("TERMINAL_WIDTH", "110")
    app([*path, "--help"], prog_name="cloister", standalone_mode=False)
    return capsys.readouterr().out


@pytest.mark.parametrize("path", list(_commands()), ids=lambda path: " ".join(path) or "cloister")
def test_help_is_as_blessed(path: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    text = _help(path, monkeypatch, capsys)
    file = GOLDEN / f"{'-'.join(path) or 'cloister'}.txt"
    if os.environ.get("BLESS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


def test_no_golden_file_is_left_over() -> None:
    assert {file.stem for file in GOLDEN.iterdir()} == {"-".join(path) or "cloister" for path in _commands()}


@pytest.mark.parametrize("path", list(_commands()), ids=lambda path: " ".join(path) or "cloister")
def test_no_option_takes_a_secret(path: tuple[str, ...]) -> None:
    """What stands on a command line, every user of the machine can read."""
    command = get_command(app)
    for name in path:
        command = command.commands[name]  # type: ignore[attr-defined]
    for parameter in command.params:
        for word in ("password", "secret", "token", "key"):
            if word in (parameter.name or ""):
                assert parameter.name in {"password_stdin", "no_password", "key_file", "web_key", "token_file", "token_env"}, (
                    parameter.name
                )
