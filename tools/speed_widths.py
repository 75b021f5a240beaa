"""Widths of intervals of step times, from first predictions of sources that nobody had looked at.

What a source teaches the formula makes its own error less, and the next one's not as much: so widths rest on
predictions as they were kept before anything was changed, of steps that state their set-up, and on the first
table's sources left out of the fit (tools/speed_firsts.py), each source counting the same. With y = ln(measured /
predicted) and the noise of host time and communication that planner/speed/efficiency.py adds, a step needs a
deviation

    side = sqrt((y / z)^2 - noise),  a `SLOW`th of it where it is slower than predicted,

and a kind of set-ups takes the conformal quantile of its steps' sides, the share 0.9 (n + 1)/n of n sources
(hierarchical conformal prediction: Lee, Barber and Willett, arXiv 2306.06342). `SLOW` is a number of the rule: a
shape taken from the same sources follows the furthest one, which is then not held by all others.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

import numpy as np
from numpy.typing import NDArray

from planner.speed.efficiency import Spread, constants
from planner.speed.kinds import KINDS, PLACES, RARE, Grounds
from tools.interval_chain import Later as Judged
from tools.interval_chain import share
from tools.interval_fit import (
    COVERAGE,
    FEWEST,
    STATED,
    Ratio,
    conformal,
    quantile,
    score,
    shape_of,
    sources_of,
    width_of,
)
from tools.speed_firsts import FIVE, SETS, First, firsts, grounds_of, left_out_firsts
from tools.speed_fit import halves

SLOW = 1.25  # how many times as far as below the interval reaches above, in deviations beside noise
LEAST = 0.01  # of a deviation
ALL = "all"
Floats = NDArray[np.float64]
Kind = Callable[[First], str]


@dataclass(frozen=True)
class Kinds:
    """Kinds that have widths of their own, where ten sources are of them; `rare` ones are no narrower than others.
    `pool` says to which kind's widths a step counts, where that is not the kind that it is of."""

    of: Kind
    names: tuple[str, ...]
    rare: tuple[str, ...] = ()
    pool: Kind | None = None


def _place(each: First) -> str:
    return each.place


def _kind(each: First) -> str:
    return each.kind


ALIKE = Kinds(lambda _: ALL, (ALL,))
TOGETHER = Kinds(lambda each: "rare" if each.kind in RARE else each.place, (*PLACES, "rare"), ("rare",))
CHOSEN_KINDS = Kinds(_kind, KINDS, RARE, _place)


@dataclass(frozen=True)
class Recipe:
    """What is chosen of a rule: its kinds, how much further it reaches above (None: as far as the same measurements
    do), and whether the first table and guessed set-ups have a part."""

    kinds: Kinds = CHOSEN_KINDS
    slow: float | None = SLOW
    table: bool = True
    guessed: bool = False


CHOSEN = Recipe()
CANDIDATES: Mapping[str, Recipe] = {
    "all alike, shape from the same sources (until the fifth set)": Recipe(ALIKE, None, False),
    "the same, on the first table too": Recipe(ALIKE, None),
    "all alike": Recipe(ALIKE),
    "by accelerator fitted on, or not": Recipe(
        Kinds(lambda each: each.evidence, ("known", "unseen"), ("unseen",))
    ),
    "rare set-ups apart": Recipe(
        Kinds(lambda each: "rare" if each.kind in RARE else "usual", ("usual", "rare"), ("rare",))
    ),
    "by place of the GPUs, rare or not": Recipe(Kinds(_place, PLACES)),
    "by place, rare set-ups together": Recipe(TOGETHER),
    "chosen, usual kinds from usual set-ups alone": Recipe(Kinds(_kind, KINDS, RARE)),
    **{f"chosen, {slow:g} times as far above": Recipe(slow=slow) for slow in (1.0, 1.5, 2.0, 3.0, 5.0, 7.0)},
    "chosen, first predictions alone": Recipe(table=False),
    "chosen, with guessed set-ups": Recipe(guessed=True),
    "**chosen**: by place, rare kinds no narrower; 1.25 times": CHOSEN,
}
THEN = Recipe(slow=7.0)  # what was chosen when five sets were known


def needs_of(found: Sequence[First], shared: Spread, slow: float) -> Floats:
    """The deviation below that just holds each step."""
    log, thin, staged = np.array([(each.log, each.thin, each.staged) for each in found]).T
    noise = shared.within**2 + (shared.thin * thin) ** 2 + (shared.staged_spread * staged) ** 2
    side: Floats = np.sqrt(np.maximum(0.0, (log / shared.z) ** 2 - noise))
    return np.where(log > 0, side / slow, side)


def side_of(found: Sequence[First], shared: Spread, slow: float) -> float:
    """The deviation below that the conformal share of sources keeps. With fewer than nine of them the largest, moved
    out as in tools/interval_fit.py."""
    counts = Counter(each.source for each in found)
    number = len(counts)
    weights = [1 / counts[each.source] for each in found]
    most = quantile(needs_of(found, shared, slow), weights, conformal(number))
    return max(LEAST, most * max(1.0, -math.log(1 - COVERAGE) / math.log(number + 1)))


def _own_shape(found: Sequence[First], shared: Spread) -> tuple[float, float]:
    """Deviations below and above as they were until the fifth set: 5% of the same measurements beyond either end of a
    shape, which is widened without regard to host time and communication."""
    ratios = [each.ratio for each in found]
    shape = shape_of(ratios, STATED)
    width = width_of(ratios, shape, STATED)
    below, above = (
        math.sqrt(max(LEAST**2, (width * side / shared.z) ** 2 - shared.within**2)) for side in shape
    )
    return below, above


def _sides(found: Sequence[First], shared: Spread, slow: float | None) -> tuple[float, float]:
    if slow is None:
        return _own_shape(found, shared)
    below = side_of(found, shared, slow)
    return below, slow * below


def _up(value: float) -> float:
    """Rounded outwards, as it ships."""
    return math.ceil(1e4 * value - 1e-9) / 1e4


def pool_of(found: Sequence[First], kind: str, recipe: Recipe = CHOSEN) -> list[First]:
    """Of what a kind's widths are made: its own steps, usual kinds' of all steps at their place, or all where fewer
    than ten sources have any."""
    kinds = recipe.kinds
    test = kinds.of if kinds.pool is None or kind in kinds.rare else kinds.pool
    own = [each for each in found if test(each) == kind]
    return own if len({each.source for each in own}) >= FEWEST else list(found)


def rule_of(found: Sequence[First], shared: Spread, recipe: Recipe = CHOSEN) -> dict[str, Spread]:
    """The spread of every kind."""
    usual = [name for name in recipe.kinds.names if name not in recipe.kinds.rare]
    sides: dict[str, tuple[float, float]] = {}
    for name in (*usual, *recipe.kinds.rare):
        made = [_sides(pool_of(found, name, recipe), shared, recipe.slow)]
        made += [sides[other] for other in usual] if name in recipe.kinds.rare else []
        sides[name] = max(each[0] for each in made), max(each[1] for each in made)
    return {
        name: replace(shared, below=_up(below), above=_up(above)) for name, (below, above) in sides.items()
    }


def of_recipe(found: Iterable[First], recipe: Recipe) -> list[First]:
    """Those of which a recipe is made."""
    return [each for each in found if each.stated or recipe.guessed]


def judged(each: First, rule: Mapping[str, Spread], recipe: Recipe = CHOSEN) -> Judged:
    """A first prediction under a rule."""
    below, above = halves(each.thin, each.staged, rule[recipe.kinds.of(each)])
    return Judged(each.ratio, each.found, below + above, max(0.0, -each.log - below, each.log - above))


def as_then(each: First) -> Judged:
    """A first prediction under the interval that came with it."""
    below, above = each.then
    return Judged(each.ratio, each.found, below + above, max(0.0, -each.log - below, each.log - above))


Pairs = Sequence[tuple[First, Judged]]


@cache
def in_order(recipe: Recipe = CHOSEN, stated: bool = True) -> Pairs:
    """Every first prediction of all sets but the first, by intervals of the sets before its own and, where the recipe
    has it, the first table."""
    known = list(left_out_firsts()) if recipe.table else []
    result: list[tuple[First, Judged]] = []
    for name in SETS:
        own = [each for each in firsts() if each.found == name]
        if name != SETS[0]:
            rule = rule_of(of_recipe(known, recipe), constants().any_spread, recipe)
            result += [(each, judged(each, rule, recipe)) for each in own if each.stated is stated]
        known += own
    return tuple(result)


@cache
def without_own(recipe: Recipe = CHOSEN, stated: bool = True, names: tuple[str, ...] = SETS) -> Pairs:
    """Every first prediction and the first table's steps, each by intervals of all other sources."""
    first = [each for each in firsts() if each.found in names]
    every = [*first, *(left_out_firsts() if recipe.table else ())]
    result: list[tuple[First, Judged]] = []
    for source in sources_of(each.ratio for each in every if each.stated is stated):
        rest = [each for each in every if each.source != source]
        rule = rule_of(of_recipe(rest, recipe), constants().any_spread, recipe)
        own = [each for each in every if each.source == source and each.stated is stated]
        result += [(each, judged(each, rule, recipe)) for each in own]
    return tuple(result)


def with_shape_of_all(names: tuple[str, ...]) -> float:
    """The share of sources that intervals of all others hold where the shape is that of all of them, kept as it is,
    and only the width is the others' own: what the shape from the same sources costs."""
    found = [each.ratio for each in firsts() if each.found in names and each.stated]
    shape, shares = shape_of(found, STATED), []
    for source in sources_of(found):
        rest = [each for each in found if each.origin != source]
        width = width_of(rest, shape, STATED)
        own = [score(each, shape, STATED) <= width for each in found if each.origin == source]
        shares.append(sum(own) / len(own))
    return sum(shares) / len(shares)


def by_shipped(name: str, stated: bool = True) -> Pairs:
    """The first predictions of a set under the intervals that ship; one without a part in them is a test of them."""
    spreads = constants().spreads
    return [(each, judged(each, spreads)) for each in firsts((name,)) if each.stated is stated]


@cache
def _rule_of_five() -> Mapping[str, Spread]:
    known = of_recipe([*firsts(FIVE), *left_out_firsts()], THEN)
    return rule_of(known, constants().any_spread, THEN)


def by_then(name: str, stated: bool = True) -> Pairs:
    """The first predictions of a set under the intervals that shipped until the ninth set, made of five."""
    rule = _rule_of_five()
    return [(each, judged(each, rule, THEN)) for each in firsts((name,)) if each.stated is stated]


def sets_left_out(names: tuple[str, ...], recipe: Recipe = CHOSEN) -> Pairs:
    """The first predictions of what sets state, each set under intervals of all other sets and the first table."""
    every = tuple(dict.fromkeys((*SETS, *names)))
    result: list[tuple[First, Judged]] = []
    for name in names:
        rest = [*firsts(tuple(each for each in every if each != name)), *left_out_firsts()]
        rule = rule_of(of_recipe(rest, recipe), constants().any_spread, recipe)
        result += [(each, judged(each, rule, recipe)) for each in firsts((name,)) if each.stated]
    return result


def share_of(found: Pairs, test: Callable[[First], bool] = lambda _: True) -> float:
    """The share that is held of those that pass a test, where sources count the same."""
    return share([one for each, one in found if test(each)])


def number_of(found: Pairs) -> int:
    """How many sources."""
    return len(sources_of(each.ratio for each, _ in found))


def held_said(found: Pairs) -> str:
    """How many are held, in words."""
    held = [one.held for _, one in found]
    return f"{share_of(found):.0%} of {number_of(found)} sources and {sum(held)} of {len(held)} steps"


def held_by_others(found: Sequence[First]) -> list[bool]:
    """Whether each step lies inside an interval that its source had no part in."""
    inside: dict[int, bool] = {}
    for source in {each.source for each in found}:
        rule = rule_of(grounds_of(lambda each, s=source: each.source != s), constants().any_spread)  # type: ignore[misc]
        inside |= {id(each): judged(each, rule).held for each in found if each.source == source}
    return [inside[id(each)] for each in found]


def shipped_grounds() -> dict[str, Grounds]:
    """What the interval of every kind rests on, with how often one of other sources holds a source of that kind."""
    every, held = grounds_of(), without_own()
    result = {}
    for kind in KINDS:
        pool = pool_of(every, kind)
        own = [(each, one) for each, one in held if each.kind == kind]
        ratios: list[Ratio] = [each.ratio for each in pool]
        result[kind] = Grounds(
            kind, len(sources_of(ratios)), len(pool), number_of(own), float(f"{share_of(own):.3g}")
        )
    return result
