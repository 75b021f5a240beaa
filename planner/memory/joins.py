"""What a layer's Joins make on its tape: residual sums, gates, experts' weighting, pieces side by side."""

from __future__ import annotations

from abc import abstractmethod

from ..schema import Apply, Attend, Block, Join
from .attention import keys_of_parts
from .elementwise import activation, concatenated, drop, gated, norm, weigh
from .layout import Layout
from .mixture import Mixture
from .passes import FLOAT32
from .products import part
from .tape import Value, add, cast, multiply, piece, scale, unary

UNNORMED = ("per_layer_input_gate",)  # what reads the stream as it is


class Joins(Mixture):
    """A layer's values, by the block's numbers, and what is made of several of them."""

    block: Block
    plan: Layout
    python: bool
    normed: dict[tuple[int, str], Value]

    @abstractmethod
    def value(self, number: int) -> Value:
        """A value; on the stream, the normed one."""

    @abstractmethod
    def counts(self, op: Attend) -> tuple[int, int]:
        """Heads, and those of keys and values, on one of the GPUs that share them."""

    def clamped(self, value: Value, where: str) -> Value:
        """A float16 value within its type's range, where the block's code clamps it: what it reads is kept."""
        clamps = self.block.clamps == where and self.run.half and value.width < FLOAT32
        return unary(value, "in") if clamps else value

    def _keys(self, op: Join) -> Value:
        """Keys of latent attention: each head's plain part and the turned part that all share, in one tensor."""
        core = next(o for o in self.block.operations if isinstance(o, Attend) and o.k == op.out)
        size = self.run.tokens * (self.counts(core)[0] * core.d_qk)
        return keys_of_parts(tuple(self.values[source] for source in op.sources), size)

    def join(self, op: Join) -> Value:
        """The value of a Join, by what it joins."""
        kind, run, values = self.plan.kinds[op.out], self.run, self.values
        if kind == "residual":
            total = values[op.sources[0]]
            if self.traits.wide_residual:
                total = cast(total, FLOAT32)
            if self.traits.weighed_stream:
                total = weigh(run, total, self.arch.hidden_size)
            if self.traits.routed_norms and len(op.sources) > 2:  # each normed, and their sum
                parts = [self._after(values[source]) for source in op.sources[1:]]
                return add(total, self._out(add(*parts)))
            for source in op.sources[1:]:
                own = self._out(values[source], drops=not self._of_attention(source))
                self._name(source, values[source], own)
                total = self.clamped(add(total, own), "sums")
                del own
            return norm(run, total, self.arch.hidden_size, self.traits.norm) if self.traits.post else total
        if kind == "gated":
            gate, up = (values[source] for source in op.sources)
            if op.sources[0] not in self.plan.gates:  # of experts: run where they are weighted
                return gate
            return multiply(gate, up) if self.python else gated(run, gate, up, self.act)
        if kind == "norm":
            width = self.plan.latent_width or self.arch.hidden_size
            return norm(run, values[op.sources[0]], width, self.traits.norm)
        if kind == "weighted" and self.waiting:
            return self.experts(op)
        if kind == "weighted" and self.traits.every_expert:
            return self.shared_with_all(op)
        if kind == "sum":
            return self.sum_with_shared(op)
        if kind in ("joined", "beside"):
            both = concatenated(*(values[source] for source in op.sources))
            normed = 2 * self.arch.hidden_size, self.traits.norm
            return both if kind == "joined" else norm(run, both, *normed)
        if kind in ("added", "keys"):
            return self._keys(op) if kind == "keys" else add(*(values[source] for source in op.sources))
        if kind == "output-gate":
            mixed = values[op.sources[0]]
            if values[op.sources[1]].elements < mixed.elements:  # one weight a head
                return self._mixed(op)
            return multiply(mixed, unary(piece(self.value(op.sources[1]), mixed.elements), "out"))
        if self.traits.every_expert and self.logits is not None and op.sources[0] in self.plan.streams:
            return self.spread(self.value(op.sources[0]), self.values[op.sources[1]])
        return self._mixed(op)

    def _mixed(self, op: Join) -> Value:
        """Anything else elementwise: keeps what it reads."""
        sources = [self.value(source) for source in op.sources]
        made = self.plan.made_by.get(op.sources[0])
        if isinstance(made, Apply) and self.arch.matrices[made.matrix].leaf in UNNORMED:
            sources[0] = activation(self.run, sources[0], self.act)
        if isinstance(made, Apply) and self.arch.matrices[made.matrix].kind == "convolution":
            return multiply(sources[0], piece(sources[1], sources[0].elements))
        largest = max(sources, key=lambda value: value.elements)
        tape, sizes = self.run.tape, [value.bytes for value in sources]
        return tape.apply(
            sources, largest.elements, largest.width, [value.buffer for value in sources],
            lambda g: [tape.new(size) for size in sizes],
        )  # fmt: skip

    def _of_attention(self, source: int, *others: str) -> bool:
        """Whether attention's last product made a value, or that of a part of another role."""
        op = self.plan.made_by.get(source)
        return isinstance(op, Apply) and self.arch.matrices[op.matrix].role in ("attention", *others)

    def _out(self, value: Value, *, drops: bool = True) -> Value:
        """A part's result on its way to the stream; `drops` where it is not attention's."""
        run, traits = self.run, self.traits
        own = part(run, value)
        if traits.after:
            own = self._after(own)
        if traits.layer_scale:
            own = weigh(run, own, self.arch.hidden_size)
        if traits.scaled_residual:
            own = scale(own)
        unless = traits.dropped_by_attention if drops else traits.dropped_by_mlp
        if traits.dropout and run.drops and not unless:
            own = drop(run, own)
        return own

    def _name(self, source: int, made: Value, dropped: Value) -> None:
        """Hold until the layer ends what its code gives a name of its own: attention's result, and what it read."""
        traits = self.traits
        if not self._of_attention(source, "state_space"):
            return
        if traits.attention_named:
            self.bound.append(dropped if traits.attention_named == "dropped" else made)
        if traits.norm_named:
            self.bound.extend(self.normed.values())

    def _after(self, value: Value) -> Value:
        """A part's result with the norm behind it."""
        return norm(self.run, value, self.arch.hidden_size, self.traits.norm)
