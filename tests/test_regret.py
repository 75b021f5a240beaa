"""The price of too small a rank: the shipped law against the sweep, against another path, and as a function."""

from __future__ import annotations

import math
from functools import cache
from statistics import median
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner import facts, regret
from planner.errors import InputError
from planner.learning_rate.sweep import Sweep, read_sweep
from tools import fit_regret

# Another path: 37 dense and 29 mixture cells of the full sweep, ordinary least squares on logarithms.
ELSEWHERE = {False: (0.52, 0.90, 1.6), True: (1.00, 0.47, 2.0)}


@cache
def sweep() -> Sweep:
    return read_sweep(facts.data_dir() / "sweeps" / "tinker_sft.csv")


@cache
def cells(moe: bool) -> tuple[fit_regret.Cell, ...]:
    found = fit_regret.cells(sweep(), fit_regret.TINKER_TOKENS, "shared-outer", "tinker")
    return tuple(cell for cell in found if cell.moe == moe)


@pytest.mark.parametrize("moe", [False, True])
def test_the_shipped_constants_are_the_sweep_s(moe: bool) -> None:
    law, noise = regret.law_for(moe), fit_regret.noise_percent(sweep())
    found, errors = fit_regret.fit(cells(moe), noise), fit_regret.leave_one_out(cells(moe), noise)
    assert law.noise_percent == pytest.approx(noise, rel=5e-3)
    assert law.coefficient_percent == pytest.approx(found.coefficient, rel=5e-3)
    assert law.exponent == pytest.approx(found.exponent, rel=5e-3)
    assert law.spread == pytest.approx(fit_regret.spread(errors["law"]), rel=0.01)
    for way, values in errors.items():
        assert law.leave_one_out[way] == pytest.approx(fit_regret.median_factor(values), abs=0.01)
    assert (law.cells, law.models) == (len(cells(moe)), len({cell.model for cell in cells(moe)}))
    assert law.ratio_low == pytest.approx(min(cell.ratio for cell in cells(moe)), rel=5e-3)
    assert law.ratio_high == pytest.approx(max(cell.ratio for cell in cells(moe)), rel=5e-3)


@pytest.mark.parametrize("moe", [False, True])
def test_the_law_beats_its_alternatives_on_models_left_out(moe: bool) -> None:
    factors = regret.law_for(moe).leave_one_out
    assert factors["law"] < min(factors["no_law"], factors["rule_of_thumb"], factors["rank_alone"])
    assert factors["law"] < 1.5


@pytest.mark.parametrize("moe", [False, True])
@pytest.mark.parametrize("ratio", [0.5, 1.0, 2.0, 5.0])
def test_another_path_lies_within_the_interval(moe: bool, ratio: float) -> None:
    coefficient, exponent, scatter = ELSEWHERE[moe]
    found = regret.expected_regret(ratio, moe=moe)
    other = coefficient * ratio**-exponent / 100
    assert found.low / scatter < other < found.high * scatter
    assert max(found.value / other, other / found.value) < 1.6


def test_the_interval_holds_what_the_sweep_shows() -> None:
    """80 % nominally; of 47 cells, those within the noise of the interval count as inside."""
    inside = []
    for cell in (*cells(False), *cells(True)):
        found = regret.expected_regret(cell.ratio, moe=cell.moe)
        noise = regret.law_for(cell.moe).noise_percent
        inside.append(100 * found.low - noise <= cell.excess <= 100 * found.high + noise)
    assert 0.75 <= sum(inside) / len(inside) <= 1


@pytest.mark.parametrize(
    ("rank", "percent"),
    [(4, 1.84), (16, 0.72)],  # Llama-3.1-8B over rank 128, by hand from the sweep's table
)
def test_llama_8b_s_cells(rank: int, percent: float) -> None:
    found = {c.rank: c for c in cells(False) if c.model == "meta-llama/Llama-3.1-8B"}[rank]
    assert found.excess == pytest.approx(percent, abs=0.02)
    assert found.ratio == pytest.approx(rank * 2_753_792 / 30_826_598, rel=1e-6)
    law = regret.expected_regret(found.ratio)
    assert law.low < found.excess / 100 < law.high


def test_a_parabola_through_three_points() -> None:
    points = [(math.exp(x), 2 + (x - 0.3) ** 2) for x in (-1.0, 0.0, 1.0)]
    assert fit_regret.best_loss([(r, 1 + loss / 100) for r, loss in points])[0] == pytest.approx(1.02)
    assert fit_regret.best_loss(points[1:])[0] == points[1][1]
    assert fit_regret.best_loss([(1e-4, 1.0), (3e-4, 0.9), (1e-3, 1.4)]) == (0.9, 0.0)


def test_planted_constants_are_recovered() -> None:
    random = np.random.default_rng(7)
    found = []
    for _ in range(12):
        planted = [
            fit_regret.Cell(f"m{i % 9}", False, 4, x, 50.0, 0.6 * x**-0.9 * math.exp(0.3 * z) + 0.05 * e)
            for i, x in enumerate(np.geomspace(0.1, 8, 27))
            for z, e in [random.standard_normal(2)]
        ]
        found.append(fit_regret.fit(planted, 0.05))
    assert median(f.coefficient for f in found) == pytest.approx(0.6, rel=0.1)
    assert median(f.exponent for f in found) == pytest.approx(0.9, rel=0.1)
    assert median(f.scatter for f in found) == pytest.approx(0.3, rel=0.25)


@given(st.floats(1e-6, 1e6), st.floats(1.001, 100), st.booleans())
def test_more_parameters_never_cost_more(ratio: float, factor: float, moe: bool) -> None:
    less, more = (regret.expected_regret(r, moe=moe) for r in (ratio, ratio * factor))
    assert more.value <= less.value and more.low <= less.low and more.high <= less.high
    assert 0 < more.low <= more.value <= more.high <= 1.08
    assert less.within_noise <= more.within_noise


def test_the_ends_of_the_fitted_range_are_known() -> None:
    law = regret.law_for(False)
    assert not regret.expected_regret(law.ratio_low).extrapolated
    assert regret.expected_regret(law.ratio_low / 1.01).extrapolated
    assert regret.expected_regret(1e-9).value == pytest.approx(1.08)
    assert regret.expected_regret(1e6).within_noise


@pytest.mark.parametrize("bad", [0, -1, float("nan"), float("inf"), "many"])
def test_a_ratio_that_is_none_is_refused(bad: float) -> None:
    with pytest.raises(InputError, match="parameters per loss token"):
        regret.expected_regret(bad)


@given(st.integers(10**4, 10**10), st.booleans())
def test_at_its_departure_an_adapter_is_at_the_noise(params: int, moe: bool) -> None:
    """Solved back through the law; twice the parameters, twice the tokens."""
    left = regret.departure(params, moe=moe)
    law = regret.law_for(moe)
    assert regret.expected_regret(params / left.value, moe=moe).value == pytest.approx(
        law.noise_percent / 100, rel=1e-6
    )
    assert left.low < left.value < left.high
    assert regret.departure(2 * params, moe=moe).value == pytest.approx(2 * left.value)


def test_the_first_rank_within_a_limit() -> None:
    ranks = [(r, r * 2_753_792) for r in (1, 2, 4, 8, 16, 32, 64)]
    found = regret.smallest_rank_within(0.005, ranks, 30_826_598)
    assert found == 16
    assert regret.smallest_rank_within(1e-6, ranks, 30_826_598) is None


@pytest.mark.parametrize(
    ("options", "code"),
    [
        ({}, None), ({"layers": "all-linear"}, None), ({"layers": "attention,mlp"}, None),
        ({"layers": "attention"}, "regret-of-attention"), ({"layers": "mlp"}, "regret-of-layers"),
        ({"targets": "q_proj,v_proj"}, "regret-of-layers"),
    ],
)  # fmt: skip
def test_layer_sets_without_a_sweep_are_said(options: dict[str, Any], code: str | None) -> None:
    plan = planner.estimate(model="meta-llama/Llama-3.1-8B", rank=8, dataset="alpaca", **options)
    found = [notice.code for notice in plan.warnings if notice.code.startswith("regret-of")]
    assert found == ([code] if code else [])
