"""What an objective adds to a step's FLOPs: more sequences an example, and forward passes without gradients.

DPO runs the base once over what it trains on, KTO the trained model over other answers and the base over both (trl
1.16, trainer/dpo_trainer.py and kto_trainer.py: _compute_loss). GRPO makes its completions first, runs the base
where the divergence has a weight, and the trained model once more where another engine made them (trl 1.16,
trainer/grpo_trainer.py: _generate_and_score_completions); it scores completions alone. Losses that never hold all
logits make them again on the way back (trl 1.16, kernels/chunked_logprob.py, ChunkedLogProbFunction.backward; 1.12
and 1.14, trainer/sft_trainer.py, checkpointed chunks; PrimeIntellect-ai/prime-rl b798a90d,
_ChunkedLogProbEntropyFn, which makes the unembedding's gradient besides).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from . import flops
from .adapter import Adapted
from .adapter.whole import NOTHING_WHOLE, Whole
from .choices import PAST_PAIRS
from .objective_rules import OF_ALL_LOGITS
from .schema import Apply, Architecture
from .setup import Setup

WITHOUT_GRADIENTS = {
    "dpo": (1, 0),
    "kto": (2, 1),
    "grpo": (1, 0),
}  # passes of the base, and of what is trained
BY_ENTRIES = "chunked-vocabulary"  # makes the unembedding's gradient also where it is frozen
LABELLED = ("tiled", "recomputed", "recomputed-wide")  # losses of positions that predict a label alone
LOGITS_AGAIN = (*LABELLED, BY_ENTRIES)


def passes(objective: str, reference: str, generation: str = "transformers") -> tuple[int, int]:
    """Forward passes without gradients over whole sequences in a step: of the base, and of the trained model."""
    base, own = WITHOUT_GRADIENTS.get(objective, (0, 0))
    if objective == "grpo" and generation != "transformers":
        own = 1
    return (base if reference == "base" else 0), own


def scored_of(setup: Setup) -> int | None:
    """Positions of a sequence that logits are made of; None: all. TRL's loss leaves out the first, and prompts; of
    all logits of completions it leaves out the last one's, once they are made. verl's are of prompts too."""
    whole = setup.objective == "grpo" and setup.loss not in (*LABELLED, *OF_ALL_LOGITS, "sliced-fused")
    if setup.loss not in LABELLED and not whole:
        return None
    return setup.seq_len - max(1, setup.prompt_tokens) + whole


def as_met(
    arch: Architecture, setup: Setup, pairs: tuple[Adapted, ...] | None
) -> tuple[Architecture, tuple[Adapted, ...] | None]:
    """The inventory and what is adapted of it as the loss meets it: TRL's tiled loss takes hidden states to the
    unembedding itself, past the matrix that BERT's kind has before it, whose products are none then (trl 1.16,
    trainer/utils.py, add_fused_lm_head)."""
    if setup.loss != "tiled":
        return arch, pairs
    passed: set[int] = set()
    for block in arch.blocks:
        made = {op.out: op for op in block.operations if isinstance(op, Apply) and block.stack == "head"}
        for op in made.values():
            if arch.matrices[op.matrix].role == "unembedding" and op.source in made:
                passed.add(made[op.source].matrix)
    if not passed:
        return arch, pairs
    matrices = [replace(matrix, d_in=0) if i in passed else matrix for i, matrix in enumerate(arch.matrices)]
    left = None if pairs is None else tuple(item for item in pairs if item.index not in passed)
    return replace(arch, matrices=tuple(matrices)), left


def step_of(setup: Setup, adapted: Iterable[Adapted] | None, batch: int = 1) -> flops.Step:
    """A step of so many sequences as the library runs it: DoRA makes products of the base once more, of what dropout
    leaves, also where trainers of preferences set its rate to 0 (peft 0.21, tuners/lora/layer.py); pairs on modules
    whose names PEFT converts are folded into their weights (lora.ParamWrapper), where these are not quantised and
    nothing is dropped; clamps of hidden states in float16 keep what they read last."""
    pairs = [pair for item in adapted or () for pair in item.pairs]
    plain = setup.kernels == "transformers" and not setup.lora_dropout
    return flops.Step(
        batch, setup.seq_len, setup.checkpointing != "none", scored=scored_of(setup),
        dropped=setup.lora_dropout > 0 and any(pair.magnitudes for pair in pairs),
        folded=bool(pairs) and plain, packed=setup.quantize != "none",
        half=setup.weight_dtype == "float16" and not setup.upcast_small,
        ends_known=setup.attention_kernel == "flash",
        logits_again=setup.loss in LOGITS_AGAIN, past_pairs=setup.loss in PAST_PAIRS,
        frozen_gradient=setup.loss == BY_ENTRIES, selective=setup.checkpointing == "selective",
    )  # fmt: skip


def changes_step(arch: Architecture, setup: Setup, adapted: Iterable[Adapted] | None) -> bool:
    """Whether a step has other FLOPs than a plain one."""
    step, items = step_of(setup, adapted), tuple(adapted or ())
    folded = step.folded and any(
        flops.folds(arch, item.matrix, pair, packed=step.packed) for item in items for pair in item.pairs
    )
    clamps = step.half and any(block.clamps != "none" for block in arch.blocks)
    apart = arch.images is not None and ((step.ends_known and arch.images.merged) or setup.frozen_towers)
    other = step.dropped or step.scored is not None or clamps or apart or step.logits_again
    other = other or step.selective
    if step.past_pairs and any(item.matrix.role == "unembedding" for item in items):
        return True
    return setup.objective != "sft" or other or folded


def step_tally(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted] | None, whole: Whole = NOTHING_WHOLE,
    batch: int = 1, *, plain: bool = False,
) -> flops.Tally:  # fmt: skip
    """Multiply-adds of a step of so many sequences: forward and backward as the library runs them (`step_of`), passes
    without gradients, and generation; logits of completions alone where these are scored. `plain`: without what is
    done again. `adapted` None is full fine-tuning, which may leave towers as they are."""
    arch, pairs = as_met(arch, setup, None if adapted is None else tuple(adapted))
    known = setup.attention_kernel == "flash"
    total, step = flops.Tally(), flops.Step(batch, setup.seq_len, scored=scored_of(setup), ends_known=known)
    trained = step if plain else step_of(setup, pairs, batch)
    text = arch
    if pairs is None and setup.frozen_towers and arch.images is not None:
        total.add(flops.of_images(arch, trained, (), whole)[0])
        text = replace(arch, images=None)
    total.add(flops.step_macs(text, trained, pairs, whole))
    base, own = passes(setup.objective, setup.reference, setup.generation)
    if base or own:
        frozen = flops.step_macs(arch, step, ())
        total.add(frozen, base)
    if own:
        again = step if plain else replace(step_of(setup, pairs, batch), checkpointing=False)
        forward = flops.step_macs(arch, again, pairs, whole).forward
        total.add(replace(frozen, forward=forward), own)
    if setup.objective == "grpo" and setup.generation == "transformers":
        total.add(generation(arch, setup, pairs, whole), batch)
    return total


def generation(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted] | None, whole: Whole = NOTHING_WHOLE
) -> flops.Tally:
    """Multiply-adds of making one completion: the prompt in one pass, whose last position alone gets logits, then a
    token a pass, which reads the tokens before it and itself. The last token is not passed.

    prompt of p, completion of c tokens: F(p, 1 logit) + sum over t from p + 1 to p + c - 1 of (M + A t), F a forward
    pass, M the products of a token, A those of its attention with one position. Windows are taken off as a whole
    sequence's are. Without a prompt (p = 0) the first token is taken for one.
    """
    pairs = None if adapted is None else tuple(adapted)
    prompt = max(1, setup.prompt_tokens)
    made = setup.seq_len - prompt

    def forward(length: int, scored: int) -> tuple[int, int, int]:
        step = flops.Step(1, length, scored=scored)
        frozen = flops.step_macs(arch, step, ())  # whose attention has a forward pass alone
        return flops.step_macs(arch, step, pairs, whole).forward, frozen.attention, frozen.hidden

    first, first_attention, first_hidden = forward(prompt, 1)
    longest, all_attention, hidden = forward(setup.seq_len - 1, made)
    later = (longest - all_attention) - (first - first_attention)
    attention = (all_attention - hidden) - (first_attention - first_hidden)
    return flops.Tally(
        forward=first + later + attention, attention=first_attention + attention, hidden=first_hidden
    )
