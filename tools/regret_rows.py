"""Rows of the tables of regret: a rule's log rates scored by both interpolations and without any."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from planner.learning_rate.fit.cells import DIVERGED_REGRET, Cells, Floats
from planner.learning_rate.fit.compare import Data
from planner.learning_rate.fit.curves import INTERPOLATIONS, Interpolation, make_curves

HEAD = [
    "| rule | rates | mean | p90 | max | mean | p90 | max | mean | p90 | max | outside |",
    "|---|---|---|---|---|---|---|---|---|---|---|---|",
]


def plain(cells: Cells, kind: Interpolation) -> Data:
    """Cells ready to be fitted by what rules are scored by: without the asymmetry of all sweeps."""
    return replace(Data.of(cells, kind), fit_curves=make_curves(cells, kind))


def rounded(data: Data, x: Floats) -> Floats:
    """The measured regret of each cell, in percent, at the rate that was run nearest to log rate x; 100 where that
    run diverged. Nothing is interpolated."""
    cells = data.cells
    lowest = np.minimum.reduceat(cells.loss, cells.start[:-1])
    found = np.empty(cells.n)
    for cell in range(cells.n):
        points = slice(cells.start[cell], cells.start[cell + 1])
        rates = np.append(cells.x[points], cells.wall[cell])
        regret = np.append((cells.loss[points] / lowest[cell] - 1) * 100, DIVERGED_REGRET)
        found[cell] = regret[np.argmin(np.abs(rates - x[cell]))]
    return found


def row(data: Data, name: str, x: Floats, basis: str, keep: NDArray[np.bool_]) -> str:
    """One line of a table, over the cells that `keep` marks."""
    curves = data.fit_curves
    parts = []
    for kind in INTERPOLATIONS:
        regret = data.regret(x, kind)[keep]
        parts += [f"{abs(regret.mean()):.3f}", f"{np.quantile(regret, 0.9):.2f}", f"{regret.max():.2f}"]
    regret = rounded(data, x)[keep]
    parts += [f"{regret.mean():.3f}", f"{np.quantile(regret, 0.9):.2f}", f"{regret.max():.2f}"]
    outside = int(((x < curves.low - 1e-9) | (x > curves.high + 1e-9))[keep].sum())
    return f"| {name} | {basis} | {' | '.join(parts)} | {outside} |"
