"""Biases on attention's scores by relative position (T5): made once for a stack, added in each of its layers.

A stack's first layer looks up a bias for every pair of positions and head, the same for all sequences, and hands it
on; attention to an encoder gets zeros in its place. Fused kernels take it joined with the mask, as a tensor of their
own in every layer.
"""

from __future__ import annotations

from collections.abc import Callable

from ..dataclass import dataclass
from .passes import Pass
from .tape import Buffer, Gradients, Size, Value, copy

INDEX = 8  # bytes of a bucket's number


@dataclass(frozen=True)
class Bias:
    """`per_head` pairs of positions, `width` bytes a value. `turned`: laid out with heads innermost, as a look-up
    leaves it, so that a kernel gets a copy. `causal`: a causal mask is joined to it. `grad`: it needs a gradient, for
    which a look-up keeps the number of each pair's bucket."""

    heads: int
    per_head: Size
    width: int
    turned: bool = False
    causal: bool = False
    grad: bool = False

    @property
    def bytes(self) -> Size:
        """Of the tensor that a stack's layers share."""
        return self.per_head * (self.heads * self.width)

    @property
    def kept(self) -> Size:
        """Bytes that the graph of the look-up keeps."""
        return self.per_head * INDEX if self.grad and self.turned else 0

    def shared(self, run: Pass, *, held: bool) -> Shared:
        """The bias in a layer: held elsewhere and without bytes, or `held` by the layer itself."""
        tape = run.tape
        buffer = tape.new(self.bytes if held else 0)
        node = tape.sink() if self.grad and run.grad else None
        return Shared(self, Value(buffer, self.per_head * self.heads, self.width, node))


@dataclass(frozen=True)
class Shared:
    """A bias as a layer that runs has it."""

    kind: Bias
    value: Value


def as_mask(run: Pass, bias: Shared, pairs: Size, *, masked: bool) -> Value:
    """What a fused kernel gets: where a mask lets a pair through the bias, elsewhere the least number. With a mask
    of tokens (`masked`) for every sequence, `pairs` positions with positions in all."""
    tape, kind, value = run.tape, bias.kind, bias.value
    if masked or kind.causal:
        size = (pairs if masked else kind.per_head) * kind.heads
        condition = tape.new(kind.per_head) if kind.causal and not masked else None
        value = tape.apply(
            (value,), size, kind.width, (condition,), _summed(run, size * kind.width, kind.bytes, masked)
        )
        del condition
    return copy(value) if kind.turned else value


def _summed(run: Pass, size: Size, one: Size, many: bool) -> Callable[[Buffer], Gradients]:
    """The way back of a choice by a mask: a tensor of its size, summed over the sequences."""

    def rule(g: Buffer) -> Gradients:
        made = run.tape.new(size)
        if not many:
            return (made,)
        return (run.tape.new(one),)

    return rule


def added(run: Pass, scores: Value, bias: Shared) -> Value:
    """Scores plus the bias, whose gradient is summed over the sequences."""
    tape, value, size = run.tape, bias.value, bias.kind.bytes

    def rule(g: Buffer) -> Gradients:
        return g, None if value_node is None else tape.new(size)

    value_node = value.node
    return tape.apply((scores, value), scores.elements, max(scores.width, value.width), (), rule)
