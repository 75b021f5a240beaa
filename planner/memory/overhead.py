"""What a GPU holds beyond what torch allocates for the step, and how far an estimate may be off."""

from __future__ import annotations

from ..moments import ALLOCATOR, Item, MemoryEstimate
from ..setup import Setup

CONTEXT_BYTES = 520 * 2**20  # CUDA's context and the libraries' kernels on one GPU
SLACK = 0.06  # reserved beyond allocated, as a share of it
COMMUNICATION_BYTES = 300 * 2**20  # NCCL's channels and buffers, where GPUs talk to each other
LOW, HIGH = 0.90, 1.15


def overhead(setup: Setup, allocated: int) -> tuple[Item, ...]:
    """The allocator's slack, the context, and buffers of communication."""
    items = [
        Item("overhead", ALLOCATOR, round(SLACK * allocated)),
        Item("overhead", "CUDA context", CONTEXT_BYTES),
    ]
    if setup.gpus > 1:
        items.append(Item("overhead", "communication buffers", COMMUNICATION_BYTES))
    return tuple(items)


def interval(found: MemoryEstimate) -> tuple[int, int]:
    """Bounds that hold for nine in ten published measurements."""
    return round(LOW * found.per_gpu_bytes), round(HIGH * found.per_gpu_bytes)
