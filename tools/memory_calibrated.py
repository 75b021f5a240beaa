"""What one measured peak tells of other figures of its source, and how wide memory's interval after it must be.

Every figure of the first predictions (tools/published_memory_later.py) takes its turn as the measured one and
corrects the others of its source of the same trainer's profile, metric and objective, as `planner.memory.calibration`
does. How much of it is believed (`share`), and the bytes that are added to what is needed above (`extra_bytes`), are
those of least interval score; ends are the conformal quantile of sources, by the rule of memory's other intervals
(tools/interval_fit.py). Each source is judged by share, bytes and ends that all others give. First predictions kept
no parts: those of today's estimate of the same command stand for them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property
from itertools import permutations, product
from typing import Any

import numpy as np

from planner.memory.calibration import FIXED, factor_of, log_ratio, split_of
from planner.memory.interval_kinds import MEASURED
from planner.moments import Interval, MemoryPart
from planner.setup import Setup
from tools.interval_fit import COVERAGE, LEAST, LEVEL, OFFLOADED, TAIL, Ratio, conformal, quantile
from tools.published_memory_later import RESTS_ON, Later, blind, estimate_of, first_ratios

SHARES = tuple(round(0.05 * step, 2) for step in range(8, 21))
EXTRAS = (0.0, 1e9, 2e9, 3e9)
# Sets that no interval rests on.
SINCE = (
    "seventh",
    "eighth",
    "ninth",
    "tenth",
    "eleventh",
    "twelfth",
    "thirteenth",
    "fourteenth",
    "fifteenth",
    "sixteenth",
    "seventeenth",
    "eighteenth",
    "nineteenth",
    "twentieth",
    "twentyfirst",
)
Array = Any


@dataclass(frozen=True)
class Figure:
    """A measured figure as it was predicted first, with the bytes of today's estimate by part and its set-up, and
    what any that is measured has to have in common with it."""

    case: Later
    ratio: Ratio
    predicted: float
    beyond: float
    parts: Mapping[MemoryPart, int]
    setup: Setup
    alike: tuple[object, ...]

    @property
    def near(self) -> tuple[object, ...]:
        """What a measured peak has to have in common to tell of it, beside the model."""
        setup = self.setup
        return setup.method, setup.gpus > 1, setup.sharding, setup.loss, split_of(setup)

    @property
    def torch(self) -> float:
        """Bytes that were predicted to be allocated."""
        return self.ratio.needed - self.beyond

    @property
    def cached(self) -> float:
        """Bytes that were predicted to be kept beside them."""
        return (self.ratio.low - self.ratio.high) * self.ratio.needed

    def fixed(self, parts: Sequence[MemoryPart]) -> float:
        """Bytes of these parts."""
        return float(sum(self.parts.get(part, 0) for part in parts))


@cache
def figures(sets: tuple[str, ...] = RESTS_ON) -> tuple[Figure, ...]:
    """The figures of sets that are measured peaks: what a card is said to suffice for is none."""
    said, found = blind(), []
    for case, ratio in first_ratios(sets):
        if case.metric == "needed":
            continue
        now = estimate_of(replace(case, now=""))
        setup, first = now.setup, said[case.number]
        alike = ratio.origin, setup.trainer, case.metric, setup.objective, ratio.kind in OFFLOADED
        parts = now.peak.parts()
        found.append(Figure(case, ratio, first.predicted, first.beyond, parts, setup, alike))
    return tuple(found)


@dataclass(frozen=True)
class Form:
    """How a measured peak corrects another's estimate: by a ratio of what is not `fixed`, or, where that is None, by
    the difference in bytes; the `shares` of it that may be believed."""

    fixed: tuple[MemoryPart, ...] | None
    shares: tuple[float, ...] = SHARES

    def corrected(self, one: Figure, other: Figure, share: float) -> tuple[float, float]:
        """Bytes that are needed and cached of the other, with `share` of the correction."""
        if self.fixed is None:
            more = share * (one.case.measured - one.predicted)
            return max(other.ratio.needed + more, 0.2 * other.ratio.needed), other.cached
        outside = one.beyond if one.case.metric == "device" else 0.0
        log = log_ratio(one.case.measured, one.predicted, one.fixed(self.fixed) + outside)
        factor = factor_of([log], share)
        fixed = min(other.fixed(self.fixed), other.torch)
        return fixed + (other.torch - fixed) * factor + other.beyond, other.cached * factor


NOTHING = "no correction"
CHOSEN = "a ratio of all but weights, adapter and the optimizer's states"
FORMS: Mapping[str, Form] = {
    NOTHING: Form((), (0.0,)),
    "bytes added": Form(None),
    "a ratio of all that torch allocates": Form(()),
    "a ratio of all but weights": Form(("weights",)),
    CHOSEN: Form(FIXED),
    "a ratio of all but these and gradients": Form((*FIXED, "gradients")),
}


@dataclass(frozen=True)
class Pair:
    """A figure that was predicted with another of its source measured."""

    one: Figure
    other: Figure

    @property
    def place(self) -> int:
        """0: of the same model, method, sharding, split and loss, one GPU or several; 1: of another model; 2: of
        another method, sharding, split or loss, or of several GPUs for one."""
        if self.one.near != self.other.near:
            return 2
        return 0 if self.one.case.model == self.other.case.model else 1


def pairs_of(found: Iterable[Figure]) -> list[Pair]:
    """Every ordered pair of alike figures that are not offloaded: of a single source only can such be had."""
    groups: dict[tuple[object, ...], list[Figure]] = {}
    for each in found:
        if each.ratio.kind not in OFFLOADED:
            groups.setdefault(each.alike, []).append(each)
    return [Pair(*two) for group in groups.values() for two in permutations(group, 2)]


@dataclass(frozen=True)
class Made:
    """An interval: how far it goes below and above in logarithms, with the bytes added above, after a correction of
    which a share is believed."""

    share: float
    extra_bytes: float
    below: float
    above: float


class Judged:
    """Pairs under one form: how far each other figure lies from its corrected estimate."""

    def __init__(self, pairs: Sequence[Pair], form: Form) -> None:
        self.pairs, self.form = pairs, form
        self.origin = np.array([pair.other.ratio.origin for pair in pairs])
        self.codes = np.unique(self.origin, return_inverse=True)[1]
        self.known: dict[tuple[float, float], tuple[Array, Array, Array]] = {}

    @cached_property
    def sources(self) -> list[str]:
        """Names of sources."""
        return sorted(set(self.origin.tolist()))

    @cached_property
    def weights(self) -> Array:
        """Every source counts the same."""
        names, counts = np.unique(self.origin, return_counts=True)
        number = dict(zip(names.tolist(), counts.tolist(), strict=True))
        return np.array([1 / number[name] for name in self.origin.tolist()])

    def logs(self, share: float, extra: float) -> tuple[Array, Array, Array]:
        """How far below and above, and by how much `extra` bytes widen, all in logarithms."""
        if (share, extra) not in self.known:
            needed, cached = np.array([self.form.corrected(p.one, p.other, share) for p in self.pairs]).T
            ratios = [pair.other.ratio for pair in self.pairs]
            measured = np.array([ratio.low * ratio.needed for ratio in ratios])
            for more in EXTRAS:
                over = np.maximum(measured - cached, 1.0) / (needed + more)
                self.known[share, more] = -np.log(measured / needed), np.log(over), np.log1p(more / needed)
        return self.known[share, extra]

    def ends(self, share: float, extra: float, among: Array) -> Made:
        """The interval of these pairs: the shape that `TAIL` of them keep on either side, as wide as the conformal
        share of sources needs (interval_fit.width_of)."""
        below, above, _ = (log[among] for log in self.logs(share, extra))
        weights = self.weights[among]
        shape = [max(LEAST, quantile(side, weights, TAIL)) for side in (below, above)]
        scores = np.maximum(np.maximum(below / shape[0], above / shape[1]), 0.0)
        number = int(np.count_nonzero(np.bincount(self.codes[among])))
        most = quantile(scores, weights, conformal(number, LEVEL))
        width = max(LEAST, most * max(1.0, -math.log(1 - LEVEL) / math.log(number + 1)))
        return Made(share, extra, width * shape[0], width * shape[1])

    def outside(self, made: Made) -> Array:
        """By how much each lies outside."""
        below, above, _ = self.logs(made.share, made.extra_bytes)
        return np.maximum(np.maximum(below - made.below, above - made.above), 0.0)

    def score(self, made: Made) -> Array:
        """The interval score of each: its width and 2 / (1 - coverage) times by how much it lies outside."""
        wide = self.logs(made.share, made.extra_bytes)[2]
        return made.below + made.above + wide + 2 / (1 - COVERAGE) * self.outside(made)

    def chosen(self, among: Array) -> Made:
        """The interval of least score on these pairs."""
        tried = (self.ends(share, extra, among) for share, extra in product(self.form.shares, EXTRAS))
        return min(tried, key=lambda made: self.mean(self.score(made), among))

    def mean(self, values: Array, among: Array) -> float:
        """The mean over sources of each one's mean."""
        return float(np.average(values[among], weights=self.weights[among]))

    @cached_property
    def all(self) -> Array:
        """Every pair."""
        return np.full(len(self.pairs), True)

    @cached_property
    def by_others(self) -> dict[str, Made]:
        """For every source the interval that all others give, share and bytes chosen on them too."""
        return {name: self.chosen(self.origin != name) for name in self.sources}

    def left_out(self, value: Callable[[Made], Array]) -> Array:
        """A value of every pair under the interval that other sources give."""
        result = np.zeros(len(self.pairs))
        for name, made in self.by_others.items():
            own = self.origin == name
            result[own] = value(made)[own]
        return result

    def held(self) -> Array:
        """Whether each is held by the interval that other sources give."""
        return self.left_out(lambda made: self.outside(made) <= 1e-12)

    def off(self) -> Array:
        """The logarithm of the factor between measured and needed, with the share that other sources choose."""
        return self.left_out(lambda made: np.abs(self.logs(made.share, made.extra_bytes)[0]))


@cache
def same_model(sets: tuple[str, ...] = RESTS_ON, form: str = CHOSEN) -> Judged:
    """The pairs of which one tells of the other."""
    return Judged([pair for pair in pairs_of(figures(sets)) if pair.place == 0], FORMS[form])


def measured_interval() -> tuple[float, Interval]:
    """The share of a measured peak that is believed, and the interval after it: ends rounded outwards, and down how
    often one of other sources holds a source."""
    found = same_model()
    made = found.chosen(found.all)
    low, high = (
        math.floor(1e4 * math.exp(-made.below)) / 1e4,
        math.ceil(1e4 * math.exp(made.above)) / 1e4,
    )
    number = len(found.sources)
    runs = len({pair.other.case.number for pair in found.pairs})
    held = math.floor(1e3 * found.mean(found.held(), found.all)) / 1e3
    return made.share, Interval(MEASURED, low, high, number, runs, number, held, made.extra_bytes)
