"""The asymmetry that all sweeps share: planted curves, noise, and what one sweep alone cannot tell."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.learning_rate.fit.cells import Cells, make_cells
from planner.learning_rate.fit.compare import Data
from planner.learning_rate.fit.curves import fit_curves, make_curves
from planner.learning_rate.fit.parabolas import FEWEST, shared_asymmetry
from planner.learning_rate.sweep import read_sweep
from tools.plant_sweep import Planted, best_rate, plant

# b (u^2 + asymmetry u^3) with b = 1%; LoRA at three ranks, nothing missing.
LEANING = Planted(models=8, methods=("lora",), skew=0.0015, noise=0.0, missing=0.0)
ASYMMETRY = 0.15


def cells_of(law: Planted, seed: int = 0) -> Cells:
    return make_cells(read_sweep(plant(law, seed)))


def truth(law: Planted, cells: Cells) -> np.ndarray:
    rows = cells.table.itertuples()
    return np.log([best_rate(law, str(r.family), int(r.hidden_size), "lora", int(r.rank)) for r in rows])


@given(st.floats(-0.004, 0.004), st.floats(1.6, 2.6), st.integers(0, 5))
def test_curves_that_lean_alike_come_back(skew: float, ratio: float, seed: int) -> None:
    """Whatever the grid, with a tenth of the runs missing: the lean to 5%, best rates where parabolas miss them."""
    law = replace(LEANING, skew=skew, rates=tuple(2e-6 * ratio**i for i in range(9)), missing=0.1)
    cells = cells_of(law, seed)
    assert shared_asymmetry(cells) == pytest.approx(skew / law.bend, rel=0.05, abs=0.002)
    inner = make_curves(cells).censored == 0
    missed, found = (
        np.abs(curves.best - truth(law, cells))[inner] for curves in (make_curves(cells), fit_curves(cells))
    )
    assert found.mean() < max(0.25 * missed.mean(), 1e-4)


def test_a_curve_of_third_order_is_read_exactly() -> None:
    cells = cells_of(LEANING)
    curves = make_curves(cells, asymmetry=ASYMMETRY)
    best = truth(LEANING, cells)
    for shift in (-1.0, -0.4, 0.0, 0.3, 0.9):
        exact = 100 * (LEANING.bend * shift**2 + LEANING.skew * shift**3)
        inside = (best + shift > curves.low + 0.8) & (best + shift < curves.high)
        assert inside.sum() > 10
        np.testing.assert_allclose(curves.value(best + shift)[inside], exact, atol=3e-3)


def test_noise_alone_leans_to_neither_side() -> None:
    """Drawn towards 0 by its error, the lean of symmetric curves is small, and that of leaning ones still found."""
    flat = [shared_asymmetry(cells_of(replace(LEANING, skew=0.0, noise=0.0005), seed)) for seed in range(12)]
    assert np.abs(flat).mean() < 0.02 and abs(np.mean(flat)) < 0.01
    steep = [shared_asymmetry(cells_of(replace(LEANING, noise=0.0005), seed)) for seed in range(12)]
    assert np.mean(steep) == pytest.approx(ASYMMETRY, abs=0.02)


def test_few_curves_cannot_tell() -> None:
    few = cells_of(replace(LEANING, models=1))
    assert few.n < FEWEST and shared_asymmetry(few) == 0.0
    short = replace(LEANING, rates=LEANING.rates[3:6])
    assert shared_asymmetry(cells_of(short)) == 0.0


def test_a_fit_uses_it_and_a_score_does_not() -> None:
    """Regrets stay comparable with those by parabolas alone."""
    cells = cells_of(LEANING)
    data = Data.of(cells, "quadratic")
    np.testing.assert_array_equal(data.fit_curves.best, fit_curves(cells).best)
    np.testing.assert_array_equal(data.score_curves["quadratic"].best, make_curves(cells).best)
    assert not np.allclose(data.fit_curves.best, data.score_curves["quadratic"].best)
