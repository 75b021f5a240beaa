"""The step of an encoder and a decoder: what the decoder reads of the encoder is held while it runs, and the gradient
of that is gathered over its layers before the encoder's backward pass begins."""

from __future__ import annotations

from dataclasses import replace

from ..dataclass import dataclass
from ..schema import Architecture
from .bias import Bias
from .ends import Entry, Exit, enter, fixed_length, has_end_norm, leave
from .kinds import KEPT, Job, Walked, walk_layer
from .known import remembered
from .outside import Masks, Outside
from .passes import FLOAT32, Pass
from .stages import Stage
from .step import Course, embeddings_trained, pass_head, signature, stacks, stem_of, table_trained
from .step import Layers as Walks
from .stretch import Held, Stretch
from .tape import Size
from .traits import kind_of

Layers = list[tuple[str, Walked]]


def is_known(arch: Architecture) -> bool:
    """Whether the rules of its encoder and decoder stand in the table of traits."""
    return arch.is_encoder_decoder and kind_of(arch) in ("t5", "umt5", "bart", "mbart", "whisper")


@dataclass(frozen=True)
class Side:
    """One of the two stacks, walked."""

    name: str
    entry: Entry
    layers: Layers
    exit: Exit
    outside: Outside

    @property
    def grad(self) -> bool:
        """Whether its last layer's result needs a gradient."""
        return self.layers[-1][1].grad


def _bias(job: Job, stack: str) -> Outside:
    """What the layers of a stack share of biases by position."""
    setup, run, decoder = job.setup, job.run(), stack == "decoder"
    masks: Masks = "none" if fixed_length(job.arch, "encoder") else "all"
    if not job.traits.biased:
        return Outside(masks=masks)
    heads = next(op.n_heads for block in job.arch.blocks for op in block.operations if hasattr(op, "n_heads"))
    pairs, apart = run.length * run.length, job.traits.biases_apart
    own = Bias(
        heads,
        pairs,
        run.whole if run.full else run.norms,
        turned=True,
        causal=decoder,
        grad=setup.method == "full",
        apart=apart,
    )
    normed = FLOAT32 if run.wide_norms else run.norms  # queries' type where products keep what they read
    width = run.compute if run.autocast and setup.quantize == "none" else normed
    asked = setup.checkpointing != "none" and not apart
    lowers = run.autocast and setup.attention_kernel != "eager"
    cross = Bias(heads, pairs, width, grad=asked, apart=apart, once=lowers) if decoder else None
    return Outside(own=own, cross=cross, masks="cross" if decoder else "all")


def _walk(job: Job, stack: str, outside: Outside, grad: bool, width: int) -> Walks:
    """A stack's layers, each kind walked once; the first reads values of `width` bytes."""
    known: dict[object, int] = {}
    kinds: list[Walked] = []
    order: list[tuple[str, int]] = []
    own = [each for each in stacks(job.arch) if each[0] == stack]
    for number, (name, layer, block) in enumerate(own, 1):
        shares = [bias for bias in (outside.own, outside.cross) if bias and not bias.apart]
        first = not order and bool(shares) and job.setup.checkpointing != "none"
        last = number == len(own) and (outside.grad or any(bias.grad for bias in shares))
        key = id(block), signature(job, layer), grad, width, first, last
        if key not in known:  # checkpointed, the first layer makes its biases anew
            known[key] = len(kinds)
            kinds.append(walk_layer(job, block, layer, grad, width, replace(outside, first=first, last=last)))
        grad, width = kinds[known[key]].grad, kinds[known[key]].width
        order.append((f"{name} layer {layer}", known[key]))
    return Walks(tuple(order), tuple(kinds))


def _layers(job: Job, stack: str, outside: Outside, grad: bool, width: int) -> Layers:
    """A stack's layers in their order, from walks that are remembered; of `outside` all but what the encoder hands on
    follows from the job."""

    def walk(own: Job) -> Walks:
        rows = None if outside.rows is None else _encoder_run(own).tokens
        return _walk(own, stack, replace(outside, rows=rows), grad, width)

    what = ("stack", stack, grad, width, outside.width, outside.grad)
    found = remembered(job, what, walk, Walks.at)
    return [(where, found.kinds[kind]) for where, kind in found.order]


def _encoder_run(job: Job) -> Pass:
    """A pass of the encoder's length."""
    return job.run(length=fixed_length(job.arch, "encoder"))


def _sides(job: Job) -> tuple[Side, Side]:
    """Encoder and decoder."""
    trains = embeddings_trained(job)
    grad = trains or job.setup.needs_input_grads
    entry, outside = enter(job, "encoder", grad, trains), _bias(job, "encoder")
    layers = _layers(job, "encoder", outside, grad, entry.width)
    last = layers[-1][1]
    end = leave(job, "encoder", last.grad, last.width)
    encoder = Side("encoder", entry, layers, end, outside)
    outside = replace(_bias(job, "decoder"), rows=_encoder_run(job).tokens, width=end.width, grad=end.grad)
    entry = enter(job, "decoder", grad, trains)
    return encoder, Side(
        "decoder",
        entry,
        _layers(job, "decoder", outside, grad, entry.width),
        Exit(None, None, False, 0),
        outside,
    )


def course_of_two(job: Job, base: Held, stage: Stage, unit: Size = 0) -> Course:
    """The forward and backward pass of one micro-step, as `step.course` has them for a single stack. With a pipeline,
    of the layers of the stage; the ends go with the stage that holds them, and the encoder's with both."""
    encoder, decoder = _sides(job)
    count = len(encoder.layers)
    mine = (
        encoder.layers[stage.first : stage.end],
        decoder.layers[max(0, stage.first - count) : max(0, stage.end - count)],
    )
    going = Course(base, job, unit)
    for _ in range(stage.in_flight - 1):
        for _, walked in (*mine[0], *mine[1]):
            going.hold(walked.forward.change)
    rows, width = decoder.outside.rows, decoder.outside.width
    memory: Size = (rows or 0) * (job.arch.hidden_size * width)
    keeps = any(walked.keeps_memory for _, walked in decoder.layers)
    masks = _masks(job, "encoder"), _masks(job, "decoder")
    late = job.setup.checkpointing in (
        "none",
        "layer-offload",
    )  # layers do not keep what they are called with
    going.hold(masks[0])
    _forward(going, encoder, mine[0], job)
    going.hold(masks[0], -1 if late else 0)
    going.hold({KEPT if keeps else "temporary": memory})
    going.hold(masks[1])
    _forward(going, decoder, mine[1], job)
    going.hold(masks[1], -1 if late else 0)
    if stage.head:
        last = decoder.layers[-1][1]
        pass_head(job, going, last.grad, last.width, has_end_norm(job.arch, "decoder"))
    if not keeps:
        going.hold({"temporary": memory}, -1)
    shared = {"stream": memory} if encoder.exit.grad else {}
    if decoder.layers[-1:] != mine[1][-1:]:  # a later stage has made its gradient
        going.hold(shared)
    brought = job.setup.checkpointing == "layer-offload"  # by every layer
    going.hold(masks[1], 1 if brought else 0)
    _backward(going, decoder, mine[1], job)
    going.hold(masks[1], -1 if job.setup.checkpointing != "none" else 0)
    _table(going, decoder, job)
    if keeps:
        going.hold({KEPT: memory}, -1)
    going.hold(shared, -1)
    if encoder.exit.backward is not None:
        going.go("backward", "encoder end", encoder.exit.backward)
    going.hold(masks[0], 1 if brought else 0)
    _backward(going, encoder, mine[0], job)
    going.hold(masks[0], -1 if job.setup.checkpointing != "none" else 0)
    if stage.stem:
        _table(going, encoder, job)
    return going


def _masks(job: Job, stack: str) -> Held:
    """Bytes of the masks that a stack's layers are called with, for every sequence: eager attention adds its own to
    scores, a decoder's to see no later positions always; fused kernels are given truth values. Padding hides tokens
    of the encoder, from its own layers and from the decoder's."""
    setup, run = job.setup, job.run()
    if setup.attention_kernel == "flash" and not job.traits.no_flash:
        return {}
    eager = setup.attention_kernel == "eager" or job.traits.eager
    pairs = setup.sequences * setup.seq_len**2
    causal = pairs * run.norms if eager and stack == "decoder" else 0
    hidden = run.masked and fixed_length(job.arch, "encoder") is None
    found = causal + (pairs * (run.norms if eager else 1) if hidden else 0)
    return {"temporary": found} if found else {}


def _biases(side: Side) -> list[Bias]:
    """Biases that the layers of a stack share."""
    return [bias for bias in (side.outside.own, side.outside.cross) if bias and not bias.apart]


def _kept_biases(side: Side, job: Job, *, looked_up: bool = False) -> Size:
    """Bytes of shared biases, and of what made them, that stay until the backward pass: checkpointed layers keep them
    as they keep their input; else fused attention keeps a copy of its own, but for zeros, which it keeps themselves.
    Of those `looked_up` alone, or of all."""
    setup, found = job.setup, [bias for bias in _biases(side) if bias.turned or not looked_up]
    if setup.checkpointing == "layer-offload":  # a leaf whose gradient is asked for stays
        return sum(bias.bytes for bias in found if bias.grad and not bias.turned)
    total: Size = 0 if setup.checkpointing == "layer" else sum(bias.kept for bias in found)
    fused = setup.attention_kernel != "eager" and side.grad and not job.run().masked
    for bias in found:
        if setup.checkpointing == "layer" or (fused and not bias.turned):
            total = total + bias.bytes
    return total


def _forward(going: Course, side: Side, layers: Layers, job: Job) -> None:
    """A stack from its tokens to what it hands on. Its variables go when it is left."""
    going.go("forward", f"{side.name} embedding", side.entry.forward)
    kept = _kept_biases(side, job)
    shared: Size = sum(bias.bytes for bias in _biases(side))
    if job.setup.checkpointing == "none":
        shared = shared + sum(bias.kept for bias in _biases(side))
    held = {**side.entry.held, "stream": shared - kept}
    going.hold({KEPT: kept})
    going.hold(side.entry.kept)  # a leaf whose gradient is asked for
    going.hold(held)
    for where, walked in layers:
        going.go("forward", where, walked.forward, 2)
    if side.exit.forward is not None:
        going.go("forward", f"{side.name} end", side.exit.forward)
    going.hold(held, -1)


def _backward(going: Course, side: Side, layers: Layers, job: Job) -> None:
    """The layers of a stack backwards. Gradients of shared biases are gathered from the last layer on. The first
    layer keeps none of the biases that it made, so that checkpoints of the others hold them the longest."""
    found = [bias for bias in _biases(side) if bias.grad]
    looked_up: Held = {"stream": sum(bias.bytes for bias in found if bias.turned)}
    gathered: Size = sum(bias.gathered(job.run()) for bias in found)
    if side.layers[-1:] != layers[-1:]:  # a later stage has made the gradients
        going.hold({"stream": gathered})
    kept: Held = {KEPT: _kept_biases(side, job, looked_up=True)}
    early = job.setup.checkpointing == "layer" and layers[:1] == side.layers[:1]
    passed = [(where, each.backward) for where, each in layers if each.backward is not None]
    ahead = 1 if job.setup.method != "full" and job.setup.fsdp_units == "pairs" else 2
    for number, (where, part) in reversed(list(enumerate(passed))):
        if early and not number:
            going.hold(kept, -1)
        going.go("backward", where, part, ahead if number else 1)
    going.hold({"stream": sum(bias.bytes for bias in found) - gathered})
    going.hold(looked_up, -1)  # zeros with their gradient stay to the end
    if not early:
        going.hold(kept, -1)
    if side.entry.backward is not None:
        going.go("backward", f"{side.name} embedding", side.entry.backward)
        going.hold({"stream": side.entry.leaf})


def _table(going: Course, side: Side, job: Job) -> None:
    """The gradient of a stack's table of tokens; one that both stacks share is met by the second in place."""
    if not embeddings_trained(job):
        return
    part, tied = stem_of(job).backward, job.arch.tied_embeddings and table_trained(job)
    if side.name == "decoder" and tied:
        part = Stretch({}, part.highest)
    elif tied:  # the sum of two is there, to which this one is added in place
        part = Stretch(part.change, {**part.highest, "gradients": part.highest["gradients"] * 0.5})
    going.go_whole("backward", f"{side.name} table", part)
