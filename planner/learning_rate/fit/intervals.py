"""Intervals of a law's coefficients: a bootstrap over models, stretched where models are few.

Each draw gives every model a random weight (the Bayesian bootstrap: exponential weights of mean 1), so that no draw
loses a family, and the law is fitted again. With few models such intervals are too short. The draws of each
coefficient, or sum of coefficients that is reported, are therefore stretched around the estimate by what a
cluster-robust variance lacks on average with these models, and by Student's t over the normal quantile at its degrees
of freedom (`small_sample.py`). One on which fewer than three models' worth of freedom bears gets its interval from
the scatter of all models around the law instead.

Pooling draws the effects of families towards the population, by more than draws of pooled fits show: intervals of
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
from .solve import Problem, refit

LEVEL = 0.9
FEW = 2.5  # degrees of freedom below which the draws say nothing
MANY_CELLS = 20_000  # with more, draws are one Newton step from the optimum


@dataclass(frozen=True, eq=False)
class Interval:
    """Draws of the coefficients (`raw`: draws x coefficients) around theta, before they are stretched. `sample` is
    None where draws are one Newton step (`linearised`). `normal` and `chance` (draws) are where draws by the scatter
    of all models come from."""

    theta: Floats
    raw: Floats
    sample: Sample | None
    n: int
    normal: Floats
    chance: Floats

    @property
    def linearised(self) -> bool:
        """Whether each draw is one Newton step from the optimum."""
        return self.sample is None

    def values(self, combinations: Floats) -> tuple[Floats, NDArray[np.bool_]]:
        """Draws of sums of coefficients (draws x rows of `combinations`), and which come from the scatter of all
        models, since too few bear on them."""
        estimate = combinations @ self.theta
        away = (self.raw - self.theta) @ combinations.T
        ratio, freedom = np.ones(len(combinations)), np.full(len(combinations), float(self.n))
        if self.sample is not None:
            ratio, freedom = self.sample.clustered(combinations)
        few = freedom < FEW
        quantile = (1 + LEVEL) / 2
        student = stats.t.ppf(quantile, np.maximum(freedom, FEW)) / stats.norm.ppf(quantile)
        # Exponential weights of m models give a mean m / (m + 1) of its variance.
        bearing = np.clip(freedom + 1, 1.0, self.n)
        shrunk = np.maximum((bearing + 1) / bearing, (self.n + 1) / (self.n - 1))
        away = away * (ratio * student * np.sqrt(shrunk))
        if self.sample is not None and few.any():
            by = self.sample.pooled_freedom(combinations[few])
            scale = np.sqrt(by / stats.chi2.ppf(self.chance[:, None], by))
            away[:, few] = scale * (self.normal @ self.sample.scatter @ combinations[few].T)
        return estimate + away, few

    @cached_property
    def draws(self) -> Floats:
        """Draws of each coefficient by itself."""
        return self.values(np.eye(len(self.theta)))[0]

    @cached_property
    def pooled_spread(self) -> NDArray[np.bool_]:
        """Which coefficients have their interval from the scatter of all models."""
        return self.values(np.eye(len(self.theta)))[1]

    def bounds(self, at: list[int], level: float = LEVEL) -> tuple[float, float]:
        """The central interval of the sum of the coefficients `at`, never without its estimate."""
        row = np.zeros((1, len(self.theta)))
        row[0, at] = 1.0
        values, estimate = self.values(row)[0][:, 0], float(self.theta[at].sum())
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(min(low, estimate)), float(max(high, estimate))


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
    normal, chance = rng.standard_normal((n_draws, len(theta))), rng.uniform(size=n_draws)
    if problem.curves.n > MANY_CELLS or problem.curves.n * n_draws > 60_000_000:
        return Interval(theta, _newton_draws(problem, theta, model, weights), None, n, normal, chance)
    draws = settle(refit(problem, weights[:, model], near=theta).theta)
    return Interval(theta, draws, Sample(problem, theta, model, settle), n, normal, chance)
