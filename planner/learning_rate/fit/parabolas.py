"""Parabolas through neighbouring rates, and how far the curves of all sweeps lean to one side.

Loss rises faster above the best rate than below it. A parabola through three rates a factor of two or three apart
then misses the lowest point, on average to one side. One sweep cannot tell its own lean from noise, all of them
together can: near its lowest point each curve is taken as

    regret = b (u^2 + asymmetry * u^3),   u = log rate over the best rate

with the curvature b of each cell and one asymmetry for all. On the shipped sweep this reading misses rates that were
run and left out by a third less than parabolas alone (docs/learning_rate.md). Neglects that cells may lean
differently, and terms of fourth order.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from .cells import Cells, Floats, Ints

REACH = 1.0  # of the local regression on either side, in log rate
FEWEST = 5  # curves of four rates or more around the lowest, below which none is taken to lean
MOST_ASYMMETRY = 0.5
ROUNDS = 4
_MAD = 1.4826  # standard deviation of a normal distribution over its median absolute deviation
_L1 = 1.2533  # standard error of a median over that of a mean


def local_fit(cells: Cells) -> Floats:
    """The losses after a local quadratic regression: at each point the weighted parabola through its cell's points
    within REACH of it, where there are more than three. A parabola comes back exactly, noise on a fine grid is
    averaged, and a coarse grid is left as it is."""
    x, y, owner = cells.x, cells.loss, cells.owner
    n = len(x)
    if n < 4 or not np.any((x[3:] - x[:-3] < 2 * REACH) & (owner[3:] == owner[:-3])):
        return y
    moments = np.zeros((n, 5))
    sides = np.zeros((n, 3))
    count = np.zeros(n, dtype=np.int64)
    shift, more = 0, True
    while more:
        more = False
        for step in {shift, -shift}:
            j = np.arange(n) + step
            ok = (j >= 0) & (j < n)
            j = np.clip(j, 0, n - 1)
            u = (x[j] - x) / REACH
            ok &= (owner[j] == owner) & (np.abs(u) < 1)
            more |= bool(ok.any())
            weight = np.where(ok, cells.runs[j] * (1 - np.minimum(np.abs(u), 1) ** 3) ** 3, 0.0)
            powers = u[:, None] ** np.arange(5)
            moments += weight[:, None] * powers
            sides += (weight * y[j])[:, None] * powers[:, :3]
            count += ok
        shift += 1
    enough = np.flatnonzero(count > 3)
    normal = moments[enough][:, np.arange(3)[:, None] + np.arange(3)]
    normal[:, np.arange(3), np.arange(3)] += 1e-9 * moments[enough][:, [0, 2, 4]] + 1e-12
    fitted = y.copy()
    fitted[enough] = np.linalg.solve(normal, sides[enough][..., None])[:, 0, 0]
    return fitted


@dataclass(frozen=True, eq=False)
class Parabolas:
    """Slopes at the points from up to three parabolas, each through a point and its neighbours. `weights` (shifts x
    points) are those of the parabolas centred on the point before, on and after it: flat ones weigh more."""

    x: Floats
    same: NDArray[np.bool_]
    weights: Floats

    @classmethod
    def of(cls, cells: Cells, y: Floats) -> Parabolas:
        """With weights by the curvature of y."""
        x, owner, n = cells.x, cells.owner, len(cells.x)
        same = owner[1:] == owner[:-1]
        if n < 3:
            return cls(x, same, np.zeros((3, n)))
        bend = bends(x, same, y)
        inner = np.zeros(n, dtype=bool)
        inner[1:-1] = same[1:] & same[:-1]
        at = np.flatnonzero(inner)
        counts = np.bincount(owner[at], minlength=cells.n)
        order = np.lexsort((np.abs(bend[at]), owner[at]))
        begin = np.concatenate([[0], np.cumsum(counts)[:-1]])
        typical = np.abs(bend[at])[order][np.minimum(begin + (counts - 1) // 2, len(at) - 1)]
        floor = typical[owner] ** 2 + 1e-12
        weights = np.zeros((3, n))
        for row, shift in enumerate((-1, 0, 1)):
            j = np.arange(n) + shift
            ok = (j > 0) & (j < n - 1)
            j = np.clip(j, 1, n - 2)
            ok &= inner[j] & (owner[j] == owner)
            weights[row] = np.where(ok, 1.0 / (bend[j] ** 2 + floor), 0.0)
        return cls(x, same, weights / weights.sum(axis=0))

    def slopes(self, values: Floats) -> Floats:
        """The slopes of `values` at the points."""
        x, n = self.x, len(self.x)
        total = np.zeros(n)
        if n < 3:
            return total
        bend, secant = bends(x, self.same, values), _secants(x, self.same, values)
        for weight, shift in zip(self.weights, (-1, 0, 1), strict=True):
            j = np.clip(np.arange(n) + shift, 1, n - 2)
            slope = secant[j - 1] + bend[j] * (2 * x - x[j - 1] - x[j])
            total += np.where(weight > 0, weight * slope, 0.0)
        return total


def _secants(x: Floats, same: NDArray[np.bool_], y: Floats) -> Floats:
    return np.asarray(np.diff(y) / np.where(same, np.diff(x), 1.0))


def bends(x: Floats, same: NDArray[np.bool_], y: Floats) -> Floats:
    """Half the second derivative of the parabola through each inner point and its neighbours; 0 at the others."""
    out = np.zeros(len(x))
    at = np.flatnonzero(same[1:] & same[:-1]) + 1
    secant = _secants(x, same, y)
    out[at] = (secant[at] - secant[at - 1]) / (x[at + 1] - x[at - 1])
    return out


@dataclass(frozen=True, eq=False)
class _Bottom:
    """The parabola of each cell around its lowest point: its middle point, half its second derivative (nan where it
    does not open upwards), and by how much its three log rates together lie above its vertex."""

    middle: Ints
    bend: Floats
    above: Floats
    inner: NDArray[np.bool_]

    @classmethod
    def of(cls, cells: Cells, y: Floats, bend: Floats) -> _Bottom:
        """Of the curves y; `inner` marks cells whose lowest point has others on both sides."""
        x, first, last = cells.x, cells.start[:-1], cells.start[1:] - 1
        lowest = np.full(cells.n, len(x))
        is_lowest = y <= np.minimum.reduceat(y, first)[cells.owner]
        np.minimum.at(lowest, cells.owner, np.where(is_lowest, np.arange(len(x)), len(x)))
        middle = np.clip(lowest, first + 1, last - 1)
        b = np.where(bend[middle] > 0, bend[middle], np.nan)
        secant = (y[middle + 1] - y[middle]) / (x[middle + 1] - x[middle])
        vertex = (x[middle] + x[middle + 1]) / 2 - secant / (2 * b)
        above = x[middle - 1] + x[middle] + x[middle + 1] - 3 * vertex
        return cls(middle, b, above, (lowest == middle) & np.isfinite(b))

    def curvature(self, asymmetry: float) -> Floats:
        """b of each cell at its lowest point, where the curves lean so far."""
        return np.asarray(self.bend / np.maximum(1 + asymmetry * np.clip(self.above, -2.0, 2.0), 0.3))


def _percent(cells: Cells) -> Floats:
    loss = local_fit(cells)
    return np.asarray((loss / np.minimum.reduceat(loss, cells.start[:-1])[cells.owner] - 1) * 100)


def _thirds(cells: Cells, bend: Floats, bottom: _Bottom) -> Floats:
    """The third divided differences of each cell over the four rates around its lowest one, the mean of both such
    sets; nan where there is none."""
    x, first, last = cells.x, cells.start[:-1], cells.start[1:] - 1
    total, count = np.zeros(cells.n), np.zeros(cells.n)
    for low in (bottom.middle - 2, bottom.middle - 1):
        high = low + 3
        ok = bottom.inner & (low >= first) & (high <= last)
        low, high = np.clip(low, 0, len(x) - 1), np.clip(high, 0, len(x) - 1)
        total += np.where(ok, (bend[high - 1] - bend[high - 2]) / np.where(ok, x[high] - x[low], 1.0), 0.0)
        count += ok
    return np.where(count > 0, total / np.maximum(count, 1), np.nan)


def shared_asymmetry(cells: Cells) -> float:
    """How far the curves lean, in 1 / log rate: the weighted median over cells of their third difference over their
    curvature, drawn towards 0 by how little it is known; 0 where fewer than FEWEST cells can tell."""
    y = _percent(cells)
    same = cells.owner[1:] == cells.owner[:-1]
    bend = bends(cells.x, same, y)
    bottom = _Bottom.of(cells, y, bend)
    third = _thirds(cells, bend, bottom)
    known = np.isfinite(third)
    if int(known.sum()) < FEWEST:
        return 0.0
    third, found, b = third[known], 0.0, bottom.bend[known]
    for _ in range(ROUNDS):
        b = bottom.curvature(found)[known]
        order = np.argsort(third / b)
        running = np.cumsum(b[order])
        found = float((third / b)[order][np.searchsorted(running, running[-1] / 2)])
        found = float(np.clip(found, -MOST_ASYMMETRY, MOST_ASYMMETRY))
    error = _L1 * _MAD * float(np.median(np.abs(third - found * b))) / float(np.sqrt((b**2).sum()))
    return found * max(0.0, 1 - (error / found) ** 2) if found else 0.0


def cubic(cells: Cells, y: Floats, asymmetry: float) -> tuple[Floats, Floats]:
    """For each point its log rate above the cell's lowest point, and the third-order coefficient of its cell."""
    same = cells.owner[1:] == cells.owner[:-1]
    bottom = _Bottom.of(cells, y, bends(cells.x, same, y))
    third = np.nan_to_num(asymmetry * bottom.curvature(asymmetry))
    return cells.x - cells.x[bottom.middle][cells.owner], third[cells.owner]
