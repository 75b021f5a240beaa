"""The cache of keys and values that generation fills.

transformers' DynamicCache joins each new token's keys and values to those before, so that a layer's keys stand twice
for a moment; eager attention, and SDPA with a mask, repeat them for every query head; a layer with a window keeps
that alone. Neglects states of state-space layers, which do not grow with the length.
Source: transformers 5.23, src/transformers/cache_utils.py (DynamicLayer, DynamicSlidingWindowLayer) and
integrations/sdpa_attention.py (repeat_kv).
"""

from __future__ import annotations

from ..schema import Apply, Architecture, Attend, Block, Operation, Recall
from ..setup import Setup
from .head import LOGITS, held_width
from .kinds import Job
from .passes import FLOAT32
from .stretch import Held
from .tape import Size

LATENT = ("kv_a_proj_with_mqa",)


def cached_width(arch: Architecture, block: Block) -> int:
    """Values that one layer caches of a token: keys and values of each head, or the latent that both are made of.
    Layers that reuse an earlier layer's keep none; state-space layers keep a state that does not grow."""
    made: dict[int, Operation] = {op.out: op for op in block.operations if hasattr(op, "out")}
    latent = [
        arch.matrices[op.matrix].d_out
        for op in block.operations
        if isinstance(op, Apply) and arch.matrices[op.matrix].leaf in LATENT
    ]
    if latent:
        return sum(latent)
    return sum(
        op.n_kv_heads * (op.d_qk + op.d_v)
        for op in block.operations
        if isinstance(op, Attend) and not isinstance(made.get(op.k), Recall)
    )


def _kept(block: Block, length: int) -> int:
    """Tokens that a layer's cache keeps of so many."""
    windows = [op.window for op in block.operations if isinstance(op, Attend) and op.window is not None]
    return min(length, *windows) if windows else length


def cached_values(arch: Architecture, length: int) -> int:
    """Values that the decoder caches of one sequence of `length` tokens: sum over layers of the width x the tokens
    kept."""
    return sum(
        cached_width(arch, block) * len(block.layers) * _kept(block, length)
        for block in arch.blocks
        if block.stack == "decoder"
    )


def most_copied(arch: Architecture, length: int, *, flash: bool) -> int:
    """Values of the cache that a layer copies at a time, of one sequence, in the layer that copies most: its keys as
    a token is joined to them, then keys and values for every query head where heads share them; flash attention does
    without."""
    return max(
        (_copied(arch, block, length, flash) for block in arch.blocks if block.stack == "decoder"), default=0
    )


def _copied(arch: Architecture, block: Block, length: int, flash: bool) -> int:
    shared = [op.n_heads // op.n_kv_heads for op in block.operations if isinstance(op, Attend)]
    width, times = cached_width(arch, block), max(shared, default=1)
    return _kept(block, length) * (width * times if times > 1 and not flash else -(-width // 2))


def widens_cache(setup: Setup) -> bool:
    """Whether accelerate makes float32 copies of the keys and values that a model hands out: as tuples, up to
    transformers 4.45, and under autocast."""
    return setup.eval_cache == "widened" and setup.outputs_widened and setup.under_autocast


def passed_out(arch: Architecture, setup: Setup) -> Size:
    """Values of the cache that a training pass hands out and accelerate widens: transformers fills one in training
    too, unless checkpointing or a config says otherwise. sequences x values that a sequence caches.

    Neglects that GPUs may share heads, layers or sequences, which no trainer of then did. Source: transformers
    4.45.2, modeling_llama.py (use_cache, to_legacy_cache); accelerate 0.34.2, utils/operations.py (convert_to_fp32).
    """
    fills = setup.checkpointing == "none" and arch.use_cache and setup.cache_held is not False
    if not (fills and widens_cache(setup) and setup.loss.startswith("shifted") and setup.objective == "sft"):
        return 0
    return setup.micro_batch * cached_values(arch, setup.seq_len)


def widened_outputs(job: Job, values: Size) -> Held:
    """Bytes that stand once a model has handed out so many cached values: float32 copies of them, and its logits in
    float32, beside the 16-bit ones where the model's code left them so. They wait beside what the way back keeps
    until the caller has taken the loss. Neglects the 16-bit values where heads are shared and attention takes copies
    for every query's head."""
    run = job.run()
    own = held_width(run, job.setup.loss, narrow=job.traits.narrow_before)
    widths = FLOAT32 + (own if own < FLOAT32 else 0)
    return {"temporary": values * FLOAT32, LOGITS: run.tokens * (job.arch.vocab_size * widths)}
