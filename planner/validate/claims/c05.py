"""C5: at rank 1 the best learning rate is lower."""

from __future__ import annotations

from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, log_rates, lora, needs, ratio


def cells(setting: Setting) -> tuple[Cell, ...]:
    """Rank 1 and the middle rank."""
    return lora(setting, 1), lora(setting, MIDDLE_RANK)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The best rate at rank 1 over that at the middle rank."""
    one, middle = (log_rates(cell, lookup, setting.seeds) for cell in cells(setting))
    if one is None or middle is None:
        return undecided("no optimum inside the grid")
    return against(ratio(one, middle), 0.0, 1.0, f"best rate at rank 1 over that at rank {MIDDLE_RANK}")


CLAIM = Claim(
    "C5", "The best learning rate is lower at rank 1 than at higher ranks.",
    "LoRA Without Regret; michaelbzhu's sweep of Qwen3-4B: 1.2e-4 against 2.5e-4", "ratio of best rates",
    "confirmed where the 95% interval lies below 1, refuted where above",
    lambda setting: 1.2 / 2.5, judge, needs(cells), lambda setting: runs(2, setting.seeds),
)  # fmt: skip
