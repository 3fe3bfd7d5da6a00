"""Every `cloister` command that a page shows exists, with the options that the page shows. What pages run for real: tests/e2e/test_docs.py."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import typer

from cloister.cli.app import app

ROOT = Path(__file__).parents[3]
PAGES = [*sorted((ROOT / "docs").rglob("*.md")), *sorted(ROOT.glob("*.md"))]
SHOWN = re.compile(r"^\$ (?:\w+=\S+ |sudo |.*\| ?|env (?:-u )?\w+ )*(cloister .+?)(?:\s{2,}#.*)?$", re.MULTILINE)
STOP = {"|", "||", "&&", "&", ";", ">", "2>", "<", "2>&1"}


def shown_commands(text: str) -> list[list[str]]:
    """The arguments after `cloister` of each command line in `console` blocks, up to the first operator of the shell."""
    found = []
    for block in re.findall(r"```console\n(.*?)```", text, re.DOTALL):
        for line in SHOWN.findall(block):
            words = shlex.split(line, comments=True)[1:]
            end = next((at for at, word in enumerate(words) if word in STOP), len(words))
            found.append(words[:end])
    return found


def check(words: list[str]) -> None:
    """Parse without running. Raises typer's own error for what does not exist."""
    command: Any = typer.main.get_command(app)
    context = command.context_class(command)
    while hasattr(command, "commands"):
        name, command, words = command.resolve_command(context, words)
        context = command.context_class(command, info_name=name, parent=context)
    command.parse_args(context, words)


@pytest.mark.parametrize(
    "page", [page for page in PAGES if shown_commands(page.read_text())], ids=lambda page: str(page.relative_to(ROOT))
)
def test_commands_that_a_page_shows_exist(page: Path) -> None:
    for words in shown_commands(page.read_text()):
        check(words)


@pytest.mark.parametrize("words", [["fly"], ["exchange", "run", "--fast"], ["create", "keys"], ["forward"]])
def test_a_command_that_does_not_exist_is_noticed(words: list[str]) -> None:
    with pytest.raises(typer.TyperException):
        check(words)


def test_commands_are_found_behind_variables_pipes_and_sudo() -> None:
    text = "```console\n$ sudo cloister up\n$ echo x | cloister login a --user b > f\n$ A=1 cloister apps    # all\n```"
    assert shown_commands(text) == [["up"], ["login", "a", "--user", "b"], ["apps"]]
