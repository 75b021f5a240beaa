"""Norms, activations, rotations and dropout as transformers' modules run them: what each keeps and makes on the way.

Every rule is named by what the module computes, not by the model that has it; `traits` says which model has
which. Fused kernels (LayerNorm, SiLU) keep their input; modules written in Python keep each intermediate that
a gradient of theirs needs.
"""

from __future__ import annotations

from .passes import FLOAT32, Pass
from .tape import (
    Buffer,
    Gradients,
    Size,
    Value,
    add,
    by_tensor,
    cast,
    copy,
    multiply,
    piece,
    scale,
    unary,
    view,
)


def rms_norm(run: Pass, x: Value, weight: int, rule: str = "rms", given: int = 0) -> Value:
    """x / sqrt(mean(x^2)) * w, in float32.

    Rules: "rms" casts back before the weight (Llama), "rms-late" after it (OLMo 2, gpt-oss), "gemma" multiplies by 1
    + w in float32, "t5" squares x in float32 and divides x as it is. All keep x in float32 (the cast where x is
    narrower, x itself else); a trained weight also keeps the normed value. `weight` is its number of parameters, 0
    where there is none. `given`: bytes a value of what is handed on, where that is not x's type.
    """
    if rule == "t5":
        return _t5_norm(run, x, weight)
    normed = _over_root_mean_square(cast(x, FLOAT32), run.squares_kept)
    if rule == "rms":
        inner = cast(normed, given or x.width)
        if run.wide_norms and weight and inner.width < FLOAT32:
            return by_wide(inner)
        return weigh(run, inner, weight, max(inner.width, run.norms)) if weight else inner
    return cast(weigh(run, normed, weight) if weight else normed, x.width)


def _over_root_mean_square(x: Value, squares_kept: bool) -> Value:
    """x * rsqrt(mean(x^2)): x is kept once for both of its uses; the mean's way back makes three full-size values. It
    keeps what it reads where `squares_kept`."""
    tape, size = x.tape, x.bytes
    squares = tape.new(size)
    kept = squares if squares_kept else None
    del squares

    def through_mean(g: Buffer) -> Gradients:
        spread, halves, doubled = tape.new(size), tape.new(size), tape.new(size)
        made = tape.new(size)
        del spread, halves, doubled
        return (made,)

    def through_product(g: Buffer) -> Gradients:
        direct, product = tape.new(size), tape.new(size)
        del product
        return direct, tape.new(0)

    root = tape.apply((x,), 0, FLOAT32, (x.buffer, kept), through_mean)
    del kept
    return tape.apply((x, root), x.elements, FLOAT32, (x.buffer,), through_product)


def _t5_norm(run: Pass, x: Value, weight: int) -> Value:
    """T5's: the mean of squares keeps x in float32, the quotient x itself beside it; the result in the weight's
    type."""
    tape, wide = run.tape, cast(x, FLOAT32)
    size, own = wide.bytes, x.bytes
    squares = tape.new(size)
    kept = squares if run.squares_kept else None
    del squares

    def through_mean(g: Buffer) -> Gradients:
        spread, halves, doubled = tape.new(size), tape.new(size), tape.new(size)
        made = tape.new(size)
        del spread, halves, doubled
        return (made,)

    def through_quotient(g: Buffer) -> Gradients:
        direct, product = tape.new(size), tape.new(size)
        del product
        if own != size:
            direct = tape.new(own)
        return direct, tape.new(0)

    root = tape.apply((wide,), 0, FLOAT32, (wide.buffer, kept), through_mean)
    del wide, kept
    normed = tape.apply((x, root), x.elements, FLOAT32, (x.buffer,), through_quotient)
    return weigh(run, cast(normed, FLOAT32 if run.wide_norms else run.norms), weight)


def weigh(run: Pass, x: Value, weight: int, width: int = 0) -> Value:
    """x * w; a trained w keeps x, and its gradient passes through a full-size product. The result is `width` bytes a
    value, x's where that is 0: where w is wider, gradients are made so and x's is lowered."""
    width = width or x.width
    tape, size, wide = run.tape, x.bytes, x.elements * width
    trains = (run.full or run.flat) and run.grad

    def rule(g: Buffer) -> Gradients:
        made = tape.new(wide) if x_needs else None
        if trains:
            product = tape.new(wide)
            tape.gradient(weight * run.trained)
            del product
        if made is not None and narrow:
            made = tape.new(size)
        return (made,)

    x_needs, narrow = x.node is not None, x.width < width
    return tape.apply((x,), x.elements, width, (x.buffer if trains else None,), rule, trains=trains)


def by_wide(x: Value) -> Value:
    """x times a frozen float32 weight, which makes a float32 result; the way back is lowered to x's type."""
    tape, wide, size = x.tape, x.elements * FLOAT32, x.bytes

    def rule(g: Buffer) -> Gradients:
        product = tape.new(wide)
        made = tape.new(size)
        del product
        return (made,)

    return tape.apply((x,), x.elements, FLOAT32, (), rule)


def by_buffer(run: Pass, x: Value) -> Value:
    """x times a buffer, which is as wide as the weights were loaded, and so may be wider than what autocast made."""
    width = max(x.width, run.base)
    wide, size = x.elements * width, x.bytes
    lowered = (size if x.width < width else None,)
    tape = run.tape
    return tape.apply((x,), x.elements, width, (None,), lambda g: [tape.new(wide)], lowered=lowered)


def layer_norm(run: Pass, x: Value, weight: int, *, autocasts: bool = True) -> Value:
    """The fused LayerNorm: keeps x; under autocast torch's own makes float32, which kernels of others do not."""
    tape, size = run.tape, x.bytes
    trains = (run.full or run.norm_biases or run.flat) and run.grad and weight > 0
    x_in = cast(x, FLOAT32) if run.autocast and autocasts else x

    def rule(g: Buffer) -> Gradients:
        made = tape.new(size)
        if trains:
            tape.gradient(weight * (run.trained if run.full else run.norms))
        return (made,)

    return tape.apply((x_in,), x.elements, x_in.width, (x_in.buffer,), rule, trains=trains)


def norm(run: Pass, x: Value, weight: int, rule: str) -> Value:
    """A norm by its rule's name; "none" passes x on. Fused kernels keep x alone, whatever the rule."""
    if rule == "none":
        return x
    if rule == "layer":
        return layer_norm(run, x, weight)
    if run.kernels in ("fused", "liger", "unsloth", "compiled", "transformer-engine"):
        return layer_norm(run, x, weight, autocasts=False)
    if rule == "layer32":  # LayerNorm in float32 with casts around it
        return cast(layer_norm(run, cast(x, FLOAT32), weight), x.width)
    if rule == "rms-bare":  # without a weight
        return rms_norm(run, x, 0)
    if rule == "python-layer":  # mean and variance in Python: the centred value is kept as well
        return _python_layer_norm(run, x, weight)
    return rms_norm(run, x, weight, rule)


def _python_layer_norm(run: Pass, x: Value, weight: int) -> Value:
    """(x - mean) / sqrt(var) * w with float32 inside, as Cohere writes it: the centred value is made, and
    kept, twice."""
    x32 = cast(x, FLOAT32)
    tape, size = run.tape, x32.bytes
    spread = unary(x32, "")
    kept = spread.buffer

    def through_mean(g: Buffer) -> Gradients:
        made = tape.new(size)
        return (made,)

    root = tape.apply((spread,), 0, FLOAT32, (kept,), through_mean)
    del spread, kept
    centred = unary(x32, "")

    def through_product(g: Buffer) -> Gradients:
        direct, product = tape.new(size), tape.new(size)
        del product
        return direct, tape.new(0)

    normed = tape.apply((centred, root), x32.elements, FLOAT32, (centred.buffer,), through_product)
    del centred
    return cast(weigh(run, normed, weight), x.width)


# Activations


def activation(run: Pass, x: Value, name: str) -> Value:
    """An activation by its name in the config."""
    if name == "bloom":  # a function of its own that keeps its input
        return unary(x, "in", 3)
    if name in ("gelu_new", "gelu_fast") and run.kernels in ("transformers", "pairs"):
        return _gelu_in_python(run, x)
    if name in ("relu", "relu2"):
        y = unary(x, "out")
        return (
            unary(y, "in", 2) if name == "relu2" else y
        )  # 2 y times the gradient, y copied and doubled first
    if name == "quick_gelu":
        return multiply(x, unary(scale(x), "out"))
    if name == "xielu" and run.kernels != "fused":  # its authors' CUDA kernel keeps its input alone
        return _xielu(run, x)
    return unary(x, "in")  # silu, gelu and its tanh form are kernels of their own


def _gelu_in_python(run: Pass, x: Value) -> Value:
    """0.5 x (1 + tanh(c (x + 0.044715 x^3))): keeps x for the cube (which autocast takes in float32, and all that
    follows from it), the halved x, the tanh and the sum."""
    half = scale(x)
    inner = scale(add(x, scale(unary(cast(x, FLOAT32) if run.autocast else x, "in", 2))))
    bounded = unary(inner, "out")
    del inner
    above = unary(bounded, "")
    del bounded
    return multiply(half, above)


def _xielu(run: Pass, x: Value) -> Value:
    """where(x > 0, a x^2 + b x, (expm1(min(x, e)) - x) a' + b x) with trained a and a', whose type widens x's
    (softplus, which autocast makes float32).

    Keeps the mask (a byte a value), x, a x and expm1; where a is trained the difference too.
    """
    tape, wide = x.tape, FLOAT32 if run.autocast else max(x.width, run.stream)
    mask = tape.new(x.elements)
    square = multiply(_by_number(run, x, wide), x)
    positive = add(square, scale(x))
    del square
    least = unary(x, "in")
    grown, size = unary(cast(least, FLOAT32) if run.autocast else least, "out", 1), x.bytes
    del least
    difference = tape.apply((grown, x), x.elements, grown.width, (), lambda g: (g, tape.new(size)))
    del grown
    weighed = _by_number(run, difference, max(wide, difference.width))
    del difference
    negative = add(weighed, scale(x))
    del weighed
    sizes, width = (positive.bytes, negative.bytes), max(positive.width, negative.width)
    return tape.apply(
        (positive, negative), x.elements, width, (mask,), lambda g: [tape.new(size) for size in sizes]
    )


def _by_number(run: Pass, x: Value, width: int) -> Value:
    """x times a weight of one value, which keeps x where it is trained."""
    tape, size, trains = run.tape, x.bytes, run.full and run.grad
    wide = x.elements * width

    def rule(g: Buffer) -> Gradients:
        product = tape.new(wide) if trains else None
        made = tape.new(size)
        del product
        return (made,)

    return tape.apply((x,), x.elements, width, (x.buffer if trains else None,), rule, trains=trains)


def gated(run: Pass, gate: Value, up: Value, name: str) -> Value:
    """act(gate) * up: keeps gate for the activation, and both factors. Fused kernels keep gate and up alone."""
    if run.kernels in ("fused", "liger", "unsloth", "pairs", "compiled"):
        tape, sizes = run.tape, (gate.bytes, up.bytes)
        fresh = run.kernels in ("compiled", "fused")

        def rule(g: Buffer) -> Gradients:
            return [tape.new(size) for size in sizes] if fresh else [tape.new(sizes[0]), g]

        return tape.apply((gate, up), gate.elements, gate.width, (gate.buffer, up.buffer), rule)
    return multiply(activation(run, gate, name), up)


# Rotations

FUSED = ("fused", "liger", "unsloth", "compiled")  # elementwise kernels that turn in one


def rotated(run: Pass, q: Value, k: Value, rule: str, share: float = 1.0) -> tuple[Value, Value]:
    """Queries and keys with rotary positions: x cos + rotate_half(x) sin. Nothing of x is kept (cos and sin are).

    Rules: "half" turns all of a head, "partial" a share of it and joins the rest, "half32" in float32 (of a copy;
    "half32-each" of one for either side, which "-first" rotates afterwards; "half32-cos" by float32 cosines; both are
    lowered when both are turned), "complex" by complex products in float32 (DeepSeek V2, Llama 4), "axial" each half
    by itself, "none" not at all. Cosines are in the hidden states' type, which under autocast widens what a product
    made; those of "partial-own" are lowered to x's. Of it and of "partial-named" both parts have names until
    attention returns.
    """
    if "32" not in rule or run.kernels in FUSED:
        return rotate(run, q, rule, share), rotate(run, k, rule, share)
    wide = (q, k) if "-" in rule else (cast(q, FLOAT32), cast(k, FLOAT32))
    each, first = "-each" in rule, rule.endswith("-first")
    turned = [_turn(x, FLOAT32, each=each, first=first) for x in wide]
    del wide
    return cast(turned[0], q.width), cast(turned[1], k.width)


def rotate(run: Pass, x: Value, rule: str, share: float = 1.0) -> Value:
    """One of them, by a rule that is not in float32."""
    if rule == "none":
        return x
    if run.kernels in FUSED:
        return unary(x, "")
    if rule == "axial":  # rows and columns by half a head each, which one split takes apart
        tape, size = x.tape, x.bytes
        split = tape.apply((x,), x.elements, x.width, (), lambda g: (tape.new(size),), out=x.buffer)
        halves = (_turn(view(split, x.elements * 0.5), x.width) for _ in range(2))
        return concatenated(*halves)
    if rule == "complex":
        return cast(by_tensor(copy(cast(x, FLOAT32))), x.width)
    width = x.width if rule == "partial-own" else max(x.width, run.stream)
    if not rule.startswith("partial"):
        return _turn(x, width)
    turned = _turn(piece(x, _portion(x.elements, share)), width)
    rest = piece(x, x.elements)
    joined = _join(turned, rest, x)
    if rule in ("partial-own", "partial-named"):
        run.named += [turned, rest]
    return joined


def _portion(elements: Size, share: float) -> Size:
    return elements if share == 1.0 else elements * share


def _turn(x: Value, width: int, *, each: bool = False, first: bool = False) -> Value:
    """x cos + rotate_half(x) sin, in a `width` that may be wider than x's; `each` side is widened by itself before
    that, of the other side x as it is or what is rotated of it (`first`)."""
    straight = by_tensor(cast(x, width) if each else x, width=width)
    if first:
        return add(straight, by_tensor(_rotate_half(cast(x, width)), width=width))
    if each:
        return add(straight, by_tensor(cast(_rotate_half(x), width), width=width))
    return add(straight, by_tensor(_rotate_half(x), width=width))


def _rotate_half(x: Value) -> Value:
    """cat(-x2, x1): the gradients of both halves are laid into zeros of the whole and added."""
    tape, size = x.tape, x.bytes
    negative = tape.new(_portion(size, 0.5))
    out = tape.new(size)
    del negative

    def rule(g: Buffer) -> Gradients:
        first = tape.new(_portion(size, 0.5))
        laid = tape.new(size)
        del first
        other = tape.new(size)
        if tape.merges:
            total = tape.new(size)
            del laid, other
            return (total,)
        del other
        return (laid,)

    return tape.apply((x,), x.elements, x.width, (), rule, out=out)


def _join(turned: Value, rest: Value, whole: Value) -> Value:
    """The turned part and the rest of a head in one tensor, in the wider type: both gradients are views of its
    gradient, that of the rest lowered to its type."""
    width = max(turned.width, whole.width)
    left = (whole.elements - turned.elements) * rest.width if rest.width < width else None
    return whole.tape.apply((turned, rest), whole.elements, width, (), lambda g: [g, g], lowered=(None, left))


def concatenated(*parts: Value) -> Value:
    """Values side by side in a new tensor, in the widest type; their gradients are views of its gradient."""
    width, tape = max(part.width for part in parts), parts[0].tape
    wide = [cast(part, width) for part in parts]
    elements, count = sum((part.elements for part in wide[1:]), wide[0].elements), len(parts)
    return tape.apply(wide, elements, width, (), lambda g: [g] * count)


def drop(run: Pass, x: Value) -> Value:
    """Dropout: keeps a mask of one byte a value, which it makes with its result."""
    tape, size = run.tape, x.bytes
    mask, out = tape.new(x.elements), tape.new(size)
    return tape.apply((x,), x.elements, x.width, (mask,), lambda g: (tape.new(size),), out=out)
