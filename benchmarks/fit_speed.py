"""How fast a law is refitted, against scipy.optimize over plain Python interpolation; and a sweep of a million rows.

The bootstrap of `lora-plan fit` refits a law for a thousand weightings of the models. The baseline minimises the
same objective, draw by draw, with scipy.optimize over a Python function that interpolates each sweep; a few draws are
timed and the rate is compared, in CPU time and in one run on one thread, for every form that `fit` compares on the
shipped sweep and both interpolations. Ours must be nowhere above a baseline's optimum. A baseline that stops above it
is started again where it stopped, until it is there or no longer gets lower (`starts`), as one would have to for the
same optimum. The target is a ratio of at least 50 to every baseline.

    python benchmarks/fit_speed.py [--baseline-draws 6] [--million] [--out record.json] [--check 50]
"""

from __future__ import annotations

import argparse
import bisect
import math
import os
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

os.environ["OMP_NUM_THREADS"] = os.environ["OPENBLAS_NUM_THREADS"] = (
    "1"  # before numpy: waiting threads cost CPU time
)

import numpy as np
import pandas as pd
from machine import about_this_machine, write_record
from scipy.optimize import minimize

from planner import facts
from planner.learning_rate.fit import fit
from planner.learning_rate.fit.cells import make_cells
from planner.learning_rate.fit.curves import INTERPOLATIONS, Curves, fit_curves
from planner.learning_rate.fit.forms import candidates, features_of, form_name, make_design, parse_form
from planner.learning_rate.fit.solve import WINDOWS, Problem, fit_all, refit
from planner.learning_rate.sweep import read_sweep

METHODS = ("Nelder-Mead", "Powell", "L-BFGS-B")
POOLING = 4.0
REPEATS = 3  # of ours; the median counts
ALIKE = 1e-4  # of an objective: the most that ours may lie above
REACHED = 1e-3  # of an objective: how near a baseline must come
MOST_STARTS = 30


def python_objective(
    curves: Curves, matrix: Sequence[Sequence[float]], penalty: Sequence[float], weights: Sequence[float]
) -> Callable[[Sequence[float]], float]:
    """The objective as one would write it without numpy: a loop over the sweeps."""
    cells = []
    for cell in range(curves.n):
        first, last = int(curves.first[cell]), int(curves.first[cell + 1])
        pieces = [tuple(map(float, curves.coefficients[:, i])) for i in range(first, last)]
        cells.append((curves.lower[first:last].tolist(), curves.anchor[first:last].tolist(), pieces))

    def objective(theta: Sequence[float]) -> float:
        total = sum(p * t * t for p, t in zip(penalty, theta, strict=True))
        for (breaks, anchors, pieces), row, weight in zip(cells, matrix, weights, strict=True):
            x = sum(f * t for f, t in zip(row, theta, strict=True))
            i = bisect.bisect_right(breaks, x) - 1
            u = x - anchors[i]
            c0, c1, c2, c3 = pieces[i]
            total += weight * (c0 + u * (c1 + u * (c2 + u * c3)))
        return total

    return objective


def baseline(
    problem: Problem, weights: np.ndarray, start: np.ndarray, method: str, ours: np.ndarray
) -> tuple[float, list[float], float]:
    """CPU seconds a draw, the objective reached for each draw, and the mean number of starts. `ours` are the optima
    to reach."""
    reached, starts = [], 0
    began = time.process_time()
    for row, goal in zip(weights, ours, strict=True):
        objective = python_objective(
            problem.curves, problem.matrix.tolist(), problem.penalty.tolist(), row.tolist()
        )
        options = {"maxiter": 20000, "maxfev": 40000} if method == "Nelder-Mead" else {}
        x, best = start, math.inf
        for _ in range(MOST_STARTS):
            found = minimize(objective, x, method=method, options=options)
            starts += 1
            gained, best, x = best - float(found.fun), min(best, float(found.fun)), found.x
            if best <= goal * (1 + REACHED) or gained <= 1e-6 * best:
                break
        reached.append(best)
    return (time.process_time() - began) / len(weights), reached, starts / len(weights)


def every_form() -> list[str]:
    """The forms that `fit` compares on the shipped sweep, by their number of constants."""
    features = features_of(make_cells(read_sweep(facts.data_dir() / "sweeps" / "tinker_sft.csv")))
    found = candidates(features)
    return [
        form_name(terms) for terms in sorted(found, key=lambda t: len(make_design(t, features)[0].columns))
    ]


def compare(interpolation: str, form: str, draws: int) -> list[dict[str, object]]:
    """Our rate and the baselines' on the shipped sweep."""
    cells = make_cells(read_sweep(facts.data_dir() / "sweeps" / "tinker_sft.csv"))
    features = features_of(cells)
    design, _ = make_design(parse_form(form), features)
    kind = next(name for name in INTERPOLATIONS if name == interpolation)
    problem = Problem(
        fit_curves(cells, kind), design.matrix, np.where(design.pooled, POOLING, 0.0), WINDOWS[kind]
    )
    weights = np.random.default_rng(0).exponential(size=(1000, len(features.models)))[:, features.model]
    start = fit_all(problem).theta[0]
    times = []
    for _ in range(REPEATS):
        began = time.process_time()
        ours = refit(problem, weights, near=start)
        times.append((time.process_time() - began) / len(weights))
    each = sorted(times)[REPEATS // 2]
    rows: list[dict[str, object]] = []
    for method in METHODS:
        theirs, reached, starts = baseline(problem, weights[:draws], start, method, ours.objective[:draws])
        worse = max((b - o) / o for o, b in zip(ours.objective[:draws], reached, strict=True))
        better = max((o - b) / o for o, b in zip(ours.objective[:draws], reached, strict=True))
        rows.append({
            "interpolation": interpolation, "form": form, "baseline": method, "ours_s_per_1000": 1000 * each,
            "baseline_s_per_1000": 1000 * theirs, "ratio": theirs / each, "starts": starts,
            "baseline_above_ours": worse, "ours_above_baseline": better,
        })  # fmt: skip
    return rows


def million(path: Path, models: int, rates: int, seeds: int) -> int:
    """Write a sweep of a million rows; returns how many."""
    rng = np.random.default_rng(0)
    ranks = np.array([4, 16, 64, 128, 256])
    grid = np.geomspace(2e-5, 5e-3, rates)
    index = np.indices((models, len(ranks), rates, seeds)).reshape(4, -1)
    width = np.array([1024, 2048, 3072, 4096, 5120, 8192])[index[0] % 6]
    best = (
        4e-4
        * (2000 / width) ** 0.3
        * (ranks[index[1]] / 32) ** 0.15
        * np.exp(0.1 * rng.normal(size=models))[index[0]]
    )
    x = np.log(grid[index[2]] / best)
    loss = 0.7 * (1 + 0.01 * x**2 + 0.0003 * rng.normal(size=x.size))
    frame = pd.DataFrame({
        "model": np.char.add("m", index[0].astype(str)), "family": np.char.add("f", (index[0] % 8).astype(str)),
        "hidden_size": width, "method": "lora", "rank": ranks[index[1]], "lr": grid[index[2]], "loss": loss,
        "seed": index[3],
    })  # fmt: skip
    frame.to_csv(path, index=False)
    return len(frame)


def large() -> list[dict[str, object]]:
    """Reading and fitting a million rows, few large sweeps and many small ones: CPU time, wall time, peak memory."""
    rows: list[dict[str, object]] = []
    with tempfile.TemporaryDirectory() as folder:
        for models, rates, seeds in ((250, 40, 20), (5000, 8, 5)):
            path = Path(folder) / "sweep.csv"
            n = million(path, models, rates, seeds)
            wall, cpu = time.perf_counter(), time.process_time()
            result = fit(path)
            rows.append({
                "rows": n, "cells": result.n_sweeps, "form": result.form, "cpu_s": time.process_time() - cpu,
                "wall_s": time.perf_counter() - wall,
                "peak_bytes": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024,
            })  # fmt: skip
            print(rows[-1])
    return rows


def main() -> int:
    """Measure, print, record."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--baseline-draws", type=int, default=6)
    parser.add_argument("--million", action="store_true", help="also fit sweeps of a million rows")
    parser.add_argument("--out", type=Path)
    parser.add_argument("--check", type=float, help="exit 1 where a ratio falls below")
    options = parser.parse_args()
    rows = [
        row
        for kind in INTERPOLATIONS
        for form in every_form()
        for row in compare(kind, form, options.baseline_draws)
    ]
    print(
        f"{'interpolation':<13} {'form':<25} {'baseline':<12} {'ours':>8} {'theirs':>9} {'ratio':>7} {'starts':>6}  "
        "baseline above / below our optimum"
    )
    for row in rows:
        print(
            f"{row['interpolation']:<13} {row['form']:<25} {row['baseline']:<12} {row['ours_s_per_1000']:7.2f}s "
            f"{row['baseline_s_per_1000']:8.1f}s {row['ratio']:7.0f} {row['starts']:6.1f}  "
            f"{row['baseline_above_ours']:.1e} / {row['ours_above_baseline']:.1e}"
        )
    record = {"machine": about_this_machine(), "refits": rows, "million": large() if options.million else []}
    if options.out:
        write_record(options.out, record)
    reached = [row for row in rows if float(str(row["baseline_above_ours"])) <= REACHED]
    fastest = min(float(str(row["ratio"])) for row in reached)
    short = min((float(str(row["ratio"])) for row in rows if row not in reached), default=math.inf)
    behind = max(float(str(row["ours_above_baseline"])) for row in rows)
    print(
        f"smallest ratio {fastest:.0f}; to baselines that stop above the optimum {short:.0f}; "
        f"ours above a baseline's optimum by at most {behind:.1e}"
    )
    if options.check is not None and (not fastest >= options.check or behind > ALIKE):
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
