"""An evaluation between steps: the forward pass and the loss of a batch of its own, without gradients.

transformers' Trainer takes 8 sequences at a time where nothing else is said, however few a training step takes, and
all their logits where the loss makes them. Without compute_metrics it keeps the loss alone (prediction_loss_only);
with it logits wait beside the model until the evaluation has ended, which is not counted, nor is the cache of keys
and values that transformers 4 fills unless use_cache is False, nor a tower of images.
Source: transformers 5.23, src/transformers/training_args.py (per_device_eval_batch_size) and trainer.py (evaluate,
evaluation_loop, prediction_step; use_cache).
"""

from __future__ import annotations

from dataclasses import replace

from .head import head_stretches
from .kinds import Job
from .passes import CASTS
from .step import Place, head_of, masks, stem_of, walked_layers
from .stretch import Held, plus


def evaluated(job: Job, base: Held) -> list[Place]:
    """The places of an evaluation that may hold most, a layer and the loss, over what is held throughout (`base`)
    without gradients, which are gone by then; none where the set-up names no batch for it."""
    setup = job.setup
    if not setup.eval_batch:
        return []
    alone = replace(
        setup, micro_batch=setup.eval_batch, eval_batch=0, accumulation=1, checkpointing="layer", reentrant=True,
        input_grads=False, outputs_held=False,
    )  # fmt: skip
    own = replace(job, setup=alone)
    held = base if setup.main_grads or setup.gradients_kept else {**base, "gradients": 0}
    around = plus(held, plus(stem_of(own).held, {"temporary": masks(own)}))
    layers = walked_layers(own, False)
    # Autocast keeps lowered copies of trained weights to the end of the pass, also where nothing asks for gradients.
    casts = [each.forward.change.get(CASTS, 0) for each in layers.kinds]
    lowered = sum(casts[kind] for _, kind in layers.order)
    found = [
        Place(
            "evaluation",
            where,
            plus(around, {CASTS: lowered - casts[kind]}),
            layers.kinds[kind].forward.highest,
        )
        for kind, where in {kind: where for where, kind in layers.order}.items()
    ]
    around = plus(around, {CASTS: lowered})
    width = layers.kinds[layers.order[-1][1]].width if layers.order else 0
    run = own.run(grad=False, width=width)
    loss, _ = head_stretches(run, head_of(own), own.traits, alone.loss, alone.loss_chunk, False)
    return [*found, Place("evaluation", "loss", around, loss.highest)]
