"""What a measured peak tells, as tables of docs/memory-published.md."""

from __future__ import annotations

import math
from collections.abc import Iterator
from itertools import permutations
from typing import Any

import numpy as np

from planner.memory.constants import constants
from planner.memory.interval_kinds import MEASURED, NAMED, UNNAMED
from tools.interval_fit import OFFLOADED, Ends, Rule, held_by_others, quantile
from tools.memory_calibrated import (
    CHOSEN,
    FORMS,
    NOTHING,
    SINCE,
    Judged,
    Made,
    Pair,
    figures,
    pairs_of,
    same_model,
)
from tools.published_memory_later import first_ratios

HEAD = """
## With a measured peak

`lora-plan calibrate --peak` takes one measured peak and corrects estimates of the same model, trainer, method,
sharding and loss, on one GPU or on several. Every figure of the first predictions above takes its turn as the
measured one and corrects the others of its source that were predicted by the same profile and measured alike;
offloading is left out, of which one source has two such figures. Pairs of a source count together as one. `off by`
is the factor between what was measured and what is needed that half and nine in ten of the pairs keep. `believed`
is the share of the logarithm of a ratio (of a difference in bytes) that is taken over; it and the GB that are added
above are those of least interval score ([as time went](#as-time-went)), chosen for every source on all others,
which give the interval that it is judged by. First predictions kept no parts of what is needed: those of today's
estimate of the same command stand for them.

| correction | believed | off by: half | nine in ten | low to high | high over low | score | held, sources |
|---|---|---|---|---|---|---|---|"""
AFTER_FORMS = """
The first row's interval is made of the same figures in the same way, without a correction. A ratio tells more than
a difference in bytes, and more where what follows from the set-up alone is left out of it: {sources} sources can
hardly tell the last three apart, and the one that had the least score when it was chosen stays.
A ratio is not believed whole: what one run has of its own, others do not.

What a peak tells of others of its source, by what these have in common with it, with that correction:

| the other is of | sources | figures | pairs | off by before: half | nine in ten | after: half | nine in ten | \
score before | after |
|---|---|---|---|---|---|---|---|---|---|"""
AFTER_PLACES = """
Of another model, method, sharding, split over GPUs or loss, or of several GPUs for one, a peak tells next to
nothing: figures are off by nearly as much as before. So it corrects and narrows the same model's alone; batch,
length, rank, checkpointing, kernels, precision and the number of several GPUs may change. Several peaks are
averaged, and the interval is that after one.

How often intervals hold the others of the same model. *Before* is the interval of the kind of set-up, *after* the one
after a peak, each made of all other sources (of the sets since, and of another metric, those that ship; these sets no
interval rests on). What ships reaches no further than the interval before would around the corrected estimate. Few
sources vary the length or the micro-batch, and of these fewer are held than is stated.

| | sources | pairs | before: high over low | held, pairs | held, sources | after: high over low | held, pairs | \
held, sources |
|---|---|---|---|---|---|---|---|---|"""
PLACES = (
    "the same model, method, sharding, split and loss, one GPU or several alike", "another model",
    "another method, sharding, split or loss, or one GPU for several",
)  # fmt: skip
MARKS = {
    "trainer known": NAMED, "trainer not known": UNNAMED, "one GPU": "one GPU", "several GPUs": "several GPUs",
    "LoRA": "method lora", "QLoRA": "method qlora", "full fine-tuning": "method full",
    "allocated was measured": "measured allocated", "reserved": "measured reserved",
    "what the driver shows": "measured device",
}  # fmt: skip
DIFFERING = {
    "of another length": "seq_len", "of another micro-batch": "micro_batch",
    "with other checkpointing": "checkpointing", "on another number of GPUs": "gpus",
    "with another optimizer": "optimizer",
}  # fmt: skip
Array = Any


def _factor(logs: Array, weights: Array, part: float) -> str:
    return f"{math.exp(quantile(np.abs(logs), weights, part)):.2f}"


def _before(judged: Judged) -> tuple[str, str]:
    """The factor that half and nine in ten keep without a correction."""
    logs = [math.log(pair.other.ratio.low) for pair in judged.pairs]
    half, most = (_factor(np.array(logs), judged.weights, part) for part in (0.5, 0.9))
    return half, most


def _after(judged: Judged) -> tuple[str, str]:
    off = judged.off()
    return _factor(off, judged.weights, 0.5), _factor(off, judged.weights, 0.9)


def _wide(judged: Judged) -> Array:
    """The width of the interval that other sources give, in logarithms."""
    return judged.left_out(
        lambda made: made.below + made.above + judged.logs(made.share, made.extra_bytes)[2]
    )


def _form_rows(pairs: list[Pair]) -> Iterator[str]:
    for name, form in FORMS.items():
        found = Judged(pairs, form)
        made = found.chosen(found.all)
        ends = f"{math.exp(-made.below):.2f} to {math.exp(made.above):.2f}, {made.extra_bytes / 1e9:g} GB"
        wide = math.exp(found.mean(_wide(found), found.all))
        score = found.mean(found.left_out(found.score), found.all)
        held = found.mean(found.held(), found.all)
        believed = "" if name == NOTHING else f"{made.share:g}"
        shown = f"**{name}**" if name == CHOSEN else name
        off = " | ".join(_after(found))
        yield f"| {shown} | {believed} | {off} | {ends} | {wide:.2f} | {score:.2f} | {held:.0%} |"


def _place_rows(every: list[Pair]) -> Iterator[str]:
    for place, name in enumerate(PLACES):
        pairs = [pair for pair in every if pair.place == place]
        after, before = Judged(pairs, FORMS[CHOSEN]), Judged(pairs, FORMS[NOTHING])
        number = len({pair.other.case.number for pair in pairs})
        scores = (f"{one.mean(one.left_out(one.score), one.all):.2f}" for one in (before, after))
        cells = (*_before(after), *_after(after), *scores)
        yield f"| {name} | {len(after.sources)} | {number} | {len(pairs)} | {' | '.join(cells)} |"


def _shipped() -> tuple[Rule, Made]:
    known = constants()
    rule = Rule({i.kind: Ends(i.low, i.high, i.sources, i.runs, i.extra_bytes) for i in known.intervals})
    own = known.of_kind(MEASURED)
    return rule, Made(known.measured_share, own.extra_bytes, -math.log(own.low), math.log(own.high))


def _row(
    name: str, judged: Judged, among: Array, before: tuple[Array, Array], after: tuple[Array, Array]
) -> str:
    """A row of how intervals hold: widths in logarithms and what is held, before and after."""
    sources = len(set(judged.origin[among].tolist()))
    cells = [name, str(sources), str(int(among.sum()))]
    for wide, held in (before, after):
        cells += [
            f"{math.exp(judged.mean(wide, among)):.2f}", f"{np.mean(held[among]):.0%}",
            f"{judged.mean(held, among):.0%}",
        ]  # fmt: skip
    return f"| {' | '.join(cells)} |"


def _by_rule(judged: Judged, rule: Rule) -> tuple[Array, Array]:
    """Widths and what is held by the interval of kinds."""
    ratios = [pair.other.ratio for pair in judged.pairs]
    return np.array([sum(rule.logs(each)) for each in ratios]), np.array(
        [rule.holds(each) for each in ratios]
    )


def _by_shipped(judged: Judged, made: Made) -> tuple[Array, Array]:
    """Widths and what is held by the interval after a peak that ships."""
    wide = made.below + made.above + judged.logs(made.share, made.extra_bytes)[2]
    return wide, judged.outside(made) <= 1e-12


def _other_metric() -> Judged:
    """Pairs of which the one measured is of what torch allocates, the other of what it reserves."""
    found = [each for each in figures() if each.ratio.kind not in OFFLOADED]

    def alike(pair: Pair) -> bool:
        both = pair.one, pair.other
        one, other = (tuple(word for word in each.alike if word != each.case.metric) for each in both)
        metrics = pair.one.case.metric, pair.other.case.metric
        return metrics == ("allocated", "reserved") and one == other and pair.place == 0

    return Judged([pair for two in permutations(found, 2) if alike(pair := Pair(*two))], FORMS[CHOSEN])


def _held_rows() -> Iterator[str]:
    judged = same_model()
    rule, made = _shipped()
    first = list(first_ratios())
    held = {
        case.number: ok for (case, _), ok in zip(first, _in_order([each for _, each in first]), strict=True)
    }
    before = _by_rule(judged, rule)[0], np.array([held[pair.other.case.number] for pair in judged.pairs])
    after = _wide(judged), judged.held()
    yield _row("all", judged, judged.all, before, after)
    for name, mark in MARKS.items():
        among = np.array([
            pair.other.ratio.kind in mark if isinstance(mark, tuple) else mark in pair.other.ratio.about
            for pair in judged.pairs
        ])  # fmt: skip
        yield _row(name, judged, among, before, after)
    for name, field in DIFFERING.items():
        among = np.array([getattr(p.one.setup, field) != getattr(p.other.setup, field) for p in judged.pairs])
        yield _row(name, judged, among, before, after)
    others = {"reserved, where allocated was measured": _other_metric(), "the sets since": same_model(SINCE)}
    for name, other in others.items():
        yield _row(name, other, other.all, _by_rule(other, rule), _by_shipped(other, made))


def _in_order(ratios: list[Any]) -> list[bool]:
    """Whether intervals of all other sources hold each, in the order of the ratios."""
    held = {id(each): ok for each, ok in held_by_others(ratios)}
    return [held[id(each)] for each in ratios]


def measured_section() -> list[str]:
    """The section of the page."""
    every = pairs_of(figures())
    same = [pair for pair in every if pair.place == 0]
    lines = [
        HEAD,
        *_form_rows(same),
        AFTER_FORMS.format(sources=len(same_model().sources)),
        *_place_rows(every),
    ]
    return [*lines, AFTER_PLACES, *_held_rows()]
