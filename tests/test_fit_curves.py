"""Curves, cells and the solver of the fit, against scipy, numpy and arithmetic."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy.integrate import quad
from scipy.optimize import differential_evolution, linprog, minimize

from planner import facts
from planner.learning_rate.fit.cells import Cells, Floats, make_cells
from planner.learning_rate.fit.curves import Interpolation, make_curves
from planner.learning_rate.fit.forms import features_of, make_design, parse_form
from planner.learning_rate.fit.solve import WINDOWS, Problem, fit_all, refit
from planner.learning_rate.sweep import read_sweep

LOGS = np.log([4e-5, 1e-4, 3e-4, 1e-3, 3e-3])
SHIPPED = facts.data_dir() / "sweeps" / "tinker_sft.csv"


def cells_of(losses: list[float | str], rates: Floats = LOGS, **more: object) -> Cells:
    """One cell; a text is a status."""
    rows = [
        {
            "model": "m", "family": "f", "hidden_size": 2000, "method": "lora", "rank": 8, "lr": float(np.exp(x)),
            "loss": np.nan if isinstance(y, str) else y, "status": y if isinstance(y, str) else "ok", **more,
        }
        for x, y in zip(rates, losses, strict=True)
    ]  # fmt: skip
    return make_cells(read_sweep(pd.DataFrame(rows)))


@given(st.lists(st.floats(0.5, 0.9), min_size=5, max_size=5), st.floats(0, 1))
def test_log_linear_is_numpy_s_interpolation(losses: list[float], at: float) -> None:
    curves = make_curves(cells_of(list(losses)), "log-linear")
    x = LOGS[0] + at * (LOGS[-1] - LOGS[0])
    expected = (np.interp(x, LOGS, losses) / min(losses) - 1) * 100
    assert curves.value(np.array([x]))[0] == pytest.approx(expected, abs=1e-9)


@given(
    best=st.floats(-9.5, -6.5), bend=st.floats(0.003, 0.05), skip=st.sets(st.integers(0, 8), max_size=4),
    fine=st.booleans(),
)  # fmt: skip
@settings(max_examples=30)
def test_a_parabola_comes_back_exactly(best: float, bend: float, skip: set[int], fine: bool) -> None:
    rates = np.linspace(-10.5, -5.5, 41 if fine else 9)
    rates = np.delete(rates, sorted(skip))
    assume(rates[0] <= best <= rates[-1])
    losses = [0.7 * (1 + bend * (x - best) ** 2) for x in rates]
    curves = make_curves(cells_of(list(losses), rates), "quadratic")
    inside = np.linspace(rates[0], rates[-1], 50)
    expected = 100 * bend * (inside - best) ** 2
    found = np.array([curves.value(np.array([x]))[0] for x in inside])
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert curves.best[0] == pytest.approx(best, abs=1e-5)
    assert curves.best_loss[0] == pytest.approx(0.7, rel=1e-8)


def test_noise_on_a_fine_grid_is_averaged() -> None:
    rng = np.random.default_rng(0)
    rates = np.linspace(-10, -6, 200)
    errors: dict[Interpolation, list[float]] = {"quadratic": [], "log-linear": []}
    for _ in range(30):
        losses = [0.7 * (1 + 0.01 * (x + 8) ** 2 + 0.001 * rng.standard_normal()) for x in rates]
        for kind, found in errors.items():
            found.append(float(make_curves(cells_of(list(losses), rates), kind).best[0]) + 8)
    assert np.std(errors["quadratic"]) < np.std(errors["log-linear"]) / 2
    assert abs(np.mean(errors["quadratic"])) < 0.05


@pytest.mark.parametrize("kind", ["quadratic", "log-linear"])
@pytest.mark.parametrize("last", [0.75, "diverged", "missing"])
def test_slope_and_window_are_derivative_and_mean(kind: Interpolation, last: float | str) -> None:
    curves = make_curves(cells_of([0.73, 0.71, 0.70, 0.72, last]), kind)

    def value(x: float) -> float:
        return float(curves.value(np.array([x]))[0])

    for x in (-11.0, -9.7, -8.3, -7.5, -6.6, -6.1, -5.0):
        assert curves.slope(np.array([x]))[0] == pytest.approx(
            (value(x + 1e-6) - value(x - 1e-6)) / 2e-6, rel=1e-4
        )
        for half in (0.05, 0.7):
            mean, slope, bend = (float(a[0]) for a in curves.smoothed(np.array([x]), half))
            area = quad(value, x - half, x + half, limit=400, points=[p for p in LOGS if abs(p - x) < half])[
                0
            ]
            assert mean == pytest.approx(area / (2 * half), rel=1e-5, abs=1e-7)
            assert slope == pytest.approx((value(x + half) - value(x - half)) / (2 * half), abs=1e-9)
            ends = curves.slope(np.array([x + half]))[0] - curves.slope(np.array([x - half]))[0]
            assert bend == pytest.approx(float(ends) / (2 * half), abs=1e-9)


def regret(cells: Cells, rate: float, *, kind: Interpolation = "quadratic", charged: bool = False) -> float:
    return float(make_curves(cells, kind, charged=charged).value(np.array([np.log(rate)]))[0])


@pytest.mark.parametrize("kind", ["quadratic", "log-linear"])
def test_divergence_is_a_wall_of_the_last_grid_step(kind: Interpolation) -> None:
    cells = cells_of([0.73, 0.71, 0.70, 0.72, "diverged"])
    assert cells.wall[0] == pytest.approx(np.log(3e-3))
    assert regret(cells, 3e-3, kind=kind) == pytest.approx(100, rel=0.1)
    assert regret(cells, 2e-3, kind=kind) > regret(cells, 1.2e-3, kind=kind) > regret(cells, 1e-3, kind=kind)
    gap = cells_of([0.73, 0.71, 0.70, "missing", "diverged"])
    assert regret(gap, 5e-4, kind=kind) < 1 < regret(gap, 2.5e-3, kind=kind)


def test_a_censored_cell_does_not_object_to_rates_beyond_its_grid() -> None:
    cells = cells_of([0.75, 0.74, 0.72, 0.71], LOGS[:4])
    curves = make_curves(cells)
    assert curves.censored[0] == 1
    assert regret(cells, 5e-3) == pytest.approx(0, abs=1e-9)
    assert regret(cells, 5e-3, charged=True) > 1  # but a score charges what was not measured
    low = cells_of([0.70, 0.71, 0.73, 0.76], LOGS[:4])
    assert make_curves(low).censored[0] == -1
    assert regret(low, 1e-5) == pytest.approx(0, abs=1e-9) and regret(low, 1e-5, charged=True) > 1


def test_a_loss_of_twice_the_best_counts_as_diverged() -> None:
    cells = cells_of([0.73, 0.71, 0.70, 0.72, 1.5])
    assert cells.wall[0] == pytest.approx(np.log(3e-3)) and len(cells.x) == 4


def test_an_unknown_reason_is_divergence_only_above_all_finished_rates_of_the_model() -> None:
    both = pd.DataFrame([
        {"model": "m", "family": "f", "hidden_size": 2000, "method": "lora", "rank": rank, "lr": lr, "loss": loss,
         "status": "ok" if loss else "diverged_or_missing"}
        for rank, losses in (
            (4, (0.73, 0.70, 0.71, 0.72)), (64, (0.73, 0.70, 0.69, None)), (128, (0.74, 0.71, 0.69, 0.7)),
        )
        for lr, loss in zip((1e-4, 3e-4, 1e-3, 3e-3), losses, strict=True)
    ])  # fmt: skip
    cells = make_cells(read_sweep(both))
    assert np.isinf(cells.wall).all()  # rank 4 finished at 3e-3, so that rank 64's run is missing
    fewer = both[(both["lr"] < 3e-3) | (both["rank"] == 64)]
    assert np.isfinite(make_cells(read_sweep(fewer)).wall).sum() == 1


def test_replicates_are_averaged_and_give_the_noise() -> None:
    rng = np.random.default_rng(0)
    frames = []
    for seed in range(40):
        losses = [0.7 * (1 + 0.01 * (x + 8) ** 2) * (1 + 0.002 * rng.standard_normal()) for x in LOGS]
        frames.append(cells_frame(losses, seed))
    cells = make_cells(read_sweep(pd.concat(frames)))
    assert cells.n == 1 and cells.runs.tolist() == [40] * 5
    assert cells.noise == pytest.approx(0.002, rel=0.15)


def cells_frame(losses: list[float], seed: int) -> pd.DataFrame:
    return pd.DataFrame({
        "model": "m", "family": "f", "hidden_size": 2000, "method": "lora", "rank": 8, "lr": np.exp(LOGS),
        "loss": losses, "seed": seed,
    })  # fmt: skip


# The solver


def problem(form: str, kind: Interpolation, pooling: float = 4.0) -> tuple[Problem, Floats]:
    cells = make_cells(read_sweep(SHIPPED))
    features = features_of(cells)
    design, _ = make_design(parse_form(form), features)
    made = Problem(
        make_curves(cells, kind), design.matrix, np.where(design.pooled, pooling, 0.0), WINDOWS[kind]
    )
    weights = np.random.default_rng(1).exponential(size=(40, len(features.models)))[:, features.model]
    return made, weights


@pytest.mark.parametrize("kind", ["quadratic", "log-linear"])
def test_the_optimum_is_the_global_one(kind: Interpolation) -> None:
    made, _ = problem("width+rank", kind)
    ours = fit_all(made)
    bounds = [(-10, -6), (-1, 1), (-0.2, 0.6)]
    theirs = differential_evolution(
        lambda theta: made.value(theta[None], np.ones((1, made.curves.n)))[0],
        bounds,
        seed=0,
        tol=1e-10,
        maxiter=400,
    )
    assert ours.objective[0] <= theirs.fun * (1 + 1e-4)


def test_refits_reach_what_scipy_reaches_draw_by_draw() -> None:
    made, weights = problem("family+rank_sat", "quadratic")
    near = fit_all(made).theta[0]
    ours = refit(made, weights, near=near)
    assert ours.converged.all()
    for row, found in zip(weights[:6], ours.objective, strict=False):
        best = min(
            minimize(lambda t, row=row: made.value(t[None], row[None])[0], start, method="L-BFGS-B").fun
            for start in (near, near + 0.1)
        )
        assert found <= best * (1 + 2e-4)
    alone = np.concatenate([refit(made, row[None], near=near).objective for row in weights[:5]])
    np.testing.assert_allclose(alone, ours.objective[:5], rtol=1e-9)  # draws do not disturb each other


def test_log_linear_optimum_of_convex_sweeps_is_the_linear_programme_s() -> None:
    """min sum over cells of max over segments of (slope x + offset): an exact optimum from another solver."""
    rng = np.random.default_rng(3)
    frames = []
    for number in range(12):
        best = -8 + 0.3 * np.log(2000 / (1000 * (1 + number % 4))) + 0.1 * rng.standard_normal()
        rates = LOGS + rng.uniform(-0.5, 0.5)
        frame = cells_frame(list(0.7 * (1 + 0.01 * (rates - best) ** 2)), 0)
        frames.append(frame.assign(model=f"m{number}", hidden_size=1000 * (1 + number % 4), lr=np.exp(rates)))
    cells = make_cells(read_sweep(pd.concat(frames)))
    features = features_of(cells)
    design, _ = make_design(("width",), features)
    curves = make_curves(cells, "log-linear")
    ours = fit_all(Problem(curves, design.matrix, np.zeros(2), WINDOWS["log-linear"]))
    rows, bounds = [], []
    for cell in range(cells.n):
        for piece in range(curves.first[cell], curves.first[cell + 1]):
            offset, slope = curves.coefficients[0, piece], curves.coefficients[1, piece]
            t = np.zeros(cells.n)
            t[cell] = -1
            rows.append([*(slope * design.matrix[cell]), *t])
            bounds.append(slope * curves.anchor[piece] - offset)
    cost = np.concatenate([np.zeros(2), np.ones(cells.n)])
    exact = linprog(cost, A_ub=rows, b_ub=bounds, bounds=[(None, None)] * (2 + cells.n))
    assert ours.objective[0] == pytest.approx(exact.fun, rel=1e-4)
