"""What torch's context parallelism adds to attention: keys and values of all GPUs that share a sequence."""

from __future__ import annotations

from .passes import FLOAT32, Pass
from .tape import Size, Value


def gathered(
    run: Pass, q: Value, k: Value, v: Value, result: Size
) -> tuple[tuple[Size, ...], tuple[Size, ...]]:
    """Bytes that stand while attention runs, and on its way back: keys and values of all GPUs, with this one's joined
    to be sent; a float32 `result` (its values) and what is merged into it; on the way back float32 sums of the three
    gradients and those of keys and values on their way round. Nothing where keys are not gathered.
    (torch 2.13, torch/distributed/tensor/experimental/_context_parallel/_attention.py: _templated_ring_attention and
    its backward, _AllGatherRotater, which is the default.)"""
    if run.ring == 1:
        return (), ()
    of_keys = k.bytes + v.bytes
    around = of_keys * (run.ring + 1)
    sums = (q.bytes + 3 * of_keys) * (FLOAT32 / v.width)
    return (around, 2 * FLOAT32 * result), (around, sums)
