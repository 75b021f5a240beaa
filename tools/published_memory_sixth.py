"""The sixth set of published memory: predicted twice, both times before anybody had looked into a row of it.

First by the program as it stood when the rows were collected, then, with the same commands, by the program whose
rules had been mended for the fifth set by people who had not seen these rows (data/measured/memory_later_again.csv).
Both stand; only then was it learnt from, and what is predicted now stands beside them.
"""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence

from planner import facts
from tools.published_memory_later import RUN, Later, Said, as_said, blind, inside, later, right, said_of
from tools.published_memory_later_page import FOURTH_ROWS, Test, cells, of, sources_of

AGAIN = "memory_later_again.csv"
SIXTH = "sixth"
HEAD = (
    "| measurements | runs | blind: median error | 90th percentile | within interval | blind again, after the fifth "
    "set's mends: median error | 90th percentile | within interval | now: median error | 90th percentile | "
    "within interval |"
)
TEXT = """\
{n} cases of {sources} publishers of whom no other set has anything, collected from what they say alone; most
use trainers that had no profile here (prime-rl, a loop of one's own, LLaMA-Recipes of 2024), as a user's often
has none, and the nearest was typed. The commands were written and kept first. Then they were predicted,
**blind**, by the program as it was; meanwhile rules were mended for the fifth set by people who had not seen
these cases; then the same commands were predicted by the mended program, **blind again**
([both](../data/measured/{again})). Both stand: what was learnt from these cases came after, and **now** has it.
The interval of today rests on the first of these predictions too, as on those of the sets before; no constant rests
on them. Lengths are stated where sequences are filled, padded or packed to them; a trainer's cap alone is not a
length. What was changed on seeing them, each by the trainers' code: a profile `llama-recipes-2024`, of which
float32 weights are sharded and gathered in 16 bits, without the cache and the scores that its code of 2023 held;
`universal-llm-trainer`, which calls the model without labels, takes the loss from 16-bit logits (three copies of
two bytes each, where a loop with the model's own loss holds 14 bytes a logit) and hands SDPA a mask. transformers
4.49 runs Gemma 2 by SDPA without capping the scores, which no option says: typed is `--attention-kernel flash`. The
table's "GiB" of the model alone are torch's reserved bytes by 10^9 (src/utils/__init__.py, print_mem_consumption);
those of the peak are taken as they stand, and would be 7% lower in the same unit; and
profiles `prime-rl` and `prime-rl-sft`, with a loss by pieces of the vocabulary, FSDP on one GPU too, and four
adapters of rank 16 typed as one of rank 64 without states (no run is registered in its benchmark, so that no
optimizer is made for one); an adapter that FSDP's mixed precision gathers in 16 bits, like the rest; and
`trl-0.24` for TRL before it took its loss by pieces. ChatGLM-Finetuning pins torch 1.13, which has no fused
attention, and runs one unpadded sample at a time (`--attention-kernel eager --lengths-vary`); DeepSpeed's float16
has float32 masters. Two readings of figures were corrected, and the errors of their first predictions with them: the
unit of ai-learner-1429's (GiB, taken as GB), and that of NguyenNgocChien-01 (14.4 GiB; 11.5 was an older page's,
of a run on other data). A row that is not explained says so in the list below.
"""
Pair = tuple[Later, Said]


def again() -> Mapping[int, Said]:
    """The second predictions."""
    return as_said(csv.DictReader(io.StringIO(facts.read_data("measured", AGAIN))))


def both(name: str = SIXTH) -> tuple[list[Pair], list[Pair]]:
    """A set's cases with their first and with their second predictions."""
    first, second = blind(), again()
    cases = [case for case in later() if case.found == name]
    return [(c, first[c.number]) for c in cases], [(c, second[c.number]) for c in cases]


def now(name: str = SIXTH) -> list[Pair]:
    """A set's cases as they are predicted now."""
    return [(case, said_of(case)) for case in later() if case.found == name]


def _line(name: str, test: Test, found: Sequence[Sequence[Pair]]) -> list[str]:
    chosen = [of(each, test) for each in found]
    if not chosen[0]:
        return []
    return [f"| {name} | {len(chosen[0])} | {' | '.join(cells(each) for each in chosen)} |"]


def middle(found: Sequence[Pair]) -> str:
    """The median over sources of their median errors."""
    groups = [of(found, test) for _, test in sources_of(found)]
    errors = [statistics.median(abs(s.predicted / c.measured - 1) for c, s in group) for group in groups]
    return f"{100 * statistics.median(errors):.1f}%"


def section() -> list[str]:
    """The lines of the section."""
    found = (*both(), now())
    names = {case.source.removesuffix(", reserved") for case, _ in found[0]}
    rows = (*FOURTH_ROWS, *sources_of(found[0]))
    run = [[right(c, s) for c, s in each if c.metric in RUN] for each in found]
    return [
        "## A sixth set, predicted twice", "",
        TEXT.format(n=len(found[0]), sources=len(names), again=AGAIN),
        HEAD, "|---|" + "---|" * 10,
        *(line for name, test in rows for line in _line(name, test, found)),
        "",
        (
            f"The median over sources of their median errors: {middle(found[0])}, again {middle(found[1])}, now "
            f"{middle(found[2])}. Of {len(run[0])} run of which only is known that it did not fit: {sum(run[0])} "
            f"right, again {sum(run[1])}, now {sum(run[2])}."
        ),
        "",
    ]  # fmt: skip


def held(found: Sequence[Pair]) -> float:
    """The share of figures with everything stated that their interval holds."""
    chosen = [(c, s) for c, s in found if c.stated and c.metric not in RUN]
    return sum(inside(c, s) for c, s in chosen) / len(chosen)
