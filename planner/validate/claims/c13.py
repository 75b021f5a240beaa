"""C13: in short runs the ratio of best rates is larger."""

from __future__ import annotations

from typing import Any

from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, full, log_rates, lora, needs, ratio

STEPS_OF_STANDARD = 3
SHARES = (10, 3, 1)


def _marks(setting: Setting) -> tuple[int, ...]:
    return tuple(STEPS_OF_STANDARD * setting.steps // share for share in SHARES)


def cells(setting: Setting) -> tuple[Cell, Cell]:
    """Both arms, long, with the optimum inside the grid at every mark: a constant rate knows no length."""
    marks = _marks(setting)
    changes: dict[str, Any] = {"steps": marks[-1], "evaluate_at": marks}
    return full(setting, at=marks, **changes), lora(setting, MIDDLE_RANK, at=marks, **changes)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The ratio at the shortest mark over the ratio at the longest."""
    found: dict[int, list[float]] = {}
    for step in _marks(setting):
        whole, low = (log_rates(cell, lookup, setting.seeds, step) for cell in cells(setting))
        if whole is None or low is None:
            return undecided(f"no optimum inside the grid at step {step}")
        found[step] = [a - b for a, b in zip(low, whole, strict=True)]
    first, *_, last = _marks(setting)
    zero = [0.0] * setting.seeds
    details = {"ratio": {str(step): ratio(logs, zero).value for step, logs in found.items()}}
    what = f"ratio of best rates at step {first} over that at step {last}"
    return against(ratio(found[first], found[last]), 1.0, float("inf"), what, details)


CLAIM = Claim(
    "C13", "The ratio of best rates is larger in short runs (15 at order 100 steps) than in long ones (10).",
    "LoRA Without Regret", "ratio of ratios", "confirmed where the 95% interval lies above 1, refuted where below",
    lambda setting: 1.5, judge, needs(cells), lambda setting: 2 * runs(2, setting.seeds) * 4 // 3 // 2,
)  # fmt: skip
