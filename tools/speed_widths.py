"""Widths of intervals of step times, from first predictions of sources that nobody had looked at.

What a source teaches the formula makes its own error less, and the next one's not as much: so widths rest on
predictions as they were kept before anything was changed (data/measured/speed_*_blind.csv), of steps that state their
set-up, each source counting the same. As for memory (tools/interval_fit.py), 5% of all measurements lie beyond either
end of a shape, and the interval is that shape times the conformal quantile, the share 0.9 (n + 1)/n of n sources. It
is that of a step without host time and communication, whose noise is added as planner/speed/calibration.py has it.

    python -m tools.speed_widths       # the rule's candidates as time went
    python -m tools.speed_widths SET   # how often the intervals that ship hold a set's first predictions
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache

from planner.speed.efficiency import Evidence, Spread, constants
from planner.speed.roofline import staged_share, thin_share
from tools.interval_chain import Later as Judged
from tools.interval_chain import mean, score_of, share
from tools.interval_fit import FEWEST, STATED, Ratio, Shape, shape_of, sources_of, width_of
from tools.speed_fit import LeftOut, by_source, halves, noise_of
from tools.speed_later import FURTHER, LATER, LATEST, NEWEST, UNSEEN, blind, later, set_up
from tools.staged_rings import staged

COVERAGE = 0.9
Z = 1.645  # half-width of a normal distribution's middle 90%
LEAST = 0.01  # of a deviation
SETS = (LATER, LATEST, NEWEST, FURTHER)  # in the order in which they came; what comes after judges them
EVEN = (1.0, 1.0)


@dataclass(frozen=True)
class First:
    """A first prediction: the logarithm of measured over predicted, of which set and source, and what is known of the
    step. `then`: whether the interval of then held it."""

    source: str
    found: str
    log: float
    stated: bool
    evidence: Evidence = "known"
    gpus: int = 1
    tokens: float = 8192.0
    thin: float = 0.0
    staged: float = 0.0
    lora: bool = True
    then: Shape = EVEN

    @property
    def ratio(self) -> Ratio:
        """As intervals are made of them."""
        return Ratio(self.source, "step", math.exp(self.log), math.exp(self.log))


@cache
def firsts(names: tuple[str, ...] = SETS) -> tuple[First, ...]:
    """Every first prediction of sets, by default those that widths rest on; shares of host time are those of today's
    estimate."""
    result = []
    for name in names:
        said = blind(name)
        for case in later(name):
            one = said[case.number]
            if one.problem:
                continue
            made = set_up(case)
            step = made.time()
            assert step is not None
            assert made.machine is not None
            result.append(
                First(
                    case.source, name, math.log(one.measured / one.seconds), case.stated, case.evidence, case.gpus,
                    step.tokens / case.gpus, thin_share(step.parts), staged_share(step.parts, made.machine),
                    case.method != "full",
                    (math.log(one.seconds / one.low), math.log(one.high / one.seconds)),
                )
            )  # fmt: skip
    return tuple(result)


def of_table(found: Sequence[LeftOut]) -> list[First]:
    """The first table's sources, left out of a fit on all others."""
    known = {each.source for each in firsts()}
    return [
        First(
            item.run.source, "table", item.ratio, True, "known" if item.known else "unseen", item.run.setup.gpus,
            float(item.run.setup.tokens * item.run.setup.accumulation), item.thin, item.staged,
            item.run.setup.method != "full",
        )
        for item in found
        if item.run.source not in known
    ]  # fmt: skip


Kind = Callable[[First], str]
KINDS: Mapping[str, tuple[Kind, Sequence[str]]] = {
    "alike": (lambda each: "all", ("all",)),
    "accelerator fitted on, or not": (lambda each: each.evidence, ("known", "unseen")),
    "one GPU, or several": (lambda each: "one" if each.gpus == 1 else "several", ("one", "several")),
    "full fine-tuning, or LoRA": (lambda each: "lora" if each.lora else "full", ("full", "lora")),
    "8,192 tokens a GPU or more, or fewer": (
        lambda each: "many" if each.tokens >= 8192 else "few", ("many", "few"),
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Recipe:
    """What is chosen of a rule: kinds that have widths of their own (the second one's no narrower), whether both
    sides are as wide, and whether steps whose set-up is guessed count."""

    kinds: str = "alike"
    symmetric: bool = False
    guessed: bool = False


CHOSEN = Recipe()
CANDIDATES: Mapping[str, Recipe] = {
    "symmetric": Recipe(symmetric=True),
    **{f"by {name}": Recipe(name) for name in KINDS if name != CHOSEN.kinds},
    "with guessed set-ups": Recipe(guessed=True),
    "**chosen**: all alike": CHOSEN,
}


def ends_of(found: Sequence[First], symmetric: bool = False) -> Shape:
    """How far the interval goes below and above, in logarithms, without host time and communication."""
    ratios = [each.ratio for each in found]
    shape = EVEN if symmetric else shape_of(ratios, STATED)
    width = width_of(ratios, shape, STATED)
    return width * shape[0], width * shape[1]


def with_ends(ends: Shape, spread: Spread) -> Spread:
    """A spread whose interval goes so far, rounded outwards."""
    sides = (math.sqrt(max(LEAST**2, (end / Z) ** 2 - spread.within**2)) for end in ends)
    below, above = (math.ceil(1e4 * side) / 1e4 for side in sides)
    return replace(spread, below=below, above=above)


def rule_of(found: Sequence[First], spread: Spread, recipe: Recipe = CHOSEN) -> dict[str, Spread]:
    """The spread of every kind; one of fewer than ten sources has that of all."""
    known = [each for each in found if each.stated or recipe.guessed]
    kind_of, names = KINDS[recipe.kinds]
    ends, least = {}, (0.0, 0.0)
    for name in names:
        own = [each for each in known if kind_of(each) == name]
        few = len(sources_of(each.ratio for each in own)) < FEWEST
        made = ends_of(known if few else own, recipe.symmetric)
        least = ends[name] = max(made[0], least[0]), max(made[1], least[1])
    return {name: with_ends(each, spread) for name, each in ends.items()}


def spread(without: Sequence[LeftOut]) -> Spread:
    """Everything that data/speed.toml says of intervals: noise of sources left out of a fit, widths of first
    predictions."""
    within, thin = noise_of(without)
    return rule_of(firsts(), Spread(0.0, 0.0, within, thin, staged()[1], COVERAGE, Z))["all"]


def judged(each: First, rule: Mapping[str, Spread], recipe: Recipe = CHOSEN) -> Judged:
    """A first prediction under a rule."""
    below, above = halves(each.thin, each.staged, rule[KINDS[recipe.kinds][0](each)])
    return Judged(each.ratio, each.found, below + above, max(0.0, -each.log - below, each.log - above))


def as_then(each: First) -> Judged:
    """A first prediction under the interval that came with it."""
    below, above = each.then
    return Judged(each.ratio, each.found, below + above, max(0.0, -each.log - below, each.log - above))


def in_order(
    recipe: Recipe = CHOSEN, also: Sequence[First] = (), stated: bool = True
) -> list[tuple[First, Judged]]:
    """Every first prediction of all sets but the first, by intervals of the sets before its own (and `also`)."""
    known: list[First] = [*also]
    result: list[tuple[First, Judged]] = []
    for name in SETS:
        own = [each for each in firsts() if each.found == name]
        if name != LATER:
            rule = rule_of(known, constants().spread, recipe)
            result += [(each, judged(each, rule, recipe)) for each in own if each.stated is stated]
        known += own
    return result


def without_own(stated: bool = True) -> list[tuple[First, Judged]]:
    """Every first prediction by intervals of all other sources."""
    result = []
    for source in sources_of(each.ratio for each in firsts()):
        rule = rule_of([each for each in firsts() if each.source != source], constants().spread)
        own = [each for each in firsts() if each.source == source and each.stated is stated]
        result += [(each, judged(each, rule)) for each in own]
    return result


def by_shipped(name: str, stated: bool = True) -> list[tuple[First, Judged]]:
    """The first predictions of a set under the interval that ships; one that has no part in it is a test of it."""
    rule = {"all": constants().spread}
    return [(each, judged(each, rule)) for each in firsts((name,)) if each.stated is stated]


def held_said(found: Sequence[tuple[First, Judged]]) -> str:
    """How many are held, in words."""
    held = [one for _, one in found]
    sources = len(sources_of(each.ratio for each, _ in found))
    return f"{share(held):.0%} of {sources} sources and {sum(o.held for o in held)} of {len(held)} steps"


def held_by_others(found: Sequence[LeftOut]) -> list[bool]:
    """Whether each run left out of the fit lies inside an interval that its source had no part in."""
    inside: dict[int, bool] = {}
    for source, items in by_source(found).items():
        others = [each for each in firsts() if each.source != source]
        taken = rule_of(others, constants().spread)["all"]
        for item in items:
            below, above = halves(item.thin, item.staged, taken)
            inside[id(item)] = -below <= item.ratio <= above
    return [inside[id(item)] for item in found]


TEXT = """\
Widths rest on first predictions of steps that state their set-up, sources counting the same: {sources} sources,
{runs} steps. Each row is a candidate of a rule: the sets that were known give widths, **the next set judges them**
(the first judges none). `high over low` is a geometric mean, the score that of Gneiting and Raftery (2007) in
logarithms, the width and 20 times by how much a measurement lies outside; less is better. Kinds of their own need ten
sources. The first row has the intervals that came with the predictions.
"""
AFTER = """
The chosen rule goes from {low:.2f} to {high:.2f} times the estimate, where host time and communication add nothing,
for every kind of step. No kind is known to be safer: by accelerator and by tokens the ends come out the same, by GPUs
or method they are further off, since kinds of so few sources need nearly all of them. Steps that take far longer than
predicted are commoner than far faster ones, so that the upper end lies further off. The first table's sources, left
out of the fit, would have helped as time went, when sets were few; with them today's ends are {table_low:.2f} and
{table_high:.2f}. They have no part, as the formula was made of them; nor have guessed set-ups, as whoever asks knows
his own. Ends of all other sources hold {others:.0%} of a source's stated steps, and {guessed:.0%} where the set-up is
guessed ({n_guessed} sources). The rule was chosen knowing all of these sets.

**The fifth set judges it**, having no part in it: it holds {fifth}, {fifth_guessed} where something is guessed. The
intervals that came with the predictions held {fifth_then:.0%} and {guessed_then:.0%}.
"""


def _row(name: str, found: Sequence[tuple[First, Judged]], guessed: Sequence[tuple[First, Judged]]) -> str:
    parts = [[one for _, one in found if one.found == each] for each in SETS[1:]]
    parts += [[one for _, one in found]]
    tests: list[Callable[[First], bool]] = [
        lambda each: each.evidence == "known", lambda each: each.evidence != "known",
        lambda each: each.gpus == 1, lambda each: each.gpus > 1,
    ]  # fmt: skip
    parts += [[one for each, one in found if test(each)] for test in tests]
    parts += [[one for _, one in guessed]]
    every = [one for _, one in found]
    wide = math.exp(mean(every, [one.width for one in every]))
    cells = [*(f"{share(part):.0%}" for part in parts), f"{wide:.2f}", f"{score_of(every):.2f}"]
    return f"| {name} | {' | '.join(cells)} |"


def widths_table(without: Sequence[LeftOut] = ()) -> Iterable[str]:
    """Candidates as time went, and what the chosen one comes to."""
    stated = [each for each in firsts() if each.stated]
    yield TEXT.format(sources=len(sources_of(each.ratio for each in stated)), runs=len(stated))
    yield (
        "| rule | second set | third | fourth | all | accelerator fitted on | not | one GPU | several | "
        "guessed | high over low | score |"
    )
    yield "|---|" + "---|" * 11
    rest = [each for each in firsts() if each.found != LATER]
    then = [[(each, as_then(each)) for each in rest if each.stated is known] for known in (True, False)]
    yield _row("as it came", *then)
    for name, recipe in CANDIDATES.items():
        yield _row(name, in_order(recipe), in_order(recipe, stated=False))
    table = of_table(without)
    if not table:
        return
    yield _row("chosen, on the first table too", in_order(CHOSEN, table), in_order(CHOSEN, table, False))
    below, above = ends_of(stated)
    more = ends_of([*stated, *table])
    others, guessed = without_own(), without_own(stated=False)
    yield AFTER.format(
        low=math.exp(-below), high=math.exp(above), table_low=math.exp(-more[0]), table_high=math.exp(more[1]),
        others=share([one for _, one in others]), guessed=share([one for _, one in guessed]),
        n_guessed=len(sources_of(each.ratio for each, _ in guessed)),
        fifth=held_said(by_shipped(UNSEEN)), fifth_guessed=held_said(by_shipped(UNSEEN, stated=False)),
        fifth_then=share([as_then(each) for each in firsts((UNSEEN,)) if each.stated]),
        guessed_then=share([as_then(each) for each in firsts((UNSEEN,)) if not each.stated]),
    )  # fmt: skip


def main() -> None:
    """Show the candidates, or a set."""
    names = sys.argv[1:]
    for name in names:
        for stated in (True, False):
            found = by_shipped(name, stated)
            print(name, "stated" if stated else "guessed", f"{len(found)} steps", end=" ")
            print(f"of {len(sources_of(each.ratio for each, _ in found))} sources,", end=" ")
            print(f"{share([one for _, one in found]):.0%} of sources held" if found else "none")
            for source in sources_of(each.ratio for each, _ in found):
                own = [one for each, one in found if each.source == source]
                print(f"    {source}: {sum(one.held for one in own)} of {len(own)}")
    if not names:
        print("\n".join(widths_table()))


if __name__ == "__main__":
    main()
