"""The rate that costs similar sweeps least: a table of rates by family and rank beside the law's formula.

For a family f and a rank r it is the log rate x that minimises the sum over all cells c of

    exp(-|log r - log r_c| / reach) * (1 if c is of family f, else share) * regret_c(x)

where the regret is four fifths of the quadratic reading and one fifth of the log-linear one. A formula gives rates
between those that were run, where the two readings differ most; this rule stays at a rate that was run where similar
sweeps agree on it. Unknown families have a rule of their own (population.py).

`reach` and `share` are chosen by the same regret on models left out, and for the regret that is reported without the
model that is scored. Neglects the width, and how many ranks of a model were swept. Only for sweeps of LoRA in one
set-up (batch, steps, alpha, data): more would need a distance between set-ups.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from ..law import POPULATION
from .cells import Floats, Ints
from .compare import Data
from .losses import Losses
from .population import Option, population

REACHES = (0.5, 1.0, 2.0, 4.0)  # in log rank
SHARES = (0.03, 0.1, 0.3, 1.0)
STRAIGHT = 0.2  # the weight of the log-linear reading: the worse one where rates were left out and read
FEWEST_MODELS, MOST_CELLS = 5, 1000


@dataclass(frozen=True, eq=False)
class Similar:
    """The rule on a sweep: its constants, those for unknown families, the log rates of the cells in and out of
    sample (NaN where nothing is left), and the rates by family (and for `population`) and rank."""

    reach: float
    share: float
    unknown: Option
    predicted: Floats
    left_out: Floats
    family_out: Floats
    rates: dict[str, dict[int, float]]


@dataclass(frozen=True, eq=False)
class _Regrets:
    """What the rule sums: the losses, and their mean by both readings."""

    losses: Losses
    regret: Floats

    @classmethod
    def of(cls, losses: Losses) -> _Regrets:
        """With the log-linear reading weighing STRAIGHT."""
        return cls(losses, losses.mixed(STRAIGHT))

    def weights(self, log_rank: Floats, family: Ints, reach: float, share: float) -> Floats:
        """How much each cell (columns) counts for each target (rows)."""
        own = family[:, None] == self.losses.family
        return np.asarray(self.losses.near(log_rank, reach) * np.where(own, 1.0, share))

    def best(self, total: Floats) -> Ints:
        """The candidate with the lowest total for each target."""
        return np.asarray(np.argmin(total, axis=1))

    def read(self, choice: Ints) -> Floats:
        """The regret of each cell at its candidate."""
        return np.asarray(self.regret[np.arange(len(choice)), choice])


def _held_out(
    sums: _Regrets, groups: Ints, options: Sequence[tuple[float, float]]
) -> tuple[list[Ints], NDArray[np.float64]]:
    """For each option the candidates chosen for all cells without their group; and the regret of each option on the
    cells of other groups when group g is left out as well (options x groups)."""
    n = int(groups.max()) + 1
    held, scores = [], np.zeros((len(options), n))
    for number, (reach, share) in enumerate(options):
        weights = sums.weights(sums.losses.log_rank, sums.losses.family, reach, share)
        total = (weights * (groups[:, None] != groups)) @ sums.regret
        held.append(sums.best(total))
        for g in range(n):
            mine = groups == g
            less = total - weights[:, mine] @ sums.regret[mine] * ~mine[:, None]
            scores[number, g] = sums.read(sums.best(less))[~mine].sum()
    return held, scores


def _chosen(
    sums: _Regrets, groups: Ints, options: Sequence[tuple[float, float]]
) -> tuple[tuple[float, float], Floats]:
    """The option with the lowest regret on groups left out, and the log rates of all cells without their group, each
    by the option that is best on the other groups."""
    held, scores = _held_out(sums, groups, options)
    whole = [sums.read(choice).sum() for choice in held]
    own = np.argmin(scores, axis=0)
    choice = np.stack(held)[own[groups], np.arange(len(groups))]
    return options[int(np.argmin(whole))], sums.losses.at[choice]


def _one_setup(data: Data) -> bool:
    f = data.features
    other = data.cells.table["dataset"].astype(str).nunique() == 1
    return bool(f.lora.all()) and other and all(np.ptp(v) < 1e-9 for v in (f.batch, f.steps, f.alpha))


def similar(data: Data) -> Similar | None:
    """The rule on a sweep; None where that has few models, several set-ups, full fine-tuning or very many cells."""
    f = data.features
    if len(f.models) < FEWEST_MODELS or data.cells.n > MOST_CELLS or not _one_setup(data):
        return None
    losses = Losses.of(data)
    sums = _Regrets.of(losses)
    shares = SHARES if len(f.families) > 1 else (1.0,)
    options = [(reach, share) for reach in REACHES for share in shares]
    (reach, share), left_out = _chosen(sums, f.model, options)
    weights = sums.weights(losses.log_rank, losses.family, reach, share)
    predicted = losses.at[sums.best(weights @ sums.regret)]
    ranks = _ranks(data)
    at = np.log(np.array(ranks, dtype=float))
    found = population(data, losses, at)
    rates = {}
    for number, name in enumerate(f.families):
        weights = sums.weights(at, np.full(len(at), number), reach, share)
        rates[name] = _by_rank(ranks, losses.at[sums.best(weights @ sums.regret)])
    rates[POPULATION] = _by_rank(ranks, found.rates)
    return Similar(reach, share, found.option, predicted, left_out, found.family_out, rates)


def _by_rank(ranks: Sequence[int], log_rates: Floats) -> dict[int, float]:
    return {rank: float(rate) for rank, rate in zip(ranks, np.exp(log_rates), strict=True)}


def _ranks(data: Data) -> list[int]:
    """The ranks that were swept and the powers of two between them."""
    swept = {int(rank) for rank in data.cells.table["rank"]}
    powers = {2**i for i in range(40)}
    return sorted(swept | {one for one in powers if min(swept) <= one <= max(swept)})
