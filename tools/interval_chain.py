"""Candidates of a rule for memory's intervals, each judged as time went: sets of sources came one after another, each
predicted before it was looked at. The sets up to one give the intervals, the next one judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.memory.interval_kinds import KINDS
from tools.interval_fit import (
    CHOSEN,
    COVERAGE,
    ONE_GPU,
    SEVERAL,
    Pools,
    Ratio,
    Recipe,
    Rule,
    rule_of,
    sources_of,
    weights_of,
)

ALIKE: Pools = dict.fromkeys(KINDS, (KINDS,))
APART: Pools = {
    "alone-lora": (("alone-lora",), ONE_GPU, KINDS),
    **dict.fromkeys(ONE_GPU[1:], (ONE_GPU[1:], ONE_GPU, KINDS)),
    **dict.fromkeys(SEVERAL, (SEVERAL, KINDS)),
}
EACH: Pools = {kind: ((kind,), ONE_GPU if kind in ONE_GPU else SEVERAL, KINDS) for kind in KINDS}
CANDIDATES: Mapping[str, Recipe] = {
    "all kinds alike": replace(CHOSEN, pools=ALIKE),
    "LoRA of stated lengths on one GPU apart (until the sixth set)": replace(CHOSEN, pools=APART),
    "each kind that has ten sources": replace(CHOSEN, pools=EACH),
    **{f"chosen, {extra} GB added": replace(CHOSEN, extra_bytes=extra * 1e9) for extra in (0, 1, 2, 4, 6, 8)},
    "chosen, shapes half-way to each pool's own": replace(CHOSEN, own=0.5),
    "chosen, each pool's own shape": replace(CHOSEN, own=1.0),
    "**chosen**: one GPU and several; 3 GB added": CHOSEN,
}
HEAD = """
### As time went

What an interval is worth is how it holds sources that come after it. Each row is a candidate of a rule; the sets
that were known give intervals, and **the next set judges them** (the first judges none). `high over low` is a
geometric mean over measurements, the score that of Gneiting and Raftery (2007) for intervals, in logarithms: the
width, and 20 times by how much a measurement lies outside; less is better. Sources count the same. By {sources}
sources most candidates cannot be told apart (one source is 2%, one of the fifth set 11%); the chosen one has about
the least score. Up to the fifth set LoRA of stated lengths on one GPU had an interval of its own, 0.97 to 1.04; of
the sixth set's figures of that kind it held 23%, and was given up. The rule was chosen knowing all of these sets: the
next one is its test.

| rule | {sets} | all | one GPU, lengths stated | one GPU, open | several GPUs | high over low | score |
|---|{dashes}---|---|---|---|---|---|"""


@dataclass(frozen=True)
class Later:
    """A measurement, whether intervals of earlier sets hold it, how wide the one is that was asked for it, and by how
    much it lies outside, both in logarithms."""

    each: Ratio
    found: str
    width: float
    outside: float

    @property
    def held(self) -> bool:
        """Whether it lies within."""
        return self.outside <= 1e-12


def _judged(rule: Rule, found: str, each: Ratio) -> Later:
    return Later(each, found, sum(rule.logs(each)), rule.outside(each))


def in_order(
    sets: Mapping[str, Sequence[Ratio]], recipe: Recipe = CHOSEN, also: Sequence[Ratio] = ()
) -> list[Later]:
    """Every measurement of all sets but the first, judged by intervals of the sets before its own (and `also`)."""
    known, result = [*also], []
    for name, own in sets.items():
        if name != next(iter(sets)):
            rule = rule_of(known, recipe)
            result += [_judged(rule, name, each) for each in own]
        known += own
    return result


def mean(found: Sequence[Later], values: Sequence[float]) -> float:
    """The mean over sources of each one's mean; not a number of none."""
    return float(np.average(values, weights=weights_of([one.each for one in found]))) if found else math.nan


def share(found: Sequence[Later]) -> float:
    """The share that is held, where sources count the same."""
    return mean(found, [one.held for one in found])


def score_of(found: Sequence[Later]) -> float:
    """The interval score of the logarithms (Gneiting and Raftery 2007): the width + 2 / (1 - coverage)
    times by how much a measurement lies outside."""
    return mean(found, [one.width + 2 / (1 - COVERAGE) * one.outside for one in found])


def _row(name: str, sets: Mapping[str, Sequence[Ratio]], found: Sequence[Later]) -> str:
    parts = [[one for one in found if one.found == each] for each in list(sets)[1:]]
    groups = (("alone-lora", "alone"), ("open",), SEVERAL)
    parts += [list(found), *([one for one in found if one.each.kind in kinds] for kinds in groups)]
    wide = math.exp(mean(found, [one.width for one in found]))
    cells = [*(f"{share(part):.0%}" for part in parts), f"{wide:.2f}", f"{score_of(found):.2f}"]
    return f"| {name} | {' | '.join(cells)} |"


def chain_table(sets: Mapping[str, Sequence[Ratio]], table: Sequence[Ratio]) -> list[str]:
    """Every candidate as time went, and the chosen one with the first table's measurements beside them."""
    names = [f"{name} set" for name in list(sets)[1:]]
    count = len(sources_of(one.each for one in in_order(sets)))
    lines = [HEAD.format(sources=count, sets=" | ".join(names), dashes="---|" * len(names))]
    lines += [_row(name, sets, in_order(sets, recipe)) for name, recipe in CANDIDATES.items()]
    lines.append(_row("chosen, on the first table too", sets, in_order(sets, CHOSEN, table)))
    return lines
