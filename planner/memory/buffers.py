"""Tables that a model's code holds beside its weights and no checkpoint has: one in every layer.

Sources: transformers 5.23, models/gpt_neo/modeling_gpt_neo.py (GPTNeoSelfAttention.bias),
models/gptj/modeling_gptj.py and models/codegen/modeling_codegen.py (embed_positions).
"""

from __future__ import annotations

from ..choices import DTYPE_BYTES
from ..schema import Architecture, Attend
from ..setup import Setup


def buffer_bytes(arch: Architecture, setup: Setup) -> int:
    """Bytes of the tables of one layer: GPT-Neo's mask of all pairs of positions (one byte each), GPT-J's and
    CodeGen's angles (64 values a position, in the weights' type). Neglected: whatever is no longer than a vector."""
    positions = arch.max_position or 0
    if arch.model_type == "gpt_neo":
        return positions * positions
    if arch.model_type in ("gptj", "codegen"):
        head = next(op.d_qk for block in arch.blocks for op in block.operations if isinstance(op, Attend))
        return positions * min(64, head) * DTYPE_BYTES[setup.weight_dtype]
    return 0
