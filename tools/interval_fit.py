"""Intervals around estimates of memory, from measurements of sources that the estimates have not met.

A measurement's score says how far it lies from its estimate, on a scale of logarithms whose two sides are those that
5% of all measurements leave (`shape_of`). Every source counts the same. The interval of a kind of set-up is

    exp(-width low) to exp(width high),    width = factor x scale

`scale` is the score that four fifths of the kind's own measurements keep, which is robust, and needs five sources to
be told. `factor` is one for all kinds: the conformal quantile (90% of n + 1) of the scores of every source over the
scale of its kind without that source, so that the error of a scale of few sources is in it. With fewer sources the
width is the largest score moved out by ln 10 / ln(sources + 1): of n sources the largest is passed by a new one with
probability 1/(n + 1), and logarithms of such errors have about exponential tails. Where sources of a kind, each
judged by an interval that the others give, are still held less often than stated, the kind's width is moved out until
they are (`stretches_of`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from planner.memory.constants import KINDS
from planner.moments import Interval
from tools.published_memory import DRIVER

COVERAGE = 0.9
CORE = 0.8  # of a kind's measurements, whose score is its scale
FEW_SOURCES = 5
LEAST = 0.02  # of a side, or a scale: no estimate is known better
# Kinds of set-ups of which less is known, or that are harder cases: their interval is at least as wide.
HARDER_THAN = {
    "open": ("alone",), "shared": ("alone",), "shared-open": ("open", "shared"),
    "split": ("open", "shared"), "offloaded": ("open", "shared"),
}  # fmt: skip
STRETCHES = tuple(1 + step / 50 for step in range(51))
UNSTRETCHED: Mapping[str, float] = {}
Shape = tuple[float, float]


@dataclass(frozen=True)
class Ratio:
    """How a measurement lies to its estimate: over what is needed, with what is cached counted as measured (`low`)
    and as on top of the estimate (`high`). `about` says what else is known of it."""

    source: str
    kind: str
    low: float
    high: float
    about: frozenset[str] = frozenset()

    @property
    def origin(self) -> str:
        """The source, what the driver shows and what torch reserved counted with what it allocated."""
        return self.source.removesuffix(DRIVER).removesuffix(", reserved")


@dataclass(frozen=True)
class Rule:
    """Everything that an interval of a kind is made of."""

    shape: Shape
    widths: Mapping[str, float]

    def bounds(self, kind: str, stretch: float = 1.0) -> tuple[float, float]:
        """`low` and `high`."""
        width = stretch * self.widths[kind]
        return math.exp(-width * self.shape[0]), math.exp(width * self.shape[1])

    def holds(self, each: Ratio, stretch: float = 1.0) -> bool:
        """Whether a measurement lies within."""
        low, high = self.bounds(each.kind, stretch)
        return low <= each.low and each.high <= high


def sources_of(found: Iterable[Ratio]) -> list[str]:
    """Names of sources."""
    return sorted({each.origin for each in found})


def weights_of(found: Sequence[Ratio]) -> list[float]:
    """Every source counts the same."""
    counts = Counter(each.origin for each in found)
    return [1 / counts[each.origin] for each in found]


def quantile(values: Sequence[float], weights: Sequence[float], share: float) -> float:
    """The least value that a share of the weight does not pass."""
    order = np.argsort(values)
    reached = np.cumsum(np.array(weights)[order]) / np.sum(weights)
    return float(np.array(values)[order][np.argmax(reached >= min(share, 1.0) - 1e-9)])


def shape_of(found: Sequence[Ratio]) -> Shape:
    """How far the logarithms of all measurements go below and above: 5% lie beyond either."""
    weights = weights_of(found)
    low = quantile([-math.log(each.low) for each in found], weights, 0.95)
    return max(LEAST, low), max(LEAST, quantile([_above(each) for each in found], weights, 0.95))


def _above(each: Ratio) -> float:
    return math.log(each.high) if each.high > 0 else -math.inf


def score(each: Ratio, shape: Shape) -> float:
    """How far a measurement lies out, from 0."""
    return max(-math.log(each.low) / shape[0], _above(each) / shape[1], 0.0)


def scale_of(found: Sequence[Ratio], shape: Shape) -> float:
    """The score that the core of a kind's measurements keeps."""
    return max(LEAST, quantile([score(each, shape) for each in found], weights_of(found), CORE))


def conformal(number: int) -> float:
    """The share of so many that a new one like them keeps with probability 90%."""
    return COVERAGE * (number + 1) / number


def widened(found: Sequence[Ratio], shape: Shape) -> float:
    """The width of a kind with few sources."""
    number = len(sources_of(found))
    most = quantile([score(each, shape) for each in found], weights_of(found), conformal(number))
    return most * max(1.0, -math.log(1 - COVERAGE) / math.log(number + 1))


def factor_of(kinds: Iterable[Sequence[Ratio]], shape: Shape) -> float:
    """By how much scales are multiplied, over all kinds that have one."""
    scores: list[float] = []
    weights: list[float] = []
    number = 0
    for found in kinds:
        for source in sources_of(found):
            own = [each for each in found if each.origin == source]
            scale = scale_of([each for each in found if each.origin != source], shape)
            scores += [score(each, shape) / scale for each in own]
            weights += [1 / len(own)] * len(own)
            number += 1
    return quantile(scores, weights, conformal(number))


def rule_of(found: Sequence[Ratio], stretches: Mapping[str, float] = UNSTRETCHED) -> Rule:
    """The intervals that measurements give; one that is a harder case of another is no narrower."""
    shape = shape_of(found)
    by_kind = {kind: [each for each in found if each.kind == kind] for kind in KINDS}
    many = [own for own in by_kind.values() if len(sources_of(own)) >= FEW_SOURCES]
    factor = factor_of(many, shape)
    widths: dict[str, float] = {}
    for kind, own in by_kind.items():
        easier = [widths[name] for name in HARDER_THAN.get(kind, ())]
        width = factor * scale_of(own, shape) if own in many else widened(own, shape) if own else 0.0
        widths[kind] = max([width * stretches.get(kind, 1.0), *easier])
    return Rule(shape, widths)


def _without_each(found: Sequence[Ratio]) -> Iterator[tuple[list[Ratio], list[Ratio]]]:
    """Every source's own measurements, and those of all others."""
    for source in sources_of(found):
        own = [each for each in found if each.origin == source]
        yield own, [each for each in found if each.origin != source]


def stretches_of(found: Sequence[Ratio]) -> dict[str, float]:
    """By how much each kind's width is moved out so that sources are held by others as often as is stated."""
    rules = [(own, rule_of(rest)) for own, rest in _without_each(found)]
    result: dict[str, float] = {}
    for kind in KINDS:
        for stretch in STRETCHES:
            held = [
                sum(rule.holds(each, stretch) for each in of_kind) / len(of_kind)
                for own, rule in rules
                if (of_kind := [each for each in own if each.kind == kind])
            ]
            result[kind] = stretch
            if sum(held) >= COVERAGE * len(held):
                break
    return result


def held_by_others(found: Sequence[Ratio], moved_out: bool = True) -> list[tuple[Ratio, bool]]:
    """Every measurement, and whether intervals that its source had no part in hold it: neither in widths nor in how
    far they are moved out, where they are."""
    result = []
    for own, rest in _without_each(found):
        rule = rule_of(rest, stretches_of(rest) if moved_out else UNSTRETCHED)
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
    """The interval of every kind, each with how often one of other sources holds a source."""
    rule, judged = rule_of(found, stretches_of(found)), held_by_others(found)
    result = []
    for kind in KINDS:
        share = share_of(judged, lambda each, kind=kind: each.kind == kind)  # type: ignore[misc]
        assert share, kind
        low, high = (float(f"{end:.4g}") for end in rule.bounds(kind))
        held = float(f"{share.of_sources:.3g}")
        result.append(Interval(kind, low, high, share.sources, share.runs, held))
    return tuple(result)
