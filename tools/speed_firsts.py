"""First predictions of step times: how far measured steps lay off before anybody had looked at their source.

A source's first predictions are kept (data/measured/speed_*_blind.csv). Beside them stand the sources of the first
table, which no prediction came before: each under constants fitted on all others, as data/measured/speed_left_out.csv
keeps them. Constants had no part of them, though the formula was made with them in sight.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path

from planner import facts
from planner.speed.efficiency import Evidence
from planner.speed.kinds import PLACES, kind_of
from planner.speed.roofline import staged_share, thin_share
from tools.interval_fit import Ratio
from tools.speed_fit import LeftOut
from tools.speed_later import (
    EIGHTH,
    FURTHER,
    LATER,
    LATEST,
    NEWEST,
    SEVENTH,
    SIXTH,
    UNSEEN,
    blind,
    later,
    set_up,
)

SETS = (
    LATER,
    LATEST,
    NEWEST,
    FURTHER,
    UNSEEN,
    SIXTH,
    SEVENTH,
    EIGHTH,
)  # in the order in which they came; what comes after judges them
FIVE = SETS[:5]  # on which widths rested until the ninth set
TABLE = "table"
KEPT = "speed_left_out"
COLUMNS = ("source", "gpu", "trainer", "place", "evidence", "kind", "lora", "log", "thin", "staged")
Ends = tuple[float, float]


@dataclass(frozen=True)
class First:
    """A first prediction: the logarithm of measured over predicted, of which set and source, and what is known of the
    step before it runs. `then`: how far the interval of then went below and above."""

    source: str
    found: str
    log: float
    stated: bool = True
    kind: str = "one"
    place: str = "one"
    evidence: str = "known"
    thin: float = 0.0
    staged: float = 0.0
    lora: bool = True
    gpu: str = ""
    trainer: str = ""
    then: Ends = (1.0, 1.0)

    @cached_property
    def ratio(self) -> Ratio:
        """As intervals of memory are made of them."""
        return Ratio(self.source, "step", math.exp(self.log), math.exp(self.log))


def place_of(gpus: int, per_node: int) -> str:
    """Where GPUs are."""
    return PLACES[0] if gpus == 1 else PLACES[1] if gpus <= per_node else PLACES[2]


def firsts(names: tuple[str, ...] = SETS) -> tuple[First, ...]:
    """Every first prediction of sets, by default those that widths rest on; shares of host time are those of today's
    estimate."""
    return tuple(each for name in names for each in _firsts_of(name))


@cache
def _firsts_of(name: str) -> tuple[First, ...]:
    result = []
    said = blind(name)
    for case in later(name):
        one = said[case.number]
        if one.problem:
            continue
        made = set_up(case)
        step, machine = made.time(), made.machine
        assert step is not None
        assert machine is not None
        result.append(
            First(
                case.source, name, math.log(one.measured / one.seconds), case.stated,
                kind_of(made.setup, machine, case.evidence), place_of(case.gpus, machine.per_node), case.evidence,
                thin_share(step.parts), staged_share(step.parts, machine), case.method != "full",
                machine.accelerator.name, made.setup.trainer,
                (math.log(one.seconds / one.low), math.log(one.high / one.seconds)),
            )
        )  # fmt: skip
    return tuple(result)


def as_first(item: LeftOut) -> First:
    """A run left out of the fit, as a first prediction."""
    setup, machine = item.run.setup, item.run.machine
    evidence: Evidence = "known" if item.known else "unseen"
    return First(
        item.run.source, TABLE, item.ratio, True, kind_of(setup, machine, evidence),
        place_of(setup.gpus, machine.per_node), evidence, item.thin, item.staged, setup.method != "full",
        machine.accelerator.name, setup.trainer,
    )  # fmt: skip


def keep_left_out(found: Sequence[LeftOut], path: Path) -> None:
    """Write the first table's sources, each left out of a fit on all others."""
    known = {case.source for name in SETS for case in later(name)}
    with path.open("w", encoding="utf-8", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(COLUMNS)
        for each in map(as_first, found):
            if each.source in known:
                continue
            numbers = (f"{value:.5g}" for value in (each.log, each.thin, each.staged))
            lora = "yes" if each.lora else "no"
            table.writerow(
                (each.source, each.gpu, each.trainer, each.place, each.evidence, each.kind, lora, *numbers)
            )
    left_out_firsts.cache_clear()


@cache
def left_out_firsts() -> tuple[First, ...]:
    """The first table's sources as they were kept."""
    rows = csv.DictReader(io.StringIO(facts.read_data("measured", f"{KEPT}.csv")))
    return tuple(
        First(
            row["source"], TABLE, float(row["log"]), True, row["kind"], row["place"], row["evidence"],
            float(row["thin"]), float(row["staged"]), row["lora"] == "yes", row["gpu"], row["trainer"],
        )
        for row in rows
    )  # fmt: skip


def grounds_of(test: Callable[[First], bool] = lambda _: True) -> list[First]:
    """What widths rest on: first predictions that state their set-up, and the first table's."""
    return [each for each in (*firsts(), *left_out_firsts()) if each.stated and test(each)]
