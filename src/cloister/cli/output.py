"""How answers look: JSON for programs, tables for people."""

import json
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text


def print_json(value: object) -> None:
    print(json.dumps(value, indent=2, ensure_ascii=False))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]], *, empty: str) -> None:
    """A plain table; `empty` is the sentence for no rows. Cells are data: no markup of theirs is interpreted."""
    if not rows:
        print(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold", show_edge=False)
    for column in columns:
        table.add_column(column.upper(), overflow="fold")
    for row in rows:
        table.add_row(*(Text(clean(cell)) for cell in row))
    console = Console(highlight=False, soft_wrap=False)
    if not console.is_terminal:
        console = Console(highlight=False, width=max(console.width, 200))  # piped: no wrapping in the middle of a name
    console.print(table)


def clean(value: object) -> str:
    """A cell's text without control characters (names come from elsewhere)."""
    match value:
        case None:
            text = ""
        case bool():
            text = "yes" if value else "no"
        case list() | tuple():
            text = ", ".join(clean(item) for item in value)
        case dict():
            text = "; ".join(f"{key}: {clean(item)}" for key, item in value.items())
        case _:
            text = str(value)
    return "".join(character if character.isprintable() else "?" for character in text)


def rows_of(items: Sequence[dict[str, Any]], columns: Sequence[str]) -> list[list[object]]:
    return [[item.get(column) for column in columns] for item in items]
