"""C18: the ratio of best rates would be hidden size / (2 alpha), by theory."""

from __future__ import annotations

import math

from ..grid import Lookup
from ..grid import typical_runs as runs
from ..models import shape
from ..statistics import interval
from . import Claim, Judgement, Setting, against, undecided
from .arms import needs
from .c03 import by_model, cells, log_ratios

ALPHA = 32
FACTOR = 2.0
# What the formula gives for three published widths, as tinker-cookbook's first release had it.
PUBLISHED = {2048: 32, 4096: 64, 8192: 128}


def theory(hidden_size: int, alpha: float = ALPHA) -> float:
    """H / (2 alpha)."""
    return hidden_size / (2 * alpha)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The measured ratio over the theory's, pooled over models; the formula's own figures are checked on the way."""
    assert all(theory(width) == ratio for width, ratio in PUBLISHED.items())
    ratios = log_ratios(setting, lookup)
    if len(ratios) < len(setting.models):
        return undecided("no optimum inside the grid for some model")
    offsets = {name: math.log(theory(int(shape(name)["hidden_size"]))) for name in ratios}
    seeds = [
        sum(ratios[name][seed] - offsets[name] for name in ratios) / len(ratios)
        for seed in range(setting.seeds)
    ]
    details = {
        "by_model": by_model(ratios),
        "theory": {name: math.exp(value) for name, value in offsets.items()},
    }
    measured = interval(seeds).map(math.exp)
    return against(measured, 1 / FACTOR, FACTOR, "measured ratio over H/(2 alpha)", details)


CLAIM = Claim(
    "C18", "The ratio of best rates is H/(2 alpha): 32 at width 2048, 64 at 4096, 128 at 8192.",
    "LoRA Without Regret, derived there and given up for 10; tinker-cookbook until 2025-11",
    "measured over predicted",
    f"confirmed where the 95% interval lies within a factor {FACTOR:g} of 1, refuted where outside",
    lambda setting: 1.0, judge, needs(cells), lambda setting: runs(2 * len(setting.models), setting.seeds),
)  # fmt: skip
