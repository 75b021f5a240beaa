"""A layer's forward pass on a tape: the operations of its block in order, with the elementwise code between them.

The block says which matrices meet which values; what a Join is follows from what it joins (a residual sum, a gated
activation, experts' weighting). Values are let go where the library's variables go: a residual after its sum, queries,
keys and values when attention returns.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..schema import STREAM, Apply, Architecture, Attend, Block, Join, Keep, Matrix, Operation, Product, Recall, Scan

from .attention import Shape, attend
from .elementwise import activation, drop, gated, norm, rotate
from .passes import Pass
from .products import LowRank, Weight, adapted, linear
from .tape import Value, add, multiply, piece, scale, view
from .traits import Traits


@dataclass(frozen=True)
class Layout:
    """What is known of a block before any size is: which values are on the residual stream, which Joins are what,
    and after which operation each value is let go."""

    streams: frozenset[int]
    kinds: Mapping[int, str]
    last: Mapping[int, int]
    fused: frozenset[int]
    qk_norms: int
    gates: frozenset[int]


@dataclass(frozen=True)
class Trained:
    """What is trained in one layer: pairs by matrix, and matrices and biases in full."""

    pairs: Mapping[int, tuple[Adapted, ...]] = field(default_factory=dict)
    whole: Whole = NOTHING_WHOLE

    def of(self, index: int, layer: int) -> Adapted | None:
        """The pairs on a matrix in a layer."""
        return next((item for item in self.pairs.get(index, ()) if layer in item.layers), None)


def _uses(op: Operation) -> tuple[int, ...]:
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
        for value in _uses(op):
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
    prefix = next((m.name for m in arch.matrices if m.layers == block.layers), "")
    names = [v.name for v in arch.vectors if set(block.layers) <= set(v.layers) and v.name.endswith(".weight")]
    qk = sum(1 for n in names if any(w in n for w in ("q_norm", "k_norm", "query_layernorm", "key_layernorm", "q_layernorm", "k_layernorm")))
    fused = frozenset(op.out for op in block.operations if isinstance(op, Attend) and op.q == op.k)
    del prefix
    gates = frozenset(op.sources[0] for op in block.operations if isinstance(op, Join) and kinds[op.out] == "gated")
    return Layout(frozenset(streams), kinds, last, fused, qk, gates)


class Walk:
    """One layer being run. `values` holds what is alive, by the block's numbers; `normed` the normed stream."""

    def __init__(
        self, arch: Architecture, block: Block, layer: int, run: Pass, traits: Traits, trained: Trained,
        unpacked: Mapping[int, int],
    ) -> None:  # fmt: skip
        self.arch, self.block, self.layer = arch, block, layer
        self.run, self.traits, self.trained, self.unpacked = run, traits, trained, unpacked
        self.plan = layout(arch, block)
        self.values: dict[int, Value] = {}
        self.normed: dict[int, Value] = {}

    def forward(self, x: Value) -> Value:
        """The layer's result."""
        self.values[STREAM] = x
        fresh = self.run.kernels == "transformers"
        for number, op in enumerate(self.block.operations):
            self.values[op.out] = self._run(op)
            if fresh and op.out in self.plan.gates:
                self.values[op.out] = activation(self.run, self.values[op.out], self.traits.activation)
            for value in _uses(op):
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
        raise NotImplementedError(type(op).__name__)

    def _input(self, op: Apply) -> Value:
        """What a matrix reads: the normed stream, or a value with its activation."""
        if op.source in self.plan.streams:
            return self._normed(op)
        value = self.values[op.source]
        made = next(o for o in self.block.operations if o.out == op.source)
        if isinstance(made, Apply):
            role = self.arch.matrices[made.matrix].role
            if role in ("mlp", "shared_expert") and self.arch.matrices[op.matrix].role == role:
                return self._activated(made, value)
        return value

    def _activated(self, made: Apply, value: Value) -> Value:
        matrix = self.arch.matrices[made.matrix]
        if matrix.parts:
            half = value.elements / 2 if False else value.elements * 0.5
            return gated(self.run, piece(value, half), piece(value, half), self.traits.activation)
        return activation(self.run, value, self.traits.activation)

    def _normed(self, op: Apply) -> Value:
        key = op.source
        role = self.arch.matrices[op.matrix].role
        if self.traits.two_norms and role in ("mlp",):
            key = -1 - op.source
        if key not in self.normed:
            x = self.values[op.source]
            rule = self.traits.norm if self.traits.before else "none"
            self.normed[key] = norm(self.run, x, self.arch.hidden_size, rule)
        return self.normed[key]

    def _apply(self, op: Apply) -> Value:
        matrix = self.arch.matrices[op.matrix]
        x = self._input(op)
        if matrix.kind == "experts":
            raise NotImplementedError("experts")
        rows = self.run.tokens
        return self._linear(op.matrix, x, rows, clones=False)

    def _linear(self, index: int, x: Value, rows: object, *, clones: bool) -> Value:
        matrix = self.arch.matrices[index]
        run = self.run
        whole = self.layer in self.trained.whole.matrices.get(index, ())
        weight = Weight(
            matrix.d_in, matrix.d_out, trained=run.full or whole, bias=matrix.bias,
            unpacked=self.unpacked.get(index, 0),
        )  # fmt: skip
        item = self.trained.of(index, self.layer)
        if item is None or not run.grad and False:
            return linear(run, x, rows, weight, clones=clones)
        pairs = tuple(LowRank(p.d_in, p.d_out, p.rank, bool(p.magnitudes)) for p in item.pairs)
        return adapted(run, x, rows, weight, pairs, clones=clones)

    def _attend(self, op: Attend) -> Value:
        run, traits = self.run, self.traits
        q, k, v = self._heads(op)
        shape = Shape(op.n_heads, op.n_kv_heads, op.d_qk, op.d_v, capped=traits.capped_scores, sinks=traits.sinks)
        for number in {op.q, op.k, op.v}:
            self.values.pop(number, None)
        self.values[op.q] = q
        if op.k != op.q:
            self.values[op.k] = k
        if op.v not in (op.q, op.k):
            self.values[op.v] = v
        return attend(run, q, k, v, shape)

    def _heads(self, op: Attend) -> tuple[Value, Value, Value]:
        """Queries, keys and values, normed and turned."""
        run, traits = self.run, self.traits
        if op.q == op.k:
            fused = self.values[op.q]
            widths = (op.n_heads * op.d_qk, op.n_kv_heads * op.d_qk, op.n_kv_heads * op.d_v)
            q, k, v = (piece(fused, run.tokens * w) for w in widths)
        else:
            q, k, v = self.values[op.q], self.values[op.k], self.values[op.v]
        if self.plan.qk_norms:
            q, k = norm(run, q, op.d_qk, traits.qk_norm), norm(run, k, op.d_qk, traits.qk_norm)
        if traits.rotary != "none":
            q, k = view(q, clones=True), view(k, clones=True)
        q = rotate(run, q, traits.rotary, traits.rotary_share)
        k = rotate(run, k, traits.rotary, traits.rotary_share)
        return q, k, v

    def _join(self, op: Join) -> Value:
        kind, run = self.plan.kinds[op.out], self.run
        if kind == "residual":
            total = self.values[op.sources[0]]
            for source in op.sources[1:]:
                total = add(total, self._out(self.values[source]))
            return total
        if kind == "gated":
            gate, up = (self.values[source] for source in op.sources)
            if run.kernels == "transformers":
                return multiply(gate, up)
            return gated(run, gate, up, self.traits.activation)
        raise NotImplementedError(kind)

    def _out(self, value: Value) -> Value:
        """A part's result on its way to the stream."""
        run, traits = self.run, self.traits
        if traits.after:
            value = norm(run, value, self.arch.hidden_size, traits.norm)
        if traits.scaled_residual:
            value = scale(value)
        if traits.dropout and run.grad:
            value = drop(run, value)
        return value
