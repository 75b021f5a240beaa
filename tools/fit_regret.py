"""Fit the price of too small a rank on a learning-rate sweep: the constants of data/regret.toml.

    python tools/fit_regret.py [SWEEP.csv] [--tokens 30826598] [--experts shared-outer] [--layout tinker]

A cell is a model at a rank, its loss the best over learning rates: the vertex of the parabola through the three
rates around the lowest loss, in log rate, or that loss itself at the edge of the grid or beside a rate that nearly
diverged. Its excess is over the highest rank of the same model. Used are models swept over a 16-fold range of ranks,
in cells of at least three finished rates. Dense models and mixtures of experts are fitted apart; each model is then
predicted from the others, beside three predictions without the law: the others' mean excess, their mean on the same
side of one parameter per loss token (the rule of thumb), and their mean at the same rank.
"""

from __future__ import annotations

import argparse
import math
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean, median

import numpy as np
from scipy.optimize import minimize

from planner import estimate, facts
from planner.learning_rate.sweep import Sweep, read_sweep
from planner.regret import power_law
from planner.units import parse_count

LR_POINTS = 3
RANK_RANGE = 16
NEARLY_DIVERGED = 1.03
# 780 steps of 128 examples with 308.76 scored tokens each (Orbit, on 1,000 held-out examples of Tulu 3).
TINKER_TOKENS = round(780 * 128 * 308.76)

Points = Sequence[tuple[float, float]]


@dataclass(frozen=True)
class Cell:
    """A model at a rank: adapter parameters per loss token, and percent of loss above its highest rank."""

    model: str
    moe: bool
    rank: int
    ratio: float
    reference_ratio: float
    excess: float


@dataclass(frozen=True)
class Fit:
    """excess % = coefficient * ratio ** -exponent; `scatter` is the standard deviation of its logarithm."""

    coefficient: float
    exponent: float
    scatter: float

    def predict(self, ratio: float) -> float:
        """Percent of loss above the highest rank."""
        return power_law(ratio, self.coefficient, self.exponent)


def best_loss(points: Points) -> tuple[float, float]:
    """The best loss over rates, and how far it lies below the lowest one measured."""
    i = min(range(len(points)), key=lambda j: points[j][1])
    lowest = points[i][1]
    if not 0 < i < len(points) - 1 or max(points[i - 1][1], points[i + 1][1]) > NEARLY_DIVERGED * lowest:
        return lowest, 0.0
    x, y = zip(*((math.log(rate), loss) for rate, loss in points[i - 1 : i + 2]), strict=True)
    curve = np.polyfit(x, y, 2)
    vertex = float(np.polyval(curve, -curve[1] / (2 * curve[0])))
    return vertex, lowest - vertex


def curves(sweep: Sweep) -> dict[str, dict[int, Points]]:
    """model -> rank -> (rate, mean loss of repeats) by rate, finished runs only."""
    runs: dict[str, dict[int, dict[float, list[float]]]] = defaultdict(
        lambda: defaultdict(lambda: defaultdict(list))
    )
    for row in sweep.finished.itertuples():
        if row.method == "lora":
            runs[str(row.model)][int(row.rank)][float(row.lr)].append(float(row.loss))
    return {
        model: {r: sorted((lr, fmean(losses)) for lr, losses in by_lr.items()) for r, by_lr in ranks.items()}
        for model, ranks in runs.items()
    }


def noise_percent(sweep: Sweep) -> float:
    """Standard deviation of a difference of two cells, percent: repeats of a run below 3e-3, and half the
    parabola's drop as the uncertainty of the best rate."""
    runs = sweep.finished.groupby(["model", "rank", "lr"], observed=True)["loss"]
    pairs = [g / g.mean() for key, g in runs if len(g) == 2 and key[2] < 3e-3]
    repeat = fmean(float(g.max() - g.min()) ** 2 / 2 for g in pairs) if pairs else 0.0
    drops = [
        drop / (2 * loss)
        for ranks in curves(sweep).values()
        for points in ranks.values()
        if len(points) >= LR_POINTS
        for loss, drop in [best_loss(points)]
        if drop
    ]
    return 100 * math.sqrt(2 * (repeat + (fmean(d * d for d in drops) if drops else 0.0)))


def cells(sweep: Sweep, tokens: int, experts: str, layout: str) -> list[Cell]:
    """Every cell but the references. A model that the planner does not know raises a PlannerError."""
    found = []
    for model, ranks in curves(sweep).items():
        full = {rank: points for rank, points in ranks.items() if len(points) >= LR_POINTS}
        if not full or max(full) < RANK_RANGE * min(full):
            continue
        top = max(full)
        reference = best_loss(full[top])[0]
        for rank, points in full.items():
            if rank == top:
                continue
            plan, most = (
                estimate(model, rank=r, layers="all", experts=experts, layout=layout) for r in (rank, top)
            )
            found.append(
                Cell(
                    model, plan.model.params_active != plan.model.params, rank, plan.adapter.params / tokens,
                    most.adapter.params / tokens, 100 * (best_loss(points)[0] / reference - 1),
                )
            )  # fmt: skip
    return found


def fit(known: Sequence[Cell], noise: float) -> Fit:
    """Most likely constants where an excess varies by the noise (added) and by the scatter (multiplied)."""
    ratio, excess = (np.array([getattr(cell, name) for cell in known]) for name in ("ratio", "excess"))

    def cost(logs: np.ndarray) -> float:
        coefficient, exponent, scatter = np.exp(logs)
        expected = coefficient * ratio**-exponent
        variance = noise**2 + (scatter * expected) ** 2
        return float(np.sum((excess - expected) ** 2 / variance + np.log(variance)))

    starts = [np.log([c, a, 0.4]) for c in (0.3, 1.0) for a in (0.4, 0.9)]
    options = {"maxiter": 4000, "xatol": 1e-7, "fatol": 1e-9}
    ends = [minimize(cost, start, method="Nelder-Mead", options=options) for start in starts]
    return Fit(*np.exp(min(ends, key=lambda end: float(end.fun)).x).tolist())


def _mean_where(others: Sequence[Cell], same: Callable[[Cell], bool], noise: float) -> float:
    every = [math.log(cell.excess) for cell in others if cell.excess > noise]
    chosen = [math.log(cell.excess) for cell in others if cell.excess > noise and same(cell)]
    return math.exp(fmean(chosen or every))


def predictions(cell: Cell, others: Sequence[Cell], noise: float) -> dict[str, float]:
    """What the other models say of a cell: by the law, and by three ways without it."""
    return {
        "law": fit(others, noise).predict(cell.ratio),
        "no_law": _mean_where(others, lambda _: True, noise),
        "rule_of_thumb": _mean_where(others, lambda o: (o.ratio >= 1) == (cell.ratio >= 1), noise),
        "rank_alone": _mean_where(others, lambda o: o.rank == cell.rank, noise),
    }


def leave_one_out(known: Sequence[Cell], noise: float) -> dict[str, list[float]]:
    """log(predicted / seen) of each cell above the noise, its model left out, by way of predicting."""
    errors: dict[str, list[float]] = defaultdict(list)
    for cell in known:
        others = [other for other in known if other.model != cell.model]
        if cell.excess > noise:
            for way, value in predictions(cell, others, noise).items():
                errors[way].append(math.log(value / cell.excess))
    return errors


def spread(errors: Sequence[float]) -> float:
    """Root mean square of log errors."""
    return math.sqrt(fmean(error**2 for error in errors))


def median_factor(errors: Sequence[float]) -> float:
    """The factor by which the median prediction is off, up or down."""
    return math.exp(median(abs(error) for error in errors))


def main() -> None:
    """Print the constants and the errors."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("sweep", nargs="?", default=str(facts.data_dir() / "sweeps" / "tinker_sft.csv"))
    parser.add_argument("--tokens", default=TINKER_TOKENS, help="loss tokens that each run saw")
    parser.add_argument("--experts", default="shared-outer", help="how its trainer adapts experts")
    parser.add_argument("--layout", default="tinker", help="which matrices its trainer adapts")
    options = parser.parse_args()
    sweep = read_sweep(Path(options.sweep))
    noise = noise_percent(sweep)
    print(f"noise of an excess: {noise:.3f} %")
    known = cells(sweep, parse_count("tokens", options.tokens), options.experts, options.layout)
    for name, moe in (("dense", False), ("mixture of experts", True)):
        own = [cell for cell in known if cell.moe == moe]
        if len({cell.model for cell in own}) < 3:
            print(f"{name}: fewer than three models, not fitted")
            continue
        found, errors = fit(own, noise), leave_one_out(own, noise)
        ratios, models = [cell.ratio for cell in own], len({cell.model for cell in own})
        print(f"{name}: excess % = {found.coefficient:.3f} * ratio ^ -{found.exponent:.3f}", end=", ")
        print(f"scatter {found.scatter:.3f}; {len(own)} cells of {models} models", end=", ")
        print(f"ratios {min(ratios):.3f} to {max(ratios):.3f}")
        print(f"  models left out, {len(errors['law'])} cells above the noise; median factor (spread):")
        for way, values in errors.items():
            print(f"    {way:14} {median_factor(values):.2f} ({math.exp(spread(values)):.2f})")


if __name__ == "__main__":
    main()
