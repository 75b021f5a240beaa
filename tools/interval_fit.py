"""Intervals around estimates, from measurements of sources that the estimates have not met: each source is judged by
an interval of all others, so that what is stated holds for one that nobody has looked at."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from planner.memory.constants import KINDS, Constants
from tools.published_memory import DRIVER
from tools.published_memory_later import Ratio

COVERAGE = 0.9
TAILS = (0.1, 0.05, 0.04, 0.03, 0.02, 0.01)
FEW_SOURCES = 10  # with fewer, a share of 90% of them is all
STRETCHES = tuple(1 + step / 100 for step in range(101))


@dataclass(frozen=True)
class KindHeld:
    """Of a kind of set-up: sources that the interval rests on, the mean over them of the share that an interval of
    the others holds, and of measurements that it does not rest on their number and the share that it holds."""

    kind: str
    sources: int
    held_by_others: float | None
    judged: int
    held: float | None


def kinds_held(met: Sequence[Ratio], judged: Sequence[Ratio], known: Constants) -> list[KindHeld]:
    """Every kind."""
    found = []
    for kind in KINDS:
        own, rest = ([each for each in ratios if each.kind == kind] for ratios in (met, judged))
        number, tail = len(sources_of(own)), tail_of(own)
        low, high = known.bounds(kind)
        shares = [low <= each.low and each.high <= high for each in rest]
        alone = held_by_others(own, tail, stretch_of(own, tail)) if number > 1 else None
        found.append(KindHeld(kind, number, alone, len(rest), sum(shares) / len(shares) if shares else None))
    return found


def sources_of(found: Sequence[Ratio]) -> list[str]:
    """Names of sources, what a driver shows counted with what torch does."""
    return sorted({each.source.removesuffix(DRIVER) for each in found})


def interval_of(found: Sequence[Ratio]) -> tuple[float, float]:
    """`low` and `high` of measurements."""
    tail = tail_of(found)
    return _stretched(bounds_of(found, tail), stretch_of(found, tail))


def tail_of(found: Sequence[Ratio]) -> float:
    """The share to leave out on either side: the largest with which sources are held, each by an interval of all
    others, as often as is stated; where none is, the one with which they are most often."""
    best, most = TAILS[0], -1.0
    for tail in TAILS:
        held = held_by_others(found, tail)
        if held > most + 1e-9:
            best, most = tail, held
        if held >= COVERAGE:
            break
    return best


def held_by_others(found: Sequence[Ratio], tail: float, stretch: float = 1.0) -> float:
    """The mean over sources of the share of each that an interval of all others holds."""
    shares = []
    for source in sources_of(found):
        own = [each for each in found if each.source.removesuffix(DRIVER) == source]
        rest = [each for each in found if each.source.removesuffix(DRIVER) != source]
        if rest:
            low, high = _stretched(bounds_of(rest, tail), stretch)
            shares.append(sum(low <= each.low and each.high <= high for each in own) / len(own))
    return sum(shares) / max(1, len(shares))


def stretch_of(found: Sequence[Ratio], tail: float) -> float:
    """By how much both ends of an interval must move out so that sources are held, each by the others, as often as is
    stated: even the extremes of some sources say too little of one that is not among them. 1 where there are too few
    sources to tell."""
    if len(sources_of(found)) < FEW_SOURCES:
        return 1.0
    return next((s for s in STRETCHES if held_by_others(found, tail, s) >= COVERAGE), STRETCHES[-1])


def _stretched(bounds: tuple[float, float], by: float) -> tuple[float, float]:
    low, high = bounds
    return low / by, high * by


def bounds_of(found: Sequence[Ratio], tail: float) -> tuple[float, float]:
    """`low` and `high` such that a share `tail` of measured peaks lies beyond either; every source counts the
    same."""
    counts = Counter(each.source for each in found)
    weights = [1 / counts[each.source] for each in found]
    low = _quantile([each.low for each in found], weights, tail)
    return low, max(1.0, _quantile([each.high for each in found], weights, 1 - tail))


def _quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    order = np.argsort(values)
    reached = np.cumsum(np.array(weights)[order]) / np.sum(weights)
    return float(np.array(values)[order][np.argmax(reached >= share)])
