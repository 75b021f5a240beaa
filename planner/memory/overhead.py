"""What a GPU holds beyond what torch allocates for the step, and how far an estimate may be off."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..moments import BEFORE, Interval, Item, MemoryEstimate, Moment
from ..setup import Setup
from ..trainers import known as trainer_known
from .constants import Constants, constants
from .interval_kinds import NARROWER

# Of the blocks that grow with the length, what each length that was the longest so far leaves reserved: by torch's
# allocator itself 0.87 in the middle of simulated passes over many spreads (tools/lengths_kept.py); of the lengths of
# one published benchmark 0.6, and 0.5 by its 21 figures (tools/reserved_by_lengths.py --every). In between.
KEPT_OF_RECORDS = 0.65


def overhead(setup: Setup, known: Constants | None = None) -> tuple[Item, ...]:
    """What no set-up does without: the context, and buffers of communication."""
    known = known or constants()
    items = [Item("overhead", "CUDA context", round(known.context_bytes))]
    if setup.gpus > 1:
        items.append(Item("overhead", "communication buffers", round(known.communication_bytes)))
    return tuple(items)


def cached(setup: Setup, apart: int, whole_units: int, varied: int, known: Constants | None = None) -> int:
    """Bytes that the caching allocator keeps beyond what is allocated at the peak, where the GPU has room for them.

    Blocks that served one phase of the step (layers, the unembedding with its loss, the update) seldom serve another,
    so that much of the smaller phases' transient bytes (`apart`) comes on top; blocks of gathered units live on a
    stream of their own. Where lengths vary, blocks of one length seldom serve another: much of what grows with the
    length (`varied`) is held several times over (`times_kept`).
    """
    known = known or constants()
    gathered = known.cached_gathered * whole_units if setup.gpus > 1 else 0
    return round(known.cached_apart * apart + gathered + times_kept(setup, known) * varied)


def times_kept(setup: Setup, known: Constants) -> float:
    """How many times over what grows with the length is kept for other lengths than the one that runs: where data
    tell them, KEPT_OF_RECORDS of each that was the longest so far; else as published runs had it.

    None is in expandable segments, which map memory where it is wanted (pytorch v2.13, docs/source/notes/cuda.rst,
    expandable_segments). Neglects the order in which lengths come, which may make it half or twice as much, and which
    blocks of one length serve another: of each record 0.35 to 1.2 were kept.
    """
    if not setup.lengths_vary or setup.expandable_segments:
        return 0.0
    if not setup.length_records:
        return known.cached_varied
    return KEPT_OF_RECORDS * _between(setup.length_records, setup.sequences)


def _between(powers: Sequence[float], number: int) -> float:
    """What is told at 1, 2, 4, ... at another number, in straight lines, and beyond the last as there."""
    low = number.bit_length() - 1
    if low + 1 >= len(powers):
        return powers[-1]
    return powers[low] + (powers[low + 1] - powers[low]) * (number / (1 << low) - 1)


def beyond_peak(moments: Iterable[Moment], step_cached: int, before: int) -> int:
    """Bytes that the allocator has taken at the most beyond the peak, where the GPU has room: max(peak of the steps +
    `step_cached`, `before`) - peak, with all that it had taken before the first step.

    Freed blocks serve what is no larger. Neglected: a step's blocks that are larger than every weight (eager scores
    or logits of long batches) are taken beside those that loading left.
    """
    sizes = [(moment.bytes, moment.phase in BEFORE) for moment in moments]
    steps = max((size for size, early in sizes if not early), default=0)
    return max(steps + step_cached, before, *(size for size, _ in sizes)) - max(size for size, _ in sizes)


def kind_of(setup: Setup, lengths_open: bool = False, named: bool | None = None) -> str:
    """Which published measurements tell how far an estimate may be off: those with states or parameters in the host's
    memory, whoever trains; those of a trainer without a profile of its own, on one GPU or several; and of a trainer
    with one (`named`, by default whether the set-up names such): with matrices, layers, experts or sequences split
    over GPUs, on several GPUs otherwise, or on one. Of the latter two, apart from others, those whose lengths vary or
    are not stated (`lengths_open`); of one GPU with lengths stated, apart from QLoRA, full fine-tuning and what
    nobody measured (preferences, GRPO), LoRA."""
    several = setup.gpus > 1
    if setup.offload != "none":
        return "offloaded"
    if not (trainer_known(setup.trainer) if named is None else named):
        return "unnamed-several" if several else "unnamed"
    if setup.tensor_parallel * setup.pipeline_parallel * setup.expert_parallel * setup.sequence_parallel > 1:
        return "split"
    if lengths_open or setup.lengths_vary:
        return "shared-open" if several else "open"
    if several:
        return "shared"
    return "alone-lora" if setup.method == "lora" and setup.objective == "sft" else "alone"


def bounds_of(
    needed: int,
    cached_bytes: int,
    setup: Setup,
    known: Constants | None = None,
    kind: str = "",
    stated: int = 0,
) -> tuple[int, int, Interval]:
    """Bounds that are to hold the stated share of measured peaks, and what they rest on: from what is needed, less
    the error of the estimate, to what an allocator with room for it takes, by the set-up's kind unless another is
    given. Above, the kind's `extra_bytes` count as needed: what is not known of a program is more than a share of a
    small model. `stated` bytes of what is needed are taken by definition (vLLM's share), and no error is theirs."""
    needed -= stated
    found = (known or constants()).of_kind(kind or kind_of(setup))
    high = round(found.high * (needed + found.extra_bytes)) + cached_bytes
    return round(found.low * needed) + stated, high + stated, found


def stated_bytes(moment: Moment) -> int:
    """Bytes of a moment that are taken by definition."""
    return sum(item.bytes for item in moment.items if item.part == "vllm")


def within_kind(found: MemoryEstimate, kind: str) -> MemoryEstimate:
    """An estimate within the interval of a kind."""
    low, high, within = bounds_of(
        found.per_gpu_bytes, found.cached_bytes, found.setup, kind=kind, stated=stated_bytes(found.peak)
    )
    return replace(found, low=low, high=high, within=within)


def said_narrower(found: MemoryEstimate) -> str:
    """The sentence on what narrows an estimate's interval, with a space before it; "" where nothing is known to."""
    how = NARROWER[found.within.kind] if found.within else ""
    return f" {how.capitalize()} narrows memory's interval." if how else ""


def with_open_lengths(found: MemoryEstimate) -> MemoryEstimate:
    """An estimate whose length nobody stated, within the interval of measurements of which it was not stated."""
    return within_kind(found, kind_of(found.setup, lengths_open=True))
