"""Intervals with few models: against textbook cases and planted scatter."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from planner.learning_rate.fit.cells import make_cells
from planner.learning_rate.fit.compare import Data, fit_form
from planner.learning_rate.fit.intervals import bootstrap
from planner.learning_rate.fit.small_sample import Sample
from planner.learning_rate.sweep import read_sweep
from tools.plant_sweep import Planted, plant

# Curves are parabolas of one curvature, so that every figure below is a textbook one.
PLAIN = Planted(
    models=6, methods=("lora",), ranks=(4, 16), model_pow={"llama": 0.0}, rank_pow=0.0, missing=0.0, noise=0.0,
    diverge_at=1e9, rates=tuple(4e-6 * 1.8**i for i in range(9)),
)  # fmt: skip


def sample(law: Planted, seed: int, form: tuple[str, ...] = ()) -> tuple[Sample, Data, np.ndarray]:
    data = Data.of(make_cells(read_sweep(plant(law, seed))), "quadratic")
    found = fit_form(data, form, nested=False)
    return (
        Sample(data.problem(found.design, 0.0), found.theta, data.features.model, lambda x: x),
        data,
        found.theta,
    )


def test_a_mean_over_models_has_one_degree_of_freedom_less_than_models() -> None:
    for models in (4, 6, 11):
        own, _, _ = sample(replace(PLAIN, models=models, spread=0.1), 1)
        assert own.freedom(np.eye(1))[0] == pytest.approx(models - 1, rel=0.02)
        assert own.pooled_freedom(np.eye(1))[0] == pytest.approx(models - 1, rel=0.05)
        assert float(np.sqrt(own.scatter.T @ own.scatter)[0, 0]) == pytest.approx(
            np.sqrt(own.spread.between / models), rel=0.05
        )


def test_the_error_of_a_mean_over_its_jackknife_is_student_s_t() -> None:
    for models in (4, 7, 12):
        own, _, _ = sample(replace(PLAIN, models=models, spread=0.1), 1)
        for level in (0.5, 0.9):
            expected = float(stats.t.ppf((1 + level) / 2, models - 1))
            assert own.quantile(np.eye(1), level)[0] == pytest.approx(expected, rel=0.06)


def test_an_interval_is_the_textbook_one_of_a_mean_over_models() -> None:
    """The mean of the models' best rates +- t s / sqrt(m)."""
    law = replace(PLAIN, models=8, spread=0.2)
    data = Data.of(make_cells(read_sweep(plant(law, 3))), "quadratic")
    found = fit_form(data, (), nested=False)
    made = bootstrap(data.problem(found.design, 0.0), found.theta, data.features.model, 50, 0)
    means = data.fit_curves.best.reshape(8, -1).mean(axis=1)
    half = float(stats.t.ppf(0.95, 7)) * means.std(ddof=1) / np.sqrt(8)
    low, high = made.bounds([0])
    assert (low, high) == pytest.approx((means.mean() - half, means.mean() + half), abs=0.06 * half)
    assert made.draws.std() == pytest.approx(half / stats.norm.ppf(0.95), rel=0.06)


def test_with_many_models_the_draws_are_left_as_they_are() -> None:
    law = replace(PLAIN, models=64, spread=0.2)
    data = Data.of(make_cells(read_sweep(plant(law, 3))), "quadratic")
    found = fit_form(data, (), nested=False)
    made = bootstrap(data.problem(found.design, 0.0), found.theta, data.features.model, 400, 0)
    assert made.sample is None
    means = data.fit_curves.best.reshape(64, -1).mean(axis=1)
    low, high = made.bounds([0])
    assert high - low == pytest.approx(2 * 1.67 * means.std(ddof=1) / 8, rel=0.15)


def test_scatter_between_models_and_within_them_comes_back() -> None:
    """On average over sweeps, after a fit of a mean and a slope."""
    between, within, seen = [], [], []
    for seed in range(12):
        own, data, theta = sample(replace(PLAIN, models=12, spread=0.2, noise=0.0003), seed, ("rank",))
        between.append(own.spread.between)
        within.append(own.spread.within / float(own.local.curvature.mean()))
        pairs = (data.fit_curves.best - data.features.rank * theta[-1]).reshape(12, 2)
        seen.append(np.diff(pairs, axis=1).var(ddof=1) / 2)
    assert np.mean(between) == pytest.approx(0.04, rel=0.35)
    assert np.mean(within) == pytest.approx(np.mean(seen), rel=0.35)


def test_without_scatter_between_models_all_cells_count() -> None:
    """Six models on the law: the spread within models is known from twelve cells, and what models add is doubtful."""
    found = [sample(replace(PLAIN, noise=0.001), seed)[0] for seed in range(8)]
    freedom = [own.pooled_freedom(np.eye(1))[0] for own in found if own.spread.between == 0]
    assert len(freedom) >= 2 and np.median(freedom) > 2


def test_an_interval_of_a_sum_is_not_that_of_its_parts() -> None:
    """base and m_lora fall and rise together: LoRA's rate is known better than either."""
    law = replace(PLAIN, methods=("lora", "full"), spread=0.2)
    data = Data.of(make_cells(read_sweep(plant(law, 0))), "quadratic")
    found = fit_form(data, (), nested=False)
    made = bootstrap(data.problem(found.design, 0.0), found.theta, data.features.model, 2000, 0)
    low, high = made.bounds([0, 1])
    spread = data.fit_curves.best[data.features.lora].reshape(6, -1).mean(axis=1).std(ddof=1)
    half = float(stats.t.ppf(0.95, 5)) * spread / np.sqrt(6)
    assert high - low == pytest.approx(2 * half, rel=0.25)
    assert low < found.theta.sum() < high
