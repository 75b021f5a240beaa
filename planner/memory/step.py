"""A whole step put together from its stretches: stem, layers, unembedding and loss, and back again.

Every kind of layer is run once on a tape of its own; the step then adds up what layers keep, and the highest point
of each stretch above what is held when it begins.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from ..schema import Apply, Architecture, Attend, Block
from ..setup import Setup
from .head import Head, head_stretches, stem_stretches
from .kinds import Job, Walked, walk_layer
from .layout import low_ranks
from .passes import CASTS, FLOAT32, fsdp_mixed
from .stages import Stage, stages, whole_model
from .stretch import Held, Stretch, plus
from .tape import Size


@dataclass(frozen=True)
class Place:
    """A stretch of the step with what is held when it begins."""

    phase: str
    where: str
    base: Held
    highest: Held


class Course:
    """The step as it goes: `level` is what is held, `places` the stretches that were passed.

    Gradients that a stretch leaves are `spread` over so many GPUs. While a layer runs, its gathered weights and
    those of the next one (`unit` bytes each) are held too.
    """

    def __init__(self, base: Held, spread: float = 1, unit: Size = 0, *, steps_inside: bool = False) -> None:
        self.level = base
        self.places: list[Place] = []
        self.spread = spread
        self.unit = unit
        self.steps_inside = steps_inside

    def go(self, phase: str, where: str, part: Stretch, units: int = 0) -> None:
        """Pass a stretch, with so many units gathered."""
        held = plus(self.level, {"gathered": self.unit * units}) if self.unit and units else self.level
        self.places.append(Place(phase, where, held, part.highest))
        change = part.change
        if self.steps_inside and "gradients" in change:  # the optimizer has taken and freed them
            change = {**change, "gradients": 0}
        if self.spread != 1 and "gradients" in change:
            change = {**change, "gradients": change["gradients"] * (1 / self.spread)}
        self.level = plus(self.level, change)

    def let_go(self, label: str) -> None:
        """Hold no more of this kind."""
        self.level = {name: size for name, size in self.level.items() if name != label}

    def hold(self, more: Held, times: int = 1) -> None:
        """Hold something more from here on; less with `times` -1."""
        self.level = plus(self.level, more, times)


def spread(setup: Setup) -> float:
    """Over how many GPUs the gradients that the backward pass leaves are spread, in the width in which it
    makes them."""
    if not setup.gradients_sharded:
        return 1
    return setup.shards / (2 if fsdp_mixed(setup) and setup.method == "full" else 1)


def stacks(arch: Architecture) -> list[tuple[str, int, Block]]:
    """All layers between the ends in the order in which they run, each with its stack and block."""
    found: dict[str, list[tuple[int, Block]]] = {}
    for block in arch.blocks:
        if block.stack != "head":
            found.setdefault(block.stack, []).extend((layer, block) for layer in block.layers)
    return [
        (name, layer, block)
        for name, layers in found.items()
        for layer, block in sorted(layers, key=lambda pair: pair[0])
    ]


def signature(job: Job, layer: int) -> tuple[Any, ...]:
    """What sets a layer apart from others of its block: its pairs and what it trains in full."""
    pairs = tuple(
        (index, position)
        for index, items in job.trained.pairs.items()
        for position, item in enumerate(items)
        if layer in item.layers
    )
    return pairs, tuple(index for index, layers in job.whole.matrices.items() if layer in layers)


def walked_layers(job: Job, grad: bool) -> list[tuple[str, Walked]]:
    """Every layer's stretches, each kind walked once; `grad` says whether the embedding's result needs a gradient."""
    known: dict[tuple[Any, ...], Walked] = {}
    found, width = [], first_width(job)
    for name, layer, block in stacks(job.arch):
        key = id(block), signature(job, layer), grad, width
        if key not in known:
            known[key] = walk_layer(job, block, layer, grad, width)
        grad, width = known[key].grad, known[key].width
        found.append((f"{name} layer {layer}", known[key]))
    return found


def first_width(job: Job) -> int:
    """Bytes a value of what comes into the first layer; 0 for the embedding's own. Under autocast a norm widens
    it."""
    return FLOAT32 if job.traits.stem_norm and job.run().autocast else 0


def masks(job: Job) -> Size:
    """Bytes of the masks of tokens that a model makes before its layers: one for each window, of every pair of
    positions; of each sequence where tokens are hidden. Eager attention adds them to its scores, in their type; to
    SDPA it gives truth values, where it gives any."""
    setup, run = job.setup, job.run()
    if run.kernel == "flash" and not job.traits.eager and not job.traits.no_flash:
        return 0
    eager = run.kernel == "eager" or job.traits.eager
    windows = {op.window for block in job.arch.blocks for op in block.operations if isinstance(op, Attend)}
    needed = [w for w in windows if eager or run.masked or (w is not None and w < run.reach)]
    one = setup.seq_len * setup.seq_len * (run.compute if eager else 1)
    return len(needed) * one * (setup.micro_batch if run.masked else 1)


def course(job: Job, base: Held, stage: Stage, unit: Size = 0) -> Course:
    """The forward and backward pass of one micro-step of a stage over what is held throughout (`base`); `unit` is
    what a gathered layer takes, 0 where none is."""
    stem = stem_stretches(job.run(), job.arch, embeddings_trained(job))
    layers = walked_layers(job, stem.trains or job.setup.needs_input_grads)
    grad = layers[-1][1].grad if layers else stem.trains
    mine = layers[stage.first : stage.end]
    going = Course(base, spread(job.setup), unit, steps_inside=job.setup.optimizer_in_backward)
    if stage.in_flight > 1:
        for _, (forward, *_) in mine:
            going.hold(forward.change, stage.in_flight - 1)
    going.hold(stem.held)
    kept = masks(job)
    going.hold({"temporary": kept})
    if setup_offloads(job.setup) and not stem.trains:
        going.hold({"activations": stem.held["temporary"]})
    for where, (forward, *_) in mine:
        going.go("forward", where, forward, 2)
    going.hold(stem.held, -1)
    if job.setup.checkpointing == "none":  # checkpointed layers keep what they are called with
        going.hold({"temporary": kept}, -1)
    if stage.head:
        pass_head(job, going, grad, layers[-1][1].width if layers else 0)
    passed = [(where, each.backward) for where, each in mine if each.backward is not None]
    ahead = 1 if job.setup.method != "full" and job.setup.fsdp_units == "pairs" else 2
    for number, (where, part) in reversed(list(enumerate(passed))):
        going.go("backward", where, part, ahead if number else 1)
    if stem.trains and stage.stem:
        going.go("backward", "embedding", stem.backward)
    return going


def setup_offloads(setup: Setup) -> bool:
    """Whether the embedding's result is held though no layer keeps it: as a leaf whose gradient is asked for."""
    return setup.checkpointing == "layer-offload" and setup.needs_input_grads


def pass_head(job: Job, going: Course, grad: bool, width: int, normed: bool = True) -> None:
    """From the last layer's result, `width` bytes a value, to the loss, and back; `normed`: by way of a norm."""
    setup = job.setup
    found = replace(head_of(job), normed=normed)
    loss, back = head_stretches(job.run(width=width), found, job.traits, setup.loss, setup.loss_chunk, grad)
    live = 2 if setup.sharding == "zero3" else 0  # FSDP's root holds the unembedding throughout
    going.go("loss", "", loss, live)
    going.let_go(CASTS)
    if back is not None:
        going.go("backward", "unembedding", back, live)
    if found.trained and job.arch.tied_embeddings and (setup.accumulation > 1 or setup.optimizer_in_backward):
        # One gradient of both ends: the unembedding's waits for the embedding's.
        going.hold({"gradients": found.hidden * found.vocab * job.run().whole})


def embeddings_trained(job: Job) -> bool:
    """Whether the token table is trained, in full or by a pair."""
    adapted = any(job.arch.matrices[index].role == "embedding" for index in job.trained.pairs)
    return job.setup.method == "full" or job.whole.embedding or adapted


def head_of(job: Job) -> Head:
    """The unembedding of a model, split over tensor-parallel GPUs by the vocabulary."""
    arch, split = job.arch, job.setup.tensor_parallel
    for block in arch.blocks:
        for op in block.operations if block.stack == "head" else ():
            if isinstance(op, Apply) and arch.matrices[op.matrix].role == "unembedding":
                matrix, item = arch.matrices[op.matrix], job.trained.of(op.matrix, 0)
                return Head(
                    arch.hidden_size, -(-matrix.d_out // split),
                    op.matrix in job.whole.matrices or job.setup.method == "full",
                    low_ranks(item) if item else (), job.unpacked.get(op.matrix, 0),
                )  # fmt: skip
    return Head(arch.hidden_size, 0)


__all__ = ["Course", "Place", "Stage", "course", "stages", "whole_model"]
