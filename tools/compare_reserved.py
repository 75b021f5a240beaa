"""What torch's allocator reserves: published figures and the grid of memory, simulated and estimated.

    python -m tools.compare_reserved           run every case again, write record and page (two minutes)
    python -m tools.compare_reserved --page    write docs/memory-reserved.md from the records, in seconds

Cases are the published figures of reserved memory of one GPU with everything stated, where all sequences are as long:
of what others measured those that `lora-plan simulate` can run. The points of the grid are those of
tools/compare_memory.py. Nothing is fitted for a simulation; the estimate's constants are (data/memory.toml), on some
of the published figures.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.errors import PlannerError
from planner.estimator import load
from planner.running import Running, running

from . import compare_memory
from .memory_page import quantile
from .memory_rows import write_rows
from .published_memory import cases as first_cases
from .published_memory import model_of
from .published_memory_later import later, options_of

ROOT = Path(__file__).resolve().parent.parent
RECORD = ROOT / "data" / "measured" / "memory_reserved.json"
PAGE = ROOT / "docs" / "memory-reserved.md"


@dataclass(frozen=True)
class Reserved:
    """A published figure: whose, of which model, with which options, and bytes."""

    source: str
    row: str
    model: str
    options: dict[str, Any]
    measured: float

    @property
    def run(self) -> Running:
        """What was run, as the planner takes it."""
        return running(model_of(self.model), self.options)

    @property
    def estimated(self) -> int:
        """The estimate."""
        return self.run.memory().reserved_bytes


def cases() -> list[Reserved]:
    """Published figures of reserved memory of one GPU, everything stated, that a planner takes."""
    return list(_cases())


def _cases() -> Iterator[Reserved]:
    for one in first_cases()[0]:
        if one.metric == "reserved" and one.stated:
            yield from _alone(
                Reserved(one.source, f"memory.csv {one.row}", one.model, one.options, one.measured)
            )
    for case in later():
        if case.metric == "reserved" and case.stated:
            options = {**options_of(case), "method": case.method}
            source = case.source.removesuffix(", reserved")
            yield from _alone(
                Reserved(source, f"memory_later.csv {case.number}", case.model, options, case.measured)
            )


def _alone(case: Reserved) -> Iterator[Reserved]:
    """The case, where it is of one GPU and of sequences as long as each other."""
    try:
        setup = case.run.setup
    except PlannerError:
        return
    if setup.gpus == 1 and not setup.lengths_vary:
        yield case


def simulated(case: Reserved) -> int | PlannerError:
    """Bytes as simulated, or why not."""
    from planner.simulate.core import simulate_step

    run = case.run
    config = load(model_of(case.model))[0].config
    spec = None if run.setup.method == "full" else run.spec
    try:
        found = simulate_step(config, spec, run.setup, arch=run.arch, reserve=True)
    except PlannerError as error:
        return error
    return found.reserved_bytes or PlannerError("what is reserved cannot be told from the layers that ran")


def collect(tell: Any) -> list[dict[str, Any]]:
    """Every case, simulated."""
    rows = []
    for case in cases():
        found = simulated(case)
        told = {"simulated": found} if isinstance(found, int) else {"reason": str(found).split(". ")[0]}
        rows.append(
            {"source": case.source, "row": case.row, "model": case.model, "measured": case.measured, **told}
        )
        tell(f"{case.row} {case.model}: {found}")
    return rows


def read() -> list[dict[str, Any]]:
    """The record's rows."""
    rows: list[dict[str, Any]] = json.loads(RECORD.read_text(encoding="utf-8"))["rows"]
    return rows


def write(rows: Iterable[dict[str, Any]]) -> None:
    """Write the record, a row a line."""
    head = {
        **compare_memory.header("python -m tools.compare_reserved"),
        "what": "what torch's allocator reserves in published runs, simulated (planner simulate), in bytes",
    }
    write_rows(RECORD, head, rows)


def errors(pairs: Iterable[tuple[float, float]]) -> list[float]:
    """|said / right - 1| of each."""
    return sorted(abs(said / true - 1) for said, true in pairs)


def figures(found: Sequence[float]) -> str:
    """Median, 90th percentile and most."""
    return f"{statistics.median(found):.1%} | {quantile(found, 0.9):.1%} | {max(found):.0%}"


HEAD = """# Memory: what the allocator reserves

Written by `python -m tools.compare_reserved`, which runs what it compares; `--page` computes the estimates anew
beside the records, in seconds. torch's allocator keeps what was freed, and what it keeps seldom fits what is wanted
next, so that `torch.cuda.max_memory_reserved` is more than what is allocated. `lora-plan estimate` says how much by a
rule with a fitted constant ([methods](methods.md)); `lora-plan simulate` gives the step's requests, in their order,
to a model of the allocator that was written from its source (`planner/simulate/allocator.py`), with nothing fitted:
weights, three steps with their updates, and an evaluation where there is one.

Layers of one kind are run once or twice, and their requests repeated for the others: of ten kinds of models this
reserves what the whole run does, to the byte (`tests/simulate/test_whole.py`).

## Against published measurements

Figures of `max_memory_reserved` (or what a program reports of it) of one GPU, everything stated, all sequences of one
length. Where lengths vary, what is reserved depends on the order in which they come ([methods](methods.md)), and
none of that is in this table. {refused} more figures are of programs with kernels or a placement of their own, which
a simulation refuses.

| source | figures | simulated: median error | 90th percentile | most | estimated: median error | 90th | most |
|---|---|---|---|---|---|---|---|
"""
GRID = """
## The estimate against the simulation

The {n} points of [memory.md](memory.md), of any model and set-up, on which no constant was fitted: the estimate's
rule against the simulated requests.

| of | points | median error | 90th percentile | most | estimated / simulated, median |
|---|---|---|---|---|---|
"""
TAIL = """
Most of the largest differences are small models with large vocabularies, where blocks of logits in 16 and in 32 bits
follow each other and none fits the next: the estimate is too low there.

What is neglected: what loading a model left in the cache; streams beside the first (CPU offload, gathered
parameters); what trainers work out of the logits beside the loss (accuracy, entropy); that a card may be full, so
that the allocator gives back what it cached.
"""


def page() -> str:
    """docs/memory-reserved.md."""
    known = {row["row"]: row for row in read()}
    ran = [(case, known[case.row]["simulated"]) for case in cases() if "simulated" in known[case.row]]
    lines = [HEAD.format(refused=len(known) - len(ran))]
    groups = {case.source: [each for each in ran if each[0].source == case.source] for case, _ in ran}
    for name, group in [*sorted(groups.items()), (f"**all, of {len(groups)} sources**", ran)]:
        said = figures(errors((own, case.measured) for case, own in group))
        told = figures(errors((case.estimated, case.measured) for case, _ in group))
        lines.append(f"| {name} | {len(group)} | {said} | {told} |\n")
    found = [each for each in compare_memory.compared(compare_memory.read()) if each.row.reserved_bytes]
    lines.append(GRID.format(n=len(found)))
    for name in ("all", "lora", "qlora", "full"):
        own = [each for each in found if name in ("all", each.row.point.method)]
        pairs = [(each.estimate.reserved_bytes, each.row.reserved_bytes or 1) for each in own]
        middle = statistics.median(said / true for said, true in pairs)
        lines.append(f"| {name} | {len(own)} | {figures(errors(pairs))} | {middle:.2f} |\n")
    return "".join((*lines, TAIL))


def main() -> int:
    """Run where asked, and write."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("--page", action="store_true", help="only write the page, from the records")
    if not parser.parse_args().page:
        write(collect(lambda line: print(line, file=sys.stderr)))
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
