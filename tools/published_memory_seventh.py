"""The seventh set of published memory: what people who fine-tune report, sought from what they say alone.

Predicted by the program as it stood before the intervals' rule was made again (data/measured/memory_later_blind.csv),
and, with the same commands, by the program with that rule (memory_later_again.csv), both before anybody had looked
into a row of it. The intervals do not rest on it.
"""

from __future__ import annotations

import re
import statistics
from collections.abc import Sequence

from planner.trainers import known
from tools.published_memory_later import Later, inside, stands_in
from tools.published_memory_later_page import FOURTH_ROWS, Pair, Test, cells, of, sources_of
from tools.published_memory_sixth import both, middle, now

SEVENTH = "seventh"

HEAD = (
    "| measurements | runs | blind: median error | 90th percentile | within interval of then | "
    "within the intervals made without it | now: median error | 90th percentile | within interval |"
)
TEXT = """\
{n} figures of {sources} publishers of whom no other set has anything: users' notebooks and logs with what
torch's allocator had reserved, a course's notes of nvidia-smi, TRL's own notebooks, blogs, tutorials, a benchmark of
several GPUs. At most six of each were taken; a figure that its own source calls illustrative was not. Commands and
whether lengths are stated were written from the sources alone and kept, then predicted **blind**
by the program of c46ee25. Meanwhile the rule of the intervals was made again by people who had not seen these
figures: **within the intervals made without it** judges the same predictions by them
([both](../data/measured/memory_later_again.csv); which profiles are stand-ins was told from titles and versions,
after the predictions had been compared). No interval and no constant rests on them. Lengths are stated where
sequences are filled, padded or packed to them; most notebooks state a cap alone, which was typed.
What was changed on seeing them: {changed}
"""
CHANGED = """\
an evaluation of transformers 4 fills a cache of keys and values, of which accelerate
makes float32 copies up to 4.45 (`eval_cache` of the profiles `hf-trainer-4` and `hf-trainer-4.46`; LLaMA-Pro's
config says `use_cache` false, and its run is the one that did not need it); torch 2.1 for ROCm has no fused
attention in float32 (`--attention-kernel math`); TRL 0.24 has a profile, which came meanwhile, and makes float32
copies of embeddings and unembedding before the first step, which counts; an evaluation of more sequences than
training takes blocks that are larger than those that training left in the allocator's cache, which are kept beside
(the translators' five: 0.78 to 0.91, 0.65 to 0.77 before). Llama-3.2-1B's three runs, whose script is not in its
repository, were typed with one sequence at a time as the 8B's script has it; with
two the figures would be met within 7% (1.00, 0.93, 0.99)."""


def held(found: Sequence[Pair]) -> float:
    """The share of figures that their interval holds."""
    return sum(inside(c, s) for c, s in found) / len(found)


def errors(found: Sequence[Pair]) -> tuple[float, float]:
    """Median and 90th percentile of |predicted / measured - 1|."""
    each = sorted(abs(s.predicted / c.measured - 1) for c, s in found)
    return statistics.median(each), each[min(len(each) - 1, int(0.9 * len(each)))]


TRAINERS: tuple[tuple[str, Test], ...] = (
    ("the trainer's own profile", lambda c: not stands_in(c, now=False) and not _general(c)),
    ("a stand-in, or a profile of a sort of programs", lambda c: stands_in(c, now=False) or _general(c)),
)


def _general(case: Later) -> bool:
    return not all(map(known, re.findall(r"--trainer (\S+)", case.options)))


def _line(name: str, test: Test, found: Sequence[Sequence[Pair]]) -> list[str]:
    first, second, today = (of(each, test) for each in found)
    if not first:
        return []
    return [f"| {name} | {len(first)} | {cells(first)} | {100 * held(second):.0f}% | {cells(today)} |"]


def section(changed: str = CHANGED) -> list[str]:
    """The lines of the section."""
    found = (*both(SEVENTH), now(SEVENTH))
    rows = (*FOURTH_ROWS, *TRAINERS, *sources_of(found[0]))
    return [
        "## A seventh set, predicted blind", "",
        TEXT.format(n=len(found[0]), sources=len({case.source for case, _ in found[0]}), changed=changed),
        HEAD, "|---|" + "---|" * 8,
        *(line for name, test in rows for line in _line(name, test, found)),
        "",
        f"The median over sources of their median errors: blind {middle(found[0])}, now {middle(found[2])}.",
        "",
    ]  # fmt: skip
