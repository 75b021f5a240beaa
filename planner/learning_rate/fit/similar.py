"""The rate that costs similar sweeps least: a table of rates by family and rank beside the law's formula.

For a family f and a rank r it is the log rate x that minimises the sum over all cells c of

    exp(-|log r - log r_c| / reach) * (1 if c is of family f, else share) * regret_c(x)

where the regret is four fifths of the quadratic reading and one fifth of the log-linear one. A formula gives rates
between those that were run, where the two readings differ most; this rule stays at a rate that was run where similar
sweeps agree on it. For an unknown family every cell counts alike, with a reach of 1.

`reach` and `share` are chosen by the same regret on models left out, and for the regret that is reported without the
model that is scored. The reach for unknown families is set, not fitted: a few families do not tell it. Neglects the
width, and how many ranks of a model were swept. Only for sweeps of LoRA in one set-up (batch, steps, alpha, data):
more would need a distance between set-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from ..law import POPULATION, REFERENCE_RANK
from .cells import Floats, Ints
from .compare import Data
from .curves import INTERPOLATIONS, Curves, make_curves

REACHES = (0.5, 1.0, 2.0, 4.0)  # in log rank
SHARES = (0.03, 0.1, 0.3, 1.0)
POPULATION_REACH = 1.0
STRAIGHT = 0.2  # the weight of the log-linear reading: the worse one where rates were left out and read
STEP = 0.01  # in log rate
FEWEST_MODELS, MOST_CELLS = 5, 1000


@dataclass(frozen=True, eq=False)
class Similar:
    """The rule on a sweep: its constants, the log rates of the cells in and out of sample (NaN where nothing is
    left), and the rates by family (and for `population`) and rank."""

    reach: float
    share: float
    predicted: Floats
    left_out: Floats
    family_out: Floats
    rates: dict[str, dict[int, float]]


def both_readings(data: Data) -> Curves:
    """The weighted mean of the curves by both interpolations, which have the same breaks."""
    smooth, straight = (make_curves(data.cells, kind) for kind in INTERPOLATIONS)
    w = STRAIGHT
    return replace(
        smooth, coefficients=(1 - w) * smooth.coefficients + w * straight.coefficients,
        integral=(1 - w) * smooth.integral + w * straight.integral,
    )  # fmt: skip


@dataclass(frozen=True, eq=False)
class _Losses:
    """Regrets of all cells (rows) at candidate log rates, ranks and families of the cells."""

    at: Floats
    regret: Floats
    log_rank: Floats
    family: Ints

    @classmethod
    def of(cls, data: Data) -> _Losses:
        """The candidates are a fine grid and every rate that was run."""
        curves = both_readings(data)
        low, high = float(data.cells.x.min()), float(data.cells.x.max())
        grid = np.linspace(low, high, int((high - low) / STEP) + 2)
        at = np.unique(np.concatenate([grid, data.cells.x]).round(9))
        regret = np.stack([curves.value(np.full(curves.n, x)) for x in at], axis=1)
        return cls(at, regret, data.features.rank + np.log(REFERENCE_RANK), data.features.family)

    def weights(self, log_rank: Floats, family: Ints, reach: float, share: float) -> Floats:
        """How much each cell (columns) counts for each target (rows)."""
        near = np.exp(-np.abs(log_rank[:, None] - self.log_rank) / reach)
        return np.asarray(near * np.where(family[:, None] == self.family, 1.0, share))

    def best(self, total: Floats) -> Ints:
        """The candidate with the lowest total for each target."""
        return np.asarray(np.argmin(total, axis=1))

    def read(self, choice: Ints) -> Floats:
        """The regret of each cell at its candidate."""
        return np.asarray(self.regret[np.arange(len(choice)), choice])


def _held_out(
    losses: _Losses, groups: Ints, options: Sequence[tuple[float, float]]
) -> tuple[list[Ints], NDArray[np.float64]]:
    """For each option the candidates chosen for all cells without their group; and the regret of each option on the
    cells of other groups when group g is left out as well (options x groups)."""
    n = int(groups.max()) + 1
    held, scores = [], np.zeros((len(options), n))
    for number, (reach, share) in enumerate(options):
        weights = losses.weights(losses.log_rank, losses.family, reach, share)
        total = (weights * (groups[:, None] != groups)) @ losses.regret
        held.append(losses.best(total))
        for g in range(n):
            mine = groups == g
            less = total - weights[:, mine] @ losses.regret[mine] * ~mine[:, None]
            scores[number, g] = losses.read(losses.best(less))[~mine].sum()
    return held, scores


def _chosen(
    losses: _Losses, groups: Ints, options: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], Floats]:
    """The option with the lowest regret on groups left out, and the log rates of all cells without their group, each
    by the option that is best on the other groups."""
    held, scores = _held_out(losses, groups, options)
    whole = [losses.read(choice).sum() for choice in held]
    own = np.argmin(scores, axis=0)
    choice = np.stack(held)[own[groups], np.arange(len(groups))]
    return options[int(np.argmin(whole))], losses.at[choice]


def _one_setup(data: Data) -> bool:
    f = data.features
    other = data.cells.table["dataset"].astype(str).nunique() == 1
    return bool(f.lora.all()) and other and all(np.ptp(v) < 1e-9 for v in (f.batch, f.steps, f.alpha))


def similar(data: Data) -> Similar | None:
    """The rule on a sweep; None where that has few models, several set-ups, full fine-tuning or very many cells."""
    f = data.features
    if len(f.models) < FEWEST_MODELS or data.cells.n > MOST_CELLS or not _one_setup(data):
        return None
    losses = _Losses.of(data)
    shares = SHARES if len(f.families) > 1 else (1.0,)
    options = [(reach, share) for reach in REACHES for share in shares]
    (reach, share), left_out = _chosen(losses, f.model, options)
    family_out = np.full(data.cells.n, np.nan)
    if len(f.families) > 1:
        others = f.family[:, None] != f.family
        weights = losses.weights(losses.log_rank, losses.family, POPULATION_REACH, 1.0) * others
        family_out = losses.at[losses.best(weights @ losses.regret)]
    predicted = losses.best(losses.weights(losses.log_rank, losses.family, reach, share) @ losses.regret)
    ranks = _ranks(data)
    at = np.log(np.array(ranks, dtype=float))
    rates = {}
    for number, name in enumerate((*f.families, POPULATION)):
        own = (reach, share) if name != POPULATION else (POPULATION_REACH, 1.0)
        weights = losses.weights(at, np.full(len(at), number), *own)
        found = np.exp(losses.at[losses.best(weights @ losses.regret)])
        rates[name] = {rank: float(rate) for rank, rate in zip(ranks, found, strict=True)}
    return Similar(reach, share, losses.at[predicted], left_out, family_out, rates)


def _ranks(data: Data) -> list[int]:
    """The ranks that were swept and the powers of two between them."""
    swept = {int(rank) for rank in data.cells.table["rank"]}
    powers = {2**i for i in range(40)}
    return sorted(swept | {one for one in powers if min(swept) <= one <= max(swept)})
