"""How `models`, `gpus` and `datasets` print: a table for people that pipes well, JSON for programs."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

import click

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
    if not sys.stdout.isatty() and "FORCE_COLOR" not in os.environ:
        widths = [max(len(row[i]) for row in (columns, *rows)) for i in range(len(columns))]
        for row in (columns, *rows):
            cells = (
                cell.ljust(width) if number < left else cell.rjust(width)
                for number, (cell, width) in enumerate(zip(row, widths, strict=True))
            )
            click.echo("  ".join(cells))
        return
    from rich.console import Console  # with a table, most of what a list takes: for terminals alone
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for number, name in enumerate(columns):
        table.add_column(name, justify="left" if number < left else "right", overflow="fold")
    for row in rows:
        table.add_row(*(Text(cell) for cell in row))
    Console(highlight=False).print(table)
