"""What `lora-plan validate` shows to people: claims, a progress bar, verdicts."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

from ..units import significant

COLOURS = {"confirmed": "green", "refuted": "red", "undecided": "yellow"}


def duration(seconds: float | None) -> str:
    """Seconds for people: 40 s, 3 min, 2.1 h."""
    if seconds is None:
        return "unknown"
    if seconds < 90:
        return f"{max(1, round(seconds))} s"
    return f"{round(seconds / 60)} min" if seconds < 5400 else f"{significant(seconds / 3600, 2)} h"


def show_list(entries: Sequence[dict[str, Any]]) -> None:
    """Claims with their expected durations."""
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="dim")
    for name, right in (("claim", False), ("runs", True), ("about", True), ("statement", False)):
        table.add_column(name, justify="right" if right else "left")
    for entry in entries:
        time = "at once" if not entry["runs"] else duration(entry["seconds"])
        table.add_row(entry["id"], str(entry["runs"]), time, Text(entry["statement"]))
    console = Console(highlight=False)
    console.print(table)
    console.print(
        "Durations are of one core now, as busy as it is; runs that claims share are run once.", style="dim"
    )


@contextmanager
def progress_bar() -> Iterator[Callable[[Any], None]]:
    """A bar on standard error: runs done, the run under way, time left as far as known."""
    columns = (
        BarColumn(20), MofNCompleteColumn(), TextColumn("{task.fields[left]}"), TextColumn("{task.description}"),
    )  # fmt: skip
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=1, left="")

        def show_progress(state: Any) -> None:
            part = state.step / max(1, state.steps)
            left = "" if state.left_s is None else f"{duration(state.left_s)} left"
            bar.update(
                task,
                completed=round(state.done + part, 2),
                total=state.total,
                description=state.label,
                left=left,
            )

        yield show_progress


def _figure(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.3g}" if abs(value) < 1e6 else f"{value:.4g}"


def show(report: dict[str, Any]) -> None:
    """Verdicts, one a claim, with the reason."""
    console = Console(highlight=False)
    for found in report["claims"]:
        verdict, measured = found["verdict"], found["measured"]
        head = Text(f"{found['id']:<4}")
        head.append(verdict, style=f"bold {COLOURS[verdict]}")
        head.append(f"  {found['statement']}")
        console.print(head, soft_wrap=True)
        exact = measured["low"] is None or measured["low"] == measured["high"]
        span = "" if exact else f" ({_figure(measured['low'])} to {_figure(measured['high'])})"
        figures = f"predicted {_figure(found['predicted'])}, measured {_figure(measured['value'])}{span}"
        console.print(Text(f"     {found['unit']}: {figures}"), soft_wrap=True)
        runs = f"; {len(found['runs'])} runs" if found["runs"] else ""
        console.print(Text(f"     {found['reason']}{runs}"), soft_wrap=True, style="dim")
    counts = ", ".join(f"{number} {status}" for status, number in report["runs"].items()) or "none"
    rest = "" if report["complete"] else "; the budget ended first: the same command goes on"
    console.print(
        Text(f"runs in {report['out']}: {counts}; {duration(report['seconds'])}{rest}"), style="dim"
    )
