"""Matrix products: what a Linear keeps and makes, frozen or trained, quantised, under autocast, with adapters.

A frozen Linear keeps nothing but its weight, which is held anyway; a trained one keeps its input. A pair of an
adapter
keeps its input in the adapter's dtype (a copy of its own where that differs from the value's, or under
dropout) and the
r-wide value between A and B.
"""

from __future__ import annotations

from dataclasses import dataclass

from .elementwise import drop
from .passes import FLOAT32, Pass
from .tape import Buffer, Gradients, Size, Value, add, cast, scale


@dataclass(frozen=True)
class Weight:
    """A matrix as a product meets it. `trained`: its gradient is made; `bias` likewise a gradient. `unpacked` bytes
    stand beside the product while it runs, for a weight that is held quantised; the others are `width` bytes a
    value."""

    d_in: int
    d_out: int
    trained: bool = False
    bias: bool = False
    unpacked: int = 0
    width: int = 2


@dataclass(frozen=True)
class LowRank:
    """A pair: its rank (a number or a symbol) and whether it is DoRA's. On experts, whether each has a factor of its
    own on either side."""

    d_in: int
    d_out: int
    rank: Size
    dora: bool = False
    own_in: bool = True
    own_out: bool = True


def linear(run: Pass, x: Value, rows: Size, weight: Weight, *, clones: bool = False) -> Value:
    """x W: keeps x for a trained W. `clones`: the result's gradient comes in another order of dimensions."""
    tape = run.tape
    value = cast(x, run.compute) if run.autocast or weight.unpacked else x
    held = tape.new(weight.unpacked) if weight.unpacked else None
    size_in = rows * (weight.d_in * value.width)
    width = run.compute if run.autocast and not weight.unpacked else x.width
    out_size = rows * (weight.d_out * width)
    needs, trains = value.node is not None, weight.trained and run.grad
    parameters = weight.d_in * weight.d_out

    lowered = None
    if run.autocast and weight.width > run.compute and not weight.unpacked:
        lowered = run.lower(parameters, trained=weight.trained)

    def rule(g: Buffer) -> Gradients:
        copied = tape.new(out_size) if clones else None
        if trains:
            if run.autocast and weight.width != run.compute:
                narrow = tape.new(parameters * run.compute)
                tape.gradient(parameters * weight.width)
                del narrow
            else:
                tape.gradient(parameters * weight.width)
            if weight.bias:
                tape.gradient(weight.d_out * weight.width)
        again = tape.new(weight.unpacked) if weight.unpacked and needs else None
        made = tape.new(size_in) if needs else None
        del copied, again
        return (made,)

    keeps = trains or (run.inputs_kept and weight.unpacked > 0)
    kept = (value.buffer if keeps else None, lowered if needs else None)
    out = tape.apply((value,), rows * weight.d_out, width, kept, rule, trains=trains)
    del held
    return out


def whole(run: Pass, x: Value) -> Value:
    """All positions of a stream that tensor-parallel GPUs hold in parts; its gradient is reduced to the parts."""
    if not run.split_stream:
        return x
    tape, size = run.tape, x.bytes
    return tape.apply((x,), x.elements * run.split, x.width, (), lambda g: (tape.new(size),))


def part(run: Pass, x: Value) -> Value:
    """This GPU's positions of a result that is summed over tensor-parallel ones."""
    if not run.split_stream:
        return x
    tape, size = run.tape, x.bytes
    return tape.apply((x,), x.elements * (1 / run.split), x.width, (), lambda g: (tape.new(size),))


def adapted(
    run: Pass, x: Value, rows: Size, weight: Weight, pairs: tuple[LowRank, ...], *, clones: bool = False,
    again: bool = False,
) -> Value:  # fmt: skip
    """A Linear with its adapter, as PEFT adds it: W x + s B A dropout(x), x cast to the adapter's dtype. Unsloth's
    kernels take x as it is where there is no dropout; `again`: they make it a second time instead of keeping it."""
    base = linear(run, x, rows, weight, clones=clones and not pairs)
    width = base.width
    for pair in pairs:
        x_in = x if run.kernels == "unsloth" and not run.dropout else cast(x, run.trained)
        added = (
            low_rank(run, x_in, rows, pair, again=again)
            if not pair.dora
            else _dora(run, x_in, rows, weight, pair, base)
        )
        if (
            run.kernels == "litgpt" and weight.d_out > 0 and run.grad
        ):  # its index_copy keeps what it lays down
            added = _laid_down(added)
        total = add(base, added) if not clones else _add_cloning(base, added)
        base = total
        del added, total, x_in
    return cast(base, width)


def _laid_down(x: Value) -> Value:
    """x put into zeros at its rows of a fused matrix: x itself is kept."""
    tape, size = x.tape, x.bytes
    return tape.apply((x,), x.elements, x.width, (x.buffer,), lambda g: (tape.new(size),))


def _add_cloning(base: Value, added: Value) -> Value:
    """base + added, whose gradient comes in another order of dimensions and is copied once."""
    tape, size = base.tape, base.bytes

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size)
        return made, made

    return tape.apply((base, added), base.elements, max(base.width, added.width), (), rule)


def low_rank(
    run: Pass, x: Value, rows: Size, pair: LowRank, copies: int = 1, *, again: bool = False
) -> Value:
    """s B A dropout(x); `copies` pairs share the rows (one for each expert)."""
    inner = drop(run, x) if run.dropout and run.grad else x
    down = trained_linear(run, inner, rows, pair.d_in, pair.rank, copies if pair.own_in else 1, again=again)
    up = trained_linear(run, down, rows, pair.rank, pair.d_out, copies if pair.own_out else 1)
    return scale(up)


def trained_linear(
    run: Pass, x: Value, rows: Size, d_in: Size, d_out: Size, copies: int = 1, *, again: bool = False
) -> Value:
    """A trained matrix of an adapter: keeps its input, makes its own gradient and then the input's. `again`: the
    input is not kept but made once more."""
    tape = run.tape
    value = run.cast_in(x)
    width = run.compute if run.autocast else value.width
    size_in, parameters = rows * d_in * width, d_in * d_out * copies
    needs, lowers = value.node is not None, width < run.trained
    lowered = run.lower(parameters, trained=True) if lowers else None

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size_in) if again else None
        narrow = tape.new(parameters * width) if lowers else None
        tape.gradient(parameters * run.trained)
        del narrow, made
        return (tape.new(size_in) if needs else None,)

    kept = (None if again else value.buffer, lowered if needs else None) if run.grad else ()
    return tape.apply((value,), rows * d_out, width, kept, rule, trains=run.grad)


def _dora(run: Pass, x: Value, rows: Size, weight: Weight, pair: LowRank, base: Value) -> Value:
    """(m / |W + B A| - 1) W x + m / |W + B A| s B A x, the norm over the whole weight in the adapter's dtype.

    The product B A of an identity keeps its r-wide value (as wide as the input), and each scaled result is kept
    for the magnitude's gradient. The norm itself is outside the graph.
    """
    tape = run.tape
    parameters = weight.d_in * weight.d_out
    eye = tape.new(weight.d_in * (weight.d_in * x.width))
    product = tape.new(parameters * x.width)
    whole = [tape.new(parameters * x.width) for _ in range(3)]  # the weight cast, s B A, and their sum
    del whole
    down = trained_linear(run, x, rows, pair.d_in, pair.rank)
    up = trained_linear(run, down, rows, pair.rank, pair.d_out)
    del product, eye
    share = _by_magnitude(run, base, pair.d_out)
    own = scale(_by_magnitude(run, up, pair.d_out))
    return add(share, own)


def _by_magnitude(run: Pass, x: Value, d_out: int) -> Value:
    """x times a trained magnitude for each output: keeps x, and makes a full-size product for its gradient."""
    tape, width = run.tape, max(x.width, run.trained)
    size_x, size = x.bytes, x.elements * width
    needs = x.node is not None

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size_x) if needs else None
        product = tape.new(size)
        del product
        return (made,)

    return tape.apply((x,), x.elements, width, (x.buffer,), rule, trains=run.grad)


def promoted(a: int, b: int) -> int:
    """The width of a sum of values of two widths."""
    return FLOAT32 if FLOAT32 in (a, b) else max(a, b)
