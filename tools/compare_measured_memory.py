"""Run small models with weights on the CPU, hold their memory beside the simulation, and write
docs/memory-measured.md.

    python -m tools.compare_measured_memory            run what the record lacks, write record and page
    python -m tools.compare_measured_memory --fresh    run everything again
    python -m tools.compare_measured_memory --page     write the page from the record

Every model of `tools/tiny_models.py` takes a step with LoRA, DoRA and in full, with and without checkpointing,
reentrant too. The record is data/measured/memory_measured.json.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from importlib.metadata import version
from pathlib import Path

from .tiny_models import CONFIGS, EXCLUDED, REFUSED

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "data" / "measured" / "memory_measured.json"
PAGE = ROOT / "docs" / "memory-measured.md"
LIBRARIES = ("torch", "transformers", "peft")
MOST = 0.01  # the largest error that is aimed at
NUMBERS = ("held", "simulated_held", "top", "simulated_top")
HEAD = """# Memory: simulated against measured

Written by `python -m tools.compare_measured_memory` from
[memory_measured.json](../data/measured/memory_measured.json), which it runs ({libraries}, {date}). Each of {n}
rows is one training step of a small model with weights on the CPU (float32, eager attention, 2 sequences of 64
tokens; LoRA or DoRA of rank 8 on all Linear modules, or every weight; layers checkpointed, reentrant or not, or
not checkpointed), measured by torch's profiler, which hears of every allocation from the allocator itself, and
simulated without weights (`planner.simulate`, every layer, with the CPU's own kernels). *Held* is what the
forward pass leaves for its backward pass: what automatic differentiation keeps; *peak* the most that both hold.
Weights, adapter, optimizer and the batch are left out.

Largest error: held {held:.2%}, peak {top:.2%}; median {middle_held:.3%} and {middle_top:.3%}. {within} of {n} rows
are within 1% in both.

What is left are small things that tensors without values do not show: work space inside kernels, and numbers that
code reads out of tensors. Kernels of GPUs are not in this comparison; the analytic formulas are held against
simulation with them in [memory.md](memory.md).

| model | method | checkpointing | held, KB | error | peak, KB | error |
|---|---|---|---|---|---|---|
"""


Point = tuple[str, str, str]  # a model, a method, checkpointing
HOW = (
    ("lora", "none"), ("lora", "layer"), ("full", "none"), ("full", "layer"),
    ("dora", "none"), ("dora", "layer"), ("lora", "reentrant"), ("full", "reentrant"),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A model, how it was run, and bytes."""

    model: str
    method: str
    checkpointing: str
    bytes: Mapping[str, int]

    @property
    def point(self) -> Point:
        """What was run."""
        return self.model, self.method, self.checkpointing

    @property
    def errors(self) -> tuple[float, float]:
        """Simulated over measured, less 1: held, and the most."""
        return (
            self.bytes["simulated_held"] / self.bytes["held"] - 1,
            self.bytes["simulated_top"] / self.bytes["top"] - 1,
        )


def points() -> Iterator[Point]:
    """All rows' names."""
    return ((model, *how) for model in CONFIGS for how in HOW if (model, how) not in REFUSED)


def measured_row(model: str, method: str, checkpointing: str) -> Row:
    """A row, run."""
    from .measured_memory import LORA, STEP, measure

    setup = replace(
        STEP, method="full" if method == "full" else "lora",
        checkpointing="none" if checkpointing == "none" else "layer", reentrant=checkpointing == "reentrant",
    )  # fmt: skip
    spec = replace(
        LORA, exclude_modules=EXCLUDED.get(model, ()), variant="dora" if method == "dora" else "lora"
    )  # fmt: skip
    found = measure(CONFIGS[model], setup, spec)
    return Row(model, method, checkpointing, {name: getattr(found, name) for name in NUMBERS})


def read() -> list[Row]:
    """The record's rows."""
    if not RECORD.exists():
        return []
    return [
        Row(row["model"], row["method"], row["checkpointing"], {name: row[name] for name in NUMBERS})
        for row in json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    ]


def write(rows: Sequence[Row]) -> None:
    """Write the record, a row a line."""
    head = {
        "what": "bytes of a training step of small models on the CPU, measured by torch's profiler and simulated",
        "command": "python -m tools.compare_measured_memory",
        "date": datetime.now(timezone.utc).date().isoformat(),
        "versions": {name: version(name).partition("+")[0] for name in LIBRARIES},
    }
    lines = ",\n".join(
        json.dumps({"model": r.model, "method": r.method, "checkpointing": r.checkpointing, **r.bytes})
        for r in rows
    )
    RECORD.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "rows": [\n{lines}\n ]\n}}\n', encoding="utf-8")


def collect(known: Sequence[Row]) -> list[Row]:
    """All rows, the known ones as they are; the record is written as it grows."""
    kept = {row.point: row for row in known}
    rows: list[Row] = []
    for point in points():
        if point not in kept:
            kept[point] = measured_row(*point)
            held, top = kept[point].errors
            print(f"{', '.join(point)}: held {held:+.2%}, peak {top:+.2%}", file=sys.stderr, flush=True)
        rows.append(kept[point])
        write(rows)
    return rows


def page(rows: Sequence[Row]) -> str:
    """The page."""
    record = json.loads(RECORD.read_text(encoding="utf-8"))
    held, top = ([abs(row.errors[i]) for row in rows] for i in (0, 1))
    text = HEAD.format(
        libraries=", ".join(f"{name} {number}" for name, number in record["versions"].items()), date=record["date"],
        n=len(rows), held=max(held), top=max(top), middle_held=statistics.median(held),
        middle_top=statistics.median(top), within=sum(max(row.errors, key=abs) <= MOST for row in rows),
    )  # fmt: skip
    for row in rows:
        first, second = row.errors
        text += (
            f"| {' | '.join(row.point)} | {row.bytes['held'] / 1e3:,.0f} | {first:+.2%} | "
            f"{row.bytes['top'] / 1e3:,.0f} | {second:+.2%} |\n"
        )
    return text


def main(arguments: Sequence[str] | None = None) -> int:
    """Run, write, and say the largest error."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--fresh", action="store_true", help="run everything again")
    parser.add_argument("--page", action="store_true", help="only write the page, from the record")
    options = parser.parse_args(arguments)
    rows = read() if options.page else collect([] if options.fresh else read())
    PAGE.write_text(page(rows), encoding="utf-8")
    worst = max(rows, key=lambda row: max(map(abs, row.errors)))
    print(
        f"{len(rows)} rows of {len({row.model for row in rows})} models; largest error {worst.model}, "
        f"{worst.method}, checkpointing {worst.checkpointing}: held {worst.errors[0]:+.2%}, "
        f"peak {worst.errors[1]:+.2%}"
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
