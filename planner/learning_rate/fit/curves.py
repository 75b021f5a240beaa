"""Loss against log rate, cell by cell, as a regret in percent of the cell's best loss.

Two interpolations of the finished rates. `log-linear` is the article's: straight lines in log rate. `quadratic`
passes a smooth curve whose slope at each rate is that of the parabolas through it and its neighbours; a curve that
is a parabola comes back exactly, and with `asymmetry` one that leans so far to one side (`parabolas.py`). Where a
grid is finer than a third of a unit or so, a local quadratic regression averages the noise first. Steep parabolas
count less, so that a wall on one side digs no hole beside it.

Beyond the finished rates nothing was measured. Over the last grid step before a rate that diverged the regret rises
to 100%: straight (log-linear) or as a parabola (quadratic). Elsewhere it depends on the use: in a fit
(`charged=False`) a cell whose best rate is the last one does not object to rates beyond it (the optimum is
censored), and one whose loss rises goes on rising; in a score (`charged=True`) every rate outside costs as much per
unit of log rate as the measured curve changes on average.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Literal, get_args

import numpy as np
from numpy.typing import NDArray

from ...errors import InputError
from .cells import DIVERGED_REGRET, Cells, Floats, Ints
from .parabolas import Parabolas, cubic, local_fit, shared_asymmetry

Interpolation = Literal["quadratic", "log-linear"]
INTERPOLATIONS: tuple[Interpolation, ...] = get_args(Interpolation)
FAR = 30.0  # in log rate: where the wall of a cell that never diverged would stand
_PADDED = 12  # up to so many pieces a cell, comparing with all breaks beats a binary search


@dataclass(frozen=True, eq=False)
class Curves:
    """Piecewise cubics for all cells. Piece i holds from log rate `lower[i]` on:
    sum over k of coefficients[k, i] * (x - anchor[i])^k; `integral[i]` is the curve's integral from its cell's first
    rate to the anchor. Pieces of cell c are first[c] : first[c + 1].

    `low`, `high` are the first and last finished log rate, `best` the best log rate inside, `best_loss` the loss
    there, `censored` -1, 0 or 1 where it is the lowest, none or the highest finished rate.
    """

    first: Ints
    lower: Floats
    anchor: Floats
    coefficients: Floats
    integral: Floats
    low: Floats
    high: Floats
    best: Floats
    best_loss: Floats
    censored: Ints

    @property
    def n(self) -> int:
        """How many cells."""
        return len(self.low)

    def piece(self, x: Floats) -> Ints:
        """The piece that holds for each log rate; x has the cells last."""
        count = np.diff(self.first)
        if self.n == 0 or int(count.max()) <= _PADDED:
            breaks = self._padded.reshape(-1, *(1,) * (x.ndim - 1), self.n)
            # At most 12 breaks: counted in bytes, many times faster than a sum of booleans.
            return np.asarray(self.first[:-1] + (x >= breaks).view(np.int8).sum(axis=0, dtype=np.int8))
        span = self._key_span
        keys = self._keys
        wanted = np.clip(x - self._key_low, 1e-9, span - 1e-9) + np.arange(self.n) * span
        return np.searchsorted(keys, wanted, side="right") - 1

    def __post_init__(self) -> None:
        """Tables for `piece`: breaks from the second on (pieces x cells), or one key for all cells."""
        count = np.diff(self.first)
        inner = self.lower[np.isfinite(self.lower)]
        if self.n and int(count.max()) <= _PADDED:
            padded = np.full((self.n, int(count.max())), np.inf)
            column = np.arange(len(self.lower)) - np.repeat(self.first[:-1], count)
            padded[np.repeat(np.arange(self.n), count), column] = self.lower
            object.__setattr__(self, "_padded", np.ascontiguousarray(padded[:, 1:].T))
        elif self.n:
            low, span = float(inner.min()) - 1.0, float(np.ptp(inner)) + 2.0
            owner = np.repeat(np.arange(self.n), count)
            keys = np.where(np.isfinite(self.lower), self.lower - low, 0.0) + owner * span
            object.__setattr__(self, "_key_low", low)
            object.__setattr__(self, "_key_span", span)
            object.__setattr__(self, "_keys", keys)

    @cached_property
    def _straight(self) -> bool:
        """Whether all curves are straight between their breaks."""
        return not self.coefficients[2:].any()

    _padded: Floats = None  # type: ignore[assignment]
    _keys: Floats = None  # type: ignore[assignment]
    _key_low: float = 0.0
    _key_span: float = 0.0

    def value(self, x: Floats) -> Floats:
        """Regret in percent at log rates x (cells last)."""
        i = self.piece(x)
        u = x - self.anchor[i]
        c = self.coefficients
        return np.asarray(c[0, i] + u * (c[1, i] + u * (c[2, i] + u * c[3, i])))

    def slope(self, x: Floats) -> Floats:
        """Its derivative by log rate."""
        i = self.piece(x)
        u = x - self.anchor[i]
        c = self.coefficients
        return np.asarray(c[1, i] + u * (2 * c[2, i] + 3 * u * c[3, i]))

    def smoothed(self, x: Floats, half: float) -> tuple[Floats, Floats, Floats]:
        """The mean of the regret over x - half to x + half, with its first and second derivative: a curve without
        kinks, equal to the regret as half goes to 0."""
        integral, value, slope = self._at(np.stack([x - half, x + half]))
        width = 2 * half
        return (
            (integral[1] - integral[0]) / width,
            (value[1] - value[0]) / width,
            (slope[1] - slope[0]) / width,
        )

    def _at(self, x: Floats) -> tuple[Floats, Floats, Floats]:
        """Integral, value and slope."""
        i = self.piece(x)
        u = x - self.anchor.take(i)
        c0, c1 = self.coefficients[0].take(i), self.coefficients[1].take(i)
        area = self.integral.take(i)
        if self._straight:
            return area + u * (c0 + u * (c1 / 2)), c0 + u * c1, c1
        c2, c3 = self.coefficients[2].take(i), self.coefficients[3].take(i)
        c3u = c3 * u
        value = c0 + u * (c1 + u * (c2 + c3u))
        slope = c1 + u * (2 * c2 + 3 * u * c3)
        integral = area + u * (c0 + u * (c1 / 2 + u * (c2 / 3 + c3u / 4)))
        return integral, value, slope


def _segment_minimum(c: Floats, gap: Floats) -> tuple[Floats, Floats]:
    """Where each cubic is lowest in 0..gap, and its value there."""
    best_u = np.where(c[0] <= c[0] + gap * (c[1] + gap * (c[2] + gap * c[3])), 0.0, gap)
    best = c[0] + best_u * (c[1] + best_u * (c[2] + best_u * c[3]))
    root = np.sqrt(np.maximum(c[2] ** 2 - 3 * c[1] * c[3], 0.0))
    with np.errstate(divide="ignore", invalid="ignore"):
        for candidate in (-c[1] / (c[2] + root), (-c[2] + root) / (3 * c[3])):
            u = np.where(np.isfinite(candidate), np.clip(candidate, 0.0, gap), 0.0)
            value = c[0] + u * (c[1] + u * (c[2] + u * c[3]))
            better = value < best
            best_u, best = np.where(better, u, best_u), np.where(better, value, best)
    return best_u, best


def _slopes(cells: Cells, y: Floats, asymmetry: float) -> Floats:
    """The slopes of the quadratic interpolant at the points: those of the shape that all cells share, and those of
    parabolas through what is left."""
    parabolas = Parabolas.of(cells, y)
    slopes = parabolas.slopes(y)
    if asymmetry:
        u, third = cubic(cells, y, asymmetry)
        slopes += 3 * third * u**2 - parabolas.slopes(third * u**3)
    return slopes


def _inner_pieces(
    cells: Cells, kind: Interpolation, asymmetry: float
) -> tuple[Floats, Floats, Ints, Floats, Floats]:
    """Cubic coefficients of the stretches between neighbouring points (regret against the lowest point, percent),
    their lengths, the point at which each begins, the slope of the curve at every point, the lowest losses."""
    loss = local_fit(cells) if kind == "quadratic" else cells.loss
    lowest = np.minimum.reduceat(loss, cells.start[:-1])
    y = (loss / lowest[cells.owner] - 1) * 100
    left = np.flatnonzero(np.diff(cells.owner) == 0)
    gap = cells.x[left + 1] - cells.x[left]
    secant = (y[left + 1] - y[left]) / gap
    slopes = _slopes(cells, y, asymmetry) if kind == "quadratic" else np.zeros(len(y))
    c = np.zeros((4, len(left)))
    c[0] = y[left]
    if kind == "log-linear":
        c[1] = secant
    else:
        s0, s1 = slopes[left], slopes[left + 1]
        c[1] = s0
        c[2] = (3 * secant - 2 * s0 - s1) / gap
        c[3] = (s0 + s1 - 2 * secant) / gap**2
    return c, gap, left, slopes, lowest


def fit_curves(cells: Cells, kind: Interpolation = "quadratic") -> Curves:
    """The curves that a law is fitted to: with the asymmetry that all sweeps share."""
    return make_curves(cells, kind, asymmetry=shared_asymmetry(cells) if kind == "quadratic" else 0.0)


def make_curves(
    cells: Cells, kind: Interpolation = "quadratic", *, charged: bool = False, asymmetry: float = 0.0
) -> Curves:
    """The curves of all cells. `charged` says what a rate outside the finished ones costs (see the module)."""
    if kind not in INTERPOLATIONS:
        raise InputError("interpolation", kind, f"one of {', '.join(INTERPOLATIONS)}")
    c, gap, left, slopes, bottom = _inner_pieces(cells, kind, asymmetry)
    owner = cells.owner[left]
    first_of = np.concatenate([[0], np.cumsum(np.bincount(owner, minlength=cells.n))]).astype(np.int64)
    at, lowest = _segment_minimum(c, gap)
    depth = np.minimum.reduceat(lowest, first_of[:-1])
    is_best = lowest <= depth[owner] + 1e-12
    position = cells.x[left] + at
    best = np.full(cells.n, np.inf)
    np.minimum.at(best, owner, np.where(is_best, position, np.inf))
    scale = 1 / (1 + depth / 100)
    c[0] -= depth[owner]
    c *= scale[owner]
    first, last = cells.start[:-1], cells.start[1:] - 1
    low, high = cells.x[first], cells.x[last]
    charge = np.add.reduceat(np.abs(c[0] - _end_values(c, gap)), first_of[:-1]) / (high - low)
    slope_ends = slopes * scale[cells.owner] if kind == "quadratic" else None
    left_end, right_end, wall_end, wall_from = _outer(cells, c, gap, first_of, slope_ends, charge, charged)
    pieces = first_of[1:] - first_of[:-1] + 3
    start = np.concatenate([[0], np.cumsum(pieces)]).astype(np.int64)
    total = int(start[-1])
    lower, anchor, coefficients = np.empty(total), np.empty(total), np.zeros((4, total))
    inner = np.arange(len(left)) + 3 * owner + 1
    lower[inner] = anchor[inner] = cells.x[left]
    coefficients[:, inner] = c
    head, tail, end = start[:-1], start[1:] - 2, start[1:] - 1
    lower[head], anchor[head], coefficients[:, head] = -np.inf, low, left_end
    lower[tail], anchor[tail], coefficients[:, tail] = high, high, right_end
    lower[end], anchor[end], coefficients[:, end] = wall_from, wall_from, wall_end
    areas = gap * (c[0] + gap * (c[1] / 2 + gap * (c[2] / 3 + gap * c[3] / 4)))
    integral = np.zeros(total)
    running = np.concatenate([[0.0], np.cumsum(areas)])
    integral[inner] = running[:-1] - running[first_of[:-1]][owner]
    integral[tail] = running[first_of[1:]] - running[first_of[:-1]]
    flat = wall_from - high
    integral[end] = integral[tail] + flat * (right_end[0] + flat * right_end[1] / 2)
    censored = np.where(best <= low + 1e-9, -1, np.where(best >= high - 1e-9, 1, 0)).astype(np.int64)
    floor_loss = bottom * (1 + depth / 100)
    return Curves(start, lower, anchor, coefficients, integral, low, high, best, floor_loss, censored)


def _end_values(c: Floats, gap: Floats) -> Floats:
    return np.asarray(c[0] + gap * (c[1] + gap * (c[2] + gap * c[3])))


def _outer(
    cells: Cells, c: Floats, gap: Floats, first_of: Ints, slopes: Floats | None, charge: Floats, charged: bool
) -> tuple[Floats, Floats, Floats, Floats]:
    """The coefficients below the first finished rate, above the last, and over the last grid step before divergence,
    with the log rate at which that begins (far away where a cell never diverged). `slopes` are those of the curve at
    the points, None where it is straight."""
    head, tail = first_of[:-1], first_of[1:] - 1
    last = cells.start[1:] - 1
    slope_left = c[1, head] if slopes is None else slopes[cells.start[:-1]]
    slope_right = c[1, tail] if slopes is None else slopes[last]
    left, right, wall = np.zeros((4, cells.n)), np.zeros((4, cells.n)), np.zeros((4, cells.n))
    left[0] = c[0, head]
    left[1] = -charge if charged else np.minimum(slope_left, 0.0)
    right[0] = _end_values(c, gap)[tail]
    right[1] = charge if charged else np.maximum(slope_right, 0.0)
    step = (cells.x[last] - cells.x[cells.start[:-1]]) / (last - cells.start[:-1])
    walled: NDArray[np.bool_] = np.isfinite(cells.wall)
    begins = np.where(walled, np.maximum(cells.wall - step, cells.x[last]), cells.x[last] + FAR)
    flat = begins - cells.x[last]
    wall[0] = right[0] + right[1] * flat
    wall[1] = right[1]
    distance = np.where(walled, cells.wall - begins, 1.0)
    rise = np.where(walled, np.maximum(DIVERGED_REGRET - wall[0], 0.0), 0.0)
    if slopes is None:
        wall[1] = np.where(walled, rise / distance, wall[1])
    else:
        wall[1] = np.where(walled, np.maximum(slope_right, 0.0), wall[1])
        wall[2] = rise / distance**2
    return left, right, wall, begins
