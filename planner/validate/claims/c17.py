"""C17: the published learning-rate law costs less than half a percent of loss."""

from __future__ import annotations

import csv
import math
from collections import defaultdict
from collections.abc import Sequence
from functools import lru_cache
from itertools import pairwise

from ... import facts
from ...learning_rate.law import learning_rate
from ..grid import Lookup
from ..statistics import bootstrap, quantile
from . import Claim, Judgement, Setting, against

# The law that the claim was made of, whatever law the planner prefers today.
LAW = "tinker-cookbook-2025-11"
BOUND_PERCENT = 0.5
SHARE = 0.9
FAMILIES = ("llama", "qwen")
Points = tuple[tuple[float, float], ...]


@lru_cache(maxsize=1)
def sweep() -> dict[tuple[str, int, int], Points]:
    """(model, hidden size, rank) -> (rate, loss) by rate: Tinker's published sweep, finished runs of the law's
    families, the first of repeats."""
    cells: dict[tuple[str, int, int], dict[float, float]] = defaultdict(dict)
    for row in csv.DictReader(facts.read_data("sweeps", "tinker_sft.csv").splitlines()):
        if row["status"] == "ok" and any(name in row["model"].lower() for name in FAMILIES):
            cell = (row["model"], int(row["hidden_size"]), int(row["rank"]))
            cells[cell].setdefault(float(row["lr"]), float(row["test_nll_nats_per_token"]))
    return {cell: tuple(sorted(points.items())) for cell, points in cells.items() if len(points) > 2}


def law_rate(model: str, hidden_size: int) -> float:
    """The law's rate for LoRA."""
    law = facts.law(LAW)
    family = next(name for name in FAMILIES if name in model.lower())
    assert law.base is not None
    return learning_rate(
        base=law.base, multiplier=law.lora_multiplier, reference_width=law.reference_width, hidden_size=hidden_size,
        exponent=law.exponents[family] + law.lora_pow,
    )  # fmt: skip


def regret_percent(points: Points, lr: float) -> float:
    """Loss at a rate above the lowest of the sweep, in percent; between two rates by line in log rate, as the article
    scores. Outside the grid the nearest rate's loss stands."""
    lowest = min(loss for _, loss in points)
    inside = [(a, b) for a, b in pairwise(points) if a[0] <= lr <= b[0]]
    if not inside:
        loss = points[0][1] if lr < points[0][0] else points[-1][1]
    else:
        (x0, y0), (x1, y1) = inside[0]
        loss = y0 + (y1 - y0) * math.log(lr / x0) / math.log(x1 / x0)
    return 100 * (loss / lowest - 1)


def regrets() -> dict[str, list[float]]:
    """Regret of each cell by model."""
    found: dict[str, list[float]] = defaultdict(list)
    for (model, hidden_size, _), points in sweep().items():
        found[model].append(regret_percent(points, law_rate(model, hidden_size)))
    return dict(found)


def _tail(values: Sequence[float]) -> float:
    return quantile(values, SHARE)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The 90th percentile of regret over models and ranks, with a bootstrap over models."""
    found = regrets()
    every = [value for values in found.values() for value in values]
    details = {
        "cells": len(every), "models": len(found), "median": quantile(every, 0.5), "max": max(every),
        "share_above": sum(value > BOUND_PERCENT for value in every) / len(every),
    }  # fmt: skip
    measured = bootstrap(list(found.values()), _tail)
    return against(measured, -math.inf, BOUND_PERCENT, "90th percentile of regret in percent", details)


CLAIM = Claim(
    "C17", "The published law's learning rate costs less than 0.5% of loss.", "Tinker's documentation",
    "percent of loss",
    f"confirmed where the 95% interval of the 90th percentile over models and ranks lies below {BOUND_PERCENT:g}%, "
    "refuted where above; from data/sweeps/tinker_sft.csv, no run",
    lambda setting: BOUND_PERCENT, judge,
)  # fmt: skip
