"""The eighth set of published memory: tables, plots and logs of trainers and libraries, with their set-ups told.

Predicted once, blind, by the program as it stood (data/measured/memory_later_blind.csv), after every command had been
read a second time against its source. The intervals do not rest on it.
"""

from __future__ import annotations

from collections.abc import Sequence

from tools.published_memory_later import Later, blind, later
from tools.published_memory_later_page import FOURTH_ROWS, HEAD, Pair, Test, cells, of, sources_of
from tools.published_memory_seventh import TRAINERS
from tools.published_memory_sixth import middle, now

EIGHTH = "eighth"
TEXT = """\
{n} figures of {sources} sources, sought as the given table's are: tables, plots and logs that libraries, trainers'
guides, benchmark folders, pull requests and model cards print beside the command or config that made them. No page
that another set has was taken; {again} figures are of publishers that another set has, from other pages. At most six
of a project were taken, spread over its variants. Commands, and whether batch, lengths and checkpointing follow from
text or script, were written from the sources alone, read once more against them, and kept; then they were predicted
once, **blind**, by the program and the intervals of 229d4c8. No interval and no constant rests on them. Of {unnamed}
sources the GPU is not known, and the bars of LinkedIn's plot are read to a pixel. Which profiles are stand-ins was
told from titles and versions, after the predictions had been compared.
What was changed on seeing them, by the code of then:
{changed}
"""
CHANGED = """\
a profile `alpaca-lora-2023` for scripts after alpaca-lora's finetune.py (Baize, Huatuo), for which transformers'
Trainer up to 4.45 had been typed: their model has `use_cache` False, so that an evaluation fills no cache, and PEFT
0.3 leaves Llama's embeddings and norms in 16 bits; a profile `nemo-1` for NeMo 1, for which that of Megatron-Bridge
had been typed: its Llama has an activation of operations, whose result is kept, Transformer Engine's attention copies
several sequences to another order and back, and the loss is taken in float32.
Read and not explained in full: Llama 3 8B under Megatron-LM (core_v0.6.0; rows 670 to 673, 0.81 to 0.93, and six
more of that README's, by hand). By its script, dropout of 0.1 keeps two masks of a byte a hidden value and layer,
2.1 GB over the tensor-parallel GPUs, which no option says. By hand, with states, what Transformer Engine keeps and
these masks, 7 to 16 GB are missing on all seven set-ups with tensor parallelism, and -7 to 5 GB on the three
without. What tensor parallelism gathers and reduces is recorded on NCCL's stream, so that its memory cannot be had
again until the GPU has caught up with the program (torch before spring 2025, pytorch's pull request 76861 and
torchtitan's 737, unless TORCH_NCCL_AVOID_RECORD_STREAMS is set, which neither script nor README does): of one
micro-batch's forward pass four tensors a layer, 8.6 GB for all 32. How much of it that is depends on time, and no
constant is fitted to it."""


def seen_before(case: Later) -> bool:
    """Whether its publisher has a page in an earlier set."""
    return case.notes.startswith("again")


def named(case: Later) -> bool:
    """Whether the command names a profile."""
    return "--trainer " in case.options


OWN, OTHER = (test for _, test in TRAINERS)
ROWS: tuple[tuple[str, Test], ...] = (
    ("LoRA, stated or not", lambda c: c.method == "lora"),
    ("QLoRA, stated or not", lambda c: c.method == "qlora"),
    ("publishers of earlier sets", seen_before),
    ("the trainer's own profile", lambda c: named(c) and OWN(c)),
    ("a stand-in, or a profile of a sort of programs", lambda c: named(c) and OTHER(c)),
    ("no profile", lambda c: not named(c)),
)


def first() -> list[Pair]:
    """The set's cases with their first predictions."""
    said = blind()
    return [(case, said[case.number]) for case in later() if case.found == EIGHTH]


def _line(name: str, test: Test, found: Sequence[Sequence[Pair]]) -> list[str]:
    chosen = [of(each, test) for each in found]
    return [f"| {name} | {len(chosen[0])} | {' | '.join(map(cells, chosen))} |"] if chosen[0] else []


def section(changed: str = CHANGED) -> list[str]:
    """The lines of the section."""
    found = (first(), now(EIGHTH))
    cases = [case for case, _ in found[0]]
    counts = {
        "n": len(cases),
        "sources": len({case.source for case in cases}),
        "again": sum(map(seen_before, cases)),
        "unnamed": len({case.source for case in cases if not case.gpu}),
    }
    return [
        "## An eighth set, predicted blind", "",
        TEXT.format(**counts, changed=changed),
        HEAD, "|---|" + "---|" * 7,
        *(line for name, test in (*FOURTH_ROWS, *ROWS, *sources_of(found[0])) for line in _line(name, test, found)),
        "",
        f"The median over sources of their median errors: blind {middle(found[0])}, now {middle(found[1])}.",
        "",
    ]  # fmt: skip
