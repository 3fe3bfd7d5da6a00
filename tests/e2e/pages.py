"""The pages about identity providers, for the tests that type what they say against real parts."""

import re
import textwrap
from pathlib import Path

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"^( *)```(\w+)[^\n]*\n(.*?)^\1```", re.DOTALL | re.MULTILINE)
INLINE = re.compile(r"`(cloister [^`]+)`")


class Guide:
    """One page. Every command on it has to be taken before `is_done`: a command that is added and not run is noticed."""

    def __init__(self, name: str) -> None:
        text = (ROOT / "docs" / "identity" / name).read_text()
        self.blocks = [(kind, textwrap.dedent(content)) for _, kind, content in BLOCK.findall(text)]
        typed = [line for kind, content in self.blocks if kind in ("sh", "console") for line in content.splitlines()]
        self.left = [line.removeprefix("$ ") for line in typed if line.strip()] + INLINE.findall(BLOCK.sub("", text))

    def document(self, number: int = 0, **places: str) -> str:
        """A YAML block of the page, with the names of its example put in place by this world's own."""
        text = [content for kind, content in self.blocks if kind == "yaml"][number]
        for place, own in places.items():
            line = re.compile(rf"^{place}: .*$", re.MULTILINE)
            assert line.search(text), f"the page's document has no line `{place}:`"
            text = line.sub(lambda _, own=own: own, text)  # type: ignore[misc]
        return text

    def take(self, command: str, target: str) -> list[str]:
        """The arguments of a command on the page, `HOST` or the example's login line put in place by this exchange's."""
        assert command in self.left, f"the page does not say `{command}`, or says it once only; it says {self.left}"
        self.left.remove(command)
        words = [target if word == "HOST" or word.startswith("exchange.example.org") else word for word in command.split()]
        assert words[0] == "cloister"
        return words[1:]

    def is_done(self) -> bool:
        assert self.left == []
        return True
