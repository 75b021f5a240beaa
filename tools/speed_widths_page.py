"""What docs/speed.md says of widths: candidates of the rule as time went, and what the chosen one comes to.

python -m tools.speed_widths_page       # the same without the rest of the page
python -m tools.speed_widths_page SET   # how often the intervals that ship hold a set's first predictions
"""

from __future__ import annotations

import math
import sys
from collections.abc import Callable, Iterable

from planner.speed.efficiency import constants
from planner.speed.kinds import KIND_WORDS, KINDS, PLACES, RARE
from tools.interval_chain import mean, score_of, share
from tools.interval_fit import FEWEST, sources_of
from tools.speed_firsts import FIVE, SETS, TABLE, First, firsts, left_out_firsts
from tools.speed_fit import halves
from tools.speed_later import NINTH
from tools.speed_widths import (
    ALIKE,
    CANDIDATES,
    SLOW,
    Pairs,
    Recipe,
    as_then,
    by_shipped,
    by_then,
    held_said,
    in_order,
    number_of,
    share_of,
    with_shape_of_all,
    without_own,
)

UNTIL = "all alike, shape from the same sources (until the fifth set)"
TEXT = """\
Widths rest on first predictions of steps that state their set-up and on the first table's sources left out of the
fit, sources counting the same: {sources} sources, {runs} steps, and {table} sources, {table_runs} runs. Each row is a
candidate of a rule. As time went: the sets that were known give widths, **the next set judges them** (the first
judges none). Left out: every source by intervals of all others, first predictions alone, and the kind of those with
ten sources that is held least. `high over low` is a geometric mean, the score that of Gneiting and Raftery (2007) in
logarithms, the width and 20 times by how much a measurement lies outside; less is better. Kinds of their own need ten
sources, others have the widths of all. The first row has the intervals that came with the predictions.

Asked for, before any candidate was tried: that 90% of sources left out are held, of all and in each kind of ten
sources that a rule tells apart, and that kinds of fewer are no narrower than others; of rules that do, the one of
least score as time went. By place, rare or not, has less, but no widths for rare set-ups: it holds {rare:.0%} of
them. More were tried than are shown (trainers, several GPUs against the rest, steps weighed by their share of a
source): none came out better.
"""
WHY = """
Until the fifth set the rule held {before:.0%} of {before_sources} sources left out where it was to hold 90%: its
shape, how far above beside how far below, was taken from the same sources as its width, 5% of them beyond either
end. That is one source of twenty: whoever lay furthest off stretched the shape on its own side, and without it the
others did not reach that far: the very same shape, kept as it is, holds {kept:.0%}. The shape is a number of the
rule since ({slow:g} times as far above as below now, in deviations beside noise), the width alone is
the sources', and noise of host time and communication is counted before widths are made instead of on top of them.
So made, widths alike for all kinds hold {alike:.0%} of the same sources.

From the fifth set to the ninth the interval reached 7 times as far above as below, which five sets had chosen: what
they had taught the formula least were steps slower than predicted. The four sets after them lie as far on the other
side (8-bit products, TF32 that nobody switched on, experts in a loop), and of their sources it held {late:.1%}. So
the rule was made again from eight sets by what was asked before. **The first eight sets and the first table chose
the number and give the widths; the ninth had no part in either and judges them.** What was asked is met but for
{short}: {short_share:.1%} of its {short_sources} sources, of which one is {short_one:.0%};
candidates that come nearer score worse.
"""
KINDS_TEXT = """
The chosen rule, where host time and communication add nothing. The first three kinds are usual set-ups: an
accelerator that constants were fitted on, nothing in the host's memory, no padding under PyTorch's own attention,
2,048 tokens or more of a GPU and pass; their widths are those of all steps at their place. What is rarer has
widths of its own where ten sources are of it, else those of all, and no narrower ones than any usual kind. "Held"
is the mean over sources of the share of each one's steps that intervals of all other sources hold; most usual kinds
are held more often than is stated, as the widths of their place are to hold its rarer steps too.

| kind | | sources | steps | interval | judged by | held |
|---|---|---|---|---|---|---|"""
AFTER = """
One source is {one:.0%} of a kind of {fewest} sources: kinds cannot be told apart to the percent. That several GPUs
of a machine come out narrower than one GPU was found, not expected: on one GPU lie a source that mixes and
tokenises text between steps, one whose own loop reaches half of what others do, and one on an early port to another
maker's GPU; on several machines one whose checkpoints go through the host. Where the set-up is guessed, intervals
hold {guessed:.0%} of {n_guessed} sources; they have no part, as whoever asks knows his own. The rule was chosen
knowing eight sets; the ninth is its test.
"""


def _least(found: Pairs, recipe: Recipe) -> float:
    """Of a rule's kinds with ten sources, the share of the one that is held least."""
    shares = []
    for kind in recipe.kinds.names:
        own = [pair for pair in found if recipe.kinds.of(pair[0]) == kind]
        if number_of(own) >= FEWEST:
            shares.append(share_of(own))
    return min(shares)


def _short() -> dict[str, str | float | int]:
    """The kind with ten sources that is held least, for the text."""
    found = without_own()
    kinds = {kind: [pair for pair in found if pair[0].kind == kind] for kind in KINDS}
    own = {kind: pairs for kind, pairs in kinds.items() if number_of(pairs) >= FEWEST}
    kind = min(own, key=lambda each: share_of(own[each]))
    number, held = number_of(own[kind]), share_of(own[kind])
    words = KIND_WORDS[kind]
    return {"short": words, "short_share": held, "short_sources": number, "short_one": 1 / number}


def _rare(found: Pairs) -> float:
    return share_of(found, lambda each: each.kind in RARE)


def _order_cells(found: Pairs) -> list[str]:
    every = [one for _, one in found]
    parts = [[one for one in every if one.found == name] for name in SETS[1:]]
    wide = math.exp(mean(every, [one.width for one in every]))
    return [*(f"{share(part):.0%}" for part in (*parts, every)), f"{wide:.2f}", f"{score_of(every):.2f}"]


def row_of(name: str, recipe: Recipe) -> str:
    """A candidate."""
    without = without_own(recipe)
    alone = share_of(without, lambda each: each.found != TABLE)
    shares = (share_of(without), alone, _least(without, recipe), _rare(without))
    cells = [*_order_cells(in_order(recipe)), *(f"{each:.0%}" for each in shares)]
    return f"| {name} | {' | '.join(cells)} |"


def kind_rows() -> Iterable[str]:
    """The intervals that ship."""
    known = constants()
    for kind in KINDS:
        below, above = halves(0.0, 0.0, known.spreads[kind])
        rests = known.grounds[kind]
        yield (
            f"| {KIND_WORDS[kind]} | {'usual' if kind in PLACES else 'rare'} | {rests.sources} | {rests.runs} | "
            f"{math.exp(-below):.2f} to {math.exp(above):.2f} | {rests.judged} | {rests.held:.0%} |"
        )


def summary_rows(found: Pairs) -> Iterable[str]:
    """How often intervals of all other sources hold, by what steps are."""
    tests: list[tuple[str, Callable[[First], bool]]] = [
        ("all", lambda each: True),
        ("first predictions", lambda each: each.found != TABLE),
        ("the first table", lambda each: each.found == TABLE),
        ("usual set-ups", lambda each: each.kind in PLACES),
        ("rare set-ups", lambda each: each.kind in RARE),
        ("LoRA and QLoRA", lambda each: each.lora),
        ("full fine-tuning and pretraining", lambda each: not each.lora),
    ]
    yield "\n| steps | sources | steps | held, sources counting the same | steps held |\n|---|---|---|---|---|"
    for name, test in tests:
        own = [(each, one) for each, one in found if test(each)]
        steps = sum(one.held for _, one in own) / len(own)
        yield f"| {name} | {number_of(own)} | {len(own)} | {share_of(own):.0%} | {steps:.0%} |"


def widths_table() -> Iterable[str]:
    """Candidates as time went, and what the chosen one comes to."""
    first, table = [each for each in firsts() if each.stated], left_out_firsts()
    number, beside = (len(sources_of(each.ratio for each in found)) for found in (first, table))
    yield TEXT.format(
        sources=number, runs=len(first), table=beside, table_runs=len(table),
        rare=_rare(without_own(CANDIDATES["by place of the GPUs, rare or not"])),
    )  # fmt: skip
    yield (
        "| rule | second set | third | fourth | fifth | sixth | seventh | eighth | all | high over low | score | "
        "left out: all | first predictions | least kind | rare set-ups |"
    )
    yield "|---|" + "---|" * 14
    then: Pairs = [(each, as_then(each)) for each in first if each.found != SETS[0]]
    yield f"| as it came | {' | '.join(_order_cells(then))} | | | | |"
    for name, recipe in CANDIDATES.items():
        yield row_of(name, recipe)
    until, alike = CANDIDATES[UNTIL], Recipe(ALIKE, table=False)
    before, mended = (without_own(recipe, names=FIVE[:-1]) for recipe in (until, alike))
    yield WHY.format(
        before=share_of(before),
        before_sources=number_of(before),
        slow=SLOW,
        alike=share_of(mended),
        kept=with_shape_of_all(FIVE[:-1]),
        late=share_of([pair for name in (*SETS[len(FIVE) :], NINTH) for pair in by_then(name)]),
        **_short(),
    )
    yield KINDS_TEXT
    yield from kind_rows()
    yield from summary_rows(without_own())
    guessed = without_own(stated=False)
    fewest = min(constants().grounds[place].judged for place in PLACES)
    yield AFTER.format(one=1 / fewest, fewest=fewest, guessed=share_of(guessed), n_guessed=number_of(guessed))


def main() -> None:
    """Show the candidates, or a set."""
    names = sys.argv[1:]
    for name in names:
        for stated in (True, False):
            found = by_shipped(name, stated)
            print(name, "stated" if stated else "guessed", held_said(found) if found else "none")
            for source in sources_of(each.ratio for each, _ in found):
                own = [(each, one) for each, one in found if each.source == source]
                kinds = ", ".join(sorted({KIND_WORDS[each.kind] for each, _ in own}))
                print(f"    {source}: {sum(one.held for _, one in own)} of {len(own)} ({kinds})")
    if not names:
        print("\n".join(widths_table()))


if __name__ == "__main__":
    main()
