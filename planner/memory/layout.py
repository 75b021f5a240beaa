"""What is known of a block before any size is: what its Joins join, which values are on the stream, when values
are let go; and how matrices and pairs are split over tensor-parallel GPUs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field
from functools import lru_cache
from operator import attrgetter
from typing import Any, Literal

from ..adapter import Adapted
from ..adapter.pairs import Pair
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..dataclass import dataclass
from ..schema import (
    MEMORY,
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
)
from .products import LowRank

JoinKind = Literal[
    "residual",
    "gated",
    "weighted",
    "sum",
    "norm",
    "keys",
    "output-gate",
    "mixed",
    "beside",
    "added",
    "joined",
]
QK_NORMS = ("q_norm", "k_norm", "query_layernorm", "key_layernorm", "q_layernorm", "k_layernorm")
ADAPTERS = "adapter_list"  # small matrices of a place beside those that all places share (Zamba 2)
ROW_PARALLEL = (
    "o_proj", "down_proj", "c_proj", "dense", "fc2", "fc_out", "out_proj", "dense_4h_to_h", "w2", "wo",
)  # fmt: skip


@dataclass(frozen=True)
class Layout:
    """A block, read. `normed`: the values that a norm precedes, which are the stream and what attention hands an MLP
    directly. `ends`: the values that are let go after an operation. `gates` are the gates of gated activations,
    `turned` queries and keys with a projection of their own, `scans` whether it scans, `latent_width` the width of a
    latent that a norm follows."""

    streams: frozenset[int]
    normed: frozenset[int]
    kinds: Mapping[int, JoinKind]
    ends: Mapping[int, tuple[int, ...]]
    made_by: Mapping[int, Operation]
    gates: frozenset[int]
    turned: frozenset[int]
    qk_norms: bool
    latent: bool
    latent_width: int
    scans: bool = False


@dataclass(frozen=True)
class Trained:
    """What is trained: pairs by matrix, and matrices and biases in full."""

    pairs: Mapping[int, tuple[Adapted, ...]] = field(default_factory=dict)
    whole: Whole = NOTHING_WHOLE

    def of(self, index: int, layer: int) -> Adapted | None:
        """The pairs on a matrix in a layer."""
        return next((item for item in self.pairs.get(index, ()) if layer in item.layers), None)

    def any_in(self, block: Block) -> bool:
        """Whether a block's matrices have something to train: pairs, biases, or themselves."""
        makers = {op.matrix for op in block.operations if isinstance(op, Apply)}
        return not makers.isdisjoint((*self.pairs, *self.whole.biases, *self.whole.matrices))


def uses(op: Operation) -> tuple[int, ...]:
    """The values that an operation reads."""
    if isinstance(op, Apply):
        return (op.source,)
    if isinstance(op, Attend):
        return (op.q, op.k, op.v) if op.bias is None else (op.q, op.k, op.v, op.bias)
    if isinstance(op, (Product, Scan)):
        return (op.left, op.right)
    if isinstance(op, Join):
        return op.sources
    return (op.source,) if isinstance(op, Keep) else ()


def reads_copy(block: Block) -> bool:
    """Whether a layer reads the embedding's result beside its input."""
    return any(isinstance(op, Join) and MEMORY in op.sources for op in block.operations)


def _kind(
    op: Join,
    made_by: Mapping[int, Operation],
    matrices: tuple[Matrix, ...],
    streams: set[int],
    keys: set[int],
    kinds: Mapping[int, JoinKind],
) -> JoinKind:
    roles = []
    for source in op.sources:
        made = made_by.get(source)
        roles.append(matrices[made.matrix].role if isinstance(made, Apply) else type(made).__name__.lower())
    if op.sources[0] in streams:
        if op.sources[-1] == MEMORY:
            return "beside"
        return "mixed" if "router" in roles else "residual"
    if any(kinds.get(source) == "weighted" for source in op.sources):
        return "sum"  # routed experts' results and what stands beside them
    if any(_widens(made_by.get(source), kinds) for source in op.sources):
        return "added"
    if len(roles) == 1:
        return "norm"
    if roles == ["state_space"] * 3:  # queries, keys and values of linear attention, for one convolution
        return "joined"
    last = made_by.get(op.sources[-1])
    if isinstance(last, Apply) and ADAPTERS in matrices[last.matrix].name:
        return "added"
    if roles[0] == roles[1] and roles[0] in ("mlp", "shared_expert"):
        return "gated"
    if roles[0] == "expert":
        return "gated" if roles[1] == "expert" else "weighted"  # by a router, or with a shared expert beside
    if roles[0] == "attend":
        return "output-gate"
    return "keys" if set(roles) == {"attention"} and op.out in keys else "mixed"


def _widens(op: Operation | None, kinds: Mapping[int, JoinKind]) -> bool:
    """Whether a matrix reads what routed experts make, as out of a latent space (Nemotron 3)."""
    return isinstance(op, Apply) and kinds.get(op.source) == "weighted"


def _lasting(block: Block) -> dict[int, tuple[int, ...]]:
    """The values that are let go after each operation: the last that uses them, but queries, keys and values when
    attention returns."""
    last: dict[int, int] = {}
    for number, op in enumerate(block.operations):
        for value in uses(op):
            last[value] = number
    for number, op in enumerate(block.operations):
        if isinstance(op, Attend):
            end = last.get(op.out, number)
            for value in (op.q, op.k, op.v):
                last[value] = max(last[value], end)
    last[block.out] = len(block.operations)  # handed on
    ends: dict[int, tuple[int, ...]] = {}
    for value, number in last.items():
        ends[number] = (*ends.get(number, ()), value)
    return ends


@lru_cache(maxsize=512)
def layout(arch: Architecture, block: Block) -> Layout:
    """Read a block."""
    streams, made_by = {STREAM}, dict[int, Operation]()
    kinds: dict[int, JoinKind] = {}
    latents, keys = [], {op.k for op in block.operations if isinstance(op, Attend)}
    for op in block.operations:
        if isinstance(op, Join):
            kinds[op.out] = _kind(op, made_by, arch.matrices, streams, keys, kinds)
            if kinds[op.out] == "residual":
                streams.add(op.out)
        if isinstance(op, Apply) and from_latent(arch, op, made_by):
            latents.append(arch.matrices[op.matrix].d_in)
        made_by[op.out] = op
    behind = {
        op.source
        for op in block.operations
        if isinstance(op, Apply) and _behind_attention(arch, op, made_by.get(op.source))
    }
    attends = [op for op in block.operations if isinstance(op, Attend)]
    joins = [op for op in block.operations if isinstance(op, Join)]
    return Layout(
        streams=frozenset(streams), normed=frozenset(streams | behind), kinds=kinds, ends=_lasting(block),
        made_by=made_by,
        gates=frozenset(
            op.sources[0]
            for op in joins
            if kinds[op.out] == "gated" and arch.matrices[_matrix(made_by, op.sources[0])].kind != "experts"
        ),
        turned=frozenset(value for op in attends if op.q != op.k for value in (op.q, op.k)),
        qk_norms=_has_qk_norms(arch, block), latent="keys" in kinds.values(),
        latent_width=latents[0] if latents else 0, scans=any(isinstance(op, Scan) for op in block.operations),
    )  # fmt: skip


def _behind_attention(arch: Architecture, op: Apply, made: Operation | None) -> bool:
    """Whether an MLP's matrix reads what attention made, with no sum between (Zamba's shared transformers)."""
    if not isinstance(made, Apply) or arch.matrices[op.matrix].role != "mlp":
        return False
    return (
        arch.matrices[made.matrix].role == "attention"
        and arch.matrices[made.matrix].d_out == arch.hidden_size
    )


def _matrix(made_by: Mapping[int, Operation], value: int) -> int:
    made = made_by[value]
    return made.matrix if isinstance(made, Apply) else 0


def from_latent(arch: Architecture, op: Apply, made_by: Mapping[int, Operation]) -> bool:
    """Whether a projection of attention reads the result of another: a latent, or a norm of it; not one that makes
    Doge's decays of values."""
    if arch.matrices[op.matrix].leaf == "dt_proj":
        return False
    made = made_by.get(op.source)
    if isinstance(made, Join) and len(made.sources) == 1:
        made = made_by.get(made.sources[0])
    if not isinstance(made, Apply):
        return False
    return arch.matrices[op.matrix].role == arch.matrices[made.matrix].role == "attention"


def _has_qk_norms(arch: Architecture, block: Block) -> bool:
    layer = block.layers[0]
    return any(
        layer in vector.layers
        and vector.name.endswith("weight")
        and any(w in vector.name for w in QK_NORMS)
        and ".indexer." not in vector.name  # of its own keys, which choose positions without gradients
        for vector in arch.vectors
    )


_BESIDE_RANK = attrgetter(*(name for name in Pair.__dataclass_fields__ if name != "rank"))


class Shape(tuple[Any, ...]):
    """Adapted matrices without their ranks, as a key that is hashed once."""

    def __hash__(self) -> int:
        """That of its parts."""
        known: int | None = vars(self).get("hashed")
        if known is None:
            known = vars(self)["hashed"] = super().__hash__()
        return known

    def __reduce__(self) -> tuple[Any, ...]:
        """Its parts: hashes of words differ between processes."""
        return Shape, (tuple(self),)


def shape_of(adapted: Sequence[Adapted]) -> tuple[Shape, tuple[int, ...]]:
    """Adapted matrices without their ranks, a number for each distinct one in their place; and the ranks."""
    numbers: dict[int, int] = {}
    shape = Shape(
        (
            item.index,
            item.layers,
            tuple((numbers.setdefault(p.rank, len(numbers)), _BESIDE_RANK(p)) for p in item.pairs),
        )
        for item in adapted
    )
    return shape, tuple(numbers)


Shaped = tuple[Shape, tuple[int, ...]]


def shapes_of(adapters: Sequence[tuple[Adapted, ...]]) -> list[tuple[Shaped, tuple[Adapted, ...]]]:
    """`shape_of` each adapter, with one of that shape in which every number is another rank. Where they differ in
    ranks alone all have one shape: ranks that are alike in some of them, as those of experts at 1, have a number each
    where they are not in others."""
    each = [[pair.rank for item in own for pair in item.pairs] for own in adapters]
    alone = [(shape_of(own), own) for own in adapters]
    if (
        len({tuple((i.index, i.layers, tuple(map(_BESIDE_RANK, i.pairs))) for i in own) for own in adapters})
        > 1
    ):
        return alone
    together = list(dict.fromkeys(zip(*each, strict=True)))  # ranks of one number, by adapter
    for (shape, ranks), own in alone:
        if len(ranks) == len(together):
            return [((shape, by_adapter), own) for by_adapter in zip(*together, strict=True)]
    return alone


# Tensor parallelism


def split_sides(matrix: Matrix, split: int) -> tuple[int, int]:
    """Inputs and outputs of a matrix on one of `split` GPUs: results of attention and MLPs are split by inputs,
    routers and projections to a latent not at all, the rest by outputs."""
    if split == 1 or matrix.role == "router" or "_a_" in matrix.leaf:
        return matrix.d_in, matrix.d_out
    if matrix.leaf in ROW_PARALLEL or matrix.outer == "out":
        return -(-matrix.d_in // split), matrix.d_out
    return matrix.d_in, -(-matrix.d_out // split)


def low_ranks(item: Adapted, split: int = 1) -> tuple[LowRank, ...]:
    """An adapted matrix's pairs as products meet them, split with the matrix."""
    d_in, d_out = split_sides(item.matrix, split)
    narrow_in, narrow_out = item.matrix.d_in // d_in, item.matrix.d_out // d_out
    return tuple(
        LowRank(
            p.d_in // narrow_in, p.d_out // narrow_out, p.rank, bool(p.magnitudes),
            own_in=p.n_in > 1 or p.n_out == 1, own_out=p.n_out > 1 or p.n_in == 1,
            heads=item.matrix.role == "attention" and item.matrix.leaf not in ROW_PARALLEL,
        )
        for p in item.pairs
    )  # fmt: skip
