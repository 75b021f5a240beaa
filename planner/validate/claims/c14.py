"""C14: by the end of training B is larger than A in spectral norm."""

from __future__ import annotations

import math
import statistics

from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..statistics import interval
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, lora, needs


def cells(setting: Setting) -> tuple[Cell, ...]:
    """The middle rank."""
    return (lora(setting, MIDDLE_RANK),)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The median over modules of B's norm over A's, at each seed's best rate."""
    [cell] = cells(setting)
    best = [cell.best(lookup, seed) for seed in range(setting.seeds)]
    if any(record is None for record in best):
        return undecided("no run finished")
    medians, shares = [], []
    for record in best:
        assert record is not None
        quotients = [pair["b"] / pair["a"] for pair in record.norms.values()]
        medians.append(math.log(statistics.median(quotients)))
        shares.append(sum(q > 1 for q in quotients) / len(quotients))
    details = {
        "share_of_modules": shares,
        "rank": MIDDLE_RANK,
        "steps": cell.base.steps,
        "pitfall": "a short run: B grows with steps",
    }
    return against(
        interval(medians).map(math.exp), 1.0, math.inf, "median over modules of B's norm over A's", details
    )


CLAIM = Claim(
    "C14", "At the end of training B's spectral norm exceeds A's.", "LoRA Without Regret", "quotient of norms",
    "confirmed where the 95% interval of the median over modules lies above 1, refuted where below",
    lambda setting: 1.0, judge, needs(cells), lambda setting: runs(1, setting.seeds),
)  # fmt: skip
