"""C5: at rank 1 the best learning rate is lower."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from dataclasses import replace
from functools import lru_cache

from ... import facts
from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..statistics import Interval, interval, optimum
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, log_rates, lora, needs, ratio

LOWEST_COMPARED = 4


def cells(setting: Setting) -> tuple[Cell, ...]:
    """Rank 1 and the middle rank."""
    return lora(setting, 1), lora(setting, MIDDLE_RANK)


@lru_cache(maxsize=1)
def published() -> tuple[int, Interval]:
    """Tinker's published sweep: the number of models, and over them the best rate at rank 1 over that at the highest
    rank from 4 to the middle one. Only optima inside their grid count."""
    grids: dict[tuple[str, int], dict[float, float]] = defaultdict(dict)
    for row in csv.DictReader(facts.read_data("sweeps", "tinker_sft.csv").splitlines()):
        loss = float(row["test_nll_nats_per_token"]) if row["status"] == "ok" else math.inf
        grids[row["model"], int(row["rank"])].setdefault(float(row["lr"]), loss)
    best: dict[str, dict[int, float]] = defaultdict(dict)
    for (model, rank), points in grids.items():
        found = optimum(list(points.items()))
        if found is not None and found.inside and (rank == 1 or LOWEST_COMPARED <= rank <= MIDDLE_RANK):
            best[model][rank] = math.log(found.lr)
    logs = [by[1] - by[max(by)] for by in best.values() if 1 in by and len(by) > 1]
    return len(logs), interval(logs).map(math.exp)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The best rate at rank 1 over that at the middle rank. What a published sweep of far larger models says stands
    beside it and decides nothing here."""
    one, middle = (log_rates(cell, lookup, setting.seeds) for cell in cells(setting))
    if one is None or middle is None:
        return undecided("no optimum inside the grid")
    found = against(ratio(one, middle), 0.0, 1.0, f"best rate at rank 1 over that at rank {MIDDLE_RANK}")
    number, other = published()
    shown = f"{other.value:.3g} ({other.low:.3g} to {other.high:.3g})"
    return replace(
        found, reason=f"{found.reason}; on the {number} models of Tinker's published sweep it is {shown}"
    )


CLAIM = Claim(
    "C5", "The best learning rate is lower at rank 1 than at higher ranks.",
    "LoRA Without Regret; michaelbzhu's sweep of Qwen3-4B: 1.2e-4 against 2.5e-4", "ratio of best rates",
    "confirmed where the 95% interval lies below 1, refuted where above",
    lambda setting: 1.2 / 2.5, judge, needs(cells), lambda setting: runs(2, setting.seeds),
)  # fmt: skip
