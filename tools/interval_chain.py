"""Candidates of a rule for memory's intervals, each judged as time went: sets of sources came one after another, each
predicted before it was looked at. The sets up to one give the intervals, the next one judges them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from planner.memory.interval_kinds import KINDS, NAMED, UNNAMED
from tools.interval_fit import (
    CHOSEN,
    COVERAGE,
    OFFLOADED,
    POOLS,
    Pools,
    Ratio,
    Recipe,
    Rule,
    held_by_others,
    quantile,
    rule_of,
    share_of,
    sources_of,
    weights_of,
)

ONE_GPU = ("alone-lora", "alone", "open", "unnamed")
SEVERAL = ("shared", "shared-open", "split", "unnamed-several")
OLD_SEVERAL = (*SEVERAL, *OFFLOADED)
OWN: Pools = {"offloaded": (OFFLOADED, KINDS)}
ALIKE: Pools = {**dict.fromkeys(KINDS, (KINDS,)), **OWN}
BY_GPUS: Pools = {
    **dict.fromkeys(ONE_GPU, (ONE_GPU, KINDS)),
    **dict.fromkeys(SEVERAL, (SEVERAL, KINDS)),
    **OWN,
}
OLD_POOLS: Pools = {
    **dict.fromkeys(ONE_GPU, (ONE_GPU, KINDS)), **dict.fromkeys(OLD_SEVERAL, (OLD_SEVERAL, KINDS)),
}  # fmt: skip
BY_TRAINER: Pools = {
    **dict.fromkeys(NAMED, (NAMED, KINDS)), **dict.fromkeys(UNNAMED, (UNNAMED, KINDS)), **OWN,
}  # fmt: skip
BY_BOTH: Pools = {
    **POOLS,
    **dict.fromkeys(ONE_GPU[:3], (ONE_GPU[:3], NAMED, KINDS)),
    **dict.fromkeys(SEVERAL[:3], (SEVERAL[:3], NAMED, KINDS)),
}  # fmt: skip
OLD = Recipe(OLD_POOLS, 3e9, 3e9, (), 0.9)
CANDIDATES: Mapping[str, Recipe] = {
    "one GPU and several, whoever trains (until now; level 0.90)": OLD,
    "the same, offloading apart": replace(CHOSEN, pools=BY_GPUS, level=0.9),
    "the same, level 0.92": replace(CHOSEN, pools=BY_GPUS),
    "all kinds alike but offloading": replace(CHOSEN, pools=ALIKE),
    "trainer known or not alone": replace(CHOSEN, pools=BY_TRAINER),
    "trainer known or not; known: one GPU, several": replace(CHOSEN, pools=BY_BOTH),
    **{f"chosen, level {level:.2f}": replace(CHOSEN, level=level) for level in (0.9, 0.91, 0.93, 0.94)},
    **{f"chosen, {extra} GB added": replace(CHOSEN, extra_bytes=extra * 1e9) for extra in (0, 1, 2, 4, 6)},
    **{
        f"chosen, {extra} GB added under offloading": replace(CHOSEN, extra_offloaded=extra * 1e9)
        for extra in (3, 6, 15)
    },
    "chosen, offloading in the shape of all": replace(CHOSEN, own=()),
    "**chosen**": CHOSEN,
}  # fmt: skip
HEAD = """
### As time went

What an interval is worth is how it holds sources that come after it. Each row is a candidate of a rule; the sets
that were known give intervals, and **the next set judges them** (the first judges none). `high over low` is a
geometric mean over measurements, the score that of Gneiting and Raftery (2007) for intervals, in logarithms: the
width, and 20 times by how much a measurement lies outside; less is better. Sources count the same. By {sources}
sources most candidates cannot be told apart (one source is 2%, one of the fifth set 11%). Sources of a next set lie
further off than those of the sets before: at a level of 0.90 the score is least, but less than the 90% that are
stated are held. Chosen is the least level of whole hundredths by which every kind of ten sources is held by the
others, and all sources and those with offloading as time went, as often as is stated. Up to the fifth set LoRA of
stated lengths on one GPU had an interval of its own, 0.97 to 1.04; of the sixth set's figures of that kind it held
23%, and was given up. The rule was chosen knowing all of these sets: the next one is its test.

| rule | {sets} | all | trainer known | not known | offloading | high over low | score |
|---|{dashes}---|---|---|---|---|---|---|"""


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
    groups = (NAMED, UNNAMED, OFFLOADED)
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


TRAINERS_HEAD = """
### By whose profile

Whether a first prediction went by a profile of the program that ran was judged by the program that the source names
and the title of the profile, as it was then, before errors were looked at: a **stand-in** is the profile of another
program or of versions that the source's is not among ([each](../data/measured/memory_stand_ins.csv)), a **sort**
that of loops of one's own or of any program on DeepSpeed. Stand-ins, sorts and no profile at all count as unknown
trainers, as the program that ran had no profile of its own. `off by` is the factor between measured and needed that
half and nine in ten of the figures keep, sources counting the same. *Whoever trains* is held by one rule for one
GPU and one for several (level 0.92), *chosen* by the rule that ships, each by intervals of all other sources. On
one GPU known trainers' figures by themselves give {known} at level 0.90, those of all {all}: naming a trainer does
not narrow the interval there, it spares the wider one of trainers that are not known. On several GPUs with all
stated it narrows it. Offloading is left out.

| went by | sources | runs | off by: half | nine in ten | whoever trains: held, sources | chosen: held, sources |
|---|---|---|---|---|---|---|"""
WENT_BY = {
    "own": "a profile of the program", "near": "a stand-in", "general": "a profile of a sort", "none": "none",
}  # fmt: skip


def _off_by(found: Sequence[Ratio], part: float) -> float:
    off = [abs(math.log(each.low)) for each in found]
    return math.exp(quantile(off, weights_of(found), part))


def _ends(found: Sequence[Ratio], pools: Pools) -> str:
    ends = rule_of(found, replace(CHOSEN, pools=pools, level=COVERAGE)).ends["alone"]
    return f"{ends.low:.2f} to {ends.high:.2f}"


def trainer_table(found: Sequence[Ratio]) -> list[str]:
    """How far off first predictions were by whose profile they went, and how often they are held."""
    lines = [TRAINERS_HEAD.format(known=_ends(found, BY_BOTH), all=_ends(found, BY_GPUS))]
    alike = held_by_others(found, replace(CHOSEN, pools=BY_GPUS))
    chosen = held_by_others(found)
    for mark, name in WENT_BY.items():

        def of(each: Ratio, mark: str = mark) -> bool:
            return f"trainer {mark}" in each.about and each.kind not in OFFLOADED

        own = [each for each in found if of(each)]
        counted, kept = share_of(alike, of), share_of(chosen, of)
        assert counted
        assert kept
        off = " | ".join(f"{_off_by(own, part):.2f}" for part in (0.5, 0.9))
        cells = (
            f"{counted.sources} | {counted.runs} | {off} | {counted.of_sources:.0%} | {kept.of_sources:.0%}"
        )
        lines.append(f"| {name} | {cells} |")
    return lines
