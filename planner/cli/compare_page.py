"""The page that `compare` prints for people: a row for each figure, a column for each way."""

from __future__ import annotations

import textwrap
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import units
from ..comparing import Column, Comparison
from ..moments import PARTS, VLLM, MemoryPart
from .memory_words import fewest
from .plan_page import money

if TYPE_CHECKING:
    from ..speed import StepTime

GAP = 2  # characters between columns
BREAK = 12  # characters after which a moment's name goes on in the next line


def _optional(value: float | None, form: Callable[[float], str]) -> str:
    return "" if value is None else form(value)


def _fits(column: Column) -> Text:
    if column.memory_bytes is None:
        return Text("")
    fit, over = column.memory.fit(column.memory_bytes), column.memory.per_gpu_bytes - column.memory_bytes
    if over <= 0:
        return Text(str(fit), style="green" if fit == "yes" else "yellow")
    return Text(f"{fit}, over by\n{units.byte_size(over)}", style="red")


def _corrected(column: Column) -> str:
    """How measured peaks correct a column's memory."""
    found = column.memory.corrected
    return f"rest x {found.factor:.3g}" if found else ""


def _held(column: Column) -> str:
    """How often intervals like that of a column's memory hold sources that had no part in them."""
    within = column.memory.within
    return f"{within.held:.0%} of {within.judged}\nsources" if within else ""


def _fewest(column: Column) -> tuple[str, str]:
    return fewest(column.fewest.to_dict() if column.fewest else None)


def _part(part: MemoryPart) -> Callable[[Column], str | Text]:
    return lambda column: units.byte_size(column.memory.parts().get(part, 0))


def _rows(found: Comparison) -> list[tuple[str, Callable[[Column], str | Text]]]:
    several = any(column.run.setup.gpus > 1 for column in found.columns)
    rows: list[tuple[str, Callable[[Column], str | Text]]] = [
        *([("sharding", lambda c: str(c.run.setup.sharding))] if several else []),
        ("checkpointing", lambda c: str(c.run.setup.checkpointing).replace("-", "-\n")),
        ("trained", lambda c: units.count(c.run.params)),
        ("FLOPs a token", lambda c: _optional(c.flops_per_token, units.flops)),
        ("memory of a GPU", lambda c: units.byte_size(c.memory.per_gpu_bytes)),
        ("  from", lambda c: units.byte_size(c.memory.low)),
        ("  to", lambda c: units.byte_size(c.memory.high)),
    ]
    if any(column.memory.corrected for column in found.columns):
        rows += [("  measured peaks", _corrected), ("  it holds", _held)]
    rows += [
        (f"  {part}", _part(part))
        for part in (*PARTS, VLLM)
        if any(c.memory.parts().get(part) for c in found.columns)
    ]
    if any(column.host.node_bytes for column in found.columns):
        rows.append(("on the host, a machine", lambda c: units.byte_size(c.host.node_bytes)))
        if found.columns[0].host.memory_bytes is not None:
            rows.append(("fits there", lambda c: "yes" if c.host.fits else "no"))
    rows.append(("most at", lambda c: textwrap.fill(c.memory.peak.name, BREAK)))
    if any(column.memory_bytes for column in found.columns):
        rows.append(("fits", _fits))
        rows.append(("fewest GPUs", lambda c: _fewest(c)[0]))
        rows.append(("a sequence each", lambda c: _fewest(c)[1].replace(" ", "\n", 1)))
        rows += _step_rows()
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


def _step_rows() -> list[tuple[str, Callable[[Column], str | Text]]]:
    """A step with its interval, whose that is, and how often such intervals hold."""
    from ..speed.kinds import KIND_WORDS  # loaded where a GPU is named

    def shown(form: Callable[[StepTime], str]) -> Callable[[Column], str | Text]:
        return lambda c: form(c.time.step) if c.time else ""

    return [
        ("a step", shown(lambda step: units.duration(step.seconds))),
        ("  from", shown(lambda step: units.duration(step.low))),
        ("  to", shown(lambda step: units.duration(step.high))),
        ("  interval of", shown(lambda step: KIND_WORDS[step.grounds.kind])),
        ("  it holds", shown(lambda step: step.grounds.words.replace(" sources", "\nsources"))),
    ]


def _label(column: Column, alone: bool) -> str:
    """A column's head: its method and rank, under its model where there are several."""
    words = column.label.rsplit(" ", 2 if column.rank else 1)
    return " ".join(words[1:]) if alone else f"{words[0]}\n{' '.join(words[1:])}"


def _blocks(widths: list[int], room: int) -> Iterator[tuple[int, int]]:
    """Columns from and to of tables that `room` characters hold, as even as can be; at least one each."""
    fitting, taken = 0, 0
    for width in widths:
        taken += width + GAP
        fitting += taken <= room
    count = -(-len(widths) // max(1, fitting))
    size = -(-len(widths) // count)
    return ((start, min(start + size, len(widths))) for start in range(0, len(widths), size))


def _long(cell: str | Text) -> int:
    return max(map(len, str(cell).splitlines()), default=0)


def show(found: Comparison, console: Console | None = None) -> None:
    """Print the page: as many columns beside each other as the console has room for, the others below."""
    console = console or Console(highlight=False, soft_wrap=False)
    models = {column.run.model for column in found.columns}
    if len(models) == 1:
        console.print(Text(next(iter(models)), style="bold cyan"))
    rows = [(name, [figure(column) for column in found.columns]) for name, figure in _rows(found)]
    heads = [_label(column, len(models) == 1) for column in found.columns]
    widths = [
        max(_long(cell) for cell in (head, *cells))
        for head, *cells in zip(heads, *(cells for _, cells in rows), strict=True)
    ]
    names = max(len(name) for name, _ in rows) + GAP
    for start, end in _blocks([max(widths)] * len(widths), console.width - names + GAP):
        if start:
            console.print()
        table = Table(box=None, pad_edge=False, padding=(0, GAP, 0, 0), header_style="bold")
        table.add_column("")
        for head in heads[start:end]:
            table.add_column(head, justify="right", overflow="fold")
        for name, cells in rows:
            table.add_row(name, *cells[start:end])
        console.print(table)
    for notice in found.warnings:
        console.print(Text.assemble(("note  ", "yellow"), notice.message))
