"""What selective checkpointing is modelled for.

As torchtitan has it (`selective` by operation): every layer runs again in the backward pass, but keeps beside its
input the results of attention and of every second product by aten's mm, the first among them; a product with a bias
is addmm, which is kept as well, a router's is not (torchtitan/distributed/activation_checkpoint.py, _apply_op_sac and
_get_save_ops at 1690e0ae; torch/_functorch/partitioners.py, get_default_op_list). Experts' grouped products are on
neither list and run again, as do the exchanges of tokens between GPUs that share experts.
"""

from __future__ import annotations

from collections.abc import Iterable

from .adapter import Adapted
from .dataclass import replace
from .errors import InputError
from .memory.traits import traits_of
from .schema import Architecture, Attend, Product, Scan
from .setup import Setup

SELECTIVE = "selective"


def check_selective(arch: Architecture, setup: Setup, pairs: Iterable[Adapted] = ()) -> None:
    """Raise InputError where it is asked for and what it keeps is not known."""
    if setup.checkpointing != SELECTIVE:
        return
    split = setup.tensor_parallel * setup.sequence_parallel > 1
    for wrong, words in (
        (setup.quantize != "none", "on a quantised base"),
        (setup.objective != "sft", f"for objective {setup.objective}"),
        (setup.attention_kernel in ("eager", "math"), f"with attention-kernel {setup.attention_kernel}"),
        (split, "where matrices or sequences are split over GPUs"),
        (setup.reentrant, "with reentrant checkpointing"),
    ):
        if wrong:
            raise _refused(words)
    blocks = [block for block in arch.blocks if block.stack in ("encoder", "decoder")]
    if arch.is_encoder_decoder or arch.images is not None:
        raise _refused("but for a model that is one stack of layers, without images")
    if any(isinstance(op, (Scan, Product)) for block in blocks for op in block.operations):
        raise _refused("but for layers of attention and perceptrons alone")
    if any(pair.magnitudes or pair.materialised for item in pairs for pair in item.pairs):
        raise _refused("but for pairs of LoRA that are products with what comes in")
    attends = [op for block in blocks for op in block.operations if isinstance(op, Attend)]
    wide = setup.attention_kernel == "sdpa" and setup.compute_dtype == "float32"
    if wide and any(op.n_kv_heads < op.n_heads for op in attends):  # no fused kernel takes these
        raise _refused("where heads share keys and products are in float32")
    if setup.attention_kernel != "flash" and traits_of(arch).eager:
        raise InputError(
            "attention-kernel", setup.attention_kernel, "flash under selective checkpointing for this model",
            "Its library's own attention is eager.",
        )  # fmt: skip


def as_it_goes(arch: Architecture, setup: Setup, pairs: Iterable[Adapted] = (), said: object = None) -> Setup:
    """The set-up, with layers run again where its trainer checkpoints selectively by itself (nothing was `said` of
    it) and what that keeps is not known."""
    if setup.checkpointing != SELECTIVE or said is not None:
        return setup
    try:
        check_selective(arch, setup, pairs)
    except InputError:
        return replace(setup, checkpointing="layer", reentrant=False)
    return setup


def _refused(words: str) -> InputError:
    return InputError(
        "checkpointing", SELECTIVE, f"none, layer or layer-offload {words}", "The nearest is layer."
    )
