"""The weighted regret of all cells, for many weightings at once, with cells of equal features as one.

Cells on which a law has the same features get the same rate from it, so that only the weighted sum of their curves
matters. These sums are piecewise cubics on the union of the cells' breaks; their coefficients are made once for each
weighting, and a step of the optimiser then reads as many curves as there are different rows of features.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .cells import Floats, Ints
from .curves import Curves

MERGE_BELOW = 0.7  # groups a cell, above which merging gains nothing
MOST_NUMBERS = 40_000_000  # coefficients of one chunk of weightings


class Weighted(Protocol):
    """A sum of weighted curves over rows of features."""

    @property
    def matrix(self) -> Floats:
        """The features (groups x coefficients)."""

    def smoothed(self, x: Floats, half: float, rows: Ints) -> tuple[Floats, Floats, Floats]:
        """Mean over x - half to x + half, first and second derivative, times the weights of `rows`."""


@dataclass(frozen=True, eq=False)
class Plain:
    """Every cell by itself."""

    curves: Curves
    matrix: Floats
    weights: Floats

    def smoothed(self, x: Floats, half: float, rows: Ints) -> tuple[Floats, Floats, Floats]:
        """Mean over x - half to x + half, first and second derivative, times the weights of `rows`."""
        mean, slope, bend = self.curves.smoothed(x, half)
        w = self.weights if len(self.weights) == 1 else self.weights[rows]
        return w * mean, w * slope, w * bend


@dataclass(frozen=True, eq=False)
class Merged:
    """Groups of cells. `breaks` (pieces, groups, from the second piece on) are padded with inf; `coefficients` are
    (integral, c0 to c3) by weighting, group and piece around `anchors` (groups x pieces); without c2 and c3 where all
    curves are straight between their breaks."""

    matrix: Floats
    breaks: Floats
    anchors: Floats
    coefficients: tuple[Floats, ...]
    shared: bool

    @property
    def straight(self) -> bool:
        """Whether all curves are straight between their breaks."""
        return len(self.coefficients) == 3

    def _piece(self, x: Floats) -> Ints:
        """The piece of each group (last) that holds at x."""
        narrow = len(self.breaks) < np.iinfo(np.int8).max  # counting in bytes is several times faster
        count = np.zeros(x.shape, dtype=np.int8 if narrow else np.int64)
        for line in self.breaks:
            count += (x >= line).view(np.int8)
        return count.astype(np.int64)

    def kinks(self, x: Floats, rows: Ints) -> tuple[Floats, Floats, Floats, Floats]:
        """The break nearest to each log rate, the slopes on its left and right, and the slope at x (straight
        curves)."""
        n_groups, n_pieces = self.anchors.shape
        nearest = np.zeros(x.shape, dtype=np.int64)
        gap = np.abs(x - self.breaks[0])
        for number, line in enumerate(self.breaks):
            closer = np.abs(x - line) < gap
            nearest[closer], gap = number, np.where(closer, np.abs(x - line), gap)
        first = np.arange(n_groups) * n_pieces
        at = self.breaks.T.ravel()[nearest + np.arange(n_groups) * (n_pieces - 1)]
        if not self.shared:
            first = first + rows[:, None] * (n_groups * n_pieces)
        slopes = self.coefficients[2]
        return at, slopes[first + nearest], slopes[first + nearest + 1], slopes[first + self._piece(x)]

    def smoothed(self, x: Floats, half: float, rows: Ints) -> tuple[Floats, Floats, Floats]:
        """Mean over x - half to x + half, first and second derivative, summed over the cells of each group."""
        n_groups, n_pieces = self.anchors.shape
        ends = np.stack([x - half, x + half])
        piece = self._piece(ends) + np.arange(n_groups) * n_pieces
        u = ends - self.anchors.ravel()[piece]
        if not self.shared:
            piece += rows[:, None] * (n_groups * n_pieces)
        area, c0, c1 = (one.take(piece) for one in self.coefficients[:3])
        width = 2 * half
        if self.straight:  # in place: these arrays are most of the time of a thousand refits
            value = c1 * u
            value += c0
            c0 += value
            c0 *= u
            c0 *= 0.5
            area += c0
            return (area[1] - area[0]) / width, (value[1] - value[0]) / width, (c1[1] - c1[0]) / width
        c2, c3 = (one.take(piece) for one in self.coefficients[3:])
        c3u = c3 * u
        value = c0 + u * (c1 + u * (c2 + c3u))
        slope = c1 + u * (2 * c2 + 3 * c3u)
        area = area + u * (c0 + u * (c1 / 2 + u * (c2 / 3 + c3u / 4)))
        return (area[1] - area[0]) / width, (value[1] - value[0]) / width, (slope[1] - slope[0]) / width


@dataclass(frozen=True, eq=False)
class Groups:
    """The cells in groups of equal features, each cell's curve cut at the breaks of its group: `parts[k]` (cells x
    pieces) is the integral (0) or a coefficient of the cell's curve around its group's anchors."""

    matrix: Floats
    members: tuple[Ints, ...]
    breaks: Floats
    anchors: Floats
    parts: tuple[Floats, ...]

    @property
    def numbers(self) -> int:
        """Coefficients that one weighting needs."""
        return 5 * self.anchors.size

    def weighted(self, weights: Floats) -> Merged:
        """The groups' curves for each row of weights."""
        shape = (len(weights), *self.anchors.shape)
        sums = tuple(np.zeros(shape) for _ in self.parts)
        for group, cells in enumerate(self.members):
            for total, part in zip(sums, self.parts, strict=True):
                total[:, group] = weights[:, cells] @ part[cells]
        return Merged(
            self.matrix, self.breaks, self.anchors, tuple(one.ravel() for one in sums), len(weights) == 1
        )


def groups_of(curves: Curves, matrix: Floats) -> Groups | None:
    """The groups, or None where hardly any two cells have the same features."""
    rows, group = np.unique(matrix, axis=0, return_inverse=True)
    group = group.reshape(-1)
    if len(rows) > MERGE_BELOW * curves.n:
        return None
    owner = np.repeat(np.arange(curves.n), np.diff(curves.first))
    finite = np.isfinite(curves.lower)
    cuts = [np.unique(curves.lower[finite & (group[owner] == g)]) for g in range(len(rows))]
    n_pieces = max(map(len, cuts)) + 1
    begins = np.full((len(rows), n_pieces), np.inf)
    for g, cut in enumerate(cuts):
        begins[g, 1 : len(cut) + 1] = cut
    begins[:, 0] = -np.inf
    anchors = np.where(np.isfinite(begins), begins, begins[:, [1]])
    at = begins[group]  # cells x pieces
    piece = np.stack([curves.piece(np.where(np.isfinite(line), line, -np.inf)) for line in at.T], axis=1)
    u = anchors[group] - curves.anchor[piece]
    c0, c1, c2, c3 = curves.coefficients[:, piece]
    area = curves.integral[piece] + u * (c0 + u * (c1 / 2 + u * (c2 / 3 + u * c3 / 4)))
    value, slope = c0 + u * (c1 + u * (c2 + u * c3)), c1 + u * (2 * c2 + 3 * u * c3)
    parts: tuple[Floats, ...] = (area, value, slope, c2 + 3 * u * c3, c3)
    if not (parts[3].any() or parts[4].any()):
        parts = parts[:3]
    members = tuple(np.flatnonzero(group == g) for g in range(len(rows)))
    return Groups(rows, members, np.ascontiguousarray(begins[:, 1:].T), anchors, parts)


STIFF = 1e7  # times the slopes: how hard groups are held at their kinks
AT = 1e-6  # in log rate: at a kink
ROUNDS = 15


def at_kinks(
    weighted: Merged, penalty: Floats, theta: Floats, rows: Ints, half: float
) -> tuple[Floats, NDArray[np.bool_]]:
    """The optimum of a sum of straight lines near theta, and for which draws it is certain.

    Groups within `half` of a kink are held at it (springs, and multipliers from a second pass), the others keep their
    slopes. The result is the optimum where the groups that lie at kinks can take slopes between those on both sides
    that balance all others.
    """
    f, p = weighted.matrix, theta.shape[1]
    outer = (f[:, :, None] * f[:, None, :]).reshape(len(f), p * p)
    kink, left, right, slope = weighted.kinks(theta @ f.T, rows)
    on = (np.abs(theta @ f.T - kink) < half).astype(float)
    scale = np.abs(left).sum(axis=1) + np.abs(right).sum(axis=1)
    stiff = (STIFF * scale)[:, None] * on
    system = (stiff @ outer).reshape(-1, p, p)
    ridge = (1e-6 * scale + 1e-13 * np.trace(system, axis1=1, axis2=2))[:, None]  # around the theta before
    system[:, np.arange(p), np.arange(p)] += 2 * penalty + ridge
    rest, pull = (slope * (1 - on)) @ f, np.zeros_like(on)
    for _ in range(2):
        theta = np.linalg.solve(system, ((stiff * kink - pull) @ f - rest + ridge * theta)[..., None])[..., 0]
        pull += stiff * (theta @ f.T - kink)
    kink, left, right, slope = weighted.kinks(theta @ f.T, rows)
    at = np.abs(theta @ f.T - kink) < AT
    rest = np.where(at, 0.0, slope) @ f + 2 * penalty * theta
    return theta, _balanced(f, at, (left, right), rest, pull, scale)


def _balanced(
    f: Floats, at: NDArray[np.bool_], sides: tuple[Floats, Floats], rest: Floats, pull: Floats, scale: Floats
) -> NDArray[np.bool_]:
    """Whether slopes of the groups at kinks, between their `sides`, add up to minus `rest`: by alternating
    projections on the sides and on the sum, from `pull`."""
    p = f.shape[1]
    outer = (f[:, :, None] * f[:, None, :]).reshape(len(f), p * p)
    low, high = (np.where(at, side, 0.0) for side in sides)
    low, high = np.minimum(low, high), np.maximum(low, high)
    gram = (at @ outer).reshape(-1, p, p)
    gram[:, np.arange(p), np.arange(p)] += 1e-9 * np.trace(gram, axis1=1, axis2=2)[:, None] + 1e-12
    inverse = np.linalg.inv(gram)
    slopes, limit = np.clip(pull, low, high), AT * scale[:, None]
    todo = np.arange(len(at))
    for _ in range(ROUNDS):
        off = -rest[todo] - slopes[todo] @ f
        far = (np.abs(off) > limit[todo]).any(axis=1)
        todo, off = todo[far], off[far]
        if not len(todo):
            break
        move = at[todo] * ((inverse[todo] @ off[..., None])[..., 0] @ f.T)
        slopes[todo] = np.clip(slopes[todo] + move, low[todo], high[todo])
    return np.asarray(np.abs(rest + slopes @ f).max(axis=1) <= AT * scale)
