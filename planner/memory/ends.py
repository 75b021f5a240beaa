"""The ends of an encoder's or a decoder's stack: from tokens (or sound) to the first layer, and behind the last
one."""

from __future__ import annotations

from ..dataclass import dataclass
from ..schema import Apply, Architecture
from .elementwise import activation, drop, layer_norm, norm
from .kinds import KEPT, STREAM, Job, handed_on
from .passes import Pass
from .stretch import Held, Stretch, label_kept, plus, stretch
from .tape import Buffer, Gradients, Size, Value, by_tensor, copy

EMBED_NORM, POSITIONS = "layernorm_embedding.weight", "embed_positions"


@dataclass(frozen=True)
class Entry:
    """What a stack's variables hold of its beginning until it is left (of it, what is `kept` stays longer), and the
    way there and back. `leaf`: bytes of what was looked up where its gradient is asked for, and stays; `width`: of a
    value that the first layer reads."""

    held: Held
    kept: Held
    forward: Stretch
    backward: Stretch | None
    leaf: Size = 0
    width: int = 0


@dataclass(frozen=True)
class Exit:
    """The way from the last layer's result to what the stack hands on, `width` bytes a value, and back; None where
    there is none."""

    forward: Stretch | None
    backward: Stretch | None
    grad: bool
    width: int


def fixed_length(arch: Architecture, stack: str) -> int | None:
    """The number of positions of a stack that sees as many whatever the text."""
    return next((block.fixed_length for block in arch.blocks if block.stack == stack), None)


def _has(arch: Architecture, stack: str, ending: str) -> bool:
    names = [v.name for v in arch.vectors] + [m.name for m in arch.matrices]
    return any(name.endswith(f"{stack}.{ending}") for name in names)


def has_end_norm(arch: Architecture, stack: str) -> bool:
    """Whether a norm stands behind a stack."""
    return _has(arch, stack, "final_layer_norm.weight") or _has(arch, stack, "layer_norm.weight")


def enter(job: Job, stack: str, grad: bool, trains: bool) -> Entry:
    """From a stack's tokens to its first layer: look-up, scale, positions, norm and dropout, as far as it has them.

    `grad`: what is looked up needs a gradient; `trains`: its tables do. The variable with what was looked up stays,
    that with the positions too. BlenderbotSmall's decoder norms before it adds them."""
    run, arch, traits = job.run(length=fixed_length(arch=job.arch, stack=stack)), job.arch, job.traits
    tape, hidden = run.tape, arch.hidden_size
    sounds = [block for block in arch.blocks if block.stack == "stem"]
    if sounds and stack == "encoder":
        x = _listen(job, run, grad)
    else:
        x = tape.leaf(run.rows * hidden, run.norms, grad=grad)
        x = by_tensor(x) if traits.scaled_embedding else x
    first, held = x, {"temporary": x.bytes}
    places = None
    norms_first = arch.model_type == "blenderbot-small" and stack == "decoder"
    if norms_first:
        x = layer_norm(run, x, hidden)
    if _positioned(arch, stack):
        alone = stack == "decoder" or sounds
        places = tape.new((run.length if alone else run.rows) * (hidden * run.norms))
        held["temporary"] += tape.sizes[places.index]
        x = _plus(run, x, places, trains)
    if _has(arch, stack, EMBED_NORM) and not norms_first:
        x = layer_norm(run, x, hidden)
    if traits.dropped_stem:
        x = drop(run, x)
    label_kept(tape, KEPT)
    if x.buffer is not first.buffer and tape.labels[x.buffer.index] == KEPT:
        tape.labels[x.buffer.index] = STREAM
    for buffer in (first.buffer, *((places,) if places else ())):
        tape.labels[buffer.index] = "temporary"
    forward = stretch(tape, 0, len(tape.events))
    forward.change = plus(forward.change, held, -1)
    if x.buffer is not first.buffer:
        forward.change = plus(forward.change, {STREAM: x.bytes}, -1)
    node, size, width = x.node, x.bytes, x.width
    leaf = grad and not trains and x.buffer is not first.buffer
    kept: Held = {KEPT: first.bytes} if leaf or (grad and norms_first) else {}
    held = plus(held, {"temporary": kept[KEPT]}, -1) if kept else held
    asked = first.bytes if grad and not trains else 0
    del x, first, places
    if node is None:
        return Entry(held, kept, forward, None, width=width)
    start = len(tape.events)
    tape.backward(node, [tape.new(size, STREAM)]).clear()
    del node
    return Entry(held, kept, forward, stretch(tape, start, len(tape.events)), asked, width)


def _positioned(arch: Architecture, stack: str) -> bool:
    """Whether a table of positions is added, learned or computed: BART's kind has one in every stack."""
    return _has(arch, stack, POSITIONS) or arch.model_type in ("m2m_100", "pegasus", "marian")


def _plus(run: Pass, x: Value, places: Buffer, trains: bool) -> Value:
    """x and its positions' rows; their gradient is summed over the sequences before the table's is made."""
    tape = run.tape
    size = tape.sizes[places.index]

    def rule(g: Buffer) -> Gradients:
        if trains and size != x_size:
            summed = tape.new(size)
            del summed
        return (g,)

    x_size = x.bytes
    return tape.apply((x,), x.elements, max(x.width, run.norms), (), rule)


def _listen(job: Job, run: Pass, grad: bool) -> Value:
    """Sound: two convolutions with an activation behind each, the second of which halves the positions. Only what the
    first one makes needs a gradient where nothing is trained; a frozen convolution keeps what it reads too."""
    tape, arch = run.tape, job.arch
    made = [
        op
        for block in arch.blocks
        if block.stack == "stem"
        for op in block.operations
        if isinstance(op, Apply)
    ]
    rows, x = run.tokens, None
    for op in reversed(made[1:]):
        rows = rows * op.per
    for op in made:
        matrix = arch.matrices[op.matrix]
        rows = rows * (1 / op.per)
        trains = run.full
        kept = (x.buffer if x is not None and (trains or x.node is not None) else None,)
        sizes = None if x is None or x.node is None else x.bytes
        parameters = matrix.d_in * matrix.d_out * run.whole

        def rule(
            g: Buffer, sizes: Size | None = sizes, parameters: int = parameters, trains: bool = trains
        ) -> Gradients:
            back = tape.new(sizes) if sizes is not None else None
            if trains:
                tape.gradient(parameters)
            return (back,)

        inputs = (x,) if x is not None else (tape.leaf(0, run.norms, grad=grad),)
        width = run.compute if run.autocast else run.norms
        x = activation(run, tape.apply(inputs, rows * matrix.d_out, width, kept, rule, trains=trains), "gelu")
        del inputs
    assert x is not None
    return x


def leave(job: Job, stack: str, grad: bool, width: int) -> Exit:
    """From the last layer's result, `width` bytes a value, to what a stack hands on: its norm and its dropout."""
    arch, traits = job.arch, job.traits
    if not has_end_norm(arch, stack) and not traits.dropped_end:
        return Exit(None, None, grad, width)
    run = job.run(length=fixed_length(arch, stack), width=width)
    tape = run.tape
    x = tape.leaf(run.rows * arch.hidden_size, run.stream, grad=grad)
    y = norm(run, x, arch.hidden_size, traits.norm) if has_end_norm(arch, stack) else copy(x)
    if traits.dropped_end:
        y = drop(run, y)
    del x
    size, node, made = y.bytes, y.node, y.width
    forward = handed_on(tape, y)
    del y
    if node is None:
        return Exit(forward, None, False, made)
    start = len(tape.events)
    tape.backward(node, [tape.new(size, STREAM)]).clear()
    del node
    return Exit(forward, stretch(tape, start, len(tape.events)), True, made)
