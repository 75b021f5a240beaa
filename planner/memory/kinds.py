"""One layer of a kind: its forward and backward stretch, plain or checkpointed.

With checkpointing a layer keeps its input alone, and its backward stretch begins by running it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Any

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..dataclass import dataclass
from ..schema import Architecture, Block
from ..setup import Setup
from .layer import Walk
from .layout import Trained, shape_of
from .passes import CASTS, Pass, make_pass
from .stretch import Stretch, label_kept, plus, stretch
from .tape import Value
from .traits import Traits, traits_of

KEPT = "activations"
STREAM = "stream"


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

    @cached_property
    def shape(self) -> tuple[tuple[Any, ...], tuple[int, ...]]:
        """The adapter without its ranks, and these."""
        return shape_of(self.adapted or ())

    def run(self, *, grad: bool = True, length: int | None = None) -> Pass:
        """A pass on a new tape; `length` replaces the workload's."""
        gone = self.setup.accumulation > 1 or self.setup.optimizer_in_backward
        found = make_pass(self.setup, merges=self.merges, accumulates=gone, length=length)
        found.grad = grad
        return found


def walk_layer(job: Job, block: Block, layer: int, stream_grad: bool) -> tuple[Stretch, Stretch | None, bool]:
    """The forward and backward stretch of one layer, and whether its result needs a gradient.

    A stretch begins without the layer's input, or its result's gradient, and counts them; it ends without what it
    hands on.
    """
    if job.setup.checkpointing != "none" and block.stack in ("decoder", "encoder"):
        return _checkpointed(job, block, layer, stream_grad)
    run = job.run(length=block.fixed_length)
    tape = run.tape
    out = _forward(job, block, layer, run, _stream(job, run, stream_grad))
    run.casts.clear()
    label_kept(tape, KEPT, CASTS)
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
    return run.tape.leaf(run.rows * job.arch.hidden_size, run.stream, grad=grad, label=label)


def _forward(job: Job, block: Block, layer: int, run: Pass, x: Value) -> Value:
    return Walk(job.arch, block, layer, run, job.traits, job.trained, job.unpacked).forward(x)


def _checkpointed(
    job: Job, block: Block, layer: int, stream_grad: bool
) -> tuple[Stretch, Stretch | None, bool]:
    """A layer that keeps its input alone. Its backward stretch runs it again, up to the last thing that is kept,
    while the gradient of its result waits; reentrant checkpointing runs it whole and holds its result and that
    gradient."""
    run = job.run(grad=False, length=block.fixed_length)
    out = _forward(job, block, layer, run, _stream(job, run, False))
    forward = stretch(run.tape, 0, len(run.tape.events))
    size, casts = out.bytes, forward.change.get(CASTS, 0)
    del out
    run.casts.clear()
    again = job.run(length=block.fixed_length)
    tape = again.tape
    x = _stream(job, again, stream_grad, KEPT)
    gradient = [tape.new(size, STREAM)]
    out = _forward(job, block, layer, again, x)
    node = out.node
    offloaded = job.setup.checkpointing == "layer-offload"
    kept = {} if offloaded else {KEPT: x.bytes}
    forward.change = {**(kept if node is not None else {}), CASTS: casts}
    again.casts.clear()
    if node is None:
        return forward, None, False
    label_kept(tape, KEPT)
    if job.setup.reentrant:
        skip, held_back = (0, 0), (out, gradient[0])
    else:
        skip, held_back = (tape.last_kept, len(tape.events)), None
    del out
    tape.backward(node, gradient).clear()
    del node, held_back, x
    backward = stretch(tape, 0, len(tape.events), skip=skip)
    change = plus(backward.change, kept, -1)
    if retains_inputs(job.setup):
        change = plus(plus(change, kept), {STREAM: size})
    return forward, Stretch(change, plus(backward.highest, kept, -1)), True


def retains_inputs(setup: Setup) -> bool:
    """Whether every layer's input and its gradient stay until the backward pass ends: FSDP's hooks on frozen units
    hold them where checkpointing is reentrant."""
    fsdp = setup.sharding in ("fsdp", "fsdp-hybrid") and setup.shards > 1
    return fsdp and setup.reentrant and setup.method != "full"
