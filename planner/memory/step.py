"""A whole step put together from its stretches: stem, layers, unembedding and loss, and back again.

Every kind of layer is run once on a tape of its own; the step then adds up what layers keep, and the highest point
of each stretch above what is held when it begins. With checkpointing a layer keeps its input alone, and its
backward stretch begins by running it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..schema import Apply, Architecture, Block
from ..setup import Setup
from .head import Head, head_stretches, stem_stretches
from .layer import Trained, Walk
from .passes import Pass, make_pass
from .products import LowRank
from .stretch import Held, Stretch, label_kept, plus, stretch
from .tape import Value
from .traits import Traits, traits_of

KEPT = "activations"
STREAM = "stream"


@dataclass(frozen=True)
class Place:
    """A stretch of the step with what is held when it begins."""

    phase: str
    where: str
    base: Held
    highest: Held


@dataclass
class Job:
    """What is run: a model, what is trained of it, and how."""

    arch: Architecture
    setup: Setup
    adapted: tuple[Adapted, ...] | None
    whole: Whole = NOTHING_WHOLE
    merges: bool = False
    unpacked: Mapping[int, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Pairs by matrix."""
        pairs: dict[int, tuple[Adapted, ...]] = {}
        for item in self.adapted or ():
            pairs[item.index] = (*pairs.get(item.index, ()), item)
        self.trained = Trained(pairs, self.whole)
        self.traits: Traits = traits_of(self.arch)

    def run(self, *, grad: bool = True) -> Pass:
        """A pass on a new tape."""
        found = make_pass(self.setup, merges=self.merges, accumulates=self.setup.accumulation > 1)
        found.grad = grad
        return found


def walk_layer(job: Job, block: Block, layer: int, stream_grad: bool) -> tuple[Stretch, Stretch | None, bool]:
    """The forward and backward stretch of one layer, and whether its result needs a gradient.

    A stretch begins without the layer's input, or its result's gradient, and counts them; it ends without what it
    hands on.
    """
    if job.setup.checkpointing != "none" and block.stack in ("decoder", "encoder"):
        return _checkpointed(job, block, layer, stream_grad)
    run = job.run()
    tape = run.tape
    out = _forward(job, block, layer, run, _stream(job, run, stream_grad))
    label_kept(tape, KEPT)
    size, node = out.bytes, out.node
    if tape.labels[out.buffer.index] == KEPT:
        tape.labels[out.buffer.index] = STREAM
    forward = stretch(tape, 0, len(tape.events))
    forward.change = plus(forward.change, {STREAM: size}, -1)
    del out
    if node is None:
        return forward, None, False
    start = len(tape.events)
    tape.backward(node, [tape.new(size, STREAM)]).clear()
    del node
    return forward, stretch(tape, start, len(tape.events)), True


def _stream(job: Job, run: Pass, grad: bool, label: str | None = None) -> Value:
    return run.tape.leaf(run.tokens * job.arch.hidden_size, run.stream, grad=grad, label=label)


def _forward(job: Job, block: Block, layer: int, run: Pass, x: Value) -> Value:
    return Walk(job.arch, block, layer, run, job.traits, job.trained, job.unpacked).forward(x)


def _checkpointed(
    job: Job, block: Block, layer: int, stream_grad: bool
) -> tuple[Stretch, Stretch | None, bool]:
    """A layer that keeps its input alone. Its backward stretch runs it again, up to the last thing that is kept, while
    the gradient of its result waits."""
    run = job.run(grad=False)
    out = _forward(job, block, layer, run, _stream(job, run, False))
    forward = stretch(run.tape, 0, len(run.tape.events))
    size = out.bytes
    del out
    again = job.run()
    tape = again.tape
    x = _stream(job, again, stream_grad, KEPT)
    gradient = [tape.new(size, STREAM)]
    out = _forward(job, block, layer, again, x)
    node = out.node
    forward.change = {KEPT: x.bytes} if node is not None else {}
    if node is None:
        return forward, None, False
    label_kept(tape, KEPT)
    del out
    skip = tape.last_kept, len(tape.events)
    tape.backward(node, gradient).clear()
    del node
    held = {KEPT: x.bytes}
    del x
    backward = stretch(tape, 0, len(tape.events), skip=skip)
    return forward, Stretch(plus(backward.change, held, -1), plus(backward.highest, held, -1)), True


class Course:
    """The step as it goes: `level` is what is held, `places` the stretches that were passed. Gradients that a stretch
    leaves are `spread` over so many GPUs."""

    def __init__(self, base: Held, spread: int = 1) -> None:
        self.level = base
        self.places: list[Place] = []
        self.spread = spread

    def go(self, phase: str, where: str, part: Stretch) -> None:
        """Pass a stretch."""
        self.places.append(Place(phase, where, self.level, part.highest))
        change = part.change
        if self.spread > 1 and "gradients" in change:
            change = {**change, "gradients": change["gradients"] * (1 / self.spread)}
        self.level = plus(self.level, change)


def stacks(arch: Architecture) -> list[tuple[str, list[tuple[int, Block]]]]:
    """Stacks in the order in which they run, each with its layers in order."""
    found: dict[str, list[tuple[int, Block]]] = {}
    for block in arch.blocks:
        found.setdefault(block.stack, []).extend((layer, block) for layer in block.layers)
    return [(name, sorted(layers, key=lambda pair: pair[0])) for name, layers in found.items()]


def _signature(job: Job, layer: int) -> tuple[Any, ...]:
    """What sets a layer apart from others of its block: its pairs and what it trains in full."""
    pairs = tuple(
        (index, position)
        for index, items in job.trained.pairs.items()
        for position, item in enumerate(items)
        if layer in item.layers
    )
    whole = tuple(index for index, layers in job.whole.matrices.items() if layer in layers)
    return pairs, whole


def course(job: Job, base: Held) -> Course:
    """The forward and backward pass of one micro-step over what is held throughout (`base`)."""
    setup, arch = job.setup, job.arch
    going = Course(base, setup.shards if setup.gradients_sharded else 1)
    stem = stem_stretches(job.run(), arch, embeddings_trained(job))
    going.level = plus(going.level, stem.held)
    grad = stem.trains or setup.needs_input_grads
    known: dict[tuple[Any, ...], tuple[Stretch, Stretch | None, bool]] = {}
    passed: list[tuple[str, Stretch]] = []
    for name, layers in stacks(arch):
        if name == "head":
            continue
        for layer, block in layers:
            key = id(block), _signature(job, layer), grad
            if key not in known:
                known[key] = walk_layer(job, block, layer, grad)
            forward, backward, grad = known[key]
            going.go("forward", f"{name} layer {layer}", forward)
            if backward is not None:
                passed.append((f"{name} layer {layer}", backward))
    going.level = plus(going.level, stem.held, -1)
    loss, back = head_stretches(job.run(), head_of(job), job.traits, setup.loss, setup.loss_chunk, grad)
    going.go("loss", "", loss)
    if back is not None:
        going.go("backward", "unembedding", back)
    for where, part in reversed(passed):
        going.go("backward", where, part)
    if stem.trains:
        going.go("backward", "embedding", stem.backward)
    return going


def embeddings_trained(job: Job) -> bool:
    """Whether the token table is trained in full."""
    return job.setup.method == "full" or job.whole.embedding


def head_of(job: Job) -> Head:
    """The unembedding of a model."""
    arch, trained = job.arch, job.trained
    for block in arch.blocks:
        if block.stack != "head":
            continue
        for op in block.operations:
            if isinstance(op, Apply) and arch.matrices[op.matrix].role == "unembedding":
                matrix, item = arch.matrices[op.matrix], trained.of(op.matrix, 0)
                pairs = (
                    tuple(LowRank(p.d_in, p.d_out, p.rank, bool(p.magnitudes)) for p in item.pairs)
                    if item
                    else ()
                )
                whole = op.matrix in job.whole.matrices or job.setup.method == "full"
                return Head(arch.hidden_size, matrix.d_out, whole, pairs, job.unpacked.get(op.matrix, 0))
    return Head(arch.hidden_size, 0)
