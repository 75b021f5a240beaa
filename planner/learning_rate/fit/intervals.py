"""Intervals of a law's coefficients: a bootstrap over models, stretched where models are few.

Each draw gives every model a random weight (the Bayesian bootstrap: exponential weights of mean 1), so that no draw
loses a family, and the law is fitted again. With few models such intervals are too short. Each coefficient's draws
are therefore stretched around the estimate by what a cluster-robust variance lacks on average with these models,
where best rates scatter between and within models as they do around the law, and by Student's t over the normal
quantile at Satterthwaite's degrees of freedom (after Bell and McCaffrey 2002), both from the objective's curvature at
the optimum. A coefficient that rests on fewer than three models' worth of freedom gets its spread from that of all
models around the law instead.

Pooling draws the effects of families towards the population, by more than draws of pooled fits show: intervals of
constants are therefore those of the law without pooling (`terms.py`), the covariance is that of the pooled law.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from .cells import Floats, Ints
from .solve import Problem, refit

LEVEL = 0.9
SMOOTHING = 0.25  # half window, in log rate, over which the curvature is taken
MOST_RATIO = 3.0
FEW = 2.5  # degrees of freedom below which the draws say nothing
MANY_CELLS = 20_000  # with more, draws are one Newton step from the optimum


@dataclass(frozen=True, eq=False)
class Interval:
    """Draws of the coefficients (draws, coefficients), stretched, with what was done to them."""

    draws: Floats
    stretch: Floats
    freedom: Floats
    pooled_spread: NDArray[np.bool_]
    linearised: bool

    def bounds(self, values: Floats, estimate: float, level: float = LEVEL) -> tuple[float, float]:
        """The central interval of some function's draws, never without its estimate."""
        low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
        return float(min(low, estimate)), float(max(high, estimate))


@dataclass(frozen=True, eq=False)
class _Local:
    """The objective around its optimum as a weighted least-squares problem: scores s and curvatures k of the cells,
    the inverse of the Hessian."""

    score: Floats
    curvature: Floats
    inverse: Floats


def _local(problem: Problem, theta: Floats) -> _Local:
    f = problem.matrix
    _, slope, bend = problem.curves.smoothed((theta @ f.T)[None], SMOOTHING)
    bend = np.maximum(bend[0], 0.0)
    floor = 0.02 * float(np.median(bend[bend > 0])) if (bend > 0).any() else 1.0
    k = np.maximum(bend, floor)
    hessian = (f * k[:, None]).T @ f + 2 * np.diag(problem.penalty)
    return _Local(slope[0], k, np.linalg.pinv(hessian, hermitian=True))


@dataclass(frozen=True)
class Spread:
    """How far best rates lie from the law, as standard deviations of log rate: between models, and between the cells
    of one model where a cell's curvature is 1 (a cell of curvature k has within / sqrt(k))."""

    between: float
    within: float
    freedom: float


def spread_of(problem: Problem, theta: Floats, model: Ints) -> Spread:
    """Variance components of the best rates around the law, by moments, from scores and curvatures."""
    local = _local(problem, theta)
    k = local.curvature
    n, p = int(model.max()) + 1, problem.matrix.shape[1]
    weight = np.bincount(model, k, n)
    shift = -np.bincount(model, local.score, n) / weight
    inner = -local.score / k - shift[model]
    used = float(np.trace(local.inverse @ ((problem.matrix * k[:, None]).T @ problem.matrix)))
    within = float((k * inner**2).sum()) / max(1.0, len(k) - n - used / 2)
    freedom = max(1.0, n - min(used, p))
    between = max(0.0, float((shift**2).sum()) / freedom - within * float((1 / weight).mean()))
    return Spread(float(np.sqrt(between)), float(np.sqrt(within)), freedom)


def small_sample(problem: Problem, theta: Floats, model: Ints) -> tuple[Floats, Floats]:
    """For each coefficient the factor by which a bootstrap over models is too narrow, and Satterthwaite's degrees of
    freedom: both as if the best rates of models and cells scattered around the law by `spread_of`.

    The bootstrap's variance is the cluster-robust one, the sum over models m of (a_m r_m)^2 with a the coefficient's
    weights and r the residuals (I - hat) e. Its expectation under that scatter is compared with the variance of a e.
    """
    f, local, spread = problem.matrix, _local(problem, theta), spread_of(problem, theta, model)
    root = np.sqrt(local.curvature)
    x = f * root[:, None]
    weights = local.inverse @ x.T  # coefficients x cells, on errors times root
    residual = np.eye(len(f)) - x @ local.inverse @ x.T
    member = np.asarray(model[:, None] == np.arange(int(model.max()) + 1), dtype=float)
    shared = member * root[:, None]  # what a model's own deviation adds to its cells
    within, between = max(spread.within, 1e-9) ** 2, spread.between**2
    truth = within * (weights**2).sum(axis=1) + between * ((weights @ shared) ** 2).sum(axis=1)
    ratio, freedom = np.ones(len(theta)), np.zeros(len(theta))
    for number, row in enumerate(weights):
        scores = (member * row[:, None]).T @ residual  # models x cells
        gram = within * scores @ scores.T + between * (own := scores @ shared) @ own.T
        total = float(np.trace(gram))
        if total > 0:
            ratio[number] = np.sqrt(truth[number] / total)
            freedom[number] = total**2 / float((gram**2).sum())
    return np.clip(ratio, 1.0, MOST_RATIO), freedom


def _pooled_draws(problem: Problem, theta: Floats, model: Ints, n: int, rng: np.random.Generator) -> Floats:
    """Draws of the coefficients where the best rates of models and cells move by the common spread."""
    local, spread = _local(problem, theta), spread_of(problem, theta, model)
    weighted = problem.matrix * local.curvature[:, None]
    scale = np.sqrt(spread.freedom / rng.chisquare(spread.freedom, size=(n, 1)))
    move = spread.between * rng.standard_normal((n, int(model.max()) + 1))[:, model]
    move += spread.within * rng.standard_normal((n, len(model))) / np.sqrt(local.curvature)
    return theta + (scale * move) @ weighted @ local.inverse


def _newton_draws(problem: Problem, theta: Floats, model: Ints, weights: Floats) -> Floats:
    """One Newton step from the optimum for each draw of the models' weights."""
    f, local = problem.matrix, _local(problem, theta)
    n, p = int(model.max()) + 1, f.shape[1]
    gradients = np.zeros((n, p))
    hessians = np.zeros((n, p * p))
    np.add.at(gradients, model, f * local.score[:, None])
    np.add.at(
        hessians, model, ((f * local.curvature[:, None])[:, :, None] * f[:, None, :]).reshape(len(f), -1)
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
    """Stretched draws of the coefficients. `model` numbers what is drawn: the models, or the cells of a lone model;
    `settle` is applied to the fitted draws."""
    rng = np.random.default_rng(seed)
    n = int(model.max()) + 1
    weights = rng.exponential(size=(n_draws, n))
    weights /= weights.mean(axis=1, keepdims=True)
    linearised = problem.curves.n > MANY_CELLS or problem.curves.n * n_draws > 60_000_000
    if linearised:
        draws = _newton_draws(problem, theta, model, weights)
        ratio, freedom = np.ones(len(theta)), np.full(len(theta), float(n))
    else:
        draws = settle(refit(problem, weights[:, model], near=theta).theta)
        ratio, freedom = small_sample(problem, theta, model)
    few = freedom < FEW
    quantile = (1 + LEVEL) / 2
    student = stats.t.ppf(quantile, np.maximum(freedom, FEW)) / stats.norm.ppf(quantile)
    # Exponential weights of m models give a mean m / (m + 1) of its variance.
    bearing = np.clip(freedom + 1, 1.0, n)
    shrunk = np.maximum((bearing + 1) / bearing, (n + 1) / (n - 1))
    stretch = np.where(few, 1.0, ratio * student * np.sqrt(shrunk))
    draws = theta + (draws - theta) * stretch
    if few.any():
        pooled = _pooled_draws(problem, theta, model, n_draws, rng)
        draws = np.where(few, pooled, draws)
    return Interval(draws, stretch, freedom, few, linearised)
