"""How far a bootstrap over models falls short with few models, from the objective's curvature at the optimum.

Around its optimum the objective is a weighted least-squares problem: a cell of curvature k has its best rate at
-score / k from the law. Best rates are taken to scatter between models, and between the cells of a model, as they do
around the law (`Spread`). From that follow, for any sum of coefficients, the factor by which a cluster-robust
variance is too small and its degrees of freedom (after Bell and McCaffrey 2002), and a variance that rests on the
scatter of all models instead, with its own degrees of freedom (after Satterthwaite 1946).

Neglects that curvatures are themselves estimated, and that best rates need not scatter alike in all models.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from .cells import Floats, Ints
from .solve import Problem

SMOOTHING = 0.25  # half window, in log rate, over which the curvature is taken
MOST_RATIO = 3.0
MANY = 1e6  # degrees of freedom: a variance that is known
MOST_NUMBERS = 20_000_000  # cells times models; with more, a bootstrap needs no help


@dataclass(frozen=True, eq=False)
class Local:
    """The objective around its optimum: scores s and curvatures k of the cells, the inverse of the Hessian."""

    score: Floats
    curvature: Floats
    inverse: Floats


def local(problem: Problem, theta: Floats) -> Local:
    """The objective around theta, averaged over a window."""
    f = problem.matrix
    _, slope, bend = problem.curves.smoothed((theta @ f.T)[None], SMOOTHING)
    bend = np.maximum(bend[0], 0.0)
    floor = 0.02 * float(np.median(bend[bend > 0])) if (bend > 0).any() else 1.0
    k = np.maximum(bend, floor)
    hessian = (f * k[:, None]).T @ f + 2 * np.diag(problem.penalty)
    return Local(slope[0], k, np.linalg.pinv(hessian, hermitian=True))


@dataclass(frozen=True)
class Spread:
    """Variances of log best rate around the law: between models, and between the cells of one model where a cell's
    curvature is 1 (a cell of curvature k has within / k); and the variance and covariance of these two estimates."""

    between: float
    within: float
    between_variance: float
    within_variance: float
    covariance: float


class Sample:
    """The local problem with its models. `settle` says how coefficients that trade against each other share a level
    (linear; the identity where none do)."""

    def __init__(
        self, problem: Problem, theta: Floats, model: Ints, settle: Callable[[Floats], Floats]
    ) -> None:
        self.local = local(problem, theta)
        self.root = np.sqrt(self.local.curvature)
        self.x = problem.matrix * self.root[:, None]
        self.model, self.n = model, int(model.max()) + 1
        self.settled = settle(np.eye(problem.matrix.shape[1]))  # transposed: coefficients x settled ones

    @cached_property
    def member(self) -> Floats:
        """Which cells are whose (cells x models)."""
        return np.asarray(self.model[:, None] == np.arange(self.n), dtype=float)

    @cached_property
    def shared(self) -> Floats:
        """What a model's own deviation adds to its cells, times root."""
        return self.member * self.root[:, None]

    def weights(self, combinations: Floats) -> Floats:
        """Of sums of coefficients (rows of `combinations`) on the cells' errors times root (combinations x cells)."""
        return np.asarray(combinations @ self.settled.T @ self.local.inverse @ self.x.T)

    @cached_property
    def spread(self) -> Spread:
        """The variance components by moments: the squared shifts of the models and of the cells within models are set
        equal to what both components would give after a fit of this many coefficients."""
        x, g, k = self.x, self.local.inverse, self.local.curvature
        mass = np.bincount(self.model, k, self.n)
        mean = self.shared / mass  # cells x models: a model's mean of errors times root
        shift = -np.bincount(self.model, self.local.score, self.n) / mass
        inner = -self.local.score / k - shift[self.model]
        of_model = mean.T @ x  # models x coefficients
        zx = self.shared.T @ x
        inside = x.T @ x - of_model.T @ zx  # X'(I - P)X
        left = mean.T - of_model @ g @ x.T  # models x cells, of errors
        right = left @ self.shared  # models x models, of shifts
        w_in = len(k) - self.n - 2 * float(np.trace(inside @ g)) + float(np.trace(g @ inside @ g @ (x.T @ x)))
        b_in = float(np.trace(g @ inside @ g @ (zx.T @ zx)))
        w_out, b_out = float((left**2).sum()), float((right**2).sum())
        system = np.array([[max(w_in, 1.0), b_in], [w_out, max(b_out, 1e-9)]])
        seen = np.array([float((k * inner**2).sum()), float((shift**2).sum())])
        within, between = (float(v) for v in np.linalg.solve(system, seen))
        within = max(within, 0.0)
        if between < 0:
            between, within = 0.0, float(seen[0] / system[0, 0])
        gram = within * left @ left.T + between * right @ right.T
        inner_variance = 2 * (within * system[0, 0] + between * b_in) ** 2 / system[0, 0]
        noise = np.diag([inner_variance, 2 * float((gram**2).sum())])
        back = np.linalg.inv(system)
        spread = back @ noise @ back.T
        return Spread(between, within, float(spread[1, 1]), float(spread[0, 0]), float(spread[0, 1]))

    def parts(self, combinations: Floats) -> tuple[Floats, Floats]:
        """What a unit of variance between models and within them adds to the variance of each combination."""
        weights = self.weights(combinations)
        return ((weights @ self.shared) ** 2).sum(axis=1), (weights**2).sum(axis=1)

    def clustered(self, combinations: Floats) -> tuple[Floats, Floats]:
        """For each combination the factor by which a bootstrap over models is too narrow, and Satterthwaite's degrees
        of freedom of its variance.

        The bootstrap's variance is the cluster-robust one, the sum over models m of (a_m r_m)^2 with a the weights
        and r the residuals (I - hat) e. Its expectation under the scatter is compared with the variance of a e.
        """
        if self.x.shape[0] * self.n > MOST_NUMBERS:
            return np.ones(len(combinations)), np.full(len(combinations), float(self.n))
        within, between = max(self.spread.within, 1e-18), self.spread.between
        by_between, by_within = self.parts(combinations)
        truth = within * by_within + between * by_between
        ratio, freedom = np.ones(len(combinations)), np.zeros(len(combinations))
        for number, row in enumerate(self.weights(combinations)):
            mine = (self.member * row[:, None]).T
            scores = mine - mine @ self.x @ self.local.inverse @ self.x.T  # models x cells
            own = scores @ self.shared
            gram = within * scores @ scores.T + between * own @ own.T
            total = float(np.trace(gram))
            if total > 0:
                ratio[number] = np.sqrt(truth[number] / total)
                freedom[number] = total**2 / float((gram**2).sum())
        return np.clip(ratio, 1.0, MOST_RATIO), freedom

    @cached_property
    def scatter(self) -> Floats:
        """A square root of the covariance of the coefficients by the scatter of all models: standard normal draws
        (rows) times it are draws of their errors."""
        weights = self.weights(np.eye(self.settled.shape[1]))
        own = weights @ self.shared
        covariance = self.spread.between * own @ own.T + self.spread.within * weights @ weights.T
        values, vectors = np.linalg.eigh(covariance)
        return np.asarray((vectors * np.sqrt(np.maximum(values, 0.0))).T)

    def pooled_freedom(self, combinations: Floats) -> Floats:
        """The degrees of freedom of each combination's variance by the scatter of all models."""
        by_between, by_within = self.parts(combinations)
        s = self.spread
        variance = s.between * by_between + s.within * by_within
        doubt = by_between**2 * s.between_variance + by_within**2 * s.within_variance
        doubt += 2 * by_between * by_within * s.covariance
        freedom = np.where(doubt > 0, 2 * variance**2 / np.where(doubt > 0, doubt, 1.0), MANY)
        return np.clip(freedom, 1.0, MANY)
