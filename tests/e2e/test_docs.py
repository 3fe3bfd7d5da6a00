"""The commands in the pages for users do what the pages say.

A `console` block after `<!-- run -->` is typed into the page's shell: lines after `$ ` are commands, the others what they print, with
`…` for anything. `<!-- run: COMMAND -->` is typed and not shown; `<!-- file: NAME -->` writes the block that follows.
"""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from netlab import permitted

ROOT = Path(__file__).parents[2]
PAGES = sorted(path for path in (ROOT / "docs").rglob("*.md") if "<!-- run" in path.read_text())
STEP = re.compile(
    r"<!-- run: (?P<hidden>.+?) -->|<!-- file: (?P<file>\S+) -->\s*```\w*\n(?P<content>.*?)```|<!-- run -->\s*```console\n(?P<shown>.*?)```",
    re.DOTALL,
)
END = "--- the command has ended ---"
PATIENCE = 60


@dataclass
class Typed:
    command: str
    printed: str | None  # None: not looked at


def read_steps(text: str) -> Iterator[Typed]:
    for step in STEP.finditer(text):
        if step["hidden"]:
            yield Typed(step["hidden"], None)
        elif step["file"]:
            yield Typed(f"cat > {step['file']} <<'END-OF-FILE'\n{step['content']}END-OF-FILE", None)
        else:
            for part in re.split(r"^\$ ", step["shown"], flags=re.MULTILINE)[1:]:
                command, _, printed = part.partition("\n")
                yield Typed(command, printed if printed.strip() else None)


def fits(expected: str, printed: str) -> bool:
    pattern = ".*".join(re.escape(piece) for piece in expected.strip().split("…"))
    return re.fullmatch(pattern, printed.strip(), re.DOTALL) is not None


class Shell:
    """One bash in a network and a mount namespace of its own, so that a page may use any port and write to /etc/hosts."""

    def __init__(self, directory: Path) -> None:
        hosts = directory / ".hosts"
        shutil.copy("/etc/hosts", hosts)
        prepare = f"ip link set lo up && mount --bind {hosts} /etc/hosts && exec bash --norc --noprofile"
        home = directory / ".home"
        home.mkdir()
        environment = {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "HOME": str(home),
            "PYTHONUNBUFFERED": "1",
            "LANG": "C.UTF-8",
        }
        self._bash = subprocess.Popen(
            ["unshare", "--net", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "bash", "-c", prepare],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            cwd=directory,
            env=environment,
        )

    def type(self, command: str) -> str:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.write(f"{command}\necho; echo '{END}'\n")
        self._bash.stdin.flush()
        printed = ""
        for line in self._bash.stdout:
            if line.strip() == END:
                return printed
            printed += line
        raise AssertionError(f"the shell ended in `{command}`:\n{printed}")

    def close(self) -> None:
        assert self._bash.stdin is not None
        assert self._bash.stdout is not None
        self._bash.stdin.close()
        try:
            self._bash.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self._bash.kill()
            self._bash.wait()
        self._bash.stdout.close()


@pytest.mark.skipif(permitted() is not None, reason=permitted() or "")
@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_of_the_page_print_what_it_says(page: Path, tmp_path: Path) -> None:
    shell = Shell(tmp_path)
    try:
        for step in read_steps(page.read_text()):
            command = (
                f"timeout {PATIENCE} bash -c '{step.command}'"
                if step.printed is None and step.command.startswith("until")
                else step.command
            )
            printed = shell.type(command)
            logs = "".join(f"---- {log.name}\n{log.read_text()[-1500:]}" for log in sorted(tmp_path.glob("*.log")))
            assert step.printed is None or fits(step.printed, printed), f"$ {step.command}\n{printed}\n{logs}"
    finally:
        shell.close()


def test_every_console_block_for_users_is_run() -> None:
    for page in PAGES:
        text = page.read_text()
        assert text.count("```console") == len(re.findall(r"<!-- run -->\s*```console", text)), page


def test_a_page_that_says_something_else_is_noticed() -> None:
    assert fits("hello …\nworld", "hello you\nworld\n")
    assert not fits("hello …\nworld", "hello you\n")
    assert [step.command for step in read_steps("<!-- run -->\n```console\n$ a\nx\n$ b &\n```\n<!-- run: c -->")] == [
        "a",
        "b &",
        "c",
    ]


def test_links_between_pages_lead_somewhere() -> None:
    for page in [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")]:
        for target in re.findall(r"\]\(([^)#\s]+)(?:#[^)]*)?\)", page.read_text()):
            assert "://" in target or (page.parent / target).exists(), f"{page.relative_to(ROOT)} links to `{target}`"
