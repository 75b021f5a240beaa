"""Learning-rate grids that find their optimum: coarse for one seed, refined around the lowest loss, then other seeds.

All rates are 0.001 x 2^k, so that arms share them. What a grid wants next follows from the records there are, and
from nothing else: a killed sweep goes on as if it had not been.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache

from .records import RunConfig, RunRecord
from .statistics import Optimum, optimum

Lookup = Callable[[RunConfig], RunRecord | None]
BASE = 1e-3
LOWEST, HIGHEST = -10, 10


def rate(k: int) -> float:
    """0.001 x 2^k."""
    return BASE * 2.0**k


@lru_cache(maxsize=4096)
def _config(base: RunConfig, k: int, seed: int) -> RunConfig:
    # A judgement asks for the same ones many times, and each knows its id from the first time on.
    return base.but(lr=rate(k), seed=seed)


@dataclass(frozen=True)
class Cell:
    """One arm of a comparison: a configuration whose rate is swept from around 2^centre. `at` are the steps at which
    the optimum is wanted inside the grid; none means the last. `around` are the rates, from the first seed's best on,
    at which the other seeds run: (0,) where the loss there is wanted and not the optimum itself."""

    base: RunConfig
    centre: int = 3
    at: tuple[int, ...] = ()
    around: tuple[int, ...] = (-1, 0, 1)

    def config(self, k: int, seed: int) -> RunConfig:
        """The configuration at the k-th rate."""
        return _config(self.base, k, seed)

    def points(self, lookup: Lookup, seed: int) -> dict[int, RunRecord]:
        """The finished runs of a seed by k."""
        found = ((k, lookup(self.config(k, seed))) for k in range(LOWEST, HIGHEST + 1))
        return {k: record for k, record in found if record is not None}

    def optimum(self, lookup: Lookup, seed: int, step: int | None = None) -> Optimum | None:
        """The best rate of a seed at a step, None without a finished run that did not diverge."""
        found = self.points(lookup, seed)
        return optimum([(rate(k), record.evaluation(step)) for k, record in found.items()])

    def best(self, lookup: Lookup, seed: int) -> RunRecord | None:
        """The run with the lowest last loss."""
        found = [record for record in self.points(lookup, seed).values() if record.status == "ok"]
        return min(found, key=lambda record: record.evaluation(), default=None)

    def lowest(self, lookup: Lookup, seed: int, step: int) -> float:
        """The lowest loss over rates at a step: the article's pointwise minimum."""
        return min(
            (record.evaluation(step) for record in self.points(lookup, seed).values()), default=math.inf
        )


def _best_k(cell: Cell, lookup: Lookup, seed: int, step: int | None) -> int | None:
    found = {k: record.evaluation(step) for k, record in cell.points(lookup, seed).items()}
    finite = {k: loss for k, loss in found.items() if math.isfinite(loss)}
    return min(finite, key=lambda k: finite[k]) if finite else None


def _neighbours(cell: Cell, lookup: Lookup, seed: int, spacing: int) -> set[int]:
    """The rates beside the lowest loss of each wanted step, or lower ones where all diverged."""
    found: set[int] = set()
    there = cell.points(lookup, seed)
    for step in cell.at or (None,):
        best = _best_k(cell, lookup, seed, step)
        if best is None:
            found.add(min(there, default=cell.centre) - spacing)
        else:
            found |= {best - spacing, best + spacing}
    return {k for k in found if LOWEST <= k <= HIGHEST}


def _missing(cell: Cell, lookup: Lookup, seed: int, ks: Iterable[int]) -> list[RunConfig]:
    return [cell.config(k, seed) for k in sorted(ks) if lookup(cell.config(k, seed)) is None]


def wanted(cell: Cell, seeds: int, lookup: Lookup) -> list[RunConfig]:
    """The next runs of a cell, none where every seed has its lowest loss between two neighbours a factor of 2 away.

    The first seed starts with three rates a factor of 4 apart; the others start from what it found.
    """
    first = _missing(cell, lookup, 0, (cell.centre - 2, cell.centre, cell.centre + 2))
    first = first or _missing(cell, lookup, 0, _neighbours(cell, lookup, 0, 2))
    first = first or _missing(cell, lookup, 0, _neighbours(cell, lookup, 0, 1))
    if first:
        return first
    start = {k for step in cell.at or (None,) if (k := _best_k(cell, lookup, 0, step)) is not None}
    found: list[RunConfig] = []
    for seed in range(1, seeds):
        new = _missing(cell, lookup, seed, {k + d for k in start for d in cell.around})
        if not new and len(cell.around) > 1:
            new = _missing(cell, lookup, seed, _neighbours(cell, lookup, seed, 1))
        found += new
    return found


def all_wanted(cells: Sequence[Cell], seeds: int, lookup: Lookup) -> list[RunConfig]:
    """The next runs of several cells, the first seeds of all of them first."""
    found = [config for cell in cells for config in wanted(cell, seeds, lookup)]
    return sorted(found, key=lambda config: config.seed)


def typical_runs(cells: int, seeds: int, around: int = 3) -> int:
    """How many runs so many cells take as a rule: six for the first seed, `around` for each further one."""
    return cells * (6 + around * (seeds - 1))
