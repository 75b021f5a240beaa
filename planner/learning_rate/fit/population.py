"""The rates of a family that no sweep covers: no worse than one rate for all ranks in any family that one does.

Families count alike, however many of their models were swept, since an unknown family is one more of them. For each
rank the log rate x is found that minimises

    sum over cells c of exp(-|log r - log r_c| / reach) / (cells of c's family) * regret_c(x)

with `straight` as the weight of the log-linear reading, and drawn towards the best rate for all ranks, which then
counts 1 - `own`. The three constants are chosen by predicting every family from the others: the greatest excess over
the best single rate, of all families, is to be least (mean of both readings). A mean over families would let one
that gains much pay for one that loses; with a handful of families that choice is a bad one for the next
(docs/learning_rate.md). For the regret that is reported they are chosen without the family that is scored. With
fewer than three families nothing can be chosen, and the constants are DEFAULT.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import numpy as np

from .cells import Floats
from .compare import Data
from .curves import INTERPOLATIONS
from .losses import Losses


@dataclass(frozen=True)
class Option:
    """The weight of the log-linear reading, the reach in log rank, and the weight of a rank's own rate."""

    straight: float
    reach: float
    own: float


CONSTANT = Option(0.5, 1.0, 0.0)
DEFAULT = Option(0.2, 1.0, 1.0)
OPTIONS = (
    CONSTANT,
    *(Option(*one) for one in product((0.0, 0.2, 0.5), (0.5, 1.0, 2.0, 4.0), (0.25, 0.5, 0.75, 1.0))),
)
FEWEST_FAMILIES = 3


@dataclass(frozen=True, eq=False)
class Population:
    """The chosen constants, the log rate of each cell without its family (NaN where there is one family), and the
    log rates at the ranks that were asked for."""

    option: Option
    family_out: Floats
    rates: Floats


class _Sums:
    """Weighted regrets at the candidates, for each target rank summed over each family (families x targets x
    candidates), and the same for all ranks alike (families x candidates)."""

    def __init__(self, losses: Losses, log_rank: Floats) -> None:
        self.losses, self.log_rank = losses, log_rank
        self.counts = np.bincount(losses.family)
        mean = losses.mixed(CONSTANT.straight)
        self.all_ranks = np.stack([mean[losses.family == g].mean(axis=0) for g in range(len(self.counts))])

    def by_family(self, straight: float, reach: float) -> Floats:
        """The sums with these constants."""
        regret, near = self.losses.mixed(straight), self.losses.near(self.log_rank, reach)
        mine = [self.losses.family == g for g in range(len(self.counts))]
        return np.stack([near[:, m] @ regret[m] / n for m, n in zip(mine, self.counts, strict=True)])

    def apart(self, sums: Floats, without: tuple[int, ...] = ()) -> tuple[Floats, float]:
        """From all families but some: the best log rates at the targets, and the best for all ranks."""
        keep = [g for g in range(len(self.counts)) if g not in without]
        at = self.losses.at
        alike = float(at[np.argmin(self.all_ranks[keep].sum(axis=0))])
        return np.asarray(at[np.argmin(sums[keep].sum(axis=0), axis=1)]), alike

    def rates(self, sums: Floats, own: float, without: tuple[int, ...] = ()) -> Floats:
        """The log rates at the targets from all families but some."""
        best, alike = self.apart(sums, without)
        return np.asarray(own * best + (1 - own) * alike)


def _worst(regret: Floats, constant: Floats) -> Option:
    """The option (rows) whose greatest excess over the constant, of all families (columns), is least."""
    return OPTIONS[int(np.argmin((regret - constant).max(axis=1)))]


def _scores(data: Data, sums: _Sums) -> Floats:
    """The regret of each option on family h without h and g (options x g x h; g = h leaves one family out): the mean
    over its cells and over both readings. Options that differ in `own` alone have the same rates to draw together."""
    n, mine = len(sums.counts), [data.features.family == h for h in range(len(sums.counts))]
    found = np.zeros((len(OPTIONS), n, n))
    best, alike = np.zeros((2, n, data.cells.n))  # of each cell, without its family and g
    for straight, reach in dict.fromkeys((one.straight, one.reach) for one in OPTIONS):
        each = sums.by_family(straight, reach)
        for h, g in product(range(n), range(n)):
            best[g, mine[h]], alike[g, mine[h]] = sums.apart(each[:, mine[h]], (g, h))
        for number, option in enumerate(OPTIONS):
            if (option.straight, option.reach) == (straight, reach):
                x = option.own * best + (1 - option.own) * alike
                for kind in INTERPOLATIONS:
                    regret = data.regret(x, kind)
                    for h in range(n):  # summed with the cells together, as those of one family alone are
                        found[number, :, h] += np.ascontiguousarray(regret[:, mine[h]]).mean(axis=1)
    return found / len(INTERPOLATIONS)


def population(data: Data, losses: Losses, log_rank: Floats) -> Population:
    """The rule on a sweep, with its log rates at the ranks `log_rank` (natural logs)."""
    family = data.features.family
    sums = _Sums(losses, losses.log_rank)
    n = len(sums.counts)
    family_out = np.full(data.cells.n, np.nan)
    option, chosen = DEFAULT, [DEFAULT] * n
    if n >= FEWEST_FAMILIES:
        scores = _scores(data, sums)
        alone = scores[:, np.arange(n), np.arange(n)]
        option = _worst(alone, alone[0])
        if n > FEWEST_FAMILIES:
            others = [np.arange(n) != g for g in range(n)]
            chosen = [_worst(scores[:, g, keep], scores[0, g, keep]) for g, keep in enumerate(others)]
    if n > 1:
        for g, one in enumerate(chosen):
            found = sums.rates(sums.by_family(one.straight, one.reach), one.own, (g,))
            family_out[family == g] = found[family == g]
    asked = _Sums(losses, log_rank)
    return Population(
        option, family_out, asked.rates(asked.by_family(option.straight, option.reach), option.own)
    )
