"""Bytes that elementwise kernels move and how many are launched, by whose code runs.

Bytes count each tensor that a kernel reads or writes once, for 16-bit activations with float32 inside norms and
loss as the libraries have it. "transformers" runs an operation a kernel (RMSNorm: cast up 2+4, square 4+4, mean 4,
scale 4+4, cast down 4+2, weight 2+2); "fused", "unsloth" and "liger" read and write once; "compiled" also
merges neighbours. What is neglected: reshapes, masks, positions, a few percent of these.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from ..dataclass import dataclass
from ..objective_rules import CHOSEN, SELECTED
from ..schema import Architecture, Attend, Block
from ..setup import Setup
from ..trainers import PLAIN

LAYERS = ("decoder", "encoder")


@dataclass(frozen=True)
class Cost:
    """Bytes an element and kernels, forward and backward."""

    forward_bytes: float
    backward_bytes: float
    forward_operations: float
    backward_operations: float


@dataclass(frozen=True)
class Style:
    """Costs of a library's elementwise code. Elements: of the stream for norm and residual; of the MLP's width for
    activation; of queries and keys for rotary. `adapter` is per output element of an adapted matrix, `adapter_in`
    per input element; `module` the operations around a matrix product."""

    norm: Cost
    activation: Cost
    rotary: Cost
    residual: Cost
    adapter: Cost
    adapter_in: Cost
    module: Cost


TRANSFORMERS = Style(
    norm=Cost(32, 44, 7, 12),
    activation=Cost(10, 18, 2, 4),
    rotary=Cost(22, 22, 10, 12),
    residual=Cost(6, 6, 1, 1),
    adapter=Cost(10, 4, 2, 2),
    adapter_in=Cost(0, 6, 1, 3),
    module=Cost(0, 0, 1, 1),
)
FUSED = replace(TRANSFORMERS, norm=Cost(4, 8, 1, 2), activation=Cost(6, 10, 1, 1), rotary=Cost(4, 4, 1, 1))
UNSLOTH = replace(FUSED, adapter=Cost(4, 0, 0, 0), adapter_in=Cost(0, 4, 0, 0))
COMPILED = replace(
    FUSED,
    norm=Cost(4, 8, 1, 1),
    residual=Cost(2, 2, 0, 0),
    adapter=Cost(6, 2, 1, 1),
    adapter_in=Cost(0, 4, 0, 1),
)
STYLES = {
    "transformers": TRANSFORMERS, "litgpt": TRANSFORMERS,
    "transformer-engine": replace(TRANSFORMERS, norm=FUSED.norm),
    "fused": FUSED, "liger": FUSED, "unsloth": UNSLOTH, "compiled": COMPILED,
    "pairs": replace(
        TRANSFORMERS, activation=FUSED.activation, adapter=UNSLOTH.adapter, adapter_in=UNSLOTH.adapter_in
    ),
}  # fmt: skip
# Bytes an element of the logits: cast to float32, shifted copy, log-softmax, its gradient, copy, cast back; in chunks
# without the copies; fused kernels read 16-bit logits and write their gradient in place. "wide" reads and writes
# float32: a cast, the maximum, what is left, exponentials, their sum, quotients; the gradient in place, and its cast.
_FULL, _CHUNKED, _FUSED = Cost(22, 26, 6, 6), Cost(14, 18, 5, 5), Cost(4, 4, 2, 0)
_WIDE = Cost(38, 14, 6, 3)
LOSS = {
    "full": _FULL, "shifted": _FULL, "shifted-late": _FULL, "shifted-narrow": _FULL, "chunked": _CHUNKED,
    "chunked-vocabulary": _CHUNKED, "split": _CHUNKED,
    "split-wide": _CHUNKED, "split-fused": _FUSED, "fused": _FUSED, "scaled-fused": _FUSED,
    "scaled-in-place-fused": _FUSED, "sliced-fused": _FUSED, "widened-fused": _FUSED, "shifted-fused": _FUSED,
    "shifted-late-fused": _FUSED, "wide": _WIDE, "wide-in-place": _WIDE, "wide-fused": _FUSED, "tiled": _FUSED,
    "recomputed": _CHUNKED, "recomputed-wide": _CHUNKED, "by-sequence": _CHUNKED,
    "by-sequence-copied": _CHUNKED, "by-sequence-in-place": _CHUNKED,
    "by-sequence-unlogged": _CHUNKED, "full-freed": _FULL, "full-copied": _FULL,
    **{name: _FULL if name.startswith("full") else _CHUNKED for name in (*SELECTED, *CHOSEN)},
}  # fmt: skip
# Of a loss that is compiled with the model: Inductor reads 16-bit logits for their maximum and their sum, keeps no
# float32 ones and no log-softmax, and writes the gradient from the logits again (its kernels for cross_entropy under
# autocast, triton_red_fused__log_softmax__to_copy); since PyTorch 2.5 the gradient of the picked ones is no tensor
# (config.py, optimize_scatter_upon_const_tensor; before, written in float32 and read twice).
COMPILED_LOSS = Cost(4, 4, 2, 2)
# A cast between float32 and 16 bits, each way once forward and once backward.
CAST = Cost(6, 6, 1, 1)
# Bytes an element of eager scores: written, scaled, masked, softmax in float32, cast, read; and back.
EAGER_SCORES = Cost(22, 24, 6, 8)
# Beside these where scores are capped: divided, tanh, multiplied, each read and written; and back, tanh's result too.
CAPPED_SCORES = Cost(12, 14, 3, 3)
# Bytes an element of the hidden states that go to experts: copied in the experts' order, back and added; and back.
SORTED = Cost(8, 8, 3, 3)
# Tensors of a trained parameter's size that a step of the optimizer reads and writes. AdamW fused: gradient,
# parameter and two moments read, three of them written. PyTorch's multi-tensor code (foreach) reads and writes some
# of them once an operation: 2 for the decay, 3 and 5 for the moments, 2 + 2 + 2 for the root, 4 for the update.
FUSED_ADAMW, FOREACH_ADAMW = 7.0, 20.0
PASSES = {"sgd": 3.0, "sgd-momentum": 6.0, "adafactor": 10.0, "lion": 9.0, "muon": 15.0}


def style_of(setup: Setup) -> Style:
    """The costs of a set-up's elementwise code; functions of pairs run without dropout and not in 8 bits."""
    if setup.kernels == "pairs" and (setup.lora_dropout or setup.quantize == "int8"):
        return TRANSFORMERS
    return STYLES[setup.kernels]


def compiles_loss(setup: Setup) -> bool:
    """Whether the loss is compiled with the model, as where its forward pass computes it (transformers, nanoGPT) or
    the trainer compiles it too (torchtune, torchtitan). A loop of no profile is taken to compute its own outside, as
    rasbt/LLMs-from-scratch does."""
    return setup.kernels == "compiled" and setup.trainer != PLAIN


def loss_cost(loss: str, compiled: bool) -> Cost:
    """What a loss moves for an element of the logits, whether or not it is compiled with the model."""
    return COMPILED_LOSS if compiled and LOSS[loss] != _FUSED else LOSS[loss]


def optimizer_bytes(optimizer: str, kernel: str, width: int) -> float:
    """Bytes a trained parameter, whose states are as wide as it is; 8-bit states move 1 byte a moment each way."""
    name = optimizer.removeprefix("paged-")
    if name == "adamw-8bit":
        return 3.0 * width + 4.0
    if name == "lion-8bit":
        return 3.0 * width + 2.0
    passes = (FUSED_ADAMW if kernel == "fused" else FOREACH_ADAMW) if name == "adamw" else PASSES[name]
    return passes * width


def takes_mask(setup: Setup) -> bool:
    """Whether PyTorch's own attention gets a mask of its own for every sequence, as transformers hands it one where
    sequences of a batch are padded (masking_utils; before, AttentionMaskConverter._ignore_causal_mask_sdpa). Its fast
    kernels take none (torch, sdp_utils.cpp, check_for_attn_mask): the memory-efficient one runs, over all pairs.
    Neglected: cuDNN's, which takes one, comes first on H100 and B200 where cuDNN is newer than 9.15."""
    return setup.packing == "padded" and setup.attention_kernel == "sdpa" and setup.sequences > 1


def wide_between(setup: Setup) -> bool:
    """Whether everything but the quantised products is float32: PEFT's prepare_model_for_kbit_training makes what is
    not quantised so, without autocast the stream with it, and bitsandbytes' Linear4bit casts its input to what it
    computes in and its output back (nn/modules.py). Attention in float32 has the memory-efficient kernel alone."""
    kept = setup.upcast_small and setup.quantize != "none" and not setup.under_autocast
    return kept and setup.compute_dtype != "float32"


def norms(arch: Architecture, block: Block, layer: int) -> Iterator[int]:
    """Elements a position of each norm of a layer; those on heads count every head."""
    heads = next((op for op in block.operations if isinstance(op, Attend)), None)
    stacks = {b.stack for b in arch.blocks}
    both = "encoder" in stacks and "decoder" in stacks
    for vector in arch.vectors:
        inside = "{}" in vector.name
        if "norm" not in vector.name or not vector.name.endswith("weight") or layer not in vector.layers:
            continue
        if inside != (block.stack in LAYERS) or (not inside and block.stack != "head"):
            continue
        if both and inside and block.stack not in vector.name:
            continue
        leaf = vector.name.rsplit(".", 2)[-2]
        per_head = heads is not None and vector.size == heads.d_qk and leaf[:1] in "qk"
        yield vector.size * (
            (heads.n_heads if leaf[0] == "q" else heads.n_kv_heads) if heads and per_head else 1
        )
