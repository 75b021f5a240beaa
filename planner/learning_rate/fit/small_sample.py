"""How far an estimate lies from the truth in units of its jackknife, from the objective's curvature at the optimum.

Around its optimum the objective is a weighted least-squares problem: a cell of curvature k has its best rate at
-score / k from the law. Best rates are taken to scatter between models, and between the cells of a model, as they do
around the law (`Spread`). With few models the standard error of a jackknife over models is itself uncertain, by an
amount that differs from one sum of coefficients to the next: errors are therefore drawn by that scatter, and with
each draw the error of the sum and the jackknife's standard error that would go with it (`quantile`). For the mean of
m models this is Student's t with m - 1 degrees of freedom. A sum on which fewer than three models' worth of freedom
bears (`freedom`, after Bell and McCaffrey 2002) rests on the scatter of all models instead, at the degrees of freedom
of that (`pooled_freedom`, after Satterthwaite 1946).

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
MANY = 1e6  # degrees of freedom: a variance that is known
DRAWS = 4000
MOST_NUMBERS = 20_000_000  # cells times draws
LEAST = 1e-18  # a variance that is none
SINGULAR = 1e-8  # of a model without which something cannot be told


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

    @cached_property
    def hat(self) -> Floats:
        """The projection on the fitted cells, times root (cells x cells)."""
        return np.asarray(self.x @ self.local.inverse @ self.x.T)

    def freedom(self, combinations: Floats) -> Floats:
        """For each combination the degrees of freedom of its cluster-robust variance, the sum over models m of
        (a_m r_m)^2 with a the weights and r the residuals (I - hat) e, by Satterthwaite's rule."""
        within, between = max(self.spread.within, LEAST), self.spread.between
        freedom = np.zeros(len(combinations))
        for number, row in enumerate(self.weights(combinations)):
            mine = (self.member * row[:, None]).T
            scores = mine - mine @ self.hat  # models x cells
            own = scores @ self.shared
            gram = within * scores @ scores.T + between * own @ own.T
            total = float(np.trace(gram))
            if total > 0:
                freedom[number] = total**2 / float((gram**2).sum())
        return freedom

    @cached_property
    def errors(self) -> tuple[Floats, Floats]:
        """Errors of the cells times root by the scatter (cells x draws), and what each adds to the shift of the
        coefficients when its model is left out: (I - hat of the model)^-1 times the residuals of the model."""
        cells = len(self.root)
        draws = int(np.clip(MOST_NUMBERS // cells, 200, DRAWS))
        rng = np.random.default_rng(0)
        errors = np.sqrt(max(self.spread.within, LEAST)) * rng.standard_normal((cells, draws))
        errors += np.sqrt(self.spread.between) * (self.shared @ rng.standard_normal((self.n, draws)))
        left = errors - self.hat @ errors
        for m in range(self.n):
            mine = np.flatnonzero(self.model == m)
            block = np.eye(len(mine)) - self.hat[np.ix_(mine, mine)]
            left[mine] = np.linalg.pinv(block, rcond=SINGULAR, hermitian=True) @ left[mine]
        return errors, left

    def quantile(self, combinations: Floats, level: float) -> Floats:
        """For each combination the quantile of |error| over the standard error of its jackknife."""
        errors, left = self.errors
        found = []
        for row in self.weights(combinations):
            shifts = self.member.T @ (row[:, None] * left)  # models x draws
            deviation = np.sqrt((self.n - 1) / self.n * (shifts**2).sum(axis=0))
            found.append(float(np.quantile(np.abs(row @ errors) / np.maximum(deviation, LEAST), level)))
        return np.array(found)

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
