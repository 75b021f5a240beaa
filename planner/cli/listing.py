"""How `models`, `gpus` and `datasets` print: a table for people that pipes well, JSON for programs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from ..errors import UnknownModelError, hint


def matching(
    items: Sequence[Any], wanted: str | None, names: Sequence[Sequence[str]], label: str
) -> list[Any]:
    """The items one of whose names contains `wanted`, any case; none is an error with the nearest names."""
    if not wanted:
        return list(items)
    found = [
        item for item, own in zip(items, names, strict=True) if any(wanted.lower() in n.lower() for n in own)
    ]
    if not found:
        every = [name for own in names for name in own]
        raise UnknownModelError(f"No {label} matches {wanted!r}.{hint(wanted, every)}")
    return found


def show_rows(columns: Sequence[str], rows: Sequence[Sequence[str]], left: int = 1) -> None:
    """Print rows; the first `left` columns to the left, the others, figures, to the right.

    A pipe gets whole lines whatever their length, so that grep and cut find everything.
    """
    console = Console(highlight=False)
    if not console.is_terminal:
        widest = sum(max(len(row[i]) for row in (columns, *rows)) + 2 for i in range(len(columns)))
        console = Console(highlight=False, width=max(widest, 40), soft_wrap=True)
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    console.print(table)
