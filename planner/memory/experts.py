"""Routed experts as transformers' grouped products run them: tokens gathered in the order of experts, two products
over all experts, the results weighted, brought back into order and summed."""

from __future__ import annotations

from dataclasses import replace

from ..adapter import Adapted
from ..adapter.peft_rules import by_weight
from ..dataclass import dataclass
from ..schema import Architecture
from .elementwise import activation, concatenated
from .passes import COPIES, FLOAT32, Pass
from .products import LowRank, Weight, for_pairs, trained_linear
from .tape import (
    EXPERT_GRADIENTS,
    Buffer,
    Gradients,
    Size,
    Value,
    add,
    by_tensor,
    cast,
    multiply,
    piece,
    scale,
    unary,
)

INDEX = 8  # bytes of a position
FP8_BUDGET = 2**30  # bytes of experts that transformers makes whole at once


@dataclass(frozen=True)
class Stacked:
    """A tensor of experts: `weight` of one, pairs for each, or a pair that is folded into the whole tensor in
    every step (PEFT's bare parameters). `quantised` tensors are unpacked whole while they are multiplied."""

    weight: Weight
    experts: int
    pairs: tuple[LowRank, ...] = ()
    folded: LowRank | None = None

    @property
    def parameters(self) -> int:
        """Of the whole tensor."""
        return self.experts * self.weight.d_in * self.weight.d_out


@dataclass(frozen=True)
class Routing:
    """How many experts see a token of how many, and how their weights are made: `wide` ones stay in float32 and make
    what they weight float32, unless they are `narrowed`: made of logits that autocast lowers, and divided in place.
    `jitter`: x is multiplied by noise, for the router once more."""

    experts: int
    active: int
    scores: str
    wide: bool
    act: str
    interleaved: bool = False
    jitter: bool = False
    narrowed: bool = False


def mix(
    run: Pass, x: Value, logits: Value, routing: Routing, inner: tuple[Stacked, ...], outer: Stacked
) -> Value:
    """The weighted sum of the chosen experts' results."""
    tape, rows = run.tape, run.tokens * routing.active
    if routing.jitter and run.grad:
        x = by_tensor(by_tensor(x, tape.new(x.bytes)), tape.new(x.bytes))
    weights = _weights(run, logits, routing)
    hidden = outer.weight.d_out
    order = tape.new(rows * INDEX)
    chosen = _gather(run, x, rows, hidden)
    biases = _biases(run, rows, inner[0])
    made = tuple(grouped(run, chosen, rows, stack) for stack in inner)
    width = outer.weight.d_in
    if len(made) == 1 and inner[0].weight.d_out == 2 * width:
        values = _gate(run, made[0], rows * width, routing)
    elif len(made) == 1:
        values = activation(run, made[0], routing.act)
    else:
        values = multiply(activation(run, made[0], routing.act), made[1])
    del made
    biases = _biases(run, rows, outer)
    results = grouped(run, values, rows, outer)
    del values
    weighted = weigh_rows(run, results, weights)
    ordered = _reorder(run, weighted)
    del order, biases
    return cast(sum_of_experts(run, ordered, hidden), x.width)


def _biases(run: Pass, rows: Size, stack: Stacked) -> Buffer | None:
    """Each row's bias, which has a name until the next product's are chosen (transformers 5.23,
    integrations/moe.py, grouped_mm_experts_forward)."""
    weight = stack.weight
    return run.tape.new(rows * (weight.d_out * weight.width)) if weight.bias else None


def _weights(run: Pass, logits: Value, routing: Routing) -> Value:
    """The chosen experts' weights: scores over all experts in float32 (kept), the best of them with their
    positions."""
    tape, rows = run.tape, run.tokens * routing.active
    lowered = run.autocast and routing.scores == "sigmoid" and routing.narrowed
    wide = logits if lowered else cast(logits, FLOAT32)
    scores = unary(wide, "out") if routing.scores != "chosen" else logits
    size = scores.bytes
    places = tape.new(rows * INDEX)
    best = tape.apply((scores,), rows, scores.width, (places,), lambda g: (tape.new(size),))
    normed = unary(best, "out", 1)
    return normed if routing.wide or lowered else cast(normed, run.compute)


def _gather(run: Pass, x: Value, rows: Size, hidden: int) -> Value:
    """Each token's row once for every expert that sees it; positions are kept."""
    tape, size = run.tape, x.bytes
    positions = tape.new(rows * INDEX)
    return tape.apply((x,), rows * hidden, x.width, (positions,), lambda g: (tape.new(size),))


def grouped(run: Pass, x: Value, rows: Size, stack: Stacked) -> Value:
    """A product with every expert's matrix for the rows that chose it."""
    if stack.folded is not None:
        return folded(run, x, rows, stack.weight, stack.folded, stack.experts)
    if stack.weight.unpacked and not run.bitsandbytes:
        return with_pairs(run, x, rows, stack, _in_fp8(run, x, rows, stack))
    plain = replace(stack.weight, d_out=stack.weight.d_out * stack.experts, bias=False, bias_trained=False)
    out = _grouped_product(run, x, rows, plain, stack.weight.d_out)
    return with_pairs(run, x, rows, stack, out)


def _in_fp8(run: Pass, x: Value, rows: Size, stack: Stacked) -> Value:
    """A product with experts in FP8: the kernel reads rows and packed weights; on the way back experts are made whole
    again, as many at a time as take 1 GiB, into zeros where these are not all of them (transformers 5.23,
    integrations/finegrained_fp8.py, FP8GroupedMatmulFunction)."""
    tape, weight, size_in = run.tape, stack.weight, x.bytes
    one = weight.d_in * weight.d_out * x.width
    some = min(stack.experts, max(1, FP8_BUDGET // one))

    def rule(g: object) -> Gradients:
        made = tape.new(size_in) if some < stack.experts else None
        whole = tape.new(one * some, COPIES)
        own = tape.new(size_in * (some / stack.experts))
        del whole
        return (own if made is None else made,)

    return tape.apply((x,), rows * weight.d_out, x.width, (None,), rule)


def with_pairs(run: Pass, x: Value, rows: Size, stack: Stacked, out: Value) -> Value:
    """A product of experts with their pairs' added: s B A x of each pair, every row with the factors of its expert,
    side by side, in the product's type; one copy of the rows serves all. No trainer has such pairs: this is how
    planner/simulate/experts.py runs them."""
    if not stack.pairs:
        return out
    inner, meets = x if run.autocast else for_pairs(run, x), run.apart and not run.autocast
    if x.width >= run.trained:  # autocast knows no grouped product, and leaves float32 rows as they are
        run = replace(run, autocast=False)
    made = [
        trained_linear(
            run, trained_linear(run, inner, rows, pair.d_in, pair.rank, stack.experts if pair.own_in else 1),
            rows, pair.rank, pair.d_out, stack.experts if pair.own_out else 1,
        )
        for pair in stack.pairs
    ]  # fmt: skip
    both = made[0] if len(made) == 1 else concatenated(*made)
    return add(out, scale(both) if meets and both.width == out.width else cast(both, out.width))


def _grouped_product(run: Pass, x: Value, rows: Size, weight: Weight, d_out: int) -> Value:
    """The product itself: keeps its rows where the tensor is trained, and unpacks a quantised one whole."""
    tape, x = run.tape, cast(x, weight.width)
    size_in, needs, trains = x.bytes, x.node is not None, weight.trained and run.grad
    held = tape.new(weight.unpacked, COPIES) if weight.unpacked else None

    def rule(g: object) -> Gradients:
        again = tape.new(weight.unpacked, COPIES) if weight.unpacked and needs else None
        made = tape.new(size_in) if needs else None
        if trains:
            tape.gradient(weight.d_in * weight.d_out * run.trained, EXPERT_GRADIENTS)
        del again
        return (made,)

    out = tape.apply((x,), rows * d_out, x.width, (x.buffer if trains else None,), rule, trains=trains)
    del held
    return out


def folds(run: Pass, arch: Architecture, item: Adapted, weight: Weight) -> bool:
    """Whether PEFT has this pair on a bare weight, which it folds in for every product."""
    plain = run.kernels in ("transformers", "pairs") and not run.dropout and not weight.unpacked
    pair = item.pairs[0]
    return plain and not pair.magnitudes and by_weight(arch, item.matrix, materialised=pair.materialised)


def folded(run: Pass, x: Value, rows: Size, weight: Weight, pair: LowRank, experts: int = 1) -> Value:
    """PEFT's pair on a bare tensor: W + s B A is formed for all experts and kept, as autocast lowers it, and so is x;
    on the way back the whole tensor's gradient is formed before the pair's."""
    tape, width = run.tape, weight.width
    factors = experts * (pair.d_in + pair.d_out) * pair.rank

    def fold(g: object) -> Gradients:
        made = tape.new(factors * width)
        tape.gradient(factors * run.trained, EXPERT_GRADIENTS if experts > 1 else "gradients")
        del made
        return ()

    casts = (width != run.trained or run.apart) and run.grad
    narrow = tape.new(factors * width) if casts else None  # the factors cast are kept
    tensor = tape.apply((), experts * weight.d_in * weight.d_out, width, (narrow,), fold, trains=run.grad)
    del narrow
    if experts == 1:
        x, tensor = run.cast_in(x), run.cast_in(tensor)
    else:  # a grouped product takes rows in the weights' type
        x = cast(x, width)
    size_in, needs, whole = x.bytes, x.node is not None, tensor.bytes

    def rule(g: object) -> Gradients:
        return (tape.new(size_in) if needs else None, tape.new(whole))

    kept = (x.buffer, tensor.buffer) if run.grad else ()
    return tape.apply((x, tensor), rows * weight.d_out, x.width, kept, rule)


def _gate(run: Pass, x: Value, elements: Size, routing: Routing) -> Value:
    """act(gate) * up of both in one tensor; their gradients are joined to one."""
    gate, up = piece(x, elements), piece(x, elements)
    if routing.interleaved:  # gpt-oss: both clamped, gate * sigmoid(a gate) * (up + 1)
        gate, up = unary(gate, "in"), unary(up, "in")
        inner = unary(unary(gate, ""), "out")
        return multiply(unary(up, ""), multiply(gate, inner))
    return multiply(activation(run, gate, routing.act), up)


def weigh_rows(run: Pass, x: Value, weights: Value) -> Value:
    """Rows times their weights: keeps the rows, because the weights have a gradient. Both gradients are made in the
    wider type, as large as the rows, before either is lowered or summed."""
    tape = run.tape
    width = max(x.width, weights.width)
    full = x.elements * width
    needs = [each.node is not None for each in (x, weights)]

    def rule(g: object) -> Gradients:
        return [tape.new(full) if each else None for each in needs]

    kept = (x.buffer if needs[1] else None, weights.buffer if needs[0] else None)
    lowered = (x.bytes if x.width < width else None, weights.bytes)
    return tape.apply((x, weights), x.elements, width, kept, rule, lowered=lowered)


def _reorder(run: Pass, x: Value) -> Value:
    """Rows back in the order of tokens: positions are kept, the gradient is laid into zeros."""
    tape, size = run.tape, x.bytes
    positions = tape.new(run.tokens * INDEX)
    return tape.apply((x,), x.elements, x.width, (positions,), lambda g: (tape.new(size),))


def sum_of_experts(run: Pass, x: Value, hidden: int) -> Value:
    """The sum over a token's experts; its gradient is spread, which only a copy can look at by rows, in x's type.
    Autocast sums to float32."""
    tape, size = run.tape, x.bytes
    width = FLOAT32 if run.autocast else x.width
    return tape.apply((x,), run.tokens * hidden, width, (), lambda g: (tape.new(size),))


__all__ = ["INDEX", "Routing", "Stacked", "folded", "folds", "grouped", "mix", "sum_of_experts", "weigh_rows"]
