"""Means with intervals, and the best learning rate of a sweep: the arithmetic behind verdicts."""

from __future__ import annotations

import math
import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

# Student's t at 97.5% by degrees of freedom (standard table); 1.96 above 30.
_T = (
    12.706,
    4.303,
    3.182,
    2.776,
    2.571,
    2.447,
    2.365,
    2.306,
    2.262,
    2.228,
    2.201,
    2.179,
    2.160,
    2.145,
    2.131,
)


@dataclass(frozen=True)
class Interval:
    """A value with its 95% interval; without repetitions the ends are None."""

    value: float
    low: float | None = None
    high: float | None = None

    def map(self, function: Callable[[float], float]) -> Interval:
        """A rising function of value and ends."""
        low, high = (None if end is None else function(end) for end in (self.low, self.high))
        return Interval(function(self.value), low, high)


def t_quantile(freedom: int) -> float:
    """Student's t at 97.5%: a table up to 15 degrees of freedom, then 1.96 (1 + 1.2 / freedom), right to 0.5%."""
    return _T[freedom - 1] if freedom <= len(_T) else 1.96 * (1 + 1.2 / freedom)


def interval(values: Sequence[float]) -> Interval:
    """Mean and its 95% interval over repetitions, mean +- t s / sqrt(n)."""
    mean = statistics.fmean(values)
    if len(values) < 2:
        return Interval(mean)
    half = t_quantile(len(values) - 1) * statistics.stdev(values) / math.sqrt(len(values))
    return Interval(mean, mean - half, mean + half)


def bootstrap(
    groups: Sequence[Sequence[float]], statistic: Callable[[list[float]], float], draws: int = 2000
) -> Interval:
    """A statistic of pooled values with the 95% interval of a bootstrap over groups (models), seeded."""
    rng = random.Random("bootstrap")
    found = sorted(
        statistic([value for group in rng.choices(groups, k=len(groups)) for value in group])
        for _ in range(draws)
    )
    whole = statistic([value for group in groups for value in group])
    return Interval(whole, found[int(0.025 * draws)], found[int(0.975 * draws) - 1])


def quantile(values: Sequence[float], share: float) -> float:
    """The value at a share of the sorted values, between two by line."""
    ordered = sorted(values)
    place = share * (len(ordered) - 1)
    below = math.floor(place)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (place - below)


@dataclass(frozen=True)
class Optimum:
    """The best rate of one sweep and the loss there; `inside` where points with losses lie on both sides."""

    lr: float
    loss: float
    inside: bool


def optimum(points: Sequence[tuple[float, float]]) -> Optimum | None:
    """The vertex of the parabola in log rate through the lowest point and its neighbours; at an edge the edge itself.

    A diverged run is an infinite loss: it bounds the optimum from above, and the lowest point beside it stands as it
    is. None where every run diverged. Rates must differ.
    """
    ordered = sorted(points)
    finite = [n for n, (_, loss) in enumerate(ordered) if math.isfinite(loss)]
    if not finite:
        return None
    best = min(finite, key=lambda n: ordered[n][1])
    inside = 0 < best < len(ordered) - 1
    around = ordered[best - 1 : best + 2] if inside else []
    if not inside or not all(math.isfinite(loss) for _, loss in around):
        return Optimum(*ordered[best], inside)
    (x0, y0), (x1, y1), (x2, y2) = [(math.log(lr), loss) for lr, loss in around]
    left, right = (y1 - y0) / (x1 - x0), (y2 - y1) / (x2 - x1)
    curvature = (right - left) / (x2 - x0)
    if curvature <= 0:
        return Optimum(*ordered[best], inside)
    vertex = (x0 + x1) / 2 - left / (2 * curvature)
    loss = y0 + left * (vertex - x0) + curvature * (vertex - x0) * (vertex - x1)
    return Optimum(math.exp(vertex), loss, inside)
