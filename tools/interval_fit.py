"""Intervals around estimates of memory, from measurements as they were predicted before their source was looked at.

They rest on blind predictions alone: a source that taught the formula something is closer to it since than the next
one will be. With y = ln(measured / needed), where above what is cached is taken off the measured and `extra_bytes`
are added to the needed (what is not known of a program weighs more on a small model; under offloading more is not
known), a measurement's score is the larger of -y / below and y / above: 5% of all measurements lie beyond either of
these, or of those of offloading. Sources count the same, and the interval

    exp(-width below) x needed   to   exp(width above) x (needed + extra_bytes) + cached

takes as width the conformal quantile of the scores of a pool of kinds: the share level (n + 1) / n of n sources,
which a measurement of a further source like them keeps with probability `level` (hierarchical conformal prediction:
Lee, Barber and Willett, arXiv 2306.06342; Dunn, Wasserman and Ramdas, arXiv 1809.07441). A pool of fewer than ten
sources gives way to a wider one. Sources of a further set are not quite like those of the sets before: the level is
0.92, the least of whole hundredths by which every kind of ten sources, offloading as time went, and all as time
went are held as often as the 90% that are stated. Neglected: that `below` and `above` come from the same
measurements, and that the rule was chosen among others. How often sources are held by intervals of all others
(`held_by_others`), and of those known before them (tools/interval_chain.py), says how much that is.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from planner.memory.interval_kinds import KINDS, NAMED, UNNAMED
from planner.moments import Interval
from tools.published_memory import DRIVER

COVERAGE = 0.9
LEVEL = 0.92  # of the conformal quantile: what sets differ by on top of what is stated
TAIL = 0.95  # of a pool's measurements lie within either end of its shape
FEWEST = 10  # sources of a pool: of fewer than nine no quantile holds 90%
LEAST = 0.02  # of a side: no estimate is known better
WHOLE = ("alone-lora", "alone", "open", "shared")  # a GPU's own sequences, and nothing of others open
HARDER = ("shared", "shared-open", "split")
OFFLOADED = ("offloaded",)
Pools = Mapping[str, Sequence[Sequence[str]]]
POOLS: Pools = {
    **dict.fromkeys(WHOLE, (WHOLE, NAMED, KINDS)),
    **dict.fromkeys(HARDER[1:], (HARDER, NAMED, KINDS)),
    **dict.fromkeys(UNNAMED, (UNNAMED, KINDS)),
    **dict.fromkeys(OFFLOADED, (OFFLOADED, KINDS)),
}
# Kinds of which less is known, or that are harder cases: their interval is at least as wide.
HARDER_THAN = {
    "alone": ("alone-lora",), "open": ("alone",), "shared": ("alone",), "shared-open": ("shared",),
    "split": ("shared",), "unnamed": ("open",), "unnamed-several": ("unnamed", "shared-open", "split"),
    "offloaded": ("unnamed-several",),
}  # fmt: skip
Shape = tuple[float, float]


@dataclass(frozen=True)
class Ratio:
    """How a measurement lies to its estimate: over `needed` bytes, with what is cached counted as measured (`low`)
    and as on top of the estimate (`high`). `about` says what else is known of it."""

    source: str
    kind: str
    low: float
    high: float
    needed: float = 20e9
    about: frozenset[str] = frozenset()

    @cached_property
    def origin(self) -> str:
        """The source, what the driver shows and what torch reserved counted with what it allocated."""
        return self.source.removesuffix(DRIVER).removesuffix(", reserved")

    def logs(self, extra_bytes: float) -> Shape:
        """How far the measurement lies below and above, in logarithms; negative where it lies on the other side."""
        over = self.high * self.needed / (self.needed + extra_bytes)
        return -math.log(self.low), math.log(over) if over > 0 else -math.inf


@dataclass(frozen=True)
class Recipe:
    """What is chosen of a rule: whose measurements a kind's interval is made of, what is added to what is needed
    (under offloading, `extra_offloaded`), the pools whose shape is their own and not that of all measurements, and
    the level of the quantile."""

    pools: Pools
    extra_bytes: float
    extra_offloaded: float
    own: Sequence[Sequence[str]] = ()
    level: float = LEVEL

    def extra_of(self, kind: str) -> float:
        """What is added to what is needed of a kind."""
        return self.extra_offloaded if kind in OFFLOADED else self.extra_bytes

    def logs(self, each: Ratio) -> Shape:
        """How far a measurement lies below and above, with what is added."""
        return each.logs(self.extra_of(each.kind))


CHOSEN = Recipe(POOLS, 3e9, 10e9, (OFFLOADED,))
STATED = Recipe(POOLS, 0.0, 0.0, (), COVERAGE)  # nothing added, and the level that is stated


@dataclass(frozen=True)
class Ends:
    """The ends of a kind's interval, of what it is made, and the bytes that are added to what is needed."""

    low: float
    high: float
    sources: int
    runs: int
    extra_bytes: float


@dataclass(frozen=True)
class Rule:
    """The interval of every kind."""

    ends: Mapping[str, Ends]

    def logs(self, each: Ratio) -> Shape:
        """How far the interval of a measurement goes below and above its estimate, in logarithms."""
        ends = self.ends[each.kind]
        more = (each.needed + ends.extra_bytes) / each.needed
        return -math.log(ends.low), math.log(ends.high * more)

    def outside(self, each: Ratio) -> float:
        """By how much a measurement lies outside, in logarithms; 0 within."""
        return max(0.0, *(at - end for at, end in zip(each.logs(0.0), self.logs(each), strict=True)))

    def holds(self, each: Ratio) -> bool:
        """Whether a measurement lies within."""
        return self.outside(each) <= 1e-12


def sources_of(found: Iterable[Ratio]) -> list[str]:
    """Names of sources."""
    return sorted({each.origin for each in found})


def weights_of(found: Sequence[Ratio]) -> list[float]:
    """Every source counts the same."""
    counts = Counter(each.origin for each in found)
    return [1 / counts[each.origin] for each in found]


def quantile(values: Sequence[float] | NDArray[np.float64], weights: Sequence[float], share: float) -> float:
    """The least value that a share of the weight does not pass."""
    order = np.argsort(values)
    reached = np.cumsum(np.array(weights)[order]) / np.sum(weights)
    return float(np.array(values)[order][np.argmax(reached >= min(share, 1.0) - 1e-9)])


def shape_of(found: Sequence[Ratio], recipe: Recipe) -> Shape:
    """How far the logarithms of measurements go below and above: 5% lie beyond either."""
    weights = weights_of(found)
    logs = [recipe.logs(each) for each in found]
    below, above = (max(LEAST, quantile([log[side] for log in logs], weights, TAIL)) for side in (0, 1))
    return below, above


def score(each: Ratio, shape: Shape, recipe: Recipe) -> float:
    """How far a measurement lies out, from 0."""
    below, above = recipe.logs(each)
    return max(below / shape[0], above / shape[1], 0.0)


def conformal(number: int, level: float = COVERAGE) -> float:
    """The share of so many sources that a new one like them keeps with probability `level`."""
    return level * (number + 1) / number


def width_of(found: Sequence[Ratio], shape: Shape, recipe: Recipe) -> float:
    """The score that the conformal share keeps. With too few sources for it the largest, moved out: of n sources it
    is passed by a new one with probability 1/(n + 1), and logarithms of such errors have about exponential tails."""
    number = len(sources_of(found))
    scores = [score(each, shape, recipe) for each in found]
    most = quantile(scores, weights_of(found), conformal(number, recipe.level))
    return max(LEAST, most * max(1.0, -math.log(1 - recipe.level) / math.log(number + 1)))


def pool_of(found: Sequence[Ratio], kind: str, pools: Pools) -> tuple[str, ...]:
    """The kinds whose measurements a kind's interval is made of: the narrowest pool with sources enough, or all."""
    for kinds in pools[kind]:
        if len({each.origin for each in found if each.kind in kinds}) >= FEWEST:
            return tuple(kinds)
    return KINDS


def _logs(found: Sequence[Ratio], kinds: Sequence[str], of_all: Shape, recipe: Recipe) -> Shape:
    """How far a pool's interval goes below and above, in logarithms."""
    below, above = shape_of(found, recipe) if kinds in recipe.own else of_all
    width = width_of(found, (below, above), recipe)
    return width * below, width * above


def rule_of(found: Sequence[Ratio], recipe: Recipe = CHOSEN) -> Rule:
    """The intervals that measurements give; one that is a harder case of another is no narrower."""
    of_all = shape_of(found, recipe)
    made: dict[tuple[str, ...], tuple[Shape, int, int]] = {}
    logs: dict[str, Shape] = {}
    ends: dict[str, Ends] = {}
    for kind in KINDS:
        kinds = pool_of(found, kind, recipe.pools)
        if kinds not in made:
            pool = [each for each in found if each.kind in kinds]
            made[kinds] = _logs(pool, kinds, of_all, recipe), len(sources_of(pool)), len(pool)
        own, sources, runs = made[kinds]
        each = [own, *(logs[name] for name in HARDER_THAN.get(kind, ()))]
        below, above = (max(one[side] for one in each) for side in (0, 1))
        logs[kind] = below, above
        ends[kind] = Ends(math.exp(-below), math.exp(above), sources, runs, recipe.extra_of(kind))
    return Rule(ends)


def _without_each(found: Sequence[Ratio]) -> Iterator[tuple[list[Ratio], list[Ratio]]]:
    """Every source's own measurements, and those of all others."""
    for source in sources_of(found):
        own = [each for each in found if each.origin == source]
        yield own, [each for each in found if each.origin != source]


def held_by_others(found: Sequence[Ratio], recipe: Recipe = CHOSEN) -> list[tuple[Ratio, bool]]:
    """Every measurement, and whether intervals that its source had no part in hold it."""
    result = []
    for own, rest in _without_each(found):
        rule = rule_of(rest, recipe)
        result += [(each, rule.holds(each)) for each in own]
    return result


@dataclass(frozen=True)
class Share:
    """Of measurements of so many sources: the share that is held, and the mean over sources of each one's share."""

    sources: int
    runs: int
    of_runs: float
    of_sources: float


def share_of(
    judged: Sequence[tuple[Ratio, bool]], test: Callable[[Ratio], bool] = lambda _: True
) -> Share | None:
    """Of those that pass a test; None where none does."""
    chosen = [(each, held) for each, held in judged if test(each)]
    if not chosen:
        return None
    weights = weights_of([each for each, _ in chosen])
    held = [held for _, held in chosen]
    mean = float(np.average(held, weights=weights))
    return Share(len(sources_of(each for each, _ in chosen)), len(chosen), sum(held) / len(held), mean)


def intervals_of(found: Sequence[Ratio]) -> tuple[Interval, ...]:
    """The interval of every kind, ends rounded outwards, with how often one of other sources holds a source of
    that kind."""
    rule, judged = rule_of(found), held_by_others(found)
    result = []
    for kind in KINDS:
        share = share_of(judged, lambda each, kind=kind: each.kind == kind)  # type: ignore[misc]
        assert share, kind
        ends = rule.ends[kind]
        low, high = math.floor(1e4 * ends.low) / 1e4, math.ceil(1e4 * ends.high) / 1e4
        held = float(f"{share.of_sources:.3g}")
        extra = ends.extra_bytes
        result.append(Interval(kind, low, high, ends.sources, ends.runs, share.sources, held, extra))
    return tuple(result)
