"""Experts that all meet all tokens, each weighed before (Llama 4): tokens repeated for every expert, one product over
all of them for each matrix, results summed.

Source: transformers 5.23, models/llama4/modeling_llama4.py (Llama4TextMoe, Llama4TextExperts).
"""

from __future__ import annotations

from .elementwise import activation
from .experts import INDEX, Stacked, folded, sum_of_experts, weigh_rows, with_pairs
from .passes import FLOAT32, Pass
from .products import Weight, lowered
from .tape import EXPERT_GRADIENTS, Buffer, Gradients, Value, cast, multiply, unary


def routed(run: Pass, x: Value, logits: Value, experts: int, active: int, hidden: int) -> Value:
    """Every token for every expert, times its score: 0 but for the chosen `active`. Kept are the repeated tokens, for
    the scores' gradient, and the scores. Elements: tokens x experts x hidden."""
    tape, rows = run.tape, run.tokens * experts
    places = tape.new(run.tokens * (active * INDEX))
    narrow = logits.bytes
    spread = tape.apply((logits,), logits.elements, logits.width, (places,), lambda g: (tape.new(narrow),))
    scores = cast(unary(cast(spread, FLOAT32), "out"), logits.width)
    size = x.bytes
    repeated = tape.apply((x,), rows * hidden, x.width, (), lambda g: (tape.new(size),))
    return weigh_rows(run, repeated, scores)


def product(run: Pass, x: Value, stack: Stacked, experts: int) -> Value:
    """All experts' product: keeps x where they are trained, and their weights as autocast lowers them."""
    tape, rows, own = run.tape, run.tokens * experts, stack.weight
    if stack.folded is not None:
        return folded(run, x, rows, own, stack.folded, stack.experts)
    x_in = run.cast_in(x) if run.autocast else cast(x, own.width)
    parameters, needs, trains = stack.parameters, x_in.node is not None, own.trained and run.grad
    size, width = x_in.bytes, x_in.width
    held, narrow = lowered(
        run, Weight(own.d_in, own.d_out * stack.experts, own.trained, width=own.width), EXPERT_GRADIENTS
    )

    def rule(g: Buffer) -> Gradients:
        gradient = tape.new(parameters * run.compute) if narrow is not None else None
        if trains and narrow is None:
            tape.gradient(parameters * own.width, EXPERT_GRADIENTS)
        return tape.new(size) if needs else None, gradient

    inputs = (x_in,) if narrow is None else (x_in, narrow)
    kept = (x_in.buffer if trains else None, held if needs else None)
    out = tape.apply(inputs, rows * own.d_out, width, kept, rule, trains=trains)
    return with_pairs(run, x, rows, stack, out)


def gated_halves(run: Pass, x: Value, act: str) -> Value:
    """up * act(gate) of both in one tensor, whose gradients are joined."""
    gate, up = halves(x)
    return multiply(up, activation(run, gate, act))


def halves(x: Value) -> tuple[Value, Value]:
    """Both halves of a tensor (chunk): views, whose gradients wait for each other and are then joined."""
    tape, whole, waiting = x.tape, x.bytes, list[Buffer]()

    def join(g: Buffer) -> Gradients:
        made = tape.new(whole)
        waiting.clear()
        return (made,)

    def wait(g: Buffer) -> Gradients:
        waiting.append(g)
        return (tape.new(0),)

    both = tape.apply((x,), x.elements, x.width, (), join, out=x.buffer)
    half = x.elements * 0.5
    first = tape.apply((both,), half, x.width, (), wait, out=x.buffer)
    return first, tape.apply((both,), half, x.width, (), wait, out=x.buffer)


def into_shared(run: Pass, shared: Value, results: Value, hidden: int) -> Value:
    """The experts' results summed and added to a shared one's in place."""
    tape, mixed = run.tape, sum_of_experts(run, results, hidden)
    size, width = mixed.bytes, shared.width
    same = mixed.width == width
    return tape.apply(
        (shared, mixed), shared.elements, width, (), lambda g: (g, g if same else tape.new(size)),
        out=shared.buffer,
    )  # fmt: skip
