"""From the runs of a sweep to its cells: replicates averaged, divergence set apart, too thin cells left out.

A cell is one problem: a model, method, rank, batch, number of steps, alpha and data set, swept over rates. All arrays
over points are flat, sorted by cell and rate, so that a million runs take seconds.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from ...schema import Notice
from ..sweep import CELL, Sweep

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]

MIN_RATES = 3
DIVERGED_REGRET = (
    100.0  # percent: a loss of twice the cell's best counts as diverged, and is what divergence costs
)


@dataclass(frozen=True, eq=False)
class Cells:
    """The problems of a sweep. `table` has a row a cell (the columns of sweep.CELL); points are flat arrays.

    `start[c] : start[c + 1]` are the points of cell c, at log rates `x` with mean losses `loss` from `runs` runs
    each. `wall[c]` is the log rate at which the cell diverged, inf where none is known. `noise` is the relative
    standard deviation of repeated runs, NaN without repeats; `n_repeats` counts these.
    """

    table: pd.DataFrame
    start: Ints
    x: Floats
    loss: Floats
    runs: Ints
    wall: Floats
    noise: float
    n_repeats: int
    warnings: tuple[Notice, ...]

    @property
    def n(self) -> int:
        """How many cells."""
        return len(self.start) - 1

    @property
    def owner(self) -> Ints:
        """The cell of each point."""
        return np.repeat(np.arange(self.n), np.diff(self.start))


def some_cells(cells: Cells, keep: NDArray[np.bool_]) -> Cells:
    """The cells that `keep` marks, with their points."""
    points = keep[cells.owner]
    start = np.concatenate([[0], np.cumsum(np.diff(cells.start)[keep])]).astype(np.int64)
    return replace(
        cells, table=cells.table[keep].reset_index(drop=True), start=start, x=cells.x[points],
        loss=cells.loss[points], runs=cells.runs[points], wall=cells.wall[keep],
    )  # fmt: skip


def codes(table: pd.DataFrame, column: str) -> tuple[Ints, list[str]]:
    """A text column of the cells as numbers, and its values in the order of the alphabet."""
    found, names = pd.factorize(table[column].astype(str), sort=True)
    return found.astype(np.int64), [str(name) for name in names]


@dataclass(frozen=True, eq=False)
class _Points:
    """All rates of all cells, sorted by cell and rate: mean loss (NaN where no run finished), counts."""

    cell: Ints
    x: Floats
    loss: Floats
    finished: Ints
    diverged: Ints
    ambiguous: Ints
    deviations: Floats


def _keys(runs: pd.DataFrame) -> Ints:
    """A number for each run's cell, equal for runs of one cell."""
    key = np.zeros(len(runs), dtype=np.int64)
    for column in CELL:
        part, _ = pd.factorize(runs[column])
        key = key * (int(part.max()) + 2) + part + 1
        key = np.unique(key, return_inverse=True)[1].astype(np.int64)
    return key


def _points(runs: pd.DataFrame, cell: Ints) -> _Points:
    """Replicates averaged: one point for each cell and rate."""
    x = np.log(runs["lr"].to_numpy(dtype=float))
    order = np.lexsort((x, cell))
    cell, x = cell[order], x[order]
    new = np.ones(len(x), dtype=bool)
    new[1:] = (np.diff(cell) != 0) | (np.diff(x) > 1e-9)
    first = np.flatnonzero(new)
    loss = runs["loss"].to_numpy(dtype=float)[order]
    status = runs["status"].astype(str).to_numpy()[order]
    done = status == "ok"

    def total(values: NDArray[np.generic]) -> Floats:
        return np.asarray(np.add.reduceat(values.astype(float), first))

    finished, summed = total(done), total(np.where(done, loss, 0.0))
    with np.errstate(invalid="ignore", divide="ignore"):
        mean = summed / finished
        deviation = np.where(done, loss / np.repeat(mean, np.diff(np.append(first, len(x)))) - 1, 0.0)
    repeats = np.repeat(finished, np.diff(np.append(first, len(x))))
    with np.errstate(invalid="ignore", divide="ignore"):
        free = (deviation * np.sqrt(repeats / (repeats - 1)))[done & (repeats > 1)]
    return _Points(
        cell[first], x[first], mean, finished.astype(np.int64), total(status == "diverged").astype(np.int64),
        total(status == "diverged_or_missing").astype(np.int64), free,
    )  # fmt: skip


def _grouped_min(values: Floats, group: Ints, n: int, empty: float = np.inf) -> Floats:
    out = np.full(n, empty)
    np.minimum.at(out, group, values)
    return out


def _walls(points: _Points, model: Ints, n: int) -> tuple[Floats, Floats, int]:
    """The lowest log rate at which each cell diverged, above its best rate; the best losses; conflicting points.

    Diverged are: points at least half of whose runs diverged; finished points with twice the cell's best loss; and
    unfinished points of unknown reason at rates above every finished run of their model, at whatever rank (a rate
    that another rank of the model survived says nothing).
    """
    usable = points.finished > 0
    best = _grouped_min(np.where(usable, points.loss, np.inf), points.cell, n)
    at_best = usable & (points.loss <= best[points.cell])
    best_x = _grouped_min(np.where(at_best, points.x, np.inf), points.cell, n)
    awful = usable & (points.loss >= (1 + DIVERGED_REGRET / 100) * best[points.cell])
    top = np.full(int(model.max()) + 1, -np.inf)
    np.maximum.at(top, model[points.cell], np.where(usable & ~awful, points.x, -np.inf))
    unknown = (points.ambiguous > 0) & ~usable & (points.x > top[model[points.cell]] + 1e-9)
    bad = awful | unknown | ((points.diverged > 0) & (points.diverged >= points.finished))
    below = bad & (points.x <= best_x[points.cell])
    wall = _grouped_min(np.where(bad & ~below, points.x, np.inf), points.cell, n)
    return wall, best, int(below.sum())


def make_cells(sweep: Sweep) -> Cells:
    """The cells of a sweep that have at least three finished rates. What is left out is said in `warnings`."""
    runs = sweep.runs
    cell = _keys(runs)
    n = int(cell.max()) + 1
    _, first = np.unique(cell, return_index=True)
    table = runs.iloc[first][list(CELL)].reset_index(drop=True)
    model, _ = codes(table, "model")
    points = _points(runs, cell)
    wall, _, below = _walls(points, model, n)
    keep = (points.finished > 0) & (points.x < wall[points.cell])
    beyond = int(((points.finished > 0) & (points.x > wall[points.cell])).sum())
    count = np.bincount(points.cell[keep], minlength=n)
    enough = count >= MIN_RATES
    keep &= enough[points.cell]
    start = np.concatenate([[0], np.cumsum(count[enough])]).astype(np.int64)
    notes = _notes(n, enough, below, beyond)
    # By the median: repeats at rates on the verge of divergence differ ten times as much as the others.
    far = points.deviations
    noise = float(np.median(np.abs(far)) / 0.6745) if len(far) else float("nan")
    return Cells(
        table[enough].reset_index(drop=True), start, points.x[keep], points.loss[keep], points.finished[keep],
        wall[enough], noise, len(far), notes,
    )  # fmt: skip


def _notes(n: int, enough: NDArray[np.bool_], below: int, beyond: int) -> tuple[Notice, ...]:
    notes = []
    if (thin := n - int(enough.sum())) > 0:
        text = f"{thin} of {n} cells have fewer than {MIN_RATES} finished rates and are left out."
        notes.append(Notice("cells-left-out", text))
    if below:
        text = f"{below} diverged rates lie at or below their cell's best rate: they are taken as missing."
        notes.append(Notice("divergence-below-best", text))
    if beyond:
        text = f"{beyond} finished rates lie above a rate at which their cell diverged: they are left out."
        notes.append(Notice("finished-above-divergence", text))
    return tuple(notes)
