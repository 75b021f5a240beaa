"""Matrix products: what a Linear keeps and makes, frozen or trained, quantised, under autocast, with adapters.

A frozen Linear keeps nothing but its weight, which is held anyway; a trained one keeps its input. A pair of an
adapter keeps its input in the adapter's dtype (a copy of its own where that differs from the value's, or under
dropout) and the r-wide value between A and B.
"""

from __future__ import annotations

from ..dataclass import dataclass
from .elementwise import drop
from .passes import COPIES, FLOAT32, HALF, Pass
from .tape import EXPERT_GRADIENTS, Buffer, Gradients, Size, Value, add, cast, copy, scale


@dataclass(frozen=True)
class Weight:
    """A matrix as a product meets it. `trained`: its gradient is made; `bias` likewise a gradient, which is made too
    where the bias alone is trained (`bias_trained`). `unpacked` bytes
    stand beside the product while it runs, for a weight that is held quantised; the others are `width` bytes a
    value. A router `routes`. `flat`: it reads a matrix of rows, of which gradients are no views. `turned`: what it
    reads lies in another order of dimensions, so that a product of several sequences keeps a copy."""

    d_in: int
    d_out: int
    trained: bool = False
    bias: bool = False
    unpacked: int = 0
    width: int = 2
    bias_trained: bool = False
    shared: bool = False
    copies: Size = 0
    routes: bool = False
    flat: bool = False
    turned: bool = False


@dataclass(frozen=True)
class LowRank:
    """A pair: its rank (a number or a symbol) and whether it is DoRA's. On experts, whether each has a factor of its
    own on either side. `heads`: on what makes queries, keys or values."""

    d_in: int
    d_out: int
    rank: Size
    dora: bool = False
    own_in: bool = True
    own_out: bool = True
    heads: bool = False


def linear(run: Pass, x: Value, rows: Size, weight: Weight, *, clones: bool = False) -> Value:
    """x W: keeps x for a trained W. `clones`: the result's gradient comes in another order of dimensions."""
    if weight.unpacked and run.int8:
        return _eight_bits(run, x, rows, weight)
    tape = run.tape
    value = cast(x, run.compute) if weight.unpacked else run.cast_in(x)
    if weight.turned and weight.trained and run.grad:
        value = copy(value)
    held = tape.new(weight.unpacked, COPIES) if weight.unpacked and not run.copy_shared else None
    size_in = rows * (weight.d_in * value.width)
    width = run.compute if run.autocast and not weight.unpacked else x.width
    out_size = rows * (weight.d_out * width)
    flat = run.flat and run.grad
    needs, trains = value.node is not None, weight.trained and run.grad
    parameters, shifts = weight.d_in * weight.d_out, weight.bias_trained and run.grad

    held_low, narrow = lowered(run, weight)
    copied = tape.new(parameters * (weight.copies * width)) if weight.copies > 1 else None

    def rule(g: Buffer) -> Gradients:
        copied = tape.new(out_size) if clones else None
        gradient = tape.new(parameters * run.compute) if narrow is not None else None
        if (trains or (flat and not weight.unpacked)) and narrow is None:
            _gradient_of(run, weight)
        if (trains and weight.bias) or shifts:
            tape.gradient(weight.d_out * weight.width)
        again = tape.new(weight.unpacked, COPIES) if weight.unpacked and needs else None
        made = tape.new(size_in, viewed=not weight.flat) if needs else None
        del copied, again
        return made, gradient

    keeps, holds = trains or flat, run.inputs_kept and weight.unpacked > 0
    if holds:
        run.hold(value)
    before = run.kept_before(value) if holds and not trains else None
    kept = (value.buffer if keeps else None, held_low if needs else None, before, copied if needs else None)
    inputs = (value,) if narrow is None else (value, narrow)
    out = tape.apply(
        inputs, rows * weight.d_out, width, kept, rule, trains=trains or shifts or flat,
        hidden=weight.unpacked > 0,
    )  # fmt: skip
    if not weight.routes:
        run.made(out.buffer, counted=not weight.bias)
    del held
    return out


def _gradient_of(run: Pass, weight: Weight, label: str = "gradients") -> None:
    """A trained weight's gradient; of one that layers share it is added to a sum that is counted elsewhere."""
    size = weight.d_in * weight.d_out * weight.width
    if weight.shared:
        run.tape.new(size, label)
    else:
        run.tape.gradient(size, label)


def lowered(run: Pass, weight: Weight, label: str = "gradients") -> tuple[Buffer | None, Value | None]:
    """A weight as autocast lowers it, and where it is trained that as a value, whose gradient is widened once the
    product's is done and has let the lowered weight go."""
    if not run.autocast or weight.unpacked or (weight.width <= run.compute and not run.recasts):
        return None, None
    tape, parameters = run.tape, weight.d_in * weight.d_out
    once = (
        weight.shared and weight.trained and not run.again
    )  # lowered for all layers, and counted with its gradient
    low = tape.new(0) if once else run.lower(parameters, trained=weight.trained)
    if not (weight.trained and run.grad):
        return low, None
    if once:
        return low, tape.apply((), parameters, run.compute, (), lambda g: (), trains=True, out=low)

    def widen(g: Buffer) -> Gradients:
        _gradient_of(run, weight, label)
        return ()

    return low, tape.apply((), parameters, run.compute, (), widen, trains=True, out=low)


def _eight_bits(run: Pass, x: Value, rows: Size, weight: Weight) -> Value:
    """LLM.int8(): holds x until the graph goes, though no weight gradient is asked for; has x in 8 bits, the product
    in 32 and then in 16, and makes the weight whole in x's type on the way back."""
    tape, size, whole_weight = run.tape, x.bytes, weight.d_in * weight.d_out * x.width
    rounded, product = tape.new(rows * weight.d_in), tape.new(rows * (weight.d_out * FLOAT32))
    narrow = tape.new(rows * (weight.d_out * HALF))

    def rule(g: Buffer) -> Gradients:
        again = tape.new(whole_weight, COPIES)
        made = tape.new(size)
        del again
        return (made,)

    shifts = weight.bias_trained and run.grad
    run.hold(x)
    out = tape.apply((x,), rows * weight.d_out, x.width, (), rule, trains=shifts)
    del rounded, product, narrow
    return out


def whole(run: Pass, x: Value) -> Value:
    """All positions of a stream that tensor-parallel GPUs hold in parts; its gradient is reduced to the parts.

    A trained matrix keeps all of them here. Transformer Engine and Megatron keep this GPU's part and gather once
    more on the way back: too high by two hidden states a layer, less one GPU's part of them. On the other hand what
    is gathered and reduced waits on NCCL's stream, which nothing counts (docs/methods.md).
    """
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
    """A Linear with its adapter, as PEFT adds it: W x + s B A dropout(x), x cast to the adapter's dtype. Functions
    of pairs take x as it is; `again`: they make it a second time instead of keeping it."""
    base = linear(run, x, rows, weight, clones=clones and not pairs)
    width = base.width
    for pair in pairs:
        x_in = x if _as_it_is(run, weight) else for_pairs(run, x)
        added = (
            low_rank(run, x_in, rows, pair, weight, again=again)
            if not pair.dora
            else _dora(run, x_in, rows, weight, pair, base)
        )
        if run.kernels == "litgpt" and pair.heads and run.grad:  # its index_copy keeps what it lays down
            added = _laid_down(added)
        met = meeting(run, base, added)
        if met and run.bitsandbytes and weight.unpacked:  # PEFT casts what is added, not the sum
            met, added = 0, scale(added)
        total = add(base, added, width=met) if not clones else _add_cloning(base, added, met)
        base = total
        del added, total, x_in
    return base if _as_it_is(run, weight) and not run.joins_pairs else cast(base, width)


def _as_it_is(run: Pass, weight: Weight) -> bool:
    """Whether a pair's product takes x as it is: Unsloth's without dropout, and PEFT's beside bitsandbytes' weights
    under autocast, which it leaves to choose the type."""
    if run.joins_pairs or run.kernels == "unsloth":
        return run.joins_pairs
    return run.autocast and run.bitsandbytes and weight.unpacked > 0


def for_pairs(run: Pass, x: Value) -> Value:
    """x in an adapter's type: a copy too where that is the other kind of 16 bits."""
    return scale(x) if run.apart and x.width == HALF else cast(x, run.trained)


def _for_product(run: Pass, x: Value, weight: Weight) -> Value:
    """What a pair reads, as a product takes it: autocast copies the other kind of 16 bits."""
    return scale(x) if _reads_apart(run, weight) and run.autocast and x.width == HALF else x


def _reads_apart(run: Pass, weight: Weight) -> bool:
    """Whether what a matrix's pairs read is in 16 bits of the other kind than what the matrix reads."""
    return run.apart and not _as_it_is(run, weight)


def meeting(run: Pass, base: Value, added: Value) -> int:
    """Bytes a value of the sum where a pair's result meets the base's in 16 bits of the other kind, else 0."""
    both = base.width == added.width == HALF
    return FLOAT32 if run.apart and not run.autocast and both else 0


def _laid_down(x: Value) -> Value:
    """x put into zeros at its rows of a fused matrix: x itself is kept."""
    tape, size = x.tape, x.bytes
    return tape.apply((x,), x.elements, x.width, (x.buffer,), lambda g: (tape.new(size),))


def _add_cloning(base: Value, added: Value, width: int = 0) -> Value:
    """base + added, whose gradient comes in another order of dimensions and is copied once."""
    tape, size = base.tape, base.bytes

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size)
        return made, made

    return tape.apply((base, added), base.elements, width or max(base.width, added.width), (), rule)


def low_rank(
    run: Pass, x: Value, rows: Size, pair: LowRank, weight: Weight, *, again: bool = False
) -> Value:  # fmt: skip
    """s B A dropout(x)."""
    inner = drop(run, x) if run.dropout and run.drops else x
    inner = _for_product(run, inner, weight)
    down = trained_linear(
        run, inner, rows, pair.d_in, pair.rank, again=again, flat=weight.flat, turned=weight.turned
    )
    del inner  # what was dropped has no name
    return scale(trained_linear(run, down, rows, pair.rank, pair.d_out))


def trained_linear(
    run: Pass, x: Value, rows: Size, d_in: Size, d_out: Size, copies: int = 1, *, again: bool = False,
    flat: bool = False, turned: bool = False,
) -> Value:  # fmt: skip
    """A trained matrix of an adapter (`copies`: one for each expert): keeps its input, makes its own gradient and
    then the input's. `again`: the input is not kept but made once more. `flat` and `turned` as a weight's."""
    tape = run.tape
    value = run.cast_in(x)
    value = copy(value) if turned else value
    width = run.compute if run.autocast else value.width
    size_in, parameters = rows * d_in * width, d_in * d_out * copies
    needs, lowers = value.node is not None, width < run.trained or (run.apart and run.autocast)
    lowered = (
        run.lower(parameters, trained=not run.apart) if lowers else None
    )  # autocast holds float32's alone

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size_in) if again else None
        narrow = tape.new(parameters * width) if lowers else None
        tape.gradient(parameters * run.trained, "gradients" if copies == 1 else EXPERT_GRADIENTS)
        del narrow, made
        return (tape.new(size_in, viewed=not flat) if needs else None,)

    kept = (None if again else value.buffer, lowered if needs else None) if run.grad else ()
    out = tape.apply((value,), rows * d_out, width, kept, rule, trains=run.grad)
    run.made(out.buffer)
    return out


def _dora(run: Pass, x: Value, rows: Size, weight: Weight, pair: LowRank, base: Value) -> Value:
    """(m / |W + B A| - 1) W x + m / |W + B A| s B A x, the norm over the whole weight in the adapter's dtype.

    B A is made as the pair's product with an identity; it and the weight in x's type live until the module is left.
    Each scaled result is kept for the magnitude's gradient. Under dropout W x is made again of what was dropped, and
    the weight in x's type, a copy where it is held in another, is kept for that product's gradient. The norm itself
    is outside the graph. A bias is taken off W x before.
    """
    tape = run.tape
    inner = drop(run, x) if run.dropout and run.drops else x
    made, weight_there = _for_norm(run, x, weight, pair)
    down = trained_linear(
        run, _for_product(run, inner, weight), rows, pair.d_in, pair.rank, turned=weight.turned
    )
    up = trained_linear(run, down, rows, pair.rank, pair.d_out)
    del down
    if run.dropped:
        base = _product_again(run, inner, rows, weight, weight_there)
    elif weight.bias:
        size = base.bytes
        base = tape.apply((base,), base.elements, max(base.width, run.norms), (), lambda g: (tape.new(size),))
    share = by_magnitude(run, base, meets=run.autocast or not run.dropped)
    own = scale(by_magnitude(run, up, meets=run.autocast))
    total = add(share, own)
    del made, weight_there, inner, base  # which have names until the module is left
    return total


def _for_norm(run: Pass, x: Value, weight: Weight, pair: LowRank) -> tuple[list[Buffer], Buffer | None]:
    """What a norm of W + s B A leaves until the module is left: B A with what its own graph keeps, and W in x's type
    where it is a copy (the second of the pair, None where it is the weight itself)."""
    tape, parameters = run.tape, weight.d_in * weight.d_out
    compute, apart = run.compute if run.autocast else x.width, _reads_apart(run, weight)
    lowers = compute != x.width or (apart and run.autocast)
    named = eye = tape.new(weight.d_in * (weight.d_in * x.width), COPIES)
    if lowers:
        eye = tape.new(weight.d_in * (weight.d_in * compute), COPIES)
    down = tape.new(weight.d_in * pair.rank * compute, COPIES)
    product = tape.new(parameters * compute, COPIES)
    del named  # the identity, until its product with both is made
    if lowers:
        product = tape.new(parameters * x.width, COPIES)
    copy = tape.new(weight.unpacked, COPIES) if weight.unpacked else None
    other = x.width == HALF and apart != (
        run.recasts and not weight.unpacked
    )  # kind of 16 bits than the weight's
    if other or (run.compute if weight.unpacked else weight.width) != x.width:
        copy = tape.new(parameters * x.width, COPIES)
    scaled = tape.new(parameters * x.width, COPIES)
    total = tape.new(parameters * x.width, COPIES)
    del scaled, total
    return [eye, down, product], copy


def _product_again(run: Pass, x: Value, rows: Size, weight: Weight, copy: Buffer | None) -> Value:
    """W x with W in x's type, lowered once more under autocast, which is kept for x's gradient."""
    tape = run.tape
    value = _for_product(run, run.cast_in(x), weight)
    if run.autocast and (run.compute != x.width or _reads_apart(run, weight)):
        copy = tape.new(weight.d_in * weight.d_out * run.compute, COPIES)
    size = rows * (weight.d_in * value.width)
    return tape.apply((value,), rows * weight.d_out, value.width, (copy,), lambda g: (tape.new(size),))


def by_magnitude(run: Pass, x: Value, *, meets: bool = True) -> Value:
    """x times a trained magnitude for each output: keeps x, and makes a full-size product for its gradient, beside
    x's own, which is made in the wider type and then lowered to x's. `meets`: x is not in the adapter's own type."""
    tape, width = run.tape, FLOAT32 if run.apart and meets else max(x.width, run.trained)
    size = x.elements * width
    size_x = size if x.width == width else x.bytes
    needs = x.node is not None

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size) if needs else None
        product = tape.new(size)
        del product
        if made is not None and size_x is not size:
            made = tape.new(size_x)
        return (made,)

    return tape.apply((x,), x.elements, width, (x.buffer,), rule, trains=run.grad)
