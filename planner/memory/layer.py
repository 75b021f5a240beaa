"""A layer's forward pass on a tape: the operations of its block in order, with the elementwise code between them.

The block says which matrices meet which values; what a Join is follows from what it joins (a residual sum, a gated
activation, experts' weighting). Values are let go where the library's variables go: a residual after its sum,
queries,
keys and values when attention returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
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
    Recall,
    Scan,
)
from .arrangement import layout, uses
from .attention import Shape, attend
from .elementwise import activation, drop, gated, norm, rotate
from .experts import Routing, Stacked, mix
from .passes import Pass
from .products import LowRank, Weight, adapted, linear, part, whole
from .tape import Gradients, Size, Value, add, cast, multiply, piece, scale, unary
from .traits import Traits


@dataclass(frozen=True)
class Trained:
    """What is trained in one layer: pairs by matrix, and matrices and biases in full."""

    pairs: Mapping[int, tuple[Adapted, ...]] = field(default_factory=dict)
    whole: Whole = NOTHING_WHOLE

    def of(self, index: int, layer: int) -> Adapted | None:
        """The pairs on a matrix in a layer."""
        return next((item for item in self.pairs.get(index, ()) if layer in item.layers), None)


class Walk:
    """One layer being run. `values` holds what is alive, by the block's numbers; `normed` the normed stream."""

    def __init__(
        self, arch: Architecture, block: Block, layer: int, run: Pass, traits: Traits, trained: Trained,
        unpacked: Mapping[int, int],
    ) -> None:  # fmt: skip
        self.arch, self.block, self.layer = arch, block, layer
        self.run, self.traits, self.trained, self.unpacked = run, traits, trained, unpacked
        self.plan = layout(arch, block)
        self.act = arch.activation or traits.activation
        self.memory: Size = None
        self.kept: dict[str, Value] = {}
        self.waiting: list[Apply] = []
        self.values: dict[int, Value] = {}
        self.normed: dict[int, Value] = {}

    def forward(self, x: Value) -> Value:
        """The layer's result."""
        self.values[STREAM] = x
        fresh = self.run.kernels == "transformers"
        for number, op in enumerate(self.block.operations):
            self.values[op.out] = self._run(op)
            if fresh and op.out in self.plan.gates:
                self.values[op.out] = activation(self.run, self.values[op.out], self.act)
            for value in uses(op):
                if self.plan.last[value] <= number:
                    self.values.pop(value, None)
                    self.normed.pop(value, None)
        return self.values.pop(self.block.out)

    def _run(self, op: Operation) -> Value:
        if isinstance(op, Apply):
            return self._apply(op)
        if isinstance(op, Attend):
            return self._attend(op)
        if isinstance(op, Join):
            return self._join(op)
        if isinstance(op, Keep):
            self.kept[op.name] = self.values[op.source]
            return self.values[op.source]
        if isinstance(op, Recall):
            return self.kept.get(op.name) or self.run.tape.leaf(
                self.run.tokens * 1, self.run.compute, grad=False
            )
        return self._product(op)

    def _product(self, op: Product | Scan) -> Value:
        """A product of two activations in a scan: keeps both sides."""
        left, right = self.values[op.left], self.values[op.right]
        return multiply(left, right)

    # What goes into a matrix

    def _input(self, op: Apply) -> Value:
        """What a matrix reads: the normed stream, or a value with its activation."""
        if op.source in self.plan.streams:
            return self._normed(op)
        value, made = self.values[op.source], self.plan.made_by.get(op.source)
        if isinstance(made, Apply):
            role = self.arch.matrices[made.matrix].role
            same = self.arch.matrices[op.matrix].role == role
            if role in ("mlp", "shared_expert") and same:
                return self._activated(made, value)
            if role == "attention" and same:  # out of a latent
                width = self.arch.matrices[op.matrix].d_in
                return norm(self.run, piece(value, self.run.tokens * width), width, self.traits.norm)
        return value

    def _activated(self, made: Apply, value: Value) -> Value:
        if not self.arch.matrices[made.matrix].parts:
            return activation(self.run, value, self.act)
        half = value.elements * 0.5
        gate, up = piece(value, half), piece(value, half)
        if self.run.kernels == "transformers":
            return multiply(activation(self.run, gate, self.act), up)
        return gated(self.run, gate, up, self.act)

    def _normed(self, op: Apply) -> Value:
        key = op.source
        if self.traits.two_norms and self.arch.matrices[op.matrix].role == "mlp":
            key = -1 - op.source
        if key not in self.normed:
            rule = self.traits.norm if self.traits.before else "none"
            self.normed[key] = whole(
                self.run, norm(self.run, self.values[op.source], self.arch.hidden_size, rule)
            )
        return self.normed[key]

    # Matrices

    def _apply(self, op: Apply) -> Value:
        matrix = self.arch.matrices[op.matrix]
        x = self._input(op)
        if matrix.kind == "experts":  # run as one where their results are weighted
            self.waiting.append(op)
            return x
        if matrix.role == "router" and self.traits.router == "sigmoid":
            x = cast(x, 4)
        out = self._linear(op.matrix, x, self.rows(op), clones=op.out in self.plan.turned)
        if op.forward_only:
            out.node = None
        return out

    def rows(self, op: Apply) -> Size:
        """Positions that a matrix meets."""
        if op.length == "memory" and self.memory is not None:
            return self.memory
        return self.run.tokens if op.per == 1 else self.run.tokens * (1 / op.per)

    def _weight(self, index: int) -> Weight:
        matrix, run = self.arch.matrices[index], self.run
        whole = self.layer in self.trained.whole.matrices.get(index, ())
        return Weight(
            matrix.d_in,
            matrix.d_out,
            trained=run.full or whole,
            bias=matrix.bias,
            unpacked=self.unpacked.get(index, 0),
        )

    def _linear(self, index: int, x: Value, rows: Size, *, clones: bool) -> Value:
        item = self.trained.of(index, self.layer)
        if item is None:
            return linear(self.run, x, rows, self._weight(index), clones=clones)
        pairs = low_ranks(item, self.run.split)
        return adapted(self.run, x, rows, self._weight(index), pairs, clones=clones)

    def _experts(self, op: Join) -> Value:
        """The routed experts whose results this Join weights."""
        stacks = []
        for apply in self.waiting:
            matrix, item = self.arch.matrices[apply.matrix], self.trained.of(apply.matrix, self.layer)
            pairs = low_ranks(item, self.run.split) if item else ()
            folded = pairs[0] if item and item.pairs[0].materialised else None
            stacks.append(
                Stacked(self._weight(apply.matrix), matrix.experts, () if folded else pairs, folded)
            )
        first = self.arch.matrices[self.waiting[0].matrix]
        traits = self.traits
        routing = Routing(
            first.experts, first.experts_active, traits.router, traits.wide_router, self.act, traits.sinks
        )
        x = self._input(self.waiting[0])
        self.waiting = []
        return mix(self.run, x, self.values[op.sources[1]], routing, tuple(stacks[:-1]), stacks[-1])

    # Attention

    def _attend(self, op: Attend) -> Value:
        run, traits = self.run, self.traits
        q, k, v = self._heads(op)
        masked = run.masked or (op.window is not None and op.window < run.reach)
        n_heads, n_kv_heads = self._counts(op)
        shape = Shape(
            n_heads, n_kv_heads, op.d_qk, op.d_v, masked, traits.capped_scores, traits.eager,
            traits.narrow, traits.dropped, traits.wide_scores,
        )  # fmt: skip
        for number, value in ((op.q, q), (op.k, k), (op.v, v)):
            self.values[number] = value
        return attend(run, q, k, v, shape)

    def _counts(self, op: Attend) -> tuple[int, int]:
        """Heads, and those of keys and values, on one of the GPUs that share them."""
        return -(-op.n_heads // self.run.split), -(-op.n_kv_heads // self.run.split)

    def _heads(self, op: Attend) -> tuple[Value, Value, Value]:
        """Queries, keys and values, normed and turned."""
        run, traits = self.run, self.traits
        if op.q == op.k:
            fused = self.values[op.q]
            n_heads, n_kv_heads = self._counts(op)
            widths = (n_heads * op.d_qk, n_kv_heads * op.d_qk, n_kv_heads * op.d_v)
            q, k, v = (piece(fused, run.tokens * w) for w in widths)
        else:
            q, k, v = self.values[op.q], self.values[op.k], self.values[op.v]
        if self.plan.qk_norms:
            q, k = norm(run, q, op.d_qk, traits.qk_norm), norm(run, k, op.d_qk, traits.qk_norm)
        if self.plan.latent:
            return rotate(run, q, "partial", 0.5), k, v
        q = rotate(run, q, traits.rotary, traits.rotary_share)
        k = rotate(run, k, traits.rotary, traits.rotary_share)
        return q, k, v

    def _keys(self, op: Join) -> Value:
        """Keys of latent attention: each head's plain part and the turned part that all share, in one tensor."""
        run, tape = self.run, self.run.tape
        attend_op = next(o for o in self.block.operations if isinstance(o, Attend) and o.k == op.out)
        size = run.tokens * (attend_op.n_heads * attend_op.d_qk)
        sources = tuple(self.values[source] for source in op.sources)
        whole = sources[0].bytes

        def rule(g: object) -> Gradients:
            again = tape.new(size * sources_width)
            made = tape.new(whole)
            del again
            return (made, tape.new(0))

        sources_width = sources[0].width
        return tape.apply(sources, size, sources_width, (), rule)

    # What is joined

    def _join(self, op: Join) -> Value:
        kind, run = self.plan.kinds[op.out], self.run
        values = self.values
        if kind == "residual":
            total = values[op.sources[0]]
            for source in op.sources[1:]:
                total = add(total, self._out(values[source]))
            return total
        if kind == "gated":
            gate, up = (values[source] for source in op.sources)
            return multiply(gate, up) if run.kernels == "transformers" else gated(run, gate, up, self.act)
        if kind == "norm":
            width = self.plan.latent_width or self.arch.hidden_size
            return norm(run, values[op.sources[0]], width, self.traits.norm)
        if kind == "weighted":
            return self._experts(op)
        if kind == "keys":
            return self._keys(op)
        if kind == "output-gate":
            return multiply(
                values[op.sources[0]],
                unary(piece(values[op.sources[1]], values[op.sources[0]].elements), "out"),
            )
        total = values[op.sources[0]]
        for source in op.sources[1:]:
            other = values[source]
            total = add(total, other)
        return total

    def _out(self, value: Value) -> Value:
        """A part's result on its way to the stream."""
        run, traits = self.run, self.traits
        value = part(run, value)
        if traits.after:
            value = norm(run, value, self.arch.hidden_size, traits.norm)
        if traits.scaled_residual:
            value = scale(value)
        if traits.dropout and run.grad:
            value = drop(run, value)
        return value


ROW_PARALLEL = (
    "o_proj",
    "down_proj",
    "c_proj",
    "dense",
    "fc2",
    "fc_out",
    "out_proj",
    "dense_4h_to_h",
    "w2",
    "wo",
)


def split_sides(matrix: Matrix, split: int) -> tuple[int, int]:
    """Inputs and outputs of a matrix on one of `split` GPUs: results of attention and MLPs are split by
    inputs, routers
    and projections to a latent not at all, the rest by outputs."""
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
            p.d_in // narrow_in, p.d_out // narrow_out, p.rank, bool(p.magnitudes), own_in=p.n_in > 1 or p.n_out == 1,
            own_out=p.n_out > 1 or p.n_in == 1,
        )
        for p in item.pairs
    )  # fmt: skip
