"""Step times that were collected after the constants of speed were fitted: each with the command of a user.

data/measured/speed_later.csv, _latest, _newest, _further, _unseen, _sixth, _seventh, _eighth, _ninth,
_tenth and _eleventh, gathered one after the other, hold what is published (seconds of a step, or tokens a second of a
GPU) and, as
`options`, what follows `lora-plan estimate --model M` (`compare --methods full` for full fine-tuning). The first
predictions are kept in files of the same names that end in _blind.
"""

from __future__ import annotations

import csv
import io
import shlex
import sys
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from planner import facts
from planner.cli.config_option import given
from planner.cli.estimate import command
from planner.cli.main import CONTEXT_SETTINGS
from planner.errors import PlannerError
from planner.hardware import find
from planner.running import DATA, Running, running
from planner.speed import StepTime, tokens_of
from planner.speed.efficiency import Evidence, evidence_of
from tools.measured_models import CONFIGS, NAMES
from tools.speed_runs import Run, prepared

LATER, LATEST, NEWEST, FURTHER = "speed_later", "speed_latest", "speed_newest", "speed_further"
UNSEEN = "speed_unseen"
SIXTH = "speed_sixth"
SEVENTH = "speed_seventh"
EIGHTH = "speed_eighth"
NINTH = "speed_ninth"
TENTH = "speed_tenth"
ELEVENTH = "speed_eleventh"
GATHERED = (
    LATER,
    LATEST,
    NEWEST,
    FURTHER,
)  # what they state is among the sources that are left out of the fit


@dataclass(frozen=True)
class Later:
    """A published step: `measured` in the unit `what`, s/step or tokens/s/GPU."""

    number: int
    source: str
    url: str
    model: str
    method: str
    gpu: str
    gpus: int
    measured: float
    what: str
    stated: bool
    options: str
    notes: str

    @property
    def evidence(self) -> Evidence:
        """What the constants know of its accelerator."""
        return evidence_of(find(self.gpu).name)

    def seconds(self, tokens: float) -> float:
        """Seconds of the measured step, in which `tokens` pass through all GPUs."""
        return self.measured if self.what == "s/step" else tokens / self.gpus / self.measured


@dataclass(frozen=True)
class Said:
    """What was predicted: seconds of a step with their interval, and the seconds that were measured."""

    seconds: float
    low: float
    high: float
    measured: float
    problem: str = ""

    @property
    def inside(self) -> bool:
        """Whether the interval holds the measured time."""
        return self.low <= self.measured <= self.high

    @property
    def error(self) -> float:
        """|predicted / measured - 1|."""
        return abs(self.seconds / self.measured - 1)


def later(name: str = LATER) -> list[Later]:
    """Every case of a gathering."""
    return list(_later(name))


@cache
def _later(name: str) -> tuple[Later, ...]:
    rows = csv.DictReader(io.StringIO(facts.read_data("measured", f"{name}.csv")))
    return tuple(
        Later(
            number, row["source"], row["url"], row["model"], row["method"], row["gpu"], int(row["gpus"]),
            float(row["measured"]), row["what"], row["stated"] == "yes", row["options"], row["notes"],
        )
        for number, row in enumerate(rows, start=2)
    )  # fmt: skip


def options_of(case: Later) -> dict[str, Any]:
    """The options of the command, as the command line reads them."""
    context = command.make_context(
        "estimate", ["--model", case.model, *shlex.split(case.options)], **CONTEXT_SETTINGS
    )
    found = given(context, dict(context.params))
    return {name: value for name, value in found.items() if name not in ("model", *DATA)} | {
        "method": case.method
    }


@cache  # tables and tests ask for the same ones
def set_up(case: Later) -> Running:
    """The model, what is trained and how. Raises PlannerError."""
    return running(CONFIGS.get(case.model) or NAMES.get(case.model, case.model), options_of(case))


@cache
def time_of(case: Later) -> StepTime:
    """The predicted step. Raises PlannerError."""
    found = set_up(case).time()
    assert found is not None
    return found


def stated_runs(names: Iterable[str] = GATHERED) -> list[Run]:
    """The steps of gatherings whose set-up is stated, as runs; the shipped rates are not fitted on them."""
    found = []
    for case in (case for name in names for case in later(name) if case.stated):
        one = set_up(case)
        assert one.machine is not None
        found.append(
            prepared(
                case.source, case.model, one.arch, one.setup, one.machine, (one.pairs, one.whole),
                case.seconds(tokens_of(one.setup)), "A", case.notes, False,
            )
        )  # fmt: skip
    return found


def said_of(case: Later) -> Said:
    """The prediction of a case."""
    try:
        found = time_of(case)
    except PlannerError as error:
        return Said(0, 0, 0, 0, str(error).split(". ")[0])
    return Said(found.seconds, found.low, found.high, case.seconds(found.tokens))


@cache
def blind(name: str = LATER, kept: str = "blind") -> Mapping[int, Said]:
    """The first predictions of a gathering, or others that were kept."""
    rows = csv.DictReader(io.StringIO(facts.read_data("measured", f"{name}_{kept}.csv")))
    return {
        int(r["row"]): Said(
            float(r["seconds"]), float(r["low"]), float(r["high"]), float(r["measured"]), r["problem"]
        )
        for r in rows
    }


def keep(name: str, path: Path) -> None:
    """Write the predictions of now."""
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(("row", "seconds", "low", "high", "measured", "problem"))
        for case in later(name):
            said = said_of(case)
            values = (f"{v:.6g}" for v in (said.seconds, said.low, said.high, said.measured))
            table.writerow((case.number, *values, said.problem))


def main() -> None:
    """Show every case of a gathering with its prediction; --keep FILE writes the predictions."""
    name = next(
        (
            name
            for name in (ELEVENTH, TENTH, NINTH, EIGHTH, SEVENTH, SIXTH, UNSEEN, FURTHER, NEWEST, LATEST)
            if name in sys.argv
        ),
        LATER,
    )
    if "--keep" in sys.argv:
        keep(name, Path(sys.argv[-1]))
        return
    for case in later(name):
        said = said_of(case)
        run = f"{case.model[:34]:34} {case.method:5} {case.gpus:4} x {case.gpu:9}"
        start = f"{case.number:4} {case.source[:24]:24} {run}"
        if said.problem:
            print(start, said.problem)
        else:
            stated = "" if case.stated else "(not stated)"
            within = "in" if said.inside else "OUT"
            print(start, f"{said.seconds / said.measured:5.2f} {said.measured:8.3f}", within, stated)


if __name__ == "__main__":
    main()
