"""Words on memory that several pages say."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .. import units

SPLIT = {"tensor": "tensor_parallel", "pipeline": "pipeline_parallel"}
SHARED = {"a sequence": "sequence_parallel", "share the experts": "expert_parallel"}


def fewest(found: dict[str, Any] | None) -> tuple[str, str]:
    """The fewest GPUs on which a method fits, and how: its sharding, layers computed again, GPUs of a sequence and
    those over which experts are spread, or of every matrix and stages, where the run's own layout is the least."""
    if found is None:
        return "over 4,096", ""
    how = [] if found["sharding"] == "none" else [found["sharding"]]
    how += ["recomputing"] if found["checkpointing"] != "none" else []
    how += [f"{name} {found[key]}" for name, key in SPLIT.items() if found[key] > 1]
    shared = [f"{found[key]} {what}" for what, key in SHARED.items() if found[key] > 1]
    return f"{found['gpus']:,}", "\n".join([", ".join(how), *shared])


def memory_of(corrected: Mapping[str, Any] | None) -> str:
    """The sentence on what memory is made of, and how measured peaks correct it."""
    if corrected is None:
        return "analytic: memory is a sum over what a step holds."
    return (
        "fitted: memory is a sum over what a step holds, of which gradients, activations, logits and buffers are "
        f"taken {corrected['factor']:.3g} times, by {units.counted(corrected['peaks'], 'measured peak')} of your own "
        "of this model and trainer."
    )
