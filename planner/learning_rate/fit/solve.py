"""Minimises the summed regret over the coefficients of a law, for many weightings of the cells at once.

    objective(theta) = sum over cells of weight * regret(matrix @ theta) + pooling * sum of pooled theta^2

The sum is piecewise smooth and nearly convex. It is minimised by Levenberg-Marquardt steps on the curves averaged
over a window that narrows from stage to stage (graduated non-convexity), from the best constant rate and from any
start given. Everything is deterministic, and all weightings advance together.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from .cells import Floats, Ints
from .curves import Curves
from .merged import MOST_NUMBERS, Groups, Merged, Plain, Weighted, at_kinks, groups_of

# Half the window, in units of log rate, stage by stage.
WINDOWS = {
    "quadratic": (0.6, 0.2, 0.02, 0.0005),
    "log-linear": (0.6, 0.3, 0.1, 0.03, 0.005, 0.0005, 0.00005),
}
NEAR, LEAST = 0.05, 3  # the widest window from a start that is near the optimum, and the fewest windows
SNAP = 0.006  # from this window on the optimum of straight lines is looked for at their kinks
MAX_STEPS = 40
TOLERANCE = 1e-6
_CHUNK = 4_000_000  # cells x weightings that are held at once


@dataclass(frozen=True, eq=False)
class Problem:
    """One objective: curves, the design matrix (cells x coefficients), the cost of pooled coefficients (or a row of
    costs for each draw), the windows."""

    curves: Curves
    matrix: Floats
    penalty: Floats
    windows: tuple[float, ...]

    def value(self, theta: Floats, weights: Floats) -> Floats:
        """The objective itself, without smoothing; theta (draws, coefficients), weights (draws or 1, cells)."""
        regret = self.curves.value(theta @ self.matrix.T)
        return np.asarray((weights * regret).sum(axis=-1) + (theta**2 * self.penalty).sum(axis=-1))

    def some(self, rows: Ints | slice) -> Problem:
        """The problem of some draws."""
        return self if self.penalty.ndim == 1 else replace(self, penalty=self.penalty[rows])


@dataclass(frozen=True, eq=False)
class Solution:
    """The coefficients and the objective of each draw; whether its last stage came to rest."""

    theta: Floats
    objective: Floats
    converged: NDArray[np.bool_]


def _stage(
    weighted: Weighted, problem: Problem, theta: Floats, active: Ints, half: float, steps: int
) -> tuple[Floats, Floats]:
    """Levenberg-Marquardt on the smoothed objective from theta, for the draws `active`; returns theta and the length
    of the last steps."""
    p = theta.shape[1]
    f = weighted.matrix
    product = products(f)
    diagonal = np.arange(p)
    theta = theta.copy()
    last = np.zeros(len(theta))
    damping = np.full(len(theta), 1e-3)
    radius = np.full(len(theta), min(8 * half, 2.0))
    r, g, h = weighted.smoothed(theta[active] @ f.T, half, active)
    objective = np.zeros(len(theta))
    objective[active] = r.sum(axis=1) + (theta[active] ** 2 * problem.some(active).penalty).sum(axis=1)
    for _ in range(steps):
        t, penalty = theta[active], problem.some(active).penalty
        gradient = g @ f + 2 * t * penalty
        curvature = product.weighted(np.maximum(h, 0.0))
        curvature[:, diagonal, diagonal] += 2 * penalty
        scale = curvature[:, diagonal, diagonal] + 1e-9 + 1e-3 * np.abs(g).sum(axis=1)[:, None] / len(f)
        curvature[:, diagonal, diagonal] += damping[active][:, None] * scale + 1e-12
        step = -_solved(curvature, gradient)
        reach = np.abs(step @ f.T).max(axis=1)
        step *= np.minimum(1.0, radius[active] / np.maximum(reach, 1e-300))[:, None]
        moved = np.minimum(reach, radius[active])
        r1, g1, h1 = weighted.smoothed((t + step) @ f.T, half, active)
        trial = r1.sum(axis=1) + ((t + step) ** 2 * penalty).sum(axis=1)
        better = trial <= objective[active]
        where = active[better]
        theta[where] += step[better]
        objective[where] = trial[better]
        damping[where] = np.maximum(damping[where] / 6, 1e-9)
        radius[where] = np.minimum(radius[where] * 2, min(8 * half, 2.0))
        damping[active[~better]] *= 8
        radius[active[~better]] = moved[~better] / 4
        last[active] = moved
        small = moved < max(TOLERANCE * 1e-3, half * 1e-3)
        g, h = np.where(better[:, None], g1, g), np.where(better[:, None], h1, h)
        stay = ~small
        active, g, h = active[stay], g[stay], h[stay]
        if not len(active):
            break
    return theta, last


@dataclass(frozen=True, eq=False)
class _Products:
    """Products of the columns of a design that are not 0 everywhere: columns of families never meet."""

    rows: Ints
    columns: Ints
    values: Floats
    size: int

    def weighted(self, weights: Floats) -> Floats:
        """f' diag(w) f for each row of weights."""
        out = np.zeros((len(weights), self.size, self.size))
        out[:, self.rows, self.columns] = out[:, self.columns, self.rows] = weights @ self.values
        return out


def products(f: Floats) -> _Products:
    """The products of a design's columns."""
    rows, columns = np.triu_indices(f.shape[1])
    values = f[:, rows] * f[:, columns]
    some = values.any(axis=0)
    return _Products(rows[some], columns[some], np.ascontiguousarray(values[:, some]), f.shape[1])


def _solved(matrix: Floats, right: Floats) -> Floats:
    """matrix^-1 right for each draw; by the formula for two coefficients."""
    if right.shape[1] == 2:
        (a, b), (c, d) = matrix[:, 0].T, matrix[:, 1].T
        one, two = right.T
        return np.asarray(np.stack([d * one - b * two, a * two - c * one], axis=1) / (a * d - b * c)[:, None])
    return np.asarray(np.linalg.solve(matrix, right[..., None])[..., 0])


def _solve_chunk(
    problem: Problem, groups: Groups | None, start: Floats, weights: Floats, max_steps: int
) -> Solution:
    weighted: Weighted = Plain(problem.curves, problem.matrix, weights)
    if groups is not None:
        weighted = groups.weighted(weights)
    theta, active = start, np.arange(len(start))
    last = np.zeros(len(start))
    for half in problem.windows:
        theta, moved = _stage(weighted, problem, theta, active, half, max_steps)
        last[active] = moved[active]
        if half <= SNAP and isinstance(weighted, Merged) and weighted.straight:
            active = _snapped(problem, weighted, theta, active, weights, half)
        if not len(active):
            break
    value = problem.value(theta, weights)
    return Solution(theta, value, last < 1e-2)


def _snapped(
    problem: Problem, weighted: Merged, theta: Floats, active: Ints, weights: Floats, half: float
) -> Ints:
    """Move the draws `active` to the optimum at their kinks where that is certain, and after the last window where it
    is lower at all; returns the others."""
    ends = half == problem.windows[-1]
    for near in (half, half / 10, half / 100) if ends else (half,):
        if not len(active):
            break
        own = problem.some(active)
        found, sure = at_kinks(weighted, own.penalty, theta[active], active, near)
        better = sure
        if ends:
            w = weights if len(weights) == 1 else weights[active]
            better = sure | (own.value(found, w) < own.value(theta[active], w))
        theta[active[better]] = found[better]
        active = active[~sure]
    return active


def solve_from(problem: Problem, start: Floats, weights: Floats, max_steps: int = MAX_STEPS) -> Solution:
    """The optimum near `start` (draws, coefficients) for each row of weights (one row serves all starts)."""
    groups = groups_of(problem.curves, problem.matrix)
    size = max(1, _CHUNK // max(1, problem.curves.n))
    if groups is not None and len(weights) > 1:
        size = max(1, min(size, MOST_NUMBERS // groups.numbers))
    parts = []
    for i in range(0, len(start), size):
        w = weights if len(weights) == 1 else weights[i : i + size]
        rows = slice(i, i + size)
        parts.append(_solve_chunk(problem.some(rows), groups, start[rows], w, max_steps))
    return Solution(
        np.concatenate([s.theta for s in parts]),
        np.concatenate([s.objective for s in parts]),
        np.concatenate([s.converged for s in parts]),
    )


def constant_start(problem: Problem, weights: Floats) -> Floats:
    """For each row of weights the best constant log rate as coefficients (the first column is the constant)."""
    curves = problem.curves
    grid = np.linspace(float(curves.low.min()), float(curves.high.max()), 61)
    table = np.stack([curves.value(np.full(curves.n, x)) for x in grid])
    theta = np.zeros((len(weights), problem.matrix.shape[1]))
    theta[:, 0] = grid[np.argmin(weights @ table.T, axis=1)]
    return theta


def better_of(one: Solution, two: Solution) -> Solution:
    """The lower of two solutions, draw by draw."""
    swap = two.objective < one.objective - 1e-9
    return Solution(
        np.where(swap[:, None], two.theta, one.theta),
        np.where(swap, two.objective, one.objective),
        np.where(swap, two.converged, one.converged),
    )


def without_what_cannot_be_told(problem: Problem, theta: Floats, weights: Floats) -> Floats:
    """For each row of weights the coefficients theta without what the cells of positive weight cannot tell.

    Coefficients may trade against each other there without changing any of these cells; of all such equivalents the
    one with the smallest coefficients beside the constant is taken, so that an exponent that nothing determines is 0
    and no fit without a model keeps what only that model could tell.
    """
    out = np.repeat(theta[None], len(weights), axis=0)
    some = np.flatnonzero((weights <= 0).any(axis=1))
    if not len(some):
        return out
    f, p = problem.matrix, len(theta)
    outer = (f[:, :, None] * f[:, None, :]).reshape(len(f), p * p)
    gram = ((weights[some] > 0).astype(float) @ outer).reshape(-1, p, p) + np.diag(
        np.atleast_2d(problem.penalty)[0] > 0
    )
    values, vectors = np.linalg.eigh(gram)
    for row, value, vector in zip(some, values, vectors, strict=True):
        null = vector[:, value < 1e-9 * value[-1]]
        if null.shape[1]:
            out[row] -= null @ np.linalg.pinv(null[1:]) @ theta[1:]
    return out


def refit(
    problem: Problem, weights: Floats, near: Floats | None = None, max_steps: int = MAX_STEPS
) -> Solution:
    """The optimum for each row of weights (draws, cells), from the best constant and, where given, from `near`."""
    if near is None:
        return solve_from(problem, constant_start(problem, weights), weights, max_steps)
    return solve_from(
        near_problem(problem), without_what_cannot_be_told(problem, near, weights), weights, max_steps
    )


def leave_out(groups: Ints) -> Floats:
    """A row of weights for each group: 0 for its cells, 1 for the others."""
    return np.asarray(np.arange(int(groups.max()) + 1)[:, None] != groups[None], dtype=float)


def near_problem(problem: Problem) -> Problem:
    """The problem from a start near its optimum: the last windows alone."""
    few = max(LEAST, sum(half <= NEAR for half in problem.windows))
    return replace(problem, windows=problem.windows[-few:])


def fit_each(problem: Problem, penalties: Floats, starts: int = 24) -> Solution:
    """The global optimum with all weights 1 for each row of penalties: from the best constant and from a spread of
    starts around what that leads to."""
    k, p = penalties.shape
    ones = np.ones((1, problem.curves.n))
    first = solve_from(
        replace(problem, penalty=penalties), constant_start(problem, ones).repeat(k, axis=0), ones
    )
    rng = np.random.default_rng(0)
    spread = rng.normal(size=(starts, p)) * 0.5 / np.maximum(np.abs(problem.matrix).max(axis=0), 1e-9)
    spread = np.concatenate([np.zeros((1, p)), spread])
    around = (first.theta[:, None] + spread).reshape(-1, p)
    found = solve_from(replace(problem, penalty=penalties.repeat(len(spread), axis=0)), around, ones)
    best = np.argmin(found.objective.reshape(k, -1), axis=1) + np.arange(k) * len(spread)
    return better_of(first, Solution(found.theta[best], found.objective[best], found.converged[best]))


def fit_all(problem: Problem, starts: int = 24) -> Solution:
    """The global optimum with all weights 1."""
    return fit_each(problem, problem.penalty[None], starts)


def refit_each(problem: Problem, penalties: Floats, near: Floats, weights: Floats) -> Floats:
    """For each row of penalties, with its optimum `near`, the coefficients for each row of weights (penalties x
    weights x coefficients)."""
    k, n = len(penalties), len(weights)
    begin = [
        without_what_cannot_be_told(replace(problem, penalty=c), t, weights)
        for c, t in zip(penalties, near, strict=True)
    ]
    every = replace(near_problem(problem), penalty=penalties.repeat(n, axis=0))
    return solve_from(every, np.concatenate(begin), np.tile(weights, (k, 1))).theta.reshape(k, n, -1)
