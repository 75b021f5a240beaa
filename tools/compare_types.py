"""Compare the analytic peak of memory with the simulated one for every model type, and write docs/memory-types.md.

    python -m tools.compare_types                  simulate what the record lacks, write record and page
    python -m tools.compare_types --fresh          simulate every type again: some ten minutes on two cores
    python -m tools.compare_types --page           compute the estimates anew beside the record, in seconds
    python -m tools.compare_types --again A,B      simulate these types again, write record and page
    python -m tools.compare_types --only WORD      simulate types with this word again, print, and write nothing

The record (data/measured/memory_types.json) keeps every type's config, what its steps took, and why others do not
run.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from planner.errors import PlannerError
from planner.workers import done

from .compare_memory import ROOT, analytic, header, simulated
from .memory_page import summary
from .memory_rows import Compared, Row, write_rows
from .memory_types import SETUPS, Cut, config_of, options_of, points, types
from .memory_types_page import line_of, write_page

RECORD = ROOT / "data" / "measured" / "memory_types.json"
POINT = ("family", "model", "options", "moments")


@dataclass(frozen=True)
class Type:
    """A type's rows, a set-up each; none, and a reason, where nothing could be built of it."""

    name: str
    config: Mapping[str, Any]
    rows: tuple[Row, ...]
    reason: str = ""

    def to_dict(self) -> dict[str, Any]:
        """The record's entry; options are those of the set-up's name."""
        if self.reason:
            return {"type": self.name, "reason": self.reason}
        rows = {
            row.point.model: {k: v for k, v in row.to_dict().items() if k not in POINT} for row in self.rows
        }
        return {"type": self.name, "config": self.config, "rows": rows}


def read() -> list[Type]:
    """The record."""
    if not RECORD.exists():
        return []
    return [_type(each) for each in json.loads(RECORD.read_text(encoding="utf-8"))["types"]]


def _type(told: Mapping[str, Any]) -> Type:
    kind, config, ran = told["type"], told.get("config", {}), told.get("rows", {})
    rows = (
        Row(
            Cut(kind, name, options_of(kind, name), config), row.get("peak_bytes"), {}, row.get("parts", {}),
            row.get("moment", ""), row.get("reason", ""),
        )
        for name, row in ((name, ran[name]) for name in SETUPS if name in ran)
    )  # fmt: skip
    return Type(kind, config, tuple(rows), told.get("reason", ""))


def write(found: Iterable[Type]) -> None:
    """Write the record, a type a line."""
    head = header("python -m tools.compare_types --fresh")
    write_rows(RECORD, head, (each.to_dict() for each in found), "types")


def run(kind: str) -> Type:
    """Simulate a type in every set-up."""
    started = time.monotonic()
    try:
        config = config_of(kind)
    except ValueError as error:
        return Type(kind, {}, (), str(error))
    flash = "attention_kernel", "flash"
    rows = (simulated(each, as_asked=flash in each.options.items()) for each in points(kind, config))
    found = Type(kind, config, tuple(rows))
    ran = sum(row.simulated_bytes is not None for row in found.rows)
    print(f"{kind}: {ran} of {len(found.rows)} ran, {time.monotonic() - started:.1f} s", file=sys.stderr)
    return found


def run_all(kinds: Sequence[str]) -> list[Type]:
    """Simulate types, on every core."""
    return done(lambda number: run(kinds[number]), kinds, enough=1)


def compared(found: Iterable[Type]) -> tuple[list[Compared], list[tuple[Row, str]]]:
    """Every row that ran and has an estimate, beside it; and the others, each with a reason."""
    beside, refused = [], []
    for each in found:
        for row in each.rows:
            try:
                estimate = analytic(row.point)
            except PlannerError as error:
                refused.append((row, f"estimate: {str(error).splitlines()[0]}"))
                continue
            if row.simulated_bytes is None:
                refused.append((row, f"simulation: {row.reason}"))
            else:
                beside.append(Compared(row, *estimate))
    return beside, refused


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, and print the worst."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--fresh", action="store_true", help="simulate every type again")
    parser.add_argument("--again", default="", metavar="TYPES", help="simulate these types again")
    parser.add_argument("--page", action="store_true", help="only write the page, from the record")
    parser.add_argument("--only", default="", metavar="WORD", help="types with this word; writes nothing")
    parser.add_argument("--worst", type=int, default=0, metavar="N", help="print the N worst rows")
    options = parser.parse_args(arguments)
    known = {each.name: each for each in read()}
    if options.only:
        found = run_all([kind for kind in types() if options.only in kind])
    elif options.page:
        found = list(known.values())
    else:
        again = options.again.split(",")
        lacking = [kind for kind in types() if options.fresh or kind not in known or kind in again]
        known.update(zip(lacking, run_all(lacking), strict=True))
        found = [known[kind] for kind in types()]
        write(found)
    beside, refused = compared(found)
    if not options.only:
        unknown = [(each.name, each.reason) for each in found if each.reason]
        write_page(beside, refused, unknown)
    ordered = sorted(beside, key=lambda each: -abs(each.error))
    print("\n".join((*map(line_of, ordered[: options.worst]), summary(beside))))
    return 0


if __name__ == "__main__":
    sys.exit(main())
