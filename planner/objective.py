"""What an objective adds to a step's FLOPs: more sequences an example, and forward passes without gradients.

DPO runs the base once over what it trains on, KTO the trained model over other answers and the base over both
(trl 1.16, trainer/dpo_trainer.py and kto_trainer.py: _compute_loss). Neglects what TRL's tiled loss computes again.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from . import flops
from .adapter import Adapted
from .adapter.whole import NOTHING_WHOLE, Whole
from .schema import Architecture
from .setup import Setup

WITHOUT_GRADIENTS = {"dpo": (1, 0), "kto": (2, 1)}  # forward passes of the base, and of what is trained


def passes(objective: str, reference: str) -> tuple[int, int]:
    """Forward passes without gradients in a step: of the base, and of the trained model."""
    base, own = WITHOUT_GRADIENTS.get(objective, (0, 0))
    return (base if reference == "base" else 0), own


def beside(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted] | None, whole: Whole = NOTHING_WHOLE
) -> flops.Tally:
    """Multiply-adds of the passes without gradients over one sequence; `adapted` None is full fine-tuning."""
    step, total = flops.Step(1, setup.seq_len), flops.Tally()
    base, own = passes(setup.objective, setup.reference)
    frozen = flops.step_macs(arch, step, ())
    total.add(frozen, base)
    if own:
        pairs = None if adapted is None else tuple(adapted)
        forward = flops.step_macs(arch, step, pairs, whole).forward
        total.add(replace(frozen, forward=forward), own)
    return total
