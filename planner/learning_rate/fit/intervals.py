"""Intervals of a law's coefficients: a bootstrap over models, and a jackknife that says how wide its draws are.

Each draw gives every model a random weight (the Bayesian bootstrap: exponential weights of mean 1), so that no draw
loses a family, and the law is fitted again. With few models such draws lie too close together, by how much depends on
the coefficient. Each coefficient, or sum of coefficients that is reported, has the interval estimate +- q s, with s
the standard error of a jackknife (the law fitted again without each model) and q the quantile of errors in units of
such standard errors, found by simulation (`small_sample.py`); its draws are stretched to that width. One on which
fewer than three models' worth of freedom bears gets its interval from the scatter of all models around the law.

Pooling draws the effects of families towards the population, by more than fits without a model show: intervals of
constants are therefore those of the law without pooling (`terms.py`), the covariance is that of the pooled law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .cells import Floats, Ints
from .small_sample import Sample, local
from .solve import Problem, leave_out, refit

LEVEL = 0.9
FEW = 3.0  # degrees of freedom below which a jackknife says nothing
MANY_MODELS = 60  # with more, the draws need no help
MANY_CELLS = 20_000  # with more, draws are one Newton step from the optimum


@dataclass(frozen=True, eq=False)
class Interval:
    """Draws of the coefficients (`raw`: draws x coefficients) around theta, before they are stretched, and the
    coefficients of fits without each of the `n` models (`left_out`, models x coefficients). `sample` is None where
    models are many, and `linearised` says that each draw is one Newton step from the optimum. `normal` (draws x
    coefficients) is where draws by the scatter of all models come from."""

    theta: Floats
    raw: Floats
    left_out: Floats
    sample: Sample | None
    n: int
    normal: Floats
    linearised: bool

    def halves(self, combinations: Floats, level: float = LEVEL) -> tuple[Floats, NDArray[np.bool_]]:
        """Half the width of the interval of sums of coefficients (rows of `combinations`), and which come from the
        scatter of all models, since too few bear on them."""
        if self.sample is None:
            deviation = ((self.raw - self.theta) @ combinations.T).std(axis=0) * np.sqrt(
                (self.n + 1) / self.n
            )
            return stats.t.ppf((1 + level) / 2, self.n - 1) * deviation, np.zeros(
                len(combinations), dtype=bool
            )
        few = self.sample.freedom(combinations) < FEW
        shifts = (self.left_out - self.theta) @ combinations.T
        half = self.sample.quantile(combinations, level) * np.sqrt(
            (self.n - 1) / self.n * (shifts**2).sum(axis=0)
        )
        if few.any():
            rows = combinations[few]
            deviation = np.sqrt(((self.sample.scatter @ rows.T) ** 2).sum(axis=0))
            half[few] = stats.t.ppf((1 + level) / 2, self.sample.pooled_freedom(rows)) * deviation
        return half, few

    @cached_property
    def _each(self) -> tuple[Floats, NDArray[np.bool_]]:
        return self.halves(np.eye(len(self.theta)))

    @cached_property
    def draws(self) -> Floats:
        """Draws of each coefficient by itself, as wide as its interval."""
        half, few = self._each
        away = self.raw - self.theta
        if self.sample is not None and few.any():
            away = np.where(few, self.normal @ self.sample.scatter, away)
        deviation = away.std(axis=0)
        scale = half / stats.norm.ppf((1 + LEVEL) / 2) / np.where(deviation > 0, deviation, 1.0)
        return np.asarray(self.theta + away * scale)

    @cached_property
    def pooled_spread(self) -> NDArray[np.bool_]:
        """Which coefficients have their interval from the scatter of all models."""
        return self._each[1]

    def bounds(self, at: list[int], level: float = LEVEL) -> tuple[float, float]:
        """The interval of the sum of the coefficients `at`."""
        row = np.zeros((1, len(self.theta)))
        row[0, at] = 1.0
        half, estimate = float(self.halves(row, level)[0][0]), float(self.theta[at].sum())
        return estimate - half, estimate + half


def _newton_draws(problem: Problem, theta: Floats, model: Ints, weights: Floats) -> Floats:
    """One Newton step from the optimum for each draw of the models' weights."""
    f, here = problem.matrix, local(problem, theta)
    n, p = int(model.max()) + 1, f.shape[1]
    gradients = np.zeros((n, p))
    hessians = np.zeros((n, p * p))
    np.add.at(gradients, model, f * here.score[:, None])
    np.add.at(
        hessians, model, ((f * here.curvature[:, None])[:, :, None] * f[:, None, :]).reshape(len(f), -1)
    )
    ridge = 2 * np.diag(problem.penalty) + 1e-9 * np.eye(p)
    gradient = weights @ gradients + 2 * theta * problem.penalty
    return (
        theta - np.linalg.solve((weights @ hessians).reshape(-1, p, p) + ridge, gradient[..., None])[..., 0]
    )


def bootstrap(
    problem: Problem, theta: Floats, model: Ints, n_draws: int, seed: int,
    settle: Callable[[Floats], Floats] = lambda draws: draws,
) -> Interval:  # fmt: skip
    """Draws of the coefficients. `model` numbers what is drawn: the models, or the cells of a lone model; `settle` is
    applied to the fitted draws."""
    rng = np.random.default_rng(seed)
    n = int(model.max()) + 1
    weights = rng.exponential(size=(n_draws, n))
    weights /= weights.mean(axis=1, keepdims=True)
    normal = rng.standard_normal((n_draws, len(theta)))
    if problem.curves.n > MANY_CELLS or problem.curves.n * n_draws > 60_000_000:
        draws = _newton_draws(problem, theta, model, weights)
        return Interval(theta, draws, np.empty((0, len(theta))), None, n, normal, linearised=True)
    draws = settle(refit(problem, weights[:, model], near=theta).theta)
    if n > MANY_MODELS:
        return Interval(theta, draws, np.empty((0, len(theta))), None, n, normal, linearised=False)
    left_out = settle(refit(problem, leave_out(model), near=theta).theta)
    return Interval(
        theta, draws, left_out, Sample(problem, theta, model, settle), n, normal, linearised=False
    )
