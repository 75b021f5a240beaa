"""One layer of a kind: its forward and backward stretch, plain or checkpointed.

With checkpointing a layer keeps its input alone, and its backward stretch begins by running it again.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from functools import cached_property
from typing import Any, NamedTuple

from ..adapter import Adapted, by_matrix
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..dataclass import dataclass, replace
from ..schema import Architecture, Block
from ..setup import Setup
from .layer import Walk
from .layout import Shape, Trained, shape_of
from .linear import Joined
from .outside import ALONE, Outside
from .passes import CASTS, Pass, make_pass
from .sharding import gradients_go, in_flat_units, in_one
from .stretch import Held, Stretch, label_kept, plus, stretch
from .tape import Buffer, Node, Size, Tape, Value
from .traits import Traits, traits_of, undropped, without_dropout

KEPT = "activations"
STREAM = "stream"
NOTHING = Stretch()
CACHES = "caches"  # the label of keys and values that a cache alone still holds


@dataclass
class Job:
    """What is run: a model, what is trained of it, and how; `ranks_follow`: it will be run at other ranks too;
    `points`: the many at which it is run at once, with pairs of any of them; `shaped`: their `shape`, where it is
    known; `either`: layers are walked for gradients that wait and for such that go as they come;
    `highest_alone`: of layers that are checkpointed nothing is asked for but the highest point forward;
    `evaluates`: nothing is dropped; `plain`: walks of layers without experts of this job where experts are divided
    otherwise, which are added to."""

    arch: Architecture
    setup: Setup
    adapted: tuple[Adapted, ...] | None
    whole: Whole = NOTHING_WHOLE
    merges: bool = False
    unpacked: Mapping[int, int] = field(default_factory=dict)
    ranks_follow: bool = False
    points: Joined | None = None
    shaped: tuple[Shape, tuple[int, ...]] | None = None
    either: bool = False
    highest_alone: bool = False
    evaluates: bool = False
    plain: dict[Any, Any] | None = None

    def __post_init__(self) -> None:
        """Pairs by matrix."""
        self.trained = Trained(by_matrix(self.adapted or ()), self.whole)
        traits: Traits = traits_of(self.arch)
        self.traits = traits if self.setup.drops else undropped(traits, self.arch)
        if self.evaluates:
            self.traits = without_dropout(self.traits)
        matrices = (self.arch.matrices[i].d_out * len(layers) for i, layers in self.whole.biases.items())
        self.norm_biases = self.whole.bias > 0 and self.whole.bias > sum(matrices)

    @cached_property
    def shape(self) -> tuple[Shape, tuple[int, ...]]:
        """The adapter without its ranks, and these."""
        return shape_of(self.adapted or ()) if self.shaped is None else self.shaped

    def run(self, *, grad: bool = True, length: int | None = None, width: int = 0) -> Pass:
        """A pass on a new tape; `length` replaces the workload's, `width` the hidden states' bytes a value."""
        gone = self.either or gradients_go(self.setup)
        found = make_pass(self.setup, merges=self.merges, accumulates=gone, length=length)
        found.grad, found.norm_biases = grad, self.norm_biases
        found.flat = in_flat_units(self.setup) and in_one(self.setup)
        if width:
            found.stream = width
        return found


class Walked(NamedTuple):
    """A layer's forward and backward stretch, whether its result needs a gradient, the width of that in bytes,
    whether its graph keeps what it reads of an encoder, bytes that it hands on beside its result and that nothing
    keeps, and of a walk for `either` the backward stretch whose gradients wait."""

    forward: Stretch
    backward: Stretch | None
    grad: bool
    width: int
    keeps_memory: bool = False
    handed: Stretch = NOTHING
    waiting: Stretch | None = None


def handed_on(tape: Tape, out: Value) -> Stretch:
    """The forward pass up to here, of a stretch that ends with `out`: what else is alive and has no part of memory
    yet stays for the backward pass; `out` is the stream's, which whoever reads it counts."""
    label_kept(tape, KEPT)
    tape.labels[out.buffer.index] = STREAM
    forward = stretch(tape, 0, len(tape.events))
    forward.change = plus(forward.change, {STREAM: out.bytes}, -1)
    return forward


def walk_layer(
    job: Job, block: Block, layer: int, stream_grad: bool, width: int = 0, outside: Outside = ALONE
) -> Walked:
    """The forward and backward stretch of one layer, and what it hands on. `width`: bytes a value of what comes in,
    0 for the embedding's.

    A stretch begins without the layer's input, or its result's gradient, and counts them; it ends without what it
    hands on.
    """
    if job.setup.checkpointing != "none" and block.stack in ("decoder", "encoder"):
        return _checkpointed(job, block, layer, stream_grad, width, outside)
    run = job.run(length=block.fixed_length, width=width)
    tape = run.tape
    seen: list[int] = []
    cached: list[Buffer] = []
    caches = job.traits.caches and outside.rows is not None
    around = replace(outside, seen=seen, cached=cached if caches else None)
    out = _forward(job, block, layer, run, _stream(job, run, stream_grad), around)
    run.casts.clear()
    handed = _let_go(run)
    label_kept(tape, KEPT, CASTS)
    size, node, made = out.bytes, out.node, out.width
    if tape.labels[out.buffer.index] == KEPT:
        tape.labels[out.buffer.index] = STREAM
    forward = stretch(tape, 0, len(tape.events))
    forward.change = plus(forward.change, {STREAM: size}, -1)
    ended = len(tape.events)
    cached.clear()
    alone: Size = sum(tape.sizes[~event] for event in tape.events[ended:])
    if caches:
        forward.change = plus(plus(forward.change, {KEPT: alone}, -1), {CACHES: alone})
    keeps = any(~index not in tape.events[:ended] for index in seen)
    del out
    if node is None:
        return Walked(forward, None, False, made, handed=handed)
    start = len(tape.events)
    tape.backward(node, [tape.new(size, STREAM)]).clear()
    del node
    ended = len(tape.events)
    waiting = stretch(tape, start, ended, waits=True) if job.either else None
    return Walked(forward, stretch(tape, start, ended), True, made, keeps, waiting=waiting)


def _let_go(run: Pass) -> Stretch:
    """Bytes of what a layer hands on beside its result, which from here on the pass does not hold."""
    if not run.handed:
        return NOTHING
    handed: Size = sum(value.bytes for value in run.handed)
    run.handed.clear()
    return Stretch({"temporary": handed})


def _stream(job: Job, run: Pass, grad: bool, label: str | None = None) -> Value:
    return run.tape.leaf(run.rows * job.arch.hidden_size, run.stream, grad=grad, label=label)


def _forward(job: Job, block: Block, layer: int, run: Pass, x: Value, outside: Outside) -> Value:
    run.flat = in_flat_units(job.setup)
    return Walk(job.arch, block, layer, run, job.traits, job.trained, job.unpacked, outside).forward(x)


class _FirstRun(NamedTuple):
    """A checkpointed layer's first run: its forward stretch, its result's bytes and width, what autocast lowered,
    what is handed on and cached, what selective checkpointing keeps, and bytes that a checkpoint inside holds."""

    forward: Stretch
    size: Size
    width: int
    casts: Size
    handed: Stretch
    cache: Size
    chosen: tuple[Size, ...]
    inside: Size = 0


def _first_run(
    job: Job, block: Block, layer: int, stream_grad: bool, width: int, outside: Outside
) -> _FirstRun:
    run = job.run(grad=False, length=block.fixed_length, width=width)
    run.first, run.selects = True, job.setup.checkpointing == "selective"
    run.reads_all = stream_grad and not job.setup.reentrant
    cached: list[Buffer] = []
    around = replace(outside, first=False, cached=cached if holds_cache(job) else None)
    out = _forward(job, block, layer, run, _stream(job, run, False), around)
    forward = stretch(run.tape, 0, len(run.tape.events))
    cache: Size = sum(run.tape.sizes[index] for index in {buffer.index for buffer in cached})
    chosen = tuple([run.tape.sizes[index] for index in run.results])
    casts, inside = forward.change.get(CASTS, 0), sum([run.tape.sizes[index] for index in run.inside])
    return _FirstRun(
        forward, out.bytes, out.width, casts, _let_go(run), cache, chosen,
        0 if job.setup.reentrant else inside,
    )  # fmt: skip


def _checkpointed(
    job: Job, block: Block, layer: int, stream_grad: bool, width: int, outside: Outside
) -> Walked:
    """A layer that keeps its input alone. Its backward stretch begins with the last operations' gradients, as far as
    they ask for nothing that was kept; then it runs the layer again, up to the last thing that is, while those wait.
    Reentrant checkpointing runs it whole and holds its result and that gradient, and makes zeros as that of what else
    it hands on (torch's functions in Python are given one for each result, torch/csrc/autograd/python_function.cpp,
    PyNode::apply). Selective checkpointing keeps some results too (`Pass.made`): the second run takes each where it
    comes to it, and what it does not reach goes at the end."""
    first = _first_run(job, block, layer, stream_grad, width, outside)
    forward, handed = first.forward, first.handed
    if job.setup.reentrant and not stream_grad:  # a function without gradients, whatever is trained inside
        forward.change = {CASTS: first.casts}
        return Walked(forward, None, False, first.width, handed=handed)
    again = job.run(length=block.fixed_length, width=width)
    tape, again.again, again.selects = again.tape, True, job.setup.checkpointing == "selective"
    tape.unpacks = not job.setup.reentrant
    asides = [tape.aside(each, KEPT) for each in first.chosen]
    nested = [tape.aside(first.inside, KEPT)] if first.inside else []
    gradient = [tape.new(first.size, STREAM)]
    x = _stream(job, again, stream_grad, KEPT)
    offloaded = job.setup.checkpointing == "layer-offload"
    again.detach(x, job.setup.reentrant)
    out = _forward(job, block, layer, again, x, replace(outside, held=offloaded))
    node, made = out.node, out.width
    kept: Held = {} if offloaded else {KEPT: x.bytes}
    inside = {b.index for b in again.read} - ({x.buffer.index} if kept else set())
    read: Size = 0 if job.setup.reentrant else sum(tape.sizes[index] for index in inside)
    beside = sum(first.chosen) + first.inside
    kept = plus(kept, {KEPT: beside}) if asides or nested else kept
    stays = plus(kept, {KEPT: read})
    forward.change = {**(stays if node is not None else {}), CASTS: first.casts, CACHES: first.cache}
    again.leave_autocast()
    if node is None or job.highest_alone:
        return Walked(forward, None, node is not None, made, handed=handed)
    unused = [each for each, result in zip(asides, again.results, strict=True) if not tape.use(each, result)]
    label_kept(tape, KEPT)
    zeros: dict[Node, Buffer] = {}
    if job.setup.reentrant:
        zeros = {v.node: tape.new(v.bytes, viewed=True) for v in again.handed if v.node is not None}
        skip, held_back = (0, 0), (out, gradient[0], *again.handed, *again.read)
    else:
        skip, held_back = (tape.last_kept, len(tape.events)), None
    again.handed.clear()
    again.read.clear()
    held_in = (
        x if job.setup.reentrant or not offloaded else None
    )  # what came back for the run alone goes with it
    del out, x
    turned = len(tape.events)
    tape.backward(node, gradient, zeros).clear()
    asked = 0 if job.setup.reentrant else tape.first_asked or 0
    del node, held_back, held_in, zeros
    tape.events += [~each for each in (*unused, *nested)]
    ended, left = len(tape.events), {STREAM: first.size} if retains_inputs(job.setup) else None

    def back(waits: bool) -> Stretch:
        begun = 1 + len(asides) + len(nested)
        found = stretch(tape, 0, ended, skip=skip, first=(begun, turned, asked), waits=waits)
        change = plus(found.change, kept, -1)
        if left:
            change = plus(plus(change, kept), left)
        return Stretch(change, plus(found.highest, kept, -1))

    waiting = back(True) if job.either else None
    return Walked(forward, back(False), True, made, not offloaded, handed, waiting)


def holds_cache(job: Job) -> bool:
    """Whether keys and values of checkpointed layers, and all that one projection made with them, are held to the
    end of the forward pass."""
    if job.setup.cache_held is not None:
        return job.setup.cache_held
    return job.traits.cached_before and job.setup.loss.startswith("shifted")


def retains_inputs(setup: Setup) -> bool:
    """Whether every layer's input and its gradient stay until the backward pass ends: FSDP's hooks on frozen units
    hold them where checkpointing is reentrant."""
    fsdp = setup.sharding in ("fsdp", "fsdp-hybrid") and setup.shards > 1
    return fsdp and setup.reentrant and setup.method != "full"
