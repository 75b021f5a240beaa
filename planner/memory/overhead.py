"""What a GPU holds beyond what torch allocates for the step, and how far an estimate may be off.

The constants are fitted on part of the published measurements by `tools/compare_memory.py --fit`, which prints
them; the
rest judges them (docs/memory.md).
"""

from __future__ import annotations

from ..moments import Item, MemoryEstimate
from ..setup import Setup

CONTEXT_BYTES = 550_000_000  # CUDA's context and the libraries' kernels on one GPU
COMMUNICATION_BYTES = 900_000_000  # NCCL's channels and buffers, where GPUs talk to each other
CACHED_APART = 0.8  # of the transient bytes of the smaller phases
CACHED_GATHERED = 2.0  # of a gathered unit and what stays gathered
LOW, HIGH = 0.94, 1.06  # of what is needed


def overhead(setup: Setup) -> tuple[Item, ...]:
    """What no set-up does without: the context, and buffers of communication."""
    items = [Item("overhead", "CUDA context", CONTEXT_BYTES)]
    if setup.gpus > 1:
        items.append(Item("overhead", "communication buffers", COMMUNICATION_BYTES))
    return tuple(items)


def cached(setup: Setup, apart: int, whole_units: int) -> int:
    """Bytes that the caching allocator keeps beyond what is allocated at the peak, where the GPU has room for them.

    Blocks that served one phase of the step (layers, the unembedding with its loss, the update) seldom serve another,
    so that most of the smaller phases' transient bytes (`apart`) come on top; blocks of gathered units live on a
    stream of their own.
    """
    return round(CACHED_APART * apart + (CACHED_GATHERED * whole_units if setup.gpus > 1 else 0))


def interval(found: MemoryEstimate) -> tuple[int, int]:
    """Bounds that hold for nine in ten published measurements of allocated memory: from what is needed, less
    the error of
    the estimate, to what an allocator with room for it takes."""
    return round(LOW * found.per_gpu_bytes), round(HIGH * found.per_gpu_bytes) + found.cached_bytes
