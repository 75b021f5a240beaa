"""C9: in reinforcement learning rank 1 does as well as full fine-tuning, over a wider span of rates."""

from __future__ import annotations

import math
from typing import Any

from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..statistics import interval
from . import Claim, Judgement, Setting, against, undecided
from .arms import at_best, full, lora, needs, paired_losses

TASK = "arithmetic:largest=9"
MARGIN = 0.05
STEPS_OF_STANDARD = 2
PLATEAU = 0.9


def cells(setting: Setting) -> tuple[Cell, ...]:
    """Both arms on sums with a reward; a run's loss is 1 - success rate."""
    steps = STEPS_OF_STANDARD * setting.steps
    changes: dict[str, Any] = {"kind": "rl", "task": TASK, "steps": steps, "batch": 64}
    return at_best(full(setting, -2, **changes)), at_best(lora(setting, 1, 0, **changes))


def plateau(cell: Cell, lookup: Lookup) -> float:
    """The span of rates (highest over lowest) at which the first seed reaches 90% of its best success rate."""
    found = {
        k: 1 - record.evaluation() for k, record in cell.points(lookup, 0).items() if record.status == "ok"
    }
    good = [k for k, rate in found.items() if rate >= PLATEAU * max(found.values())]
    return 2.0 ** (max(good) - min(good)) if good else math.nan


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """Rank 1's best success rate less full fine-tuning's."""
    whole, low = (paired_losses(cell, lookup, setting.seeds) for cell in cells(setting))
    if whole is None or low is None:
        return undecided("a sweep has no finished run")
    first, second = cells(setting)
    starts = [
        run.measured["success_before"] for run in (first.best(lookup, 0), second.best(lookup, 0)) if run
    ]
    details = {
        "success_full": [1 - v for v in whole], "success_rank_1": [1 - v for v in low],
        "success_before": starts[0],
        "plateau_full": plateau(first, lookup), "plateau_rank_1": plateau(second, lookup),
    }  # fmt: skip
    found = interval([a - b for a, b in zip(whole, low, strict=True)])
    return against(found, -MARGIN, math.inf, "rank 1's best success rate less full's", details)


CLAIM = Claim(
    "C9", "In reinforcement learning LoRA of rank 1 reaches full fine-tuning's success rate.",
    "LoRA Without Regret, MATH and GSM8K", "difference of success rates",
    f"confirmed where the 95% interval lies above -{MARGIN:g}, refuted where below",
    lambda setting: 0.0, judge, needs(cells), lambda setting: runs(2, setting.seeds, 1),
)  # fmt: skip
