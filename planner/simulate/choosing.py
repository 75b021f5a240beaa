"""What selective checkpointing keeps of a layer that is simulated: planner/selective.py says what that is."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils.checkpoint import CheckpointPolicy, create_selective_checkpoint_contexts

from .attention import RESULTS

KEPT, AGAIN = CheckpointPolicy.MUST_SAVE, CheckpointPolicy.PREFER_RECOMPUTE


def contexts() -> Any:
    """The contexts of a layer's first run and of its second one, as torch.utils.checkpoint takes them."""
    products = [0, 0]  # by aten's mm, in the first run and in the second

    def policy(ctx: Any, operator: Any, *args: Any, **kwargs: Any) -> CheckpointPolicy:
        if RESULTS.made or operator is torch.ops.aten.addmm.default:
            return KEPT
        if operator is not torch.ops.aten.mm.default:
            return AGAIN
        products[ctx.is_recompute] += 1
        return KEPT if products[ctx.is_recompute] % 2 else AGAIN

    return create_selective_checkpoint_contexts(policy)
