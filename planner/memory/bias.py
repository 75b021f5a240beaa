"""Biases on attention's scores by relative position (T5): made once for a stack, added in each of its layers.

A stack's first layer looks up a bias for every pair of positions and head, the same for all sequences, and hands it
on; attention to an encoder gets zeros in its place. UMT5's layers each have a table, and make both anew. Fused
kernels take it joined with the mask, as a tensor of their own in every layer.

Neglected: the numbers of buckets while they are worked out, and the gradient of a table (a value a bucket and head).
"""

from __future__ import annotations

from collections.abc import Callable

from ..dataclass import dataclass
from .passes import Pass
from .tape import Buffer, Gradients, Size, Value, cast, copy

INDEX = 8  # bytes of a bucket's number
# Values, of any type, that rows of a mask are whole multiples of for memory-efficient attention, else they are copied
# to such (pytorch, aten/src/ATen/native/transformers/attention.cpp, preprocess_mask and pad_bias).
ALIGNED = 8


@dataclass(frozen=True)
class Bias:
    """`per_head` pairs of positions, `width` bytes a value. `turned`: laid out with heads innermost, as a look-up
    leaves it, so that a kernel gets a copy. `causal`: a causal mask is joined to it. `grad`: it needs a gradient, for
    which a look-up keeps the number of each pair's bucket. `apart`: every layer makes its own. `once`: a kernel
    gets it as autocast lowers it, a leaf once for all layers, so that their gradients are added up before they are
    widened."""

    heads: int
    per_head: Size
    width: int
    turned: bool = False
    causal: bool = False
    grad: bool = False
    apart: bool = False
    once: bool = False

    @property
    def bytes(self) -> Size:
        """Of the tensor that a stack's layers share."""
        return self.per_head * (self.heads * self.width)

    @property
    def kept(self) -> Size:
        """Bytes that the graph of the look-up keeps."""
        return self.per_head * INDEX if self.grad and self.turned else 0

    def gathered(self, run: Pass) -> Size:
        """Bytes of its gradient while layers add to it."""
        return self.per_head * (self.heads * (min(self.width, run.compute) if self.once else self.width))

    def shared(self, run: Pass, *, held: bool, last: bool = False) -> Shared:
        """The bias in a layer: held elsewhere and without bytes, or `held` by the layer itself; the `last` layer
        makes its gradient first."""
        tape = run.tape
        buffer = tape.new(self.bytes if held else 0)
        node = tape.sink(gathers=last) if self.grad and run.grad else None
        return Shared(self, Value(buffer, self.per_head * self.heads, self.width, node))

    def made(self, run: Pass) -> Shared:
        """The bias that a layer makes for itself, a look-up or zeros, with a gradient as that of a shared one."""
        tape, found = run.tape, self.shared(run, held=True)
        value, numbers = found.value, tape.new(self.kept if run.grad else 0)
        if value.node is None or not self.turned:
            return found
        return Shared(
            self,
            tape.apply((value,), value.elements, self.width, (numbers,), lambda g: (g,), out=value.buffer),
        )


@dataclass(frozen=True)
class Shared:
    """A bias as a layer that runs has it."""

    kind: Bias
    value: Value


def as_mask(run: Pass, bias: Shared, pairs: Size, width: int, *, masked: bool) -> Value:
    """What a fused kernel gets, `width` bytes a value: where a mask lets a pair through the bias, elsewhere the least
    number. With a mask of tokens (`masked`) for every sequence, `pairs` positions with positions in all."""
    tape, kind, value = run.tape, bias.kind, bias.value
    if masked or kind.causal:
        size = (pairs if masked else kind.per_head) * kind.heads
        condition = tape.new(kind.per_head) if kind.causal and not masked else None
        value = tape.apply(
            (value,), size, kind.width, (condition,), _summed(run, size * kind.width, kind.bytes, masked)
        )
        del condition
    if kind.once and value.width > width:
        return tape.apply((value,), value.elements, width, (), lambda g: (g,))
    value = copy(value) if kind.turned else value
    return cast(value, width)


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
