"""An evaluation between steps: the forward pass and the loss of a batch of its own, without gradients.

transformers' Trainer takes 8 sequences at a time where nothing else is said, however few a training step takes, and
all their logits where the loss makes them. Without compute_metrics it keeps the loss alone (prediction_loss_only);
with it logits wait beside the model until the evaluation has ended, which is not counted. Nothing is dropped.
Checkpointing switches the cache of keys and values off in training alone, so that transformers 4 fills it here unless
a model's config says otherwise (`eval_cache`). Up to 4.45 it comes out as tuples, of which accelerate makes float32
copies under autocast as it does of logits: 6 bytes a value.
Source: transformers 5.23, src/transformers/training_args.py (per_device_eval_batch_size) and trainer.py (evaluate,
evaluation_loop, prediction_step; use_cache); 4.37.2 and 4.45.2, models/llama/modeling_llama.py (to_legacy_cache),
4.49.0 (past_key_values); accelerate 0.27.2, utils/operations.py (convert_to_fp32).
"""

from __future__ import annotations

from dataclasses import replace

from .cache import cached_values, widened_outputs, widens_cache
from .head import head_stretches
from .kinds import Job
from .opening import first_width
from .passes import CASTS, FLOAT32, HALF
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
        input_grads=False, outputs_held=False, lora_dropout=0.0,
    )  # fmt: skip
    own = replace(job, setup=alone, evaluates=True)
    stand = setup.main_grads or setup.gradients_kept or setup.gradients_late
    held = base if stand else {**base, "gradients": 0}
    cache = _cache(own)
    pictured, pixels, features = _tower(own, held)
    held = plus(held, pixels)
    around = plus(plus(held, features), plus(_named(own), {"temporary": masks(own) + cache}))
    below = plus(
        around, {"temporary": -cache // max(1, job.arch.n_layers)}
    )  # the last layer's are in its own walk
    layers = walked_layers(own, False)
    below = plus(below, layers.handed)
    # Autocast keeps lowered copies of trained weights to the end of the pass, also where nothing asks for gradients.
    casts = [each.forward.change.get(CASTS, 0) for each in layers.kinds]
    lowered = sum(casts[kind] for _, kind in layers.order)
    found = [
        Place(
            "evaluation",
            where,
            plus(below, {CASTS: lowered - casts[kind]}),
            layers.kinds[kind].forward.highest,
        )
        for kind, where in {kind: where for where, kind in layers.order}.items()
    ]
    width = layers.kinds[layers.order[-1][1]].width if layers.order else 0
    run = own.run(grad=False, width=width)
    loss, _ = head_stretches(run, head_of(own), own.traits, alone.loss, alone.loss_chunk, False)
    found.append(Place("evaluation", "loss", plus(held, {"temporary": cache, CASTS: lowered}), loss.highest))
    if cache and widens_cache(setup):
        out = widened_outputs(own, cache // HALF)
        found.append(Place("evaluation", "outputs", plus(held, {"temporary": cache}), out))
    return pictured + found


def _named(own: Job) -> Held:
    """What the first layer reads, which has a name while all run: as wide as autocast's norm has made it."""
    run = own.run()
    widened = run.rows * (own.arch.hidden_size * max(0, first_width(own) - run.stream))
    return plus(stem_of(own).held, {"temporary": widened})


def _tower(own: Job, held: Held) -> tuple[list[Place], Held, Held]:
    """The places of a tower that images pass first, pixels, which the batch holds, and what the text's layers run
    beside."""
    images = own.arch.images
    if images is None:
        return [], {}, {}
    from .images import pixel_bytes, tower_of  # loaded where there are images

    tower = tower_of(own, images)
    pixels: Held = {"temporary": pixel_bytes(images, own.setup)}
    base = plus(plus(plus(held, pixels), tower.during), tower.inner)
    parts = [(f"tower {where}", tower.layers.kinds[kind].forward) for where, kind in tower.layers.order]
    parts += [("tower: connector", each.forward) for each in (*tower.mergers, tower.exit)]
    once = {id(part): Place("evaluation", where, base, part.highest) for where, part in parts}
    entry = Place("evaluation", "tower: patches", plus(held, pixels), tower.entry.highest)
    return [entry, *once.values()], pixels, tower.beside


def _cache(job: Job) -> int:
    """Bytes of the keys and values of an evaluation's batch: sequences x values that a sequence caches x 2 bytes, 4
    in float32. Neglects that GPUs may share heads, and states of state-space layers."""
    setup = job.setup
    if setup.eval_cache == "none" or not job.arch.use_cache:
        return 0
    width = FLOAT32 if setup.precision == "fp32" else HALF
    return setup.micro_batch * cached_values(job.arch, setup.seq_len) * width
