"""What is known of a block before any size is: which values are on the residual stream, and what each Join is."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from ..schema import (
    STREAM,
    Apply,
    Architecture,
    Attend,
    Block,
    Join,
    Keep,
    Matrix,
    Operation,
    Product,
    Scan,
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """What is known of a block before any size is: which values are on the residual stream, which Joins are what,
    and after which operation each value is let go."""

    streams: frozenset[int]
    kinds: Mapping[int, str]
    last: Mapping[int, int]
    qk_norms: int
    gates: frozenset[int]
    turned: frozenset[int]
    latent: bool
    latent_width: int
    made_by: Mapping[int, Operation]


def uses(op: Operation) -> tuple[int, ...]:
    """The values that an operation reads."""
    if isinstance(op, Apply):
        return (op.source,)
    if isinstance(op, Attend):
        return (op.q, op.k, op.v)
    if isinstance(op, (Product, Scan)):
        return (op.left, op.right)
    if isinstance(op, Join):
        return op.sources
    return (op.source,) if isinstance(op, Keep) else ()


def _kind(op: Join, made_by: Mapping[int, Operation], matrices: tuple[Matrix, ...], streams: set[int]) -> str:
    if op.sources[0] in streams:
        return "residual"
    roles = [
        matrices[m.matrix].role if isinstance(m := made_by.get(s), Apply) else type(m).__name__.lower()
        for s in op.sources
    ]
    if len(roles) == 1:
        return "norm"
    if roles[0] == roles[1] and roles[0] in ("mlp", "shared_expert", "expert"):
        return "gated"
    if roles[1] == "router":
        return "weighted"
    if roles[0] == "attend":
        return "output-gate"
    return "keys" if set(roles) == {"attention"} else "mixed"


@lru_cache(maxsize=512)
def layout(arch: Architecture, block: Block) -> Layout:
    """Read a block."""
    streams, kinds, made_by, last = {STREAM}, {}, dict[int, Operation](), dict[int, int]()
    for number, op in enumerate(block.operations):
        for value in uses(op):
            last[value] = number
        if isinstance(op, Join):
            kinds[op.out] = _kind(op, made_by, arch.matrices, streams)
            if kinds[op.out] == "residual":
                streams.add(op.out)
        made_by[op.out] = op
    for number, op in enumerate(block.operations):
        if isinstance(op, Attend):
            end = last.get(op.out, number)
            for value in (op.q, op.k, op.v):
                last[value] = max(last[value], end)
    attends = [op for op in block.operations if isinstance(op, Attend)]
    latents = [
        o
        for o in block.operations
        if isinstance(o, Apply)
        and isinstance(m := made_by.get(o.source), Apply)
        and arch.matrices[o.matrix].role == arch.matrices[m.matrix].role == "attention"
    ]
    return Layout(
        streams=frozenset(streams), kinds=kinds, last=last,
        qk_norms=_qk_norms(arch, block),
        gates=frozenset(
            op.sources[0] for op in block.operations if isinstance(op, Join) and kinds[op.out] == "gated"
        ),
        turned=frozenset(value for op in attends if op.q != op.k for value in (op.q, op.k)),
        latent=any(kind == "keys" for kind in kinds.values()),
        latent_width=arch.matrices[latents[0].matrix].d_in if latents else 0,
        made_by=made_by,
    )  # fmt: skip


QK_NORMS = ("q_norm", "k_norm", "query_layernorm", "key_layernorm", "q_layernorm", "k_layernorm")


def _qk_norms(arch: Architecture, block: Block) -> int:
    """How many norms of queries and keys its layers have."""
    layer = block.layers[0]
    return sum(
        1
        for v in arch.vectors
        if layer in v.layers and v.name.endswith("weight") and any(w in v.name for w in QK_NORMS)
    )
