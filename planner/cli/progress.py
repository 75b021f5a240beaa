"""A progress bar for data that are read, shared by the commands that read them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

QUIET_S = 1.0


class Bar:
    """A progress bar on standard error, from the first second on, where a person reads it."""

    def __init__(self, wanted: bool = True) -> None:
        self.wanted = wanted and sys.stderr.isatty()
        self.began = time.monotonic()
        self._bar: Any = None
        self._task: Any = None

    def __call__(self, done: int, total: int, rows: int) -> None:
        """Show how far the reading is."""
        if not self.wanted or time.monotonic() - self.began < QUIET_S:
            return
        if self._bar is None:
            from rich.console import Console
            from rich.progress import BarColumn, DownloadColumn, Progress, TextColumn, TimeRemainingColumn

            self._bar = Progress(
                TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn(),
                console=Console(stderr=True), transient=True,
            )  # fmt: skip
            self._task = self._bar.add_task("reading", total=total or None)
            self._bar.start()
        self._bar.update(self._task, completed=done, description=f"{rows:,} rows")

    def close(self) -> None:
        """Take the bar away."""
        if self._bar is not None:
            self._bar.stop()


@contextmanager
def reading(options: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The options of a call, with a bar where they name data to read; Ctrl-C while they are read is no traceback."""
    if options.get("data") is None:
        yield options
        return
    bar = Bar()
    try:
        yield {**options, "on_progress": bar}
    except KeyboardInterrupt:
        bar.close()
        click.echo("Interrupted.", err=True)
        sys.exit(130)
    finally:
        bar.close()
