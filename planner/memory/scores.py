"""Scores and probabilities of eager attention: what each step of theirs keeps, and makes on the way back."""

from __future__ import annotations

from .passes import FLOAT32, Pass
from .tape import Buffer, Gradients, Size, Tape, Value, beside


def floored(run: Pass, weights: Value) -> Value:
    """max(masked scores, least): keeps the scores; on the way back one tensor of their size and a byte a score stand
    beside the gradient."""
    tape, size, flags = run.tape, weights.bytes, weights.elements

    def rule(g: Buffer) -> Gradients:
        half, below = tape.new(size), tape.new(flags)
        made = tape.new(size)
        del half, below
        return (made,)

    return tape.apply((weights,), weights.elements, weights.width, (weights.buffer,), rule)


def scaled_by(run: Pass, x: Value, share: Value) -> Value:
    """Rows times their share: keeps both."""
    tape, size, small = run.tape, x.bytes, share.bytes

    def rule(g: Buffer) -> Gradients:
        made, product = tape.new(size), tape.new(size)
        narrow = tape.new(small)
        del product
        return made, narrow

    return tape.apply((x, share), x.elements, x.width, (x.buffer, share.buffer), rule)


def widened(run: Pass, weights: Value) -> Value:
    """Scores plus a float32 bias: a new float32 tensor, whose gradient is lowered to the scores' type."""
    tape, size, narrow = run.tape, weights.bytes, weights.width < FLOAT32
    return tape.apply((weights,), weights.elements, FLOAT32, (), lambda g: (tape.new(size) if narrow else g,))


def scale_mask(run: Pass, weights: Value, width: int = 0) -> Value:
    """Scores plus the causal mask: a new tensor, `width` bytes a value (0: as before), its gradient passed on."""
    tape, size = run.tape, weights.bytes
    same = width in (0, weights.width)
    return tape.apply(
        (weights,), weights.elements, width or weights.width, (), lambda g: (g if same else tape.new(size),)
    )


def batched(run: Pass, a: Value, b: Value, elements: Size) -> Value:
    """A product of two activations: keeps both sides."""
    tape, a, b = run.tape, run.cast_in(a), run.cast_in(b)
    sizes, width = (a.bytes, b.bytes), max(a.width, b.width)
    return tape.apply(
        (a, b), elements, width, (a.buffer if b.node else None, b.buffer if a.node else None),
        lambda g: [tape.new(size) for size in sizes],
    )  # fmt: skip


def softmax(tape: Tape, x: Value, width: int) -> Value:
    """Keeps its result, `width` bytes a value; on the way back CUDA multiplies gradient and result into a tensor of
    its own before it makes x's gradient (aten/src/ATen/native/cuda/SoftMax.cu, softmax_backward_cuda_out)."""
    size, product = x.bytes, x.elements * width
    out = tape.new(product)
    return tape.apply((x,), x.elements, width, (out,), beside(tape, product, size), out=out)


def contiguous(x: Value) -> Value:
    """A copy in another order of dimensions; the gradient is passed on as a view."""
    return x.tape.apply((x,), x.elements, x.width, (), lambda g: (g,))
