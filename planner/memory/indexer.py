"""The indexer of sparse attention (DeepSeek V3.2, GLM 5): scores of all pairs of positions, outside the graph, of
which each query keeps its best.

Source: transformers 5.23, models/deepseek_v32/modeling_deepseek_v32.py (DeepseekV32Indexer.forward).
"""

from __future__ import annotations

from ..schema import Apply, Architecture, Attend, Block
from .layout import layout
from .passes import FLOAT32, Pass
from .tape import Size, Value


def chooses(arch: Architecture, block: Block, op: Attend) -> bool:
    """Whether an attention is an indexer's, whose queries a matrix of that name makes."""
    made = layout(arch, block).made_by.get(op.q)
    return isinstance(made, Apply) and ".indexer." in arch.matrices[made.matrix].name


def choose(run: Pass, op: Attend, pairs: Size) -> Value:
    """Scores of pairs x heads in float32, queries and keys beside them. The product of several sequences copies the
    keys for every query first (pairs x width of a head), which is more where a head is wider than heads are many.
    Scaled and floored scores are one more tensor each, of which two are held. A mask of a byte a pair is left.

    Neglected: the turned queries and keys, and the chosen positions (12 bytes each, no more than the mask's scores).
    """
    tape = run.tape
    queries = tape.new(run.tokens * (op.n_heads * op.d_qk * FLOAT32))
    keys = tape.new(run.tokens * (op.d_qk * FLOAT32))
    copied = tape.new(pairs * (op.d_qk * FLOAT32)) if run.sequences != 1 else None
    scores = tape.new(pairs * (op.n_heads * FLOAT32))
    del copied
    scaled = tape.new(pairs * (op.n_heads * FLOAT32))
    del scores
    floored = tape.new(pairs * (op.n_heads * FLOAT32))
    del scaled
    summed = tape.new(pairs * FLOAT32)
    del floored, queries, keys, summed
    return Value(tape.new(pairs), pairs, 1, None)
