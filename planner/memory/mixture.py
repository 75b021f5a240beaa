"""The experts of a layer on its tape: grouped products run as one where their results are weighted, or all experts on
all tokens."""

from __future__ import annotations

from abc import ABC, abstractmethod

from ..schema import Apply, Architecture, Join
from .every_expert import gated_halves, into_shared, product, routed
from .experts import Routing, Stacked, mix
from .layout import Trained, low_ranks
from .passes import Pass
from .products import Weight
from .tape import Value, add
from .traits import Traits

# Whose weights autocast makes wide: by a division by its float32 sums, or a softmax that is not lowered again.
WIDENED = ("hy_v3", "lfm2_moe", "mistral4")


class Mixture(ABC):
    """What a layer holds of its experts: products that wait, the router's logits, and names that are bound until the
    experts' code returns."""

    arch: Architecture
    layer: int
    run: Pass
    traits: Traits
    trained: Trained
    act: str

    def __init__(self) -> None:
        self.values: dict[int, Value] = {}
        self.waiting: list[tuple[Apply, Value]] = []
        self.logits: Value | None = None
        self.bound: list[Value] = []

    @abstractmethod
    def weight(self, index: int) -> Weight:
        """A matrix as products meet it."""

    def meet(self, op: Apply, x: Value) -> Value:
        """A product with the experts: it waits for their weighting, or runs where all experts see all tokens."""
        if not self.traits.every_expert:
            self.waiting.append((op, x))
            return x
        out = product(self.run, x, self._stacked(op), self.arch.matrices[op.matrix].experts)
        return gated_halves(self.run, out, self.act) if self.arch.matrices[op.matrix].parts else out

    def spread(self, x: Value, logits: Value) -> Value:
        """Tokens for every expert, weighed; the name is bound until the end."""
        experts = next(matrix for matrix in self.arch.matrices if matrix.kind == "experts")
        known, active, hidden = experts.experts, experts.experts_active, self.arch.hidden_size
        self.bound.append(routed(self.run, x, logits, known, active, hidden))
        return self.bound[-1]

    def shared_with_all(self, op: Join) -> Value:
        """All experts' results and a shared one's."""
        results, shared = (self.values[source] for source in op.sources)
        mixed = into_shared(self.run, shared, results, self.arch.hidden_size)
        self.bound.clear()
        self.logits = None
        return mixed

    def _stacked(self, apply: Apply) -> Stacked:
        matrix, item = self.arch.matrices[apply.matrix], self.trained.of(apply.matrix, self.layer)
        pairs = low_ranks(item, self.run.split) if item else ()
        folded = pairs[0] if item and item.pairs[0].materialised else None
        experts = -(-matrix.experts // self.run.expert_split)
        return Stacked(self.weight(apply.matrix), experts, () if folded else pairs, folded)

    def experts(self, op: Join) -> Value:
        """The routed experts whose results this Join weights."""
        stacks = [self._stacked(apply) for apply, _ in self.waiting]
        first, traits = self.arch.matrices[self.waiting[0][0].matrix], self.traits
        seen = first.experts if self.waiting[0][0].all_experts else first.experts_active
        widened = self.arch.model_type in WIDENED
        wide = traits.wide_router or (widened and self.run.autocast)
        routing = Routing(
            first.experts, seen, traits.router, wide, self.act, traits.sinks, traits.jitter,
            traits.float_router and not widened,
        )  # fmt: skip
        x, logits = self.waiting[0][1], self.logits
        self.waiting, self.logits = [], None
        mixed = mix(self.run, x, logits or x, routing, tuple(stacks[:-1]), stacks[-1])
        for source in op.sources[1:]:
            if self.values[source] is not logits:  # a shared expert's result
                mixed = add(mixed, self.values[source])
        return mixed

    def sum_with_shared(self, op: Join) -> Value:
        """Routed experts' result and a shared one's, which a gate may weigh: it is kept then."""
        routed_sum, shared, *gates = (self.values[source] for source in op.sources)
        tape, sizes = self.run.tape, (shared.bytes, *(gate.bytes for gate in gates))
        if gates:
            kept = (shared.buffer, *(gate.buffer for gate in gates))
            shared = tape.apply(
                (shared, *gates),
                shared.elements,
                shared.width,
                kept,
                lambda g: [tape.new(size) for size in sizes],
            )
        return add(routed_sum, shared)
