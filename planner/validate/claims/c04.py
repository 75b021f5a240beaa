"""C4: LoRA's best learning rate hardly depends on the rank."""

from __future__ import annotations

import math

from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..statistics import interval
from . import Claim, Judgement, Setting, against, undecided
from .arms import fitting, log_rates, lora, needs, ratio

LOWEST = 4
FACTOR = 2.0


def cells(setting: Setting) -> tuple[Cell, ...]:
    """Every rank, at its own best rate."""
    return tuple(lora(setting, rank) for rank in fitting(setting))


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The best rate at the highest rank over that at rank 4, and the slope of log rate on log rank from there on."""
    ranks = fitting(setting)
    highest = ranks[-1]
    logs = {
        rank: log_rates(cell, lookup, setting.seeds) for rank, cell in zip(ranks, cells(setting), strict=True)
    }
    if logs[LOWEST] is None or logs[highest] is None:
        return undecided("no optimum inside the grid")
    first, last = logs[LOWEST] or [], logs[highest] or []
    span = math.log(highest / LOWEST)
    slope = interval([(b - a) / span for a, b in zip(first, last, strict=True)])
    details = {
        "best_rate": {str(rank): math.exp(sum(v) / len(v)) for rank, v in logs.items() if v},
        "exponent": {"value": slope.value, "low": slope.low, "high": slope.high},
    }
    what = f"best rate at rank {highest} over that at rank {LOWEST}"
    return against(ratio(last, first), 1 / FACTOR, FACTOR, what, details)


CLAIM = Claim(
    "C4", "With scale alpha/rank the best learning rate varies by less than 2 from rank 4 to the highest.",
    "LoRA Without Regret: less than 2 times between ranks 4 and 512", "ratio of best rates",
    "confirmed where the 95% interval lies within 1/2 to 2, refuted where outside",
    lambda setting: 1.0, judge, needs(cells), lambda setting: runs(len(fitting(setting)), setting.seeds),
)  # fmt: skip
