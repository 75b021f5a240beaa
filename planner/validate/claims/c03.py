"""C3: LoRA's best learning rate is about ten times full fine-tuning's."""

from __future__ import annotations

import math
from collections.abc import Sequence

from ... import facts
from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..models import shape
from ..statistics import Interval, interval
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, full, log_rates, lora, needs
from .c17 import LAW

FACTOR = 2.0


def _centre(width: int, centre: int) -> int:
    """A grid's first guess: rates fall with width."""
    return centre - round(math.log2(max(1.0, width / 64)) / 2)


def arms(setting: Setting, model: str) -> tuple[Cell, Cell]:
    """Full fine-tuning and the middle rank on one model."""
    width = int(shape(model)["hidden_size"])
    return (
        full(setting, _centre(width, 1), model=model),
        lora(setting, MIDDLE_RANK, _centre(width, 3), model=model),
    )


def cells(setting: Setting) -> Sequence[Cell]:
    """Both arms on every model."""
    return [cell for model in setting.models for cell in arms(setting, model)]


def log_ratios(setting: Setting, lookup: Lookup) -> dict[str, list[float]]:
    """Log of LoRA's best rate over full fine-tuning's by model and seed, where both lie inside their grids."""
    found = {}
    for model in setting.models:
        whole, low = (log_rates(cell, lookup, setting.seeds) for cell in arms(setting, model))
        if whole is not None and low is not None:
            found[model] = [a - b for a, b in zip(low, whole, strict=True)]
    return found


def by_model(ratios: dict[str, list[float]]) -> dict[str, dict[str, float | None]]:
    """Each model's ratio with its interval."""
    found = {}
    for model, logs in ratios.items():
        one = interval(logs).map(math.exp)
        found[model] = {"value": one.value, "low": one.low, "high": one.high}
    return found


def pooled(ratios: dict[str, list[float]]) -> Interval:
    """The geometric mean over models of each seed's ratio, with its interval over seeds."""
    seeds = zip(*ratios.values(), strict=True)
    return interval([sum(logs) / len(logs) for logs in seeds]).map(math.exp)


def width_exponent(ratios: dict[str, list[float]]) -> dict[str, float | None] | None:
    """b of a fit ratio ~ width^b to each seed's ratios by least squares in logs, with its interval over seeds; None
    on one width. It describes and decides nothing: the law says 0, the theory H/(2 alpha) says 1."""
    widths = [math.log(int(shape(model)["hidden_size"])) for model in ratios]
    if len(set(widths)) < 2:
        return None
    centre = sum(widths) / len(widths)
    spread = sum((width - centre) ** 2 for width in widths)
    slopes = [
        sum((width - centre) * log for width, log in zip(widths, logs, strict=True)) / spread
        for logs in zip(*ratios.values(), strict=True)
    ]
    found = interval(slopes)
    return {"value": found.value, "low": found.low, "high": found.high}


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The ratio against the law's multiplier."""
    ratios = log_ratios(setting, lookup)
    if len(ratios) < len(setting.models):
        missing = [model for model in setting.models if model not in ratios]
        return undecided(f"no optimum inside the grid for {', '.join(missing)}")
    predicted = CLAIM.predicted(setting)
    details = {"by_model": by_model(ratios), "rank": MIDDLE_RANK, "width_exponent": width_exponent(ratios)}
    return against(
        pooled(ratios), predicted / FACTOR, predicted * FACTOR, "LoRA's best rate over full's", details
    )


CLAIM = Claim(
    "C3", "LoRA's best learning rate is about 10 times full fine-tuning's, whatever the width.",
    "LoRA Without Regret: fitted 9.8; tinker-cookbook: 10", "ratio of best rates",
    f"confirmed where the 95% interval lies within a factor {FACTOR:g} of the law's multiplier, refuted outside",
    lambda setting: facts.law(LAW).lora_multiplier, judge, needs(cells),
    lambda setting: runs(2 * len(setting.models), setting.seeds),
)  # fmt: skip
