"""Tables that a model's code holds beside its weights and no checkpoint has: one in every layer, or a few in all.

Sources: transformers 5.23, models/gpt_neo/modeling_gpt_neo.py (GPTNeoSelfAttention.bias),
models/gptj/modeling_gptj.py and models/codegen/modeling_codegen.py (embed_positions),
models/gpt_bigcode/modeling_gpt_bigcode.py (GPTBigCodeModel.bias), models/m2m_100/modeling_m2m_100.py and
models/xglm/modeling_xglm.py (the sinusoidal embedding's weights).
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


OFFSET = 2  # rows of a table of positions before the first one's
SINES = {"m2m_100": 2, "xglm": 1}  # tables of sines and cosines, one in every stack


def table_bytes(arch: Architecture, setup: Setup) -> int:
    """Bytes of the tables that all layers share: StarCoder's mask of all pairs of positions (one byte each), M2M100's
    and XGLM's sines and cosines of every position, as wide as the hidden states, in the weights' type."""
    positions = arch.max_position or 0
    if arch.model_type == "gpt_bigcode":
        return positions * positions
    row = arch.hidden_size * DTYPE_BYTES[setup.weight_dtype]
    return SINES.get(arch.model_type, 0) * (positions + OFFSET) * row if positions else 0
