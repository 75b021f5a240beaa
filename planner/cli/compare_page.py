"""The page that `compare` prints for people: a row for each figure, a column for each way."""

from __future__ import annotations

from collections.abc import Callable

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import units
from ..comparing import Column, Comparison
from ..moments import PARTS, MemoryPart
from .estimate_page import fewest
from .plan_page import money


def _optional(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None else form(value)


def _fits(column: Column) -> Text:
    if column.memory_bytes is None:
        return Text("")
    over = column.memory.per_gpu_bytes - column.memory_bytes
    if over <= 0:
        return Text("yes", style="green")
    return Text(f"no, {units.byte_size(over)} over", style="red")


def _part(part: MemoryPart) -> Callable[[Column], str | Text]:
    return lambda column: units.byte_size(column.memory.parts()[part])


def _rows(found: Comparison) -> list[tuple[str, Callable[[Column], str | Text]]]:
    rows: list[tuple[str, Callable[[Column], str | Text]]] = [
        ("trained", lambda c: units.count(c.run.params)),
        ("FLOPs a token", lambda c: _optional(c.flops_per_token, units.flops)),
        ("memory of a GPU", lambda c: units.byte_size(c.memory.per_gpu_bytes)),
        ("  from", lambda c: units.byte_size(c.memory.low)),
        ("  to", lambda c: units.byte_size(c.memory.high)),
    ]
    rows += [
        (f"  {part}", _part(part)) for part in PARTS if any(c.memory.parts()[part] for c in found.columns)
    ]
    rows.append(("most at", lambda c: c.memory.peak.name))
    if any(column.memory_bytes for column in found.columns):
        rows.append(("fits", _fits))
        rows.append(
            ("fewest GPUs, a sequence each", lambda c: fewest(c.fewest.to_dict() if c.fewest else None))
        )
        rows.append(("a step", lambda c: _optional(c.time.step.seconds if c.time else None, units.duration)))
        rows.append(
            ("tokens/s", lambda c: _optional(c.time.step.tokens_per_s if c.time else None, "{:,.0f}".format))
        )
    if found.data:
        rows.append(("the run", lambda c: _optional(c.time.seconds if c.time else None, units.duration)))
        rows.append(("cost", lambda c: money(c.cost.usd) if c.cost else ""))
        rows.append(
            ("expected regret", lambda c: _optional(c.regret.value if c.regret else None, units.percent))
        )
    return rows


def show(found: Comparison, console: Console | None = None) -> None:
    """Print the page."""
    console = console or Console(highlight=False, soft_wrap=False)
    models = {column.run.model for column in found.columns}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    table.add_column("" if len(models) > 1 else Text(next(iter(models)), style="bold cyan"))
    for column in found.columns:
        label = column.label if len(models) > 1 else column.label.rsplit(" ", 2 if column.rank else 1)
        shown = label if isinstance(label, str) else " ".join(label[1:])
        table.add_column(shown, justify="right", overflow="fold")
    for name, figure in _rows(found):
        table.add_row(name, *(figure(column) for column in found.columns))
    console.print(table)
    for notice in found.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
