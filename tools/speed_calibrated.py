"""What one measured step tells of a source's others, and how wide the interval after it must be.

Every step of sources with at least three of one trainer and accelerator takes its turn as the measured one, and
`Calibration` moves the others' estimates. `measured` (planner/speed/efficiency.py) is the factor by which its
deviations must be widened to hold the conformal share of sources, as widths are made (tools/speed_widths.py): of
first predictions, and of the first table's sources left out of the fit.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from itertools import permutations

import numpy as np

from planner.speed import Calibration, Measurement
from planner.speed.efficiency import Spread, constants
from planner.speed.kinds import MEASURED, Grounds
from tools.interval_fit import conformal, quantile
from tools.speed_firsts import First, grounds_of
from tools.speed_fit import halves
from tools.speed_widths import rule_of

FEWEST_RUNS = 3
CALIBRATED_TEXT = """\
`lora-plan calibrate` takes one measured step and predicts others of its source: every step of sources with at least
three of one trainer and accelerator takes its turn as the measured one, sources counting the same. Each interval is
one that its source had no part in. First predictions are what widths rest on, the first table's sources left out
among them; "left out" is today's formula, which all of these have taught. A measured step moves the others by what a
source has of its own in the middle, not by how far the furthest sources lie, as it did for a while (a median error of
9.5% of "left out").

| | sources | | median error | 90th percentile | interval | within interval |
|---|---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Pair:
    """A step that was predicted with another of its source measured, and what both count."""

    measured: First
    other: First
    weight: float

    def corrected(self, spread: Spread) -> tuple[float, float, float]:
        """The logarithm of measured over predicted that is left, and how far the interval goes below and above."""
        one = Measurement("g", "t", self.measured.log, self.measured.thin, 1.0, 1.0)
        shift, below, above = Calibration((one,)).correction(
            "g", "t", self.other.thin, spread, self.other.staged
        )
        return self.other.log - shift, spread.z * below, spread.z * above


def pairs_of(found: Sequence[First]) -> list[Pair]:
    """Every ordered pair of steps of one source, trainer and accelerator; a source counts 1."""
    groups: dict[tuple[str, str, str], list[First]] = {}
    for each in found:
        groups.setdefault((each.source, each.gpu, each.trainer), []).append(each)
    taken = [items for items in groups.values() if len(items) >= FEWEST_RUNS]
    number: Counter[str] = Counter()
    for items in taken:
        number[items[0].source] += len(items) * (len(items) - 1)
    return [
        Pair(one, other, 1 / number[one.source]) for items in taken for one, other in permutations(items, 2)
    ]


def sources_of(found: Sequence[Pair]) -> list[str]:
    """Their names."""
    return sorted({pair.other.source for pair in found})


def needs_of(found: Sequence[Pair], shared: Spread) -> list[float]:
    """The factor that just holds each, `measured` 1 being what variances say."""
    plain = replace(shared, measured=1.0, below=math.inf, above=math.inf)
    corrected = (pair.corrected(plain) for pair in found)
    return [abs(left) / below for left, below, _ in corrected]


def factor_of(found: Sequence[Pair], needs: Sequence[float]) -> float:
    """The factor that the conformal share of sources keeps, at least 1, rounded outwards."""
    most = quantile(needs, [pair.weight for pair in found], conformal(len(sources_of(found))))
    return max(1.0, math.ceil(1e3 * most - 1e-9) / 1e3)


def measured_of(shared: Spread) -> float:
    """The factor that ships."""
    found = pairs_of(grounds_of())
    return factor_of(found, needs_of(found, shared))


@dataclass(frozen=True)
class Result:
    """A pair judged: errors and ends before and after, and whether they hold it."""

    weight: float
    error: tuple[float, float]
    ends: tuple[tuple[float, float], tuple[float, float]]
    held: tuple[bool, bool]


def judged(found: Sequence[Pair], shared: Spread) -> list[Result]:
    """Every pair by intervals that its source had no part in."""
    every = pairs_of(grounds_of())
    needs = needs_of(every, shared)
    result = []
    for source in sources_of(found):
        rest = [(pair, need) for pair, need in zip(every, needs, strict=True) if pair.other.source != source]
        factor = factor_of([pair for pair, _ in rest], [need for _, need in rest])
        rule = rule_of(
            grounds_of(lambda each, s=source: each.source != s),  # type: ignore[misc]
            replace(shared, measured=factor),
        )
        result += [_judged(pair, rule[pair.other.kind]) for pair in found if pair.other.source == source]
    return result


def _judged(pair: Pair, spread: Spread) -> Result:
    wide = halves(pair.other.thin, pair.other.staged, spread)
    left, below, above = pair.corrected(spread)
    log = pair.other.log
    return Result(
        pair.weight, (abs(math.expm1(-log)), abs(math.expm1(-left))), (wide, (below, above)),
        (-wide[0] <= log <= wide[1], -below <= left <= above),
    )  # fmt: skip


@cache
def of_firsts() -> tuple[list[Pair], list[Result]]:
    """The pairs of all first predictions, and how each is judged."""
    found = pairs_of(grounds_of())
    return found, judged(found, constants().any_spread)


def held_of(found: Sequence[Result]) -> float:
    """The share that is held after a measured step, where sources count the same."""
    return float(np.average([one.held[1] for one in found], weights=[one.weight for one in found]))


def measured_grounds() -> Grounds:
    """What the interval after a measured step rests on, and how often one of other sources holds a source."""
    found, results = of_firsts()
    held = held_of(results)
    runs = {id(pair.other) for pair in found}
    number = len(sources_of(found))
    return Grounds(MEASURED, number, len(runs), number, float(f"{held:.3g}"))


def rows_of(name: str, pairs: Sequence[Pair], results: Sequence[Result]) -> Iterable[str]:
    """Two rows of the table: before and after a measured step."""
    weights = [one.weight for one in results]
    for when, label in enumerate(("before", "with one measured step")):
        errors = [one.error[when] for one in results]
        least, most = (
            math.exp(quantile([one.ends[when][side] for one in results], weights, 0.5)) for side in (0, 1)
        )
        held = np.average([one.held[when] for one in results], weights=weights)
        yield (
            f"| {name} | {len(sources_of(pairs))} | {label} | {quantile(errors, weights, 0.5):.1%} | "
            f"{quantile(errors, weights, 0.9):.1%} | {1 / least:.2f} to {most:.2f} | {held:.0%} |"
        )


def calibrated(without: Sequence[First]) -> Iterable[str]:
    """What one measured step tells of a source's others."""
    yield CALIBRATED_TEXT
    yield from rows_of("first predictions", *of_firsts())
    pairs = pairs_of(without)
    yield from rows_of("left out", pairs, judged(pairs, constants().any_spread))
