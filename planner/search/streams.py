"""What streams of FSDP's own keep of the allocator's memory, of many adapters and micro-batches at once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..memory.caching import Pools
from ..memory.course import GRADIENTS

Array = npt.NDArray[np.float64]


def streams_at(
    pools: Sequence[Pools], of: Callable[[Sequence[float]], Any], found: Sequence[tuple[list[str], Array]],
    moments: Array,
) -> Any:  # fmt: skip
    """`memory.caching.streams_bytes` at every point: of each adapter's `pools`, which `of` lays over the points, and
    of what the highest moment of each phase holds, by label (`found`) and in all."""
    if not any(each.gradients or each.gathered for each in pools):
        return 0.0
    gradients, gathered, unit, standing = (
        np.asarray(of([getattr(each, name) for each in pools]), float)
        for name in ("gradients", "gathered", "unit", "standing")
    )
    reduced, whole = (_held(found, names, moments) for names in (GRADIENTS, ("gathered",)))
    used = np.minimum(unit, np.maximum(whole - standing, 0))
    free = gradients - np.minimum(gradients, reduced) + gathered - used
    return (moments + free).max(axis=0) - moments.max(axis=0)


def _held(found: Sequence[tuple[list[str], Array]], names: Sequence[str], moments: Array) -> Array:
    """Bytes of these labels by phase and point."""
    each = np.zeros_like(moments)
    for phase, (labels, held) in enumerate(found):
        each[phase] = sum(held[labels.index(name)] for name in names if name in labels)
    return each
