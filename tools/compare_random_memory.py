"""Compare the analytic peak of memory with the simulated one on random points, a seed at a time.

    python -m tools.compare_random_memory SEED --points N    run what the record lacks of a seed
    python -m tools.compare_random_memory SEED --worst 20    the largest errors, by today's equations
    python -m tools.compare_random_memory SEED --flops       count FLOPs of what the record has none of
    python -m tools.compare_random_memory SEED --again       simulate a seed's points again
    python -m tools.compare_random_memory SEED --page        write the section of docs/memory.md from the record

The record (data/measured/memory_random.json) keeps of each point the error when it was first run, before anyone had
looked at it.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

from planner.errors import PlannerError

from .compare_memory import ROOT, analytic, header, simulated
from .memory_grid import Point
from .memory_page import summary, worst
from .memory_random import random_points, refusal
from .memory_random_page import today, write_page
from .memory_rows import Compared, Drawn, Row, write_rows
from .random_flops import analytic_flops, far, of_flops, simulated_flops

RECORD = ROOT / "data" / "measured" / "memory_random.json"


def read(path: Path = RECORD) -> list[Drawn]:
    """The record."""
    if not path.exists():
        return []
    return [
        Drawn(
            row["seed"],
            Row(
                Point(row["family"], row["model"], row["options"], row["changes"]), row.get("peak_bytes"),
                row.get("moments", {}), row.get("parts", {}), row.get("moment", ""), row.get("reason", ""),
            ),
            row["first"], row.get("flops"), row.get("first_flops"), row.get("stale", False),
        )
        for row in json.loads(path.read_text(encoding="utf-8"))["rows"]
    ]  # fmt: skip


def write(rows: Iterable[Drawn], path: Path = RECORD) -> None:
    """Write the record, a row a line."""
    write_rows(path, header("python -m tools.compare_random_memory"), (row.to_dict() for row in rows))


def run(seed: int, point: Point) -> Drawn:
    """Both levels of a point; what either refuses is a row with a reason."""
    try:
        found = analytic(point)[1]
    except PlannerError as error:
        return Drawn(seed, Row(point, None, {}, {}, "", f"estimate: {str(error).splitlines()[0]}"), None)
    refused = refusal(point)
    row = simulated(point) if refused is None else Row(point, None, {}, {}, "", refused)
    return counted(Drawn(seed, row, found / row.simulated_bytes - 1 if row.simulated_bytes else None))


def counted(each: Drawn) -> Drawn:
    """A point with its FLOPs, where it ran and they were not counted before."""
    if not each.row.simulated_bytes or each.flops is not None:
        return each
    seen, found = simulated_flops(each.row.point), analytic_flops(each.row.point)
    return replace(each, flops=seen, first_flops=found / seen - 1 if seen and found is not None else None)


def again(each: Drawn) -> Drawn:
    """A point simulated again."""
    found = run(each.seed, each.row.point)
    first = found.first_flops if each.flops is None else each.first_flops
    return replace(found, first_error=each.first_error, first_flops=first, stale=False)


def compared(rows: Iterable[Drawn]) -> list[Compared]:
    """Every row that ran, beside today's estimate, where there is one."""
    return today(rows)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what is lacking, and print."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("seed", type=int)
    parser.add_argument("--points", type=int, default=0, metavar="N")
    parser.add_argument("--worst", type=int, default=0, metavar="N")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--page", action="store_true")
    parser.add_argument("--flops", action="store_true")
    options = parser.parse_args(arguments)
    known = read()
    others = [each for each in known if each.seed != options.seed]
    rows = [each for each in known if each.seed == options.seed]
    points = random_points(options.seed, options.points)
    for number, point in enumerate(points[len(rows) :], len(rows) + 1):
        started = time.monotonic()
        rows.append(run(options.seed, point))
        row = rows[-1].row
        shown = f"{row.simulated_bytes / 2**30:.2f} GiB" if row.simulated_bytes else row.reason[:150]
        print(
            f"{number} {point.model} {point.method}: {shown}, {time.monotonic() - started:.1f} s",
            file=sys.stderr,
        )
        if number % 10 == 0 or number == len(points):
            write([*others, *rows])
    if options.again:
        for number, each in enumerate(rows):
            rows[number] = again(each)
            print(f"{number + 1}/{len(rows)} {each.row.point.model}", file=sys.stderr)
        write([*others, *rows])
    if options.flops:
        for number, each in enumerate(rows):
            rows[number] = counted(each)
        write([*others, *rows])
    found = compared(rows)
    if options.page:
        write_page([*others, *rows])
    print(
        "\n".join((*worst(found, options.worst), *far(rows, options.worst), summary(found), of_flops(rows)))
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
