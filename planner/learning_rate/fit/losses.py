"""Regrets of all cells at candidate log rates, by both readings: what rules of similar sweeps are made from."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..law import REFERENCE_RANK
from .cells import Floats, Ints
from .compare import Data
from .curves import INTERPOLATIONS, make_curves

STEP = 0.01  # in log rate


@dataclass(frozen=True, eq=False)
class Losses:
    """Candidate log rates `at`; the regret of each cell (rows) at each by quadratic (`smooth`) and log-linear
    (`straight`) interpolation, as in a fit; ranks and families of the cells."""

    at: Floats
    smooth: Floats
    straight: Floats
    log_rank: Floats
    family: Ints

    @classmethod
    def of(cls, data: Data) -> Losses:
        """The candidates are a fine grid and every rate that was run."""
        low, high = float(data.cells.x.min()), float(data.cells.x.max())
        grid = np.linspace(low, high, int((high - low) / STEP) + 2)
        at = np.unique(np.concatenate([grid, data.cells.x]).round(9))
        smooth, straight = (
            np.stack([curves.value(np.full(curves.n, x)) for x in at], axis=1)
            for curves in (make_curves(data.cells, kind) for kind in INTERPOLATIONS)
        )
        return cls(at, smooth, straight, data.features.rank + np.log(REFERENCE_RANK), data.features.family)

    def mixed(self, straight: float) -> Floats:
        """The regret with the log-linear reading weighing `straight`, the quadratic one the rest."""
        return np.asarray((1 - straight) * self.smooth + straight * self.straight)

    def near(self, log_rank: Floats, reach: float) -> Floats:
        """How much each cell (columns) counts for each rank (rows): exp(-|log r - log r_c| / reach)."""
        return np.asarray(np.exp(-np.abs(log_rank[:, None] - self.log_rank) / reach))
