"""Compare the analytic peak of memory with the simulated one over a grid, and write docs/memory.md.

    python -m tools.compare_memory            run what the record lacks, write record and page
    python -m tools.compare_memory --fresh    run every point again
    python -m tools.compare_memory --page     write the page from the record, in seconds

The simulated peaks are kept in data/measured/memory_simulated.json with the versions of the libraries that ran; the
analytic ones are computed anew whenever they are looked at. What is compared is what torch allocates: the matrix
library's workspaces, which fake tensors do not show, are left out of the estimate.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path
from typing import Any

from planner.adapter import adapt
from planner.adapter.whole import NOTHING_WHOLE, trained_whole
from planner.errors import PlannerError
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.moments import MemoryEstimate

from .memory_grid import Point, grid
from .memory_page import summary, worst, write_page
from .memory_rows import Compared, Row, write_rows

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "data" / "measured" / "memory_simulated.json"
LIBRARIES = ("torch", "transformers", "peft")


def analytic(point: Point) -> tuple[MemoryEstimate, int]:
    """The estimate of a point, and its peak without the workspaces; without the cache that transformers filled before
    4.50, which the code of today, that the simulation runs, does not."""
    _, arch = point.loaded
    spec = point.spec
    pairs = () if spec is None else adapt(arch, spec)
    whole = NOTHING_WHOLE if spec is None else trained_whole(arch, spec, pairs)
    setup = replace(point.setup, cache_held=False) if point.setup.cache_held is None else point.setup
    found = estimate_memory(arch, setup, pairs, whole)
    return found, found.allocated_bytes - WORKSPACES * WORKSPACE_BYTES


def simulated(point: Point, *, as_asked: bool = False, reserve: bool = False) -> Row:
    """The point's step on fake tensors; `as_asked`: refused where another kernel had to run than it names; `reserve`:
    with what the allocator reserves."""
    from planner.simulate.core import simulate_step
    from planner.simulate.report import moment_name

    config, arch = point.loaded
    try:
        result = simulate_step(config, point.spec, point.setup, arch=arch, reserve=reserve)
    except PlannerError as error:
        return Row(point, None, {}, {}, "", str(error).splitlines()[0])
    otherwise = [note for note in result.notes if "it ran" in note]
    if as_asked and otherwise:
        return Row(point, None, {}, {}, "", otherwise[0])
    return Row(
        point, result.peak.bytes, {phase: peak.bytes for phase, peak in result.moments.items()}, result.parts,
        moment_name(result.peak), "", result.reserved_bytes,
    )  # fmt: skip


def read() -> list[Row]:
    """The record's rows."""
    if not RECORD.exists():
        return []
    return [
        Row(
            Point(row["family"], row["model"], row["options"]), row.get("peak_bytes"), row.get("moments", {}),
            row.get("parts", {}), row.get("moment", ""), row.get("reason", ""),
            row.get("reserved_bytes"),
        )
        for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    ]  # fmt: skip


def header(command: str) -> dict[str, Any]:
    """What a record is, and of which versions."""
    return {
        "what": "peak memory of a training step on fake tensors (planner simulate), in bytes",
        "source": "our own simulation: the code of the libraries named here, run on the meta device",
        "command": command,
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {name: version(name).partition("+")[0] for name in LIBRARIES},
    }


def write(rows: Iterable[Row]) -> None:
    """Write the record, a row a line."""
    write_rows(RECORD, header("python -m tools.compare_memory"), (row.to_dict() for row in rows))


def compared(rows: Iterable[Row]) -> list[Compared]:
    """Every row that ran, beside its estimate."""
    return [Compared(row, *analytic(row.point)) for row in rows if row.simulated_bytes is not None]


def collect(points: Sequence[Point], known: Iterable[Row], tell: Callable[[str], None]) -> list[Row]:
    """The rows of all points, the known ones as they are; the record is written as it grows."""
    kept = {key(row.point): row for row in known}
    rows: list[Row] = []
    for number, point in enumerate(points):
        name = key(point)
        if name not in kept:
            started = time.monotonic()
            kept[name] = simulated(point, reserve=True)
            row = kept[name]
            size = f"{row.simulated_bytes / 2**30:.2f} GiB" if row.simulated_bytes else row.reason[:100]
            tell(
                f"{number + 1}/{len(points)} {point.model} {point.method}: {size}, {time.monotonic() - started:.1f} s"
            )
            if number % 10 == 9:
                write([*rows, kept[name]])
        rows.append(kept[name])
    write(rows)
    return rows


def key(point: Point) -> str:
    """A point in one line."""
    return json.dumps([point.model, point.options], sort_keys=True)


def chosen(word: str) -> list[Point]:
    """The points of models and families with this word in their name."""
    found = [p for p in grid() if word in p.model or word in p.family]
    if not found:
        raise SystemExit(f"--only: found {word!r}, expected a part of a model's or family's name")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, and print the worst."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--fresh", action="store_true", help="run every point again")
    parser.add_argument("--page", action="store_true", help="only write the page, from the record")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="print the N worst rows")
    parser.add_argument(
        "--only", default="", metavar="WORD", help="models and families with this word; writes nothing"
    )
    options = parser.parse_args(arguments)
    points = chosen(options.only)
    keys = {key(point) for point in points}
    rows = [row for row in read() if key(row.point) in keys]
    if options.only and not options.page:
        rows = [simulated(point, reserve=True) for point in points]
    elif not options.page:
        rows = collect(points, [] if options.fresh else rows, lambda line: print(line, file=sys.stderr))
    found = compared(rows)
    if not options.only:
        write_page(found, rows)
    print("\n".join((*worst(found, options.worst), summary(found))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
