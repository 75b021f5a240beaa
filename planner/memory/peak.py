"""The estimate of one set-up: what is held, the course of a step over it, the optimizer's step, and the interval."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..moments import Item, MemoryEstimate, MemoryPart, Moment
from ..schema import Architecture
from ..setup import Setup
from .overhead import interval, overhead
from .passes import WIDTHS
from .sharding import buckets, gathered, held_weights
from .states import base_weights, optimizer_bytes, trained_tensors, update_bytes
from .step import Course, Job, Place, course
from .stretch import Held, plus
from .traffic import traffic

PHASES = ("forward", "loss", "backward", "optimizer")
NAMES: dict[str, tuple[MemoryPart, str]] = {
    "weights": ("weights", "base weights"),
    "adapter": ("adapter", "adapter"),
    "gradients": ("gradients", "gradients"),
    "optimizer": ("optimizer", "optimizer states"),
    "activations": ("activations", "kept for the backward pass"),
    "stream": ("activations", "hidden states on their way"),
    "logits": ("logits", "logits and loss"),
    "temporary": ("temporary", "temporary buffers"),
    "gathered": ("temporary", "gathered units"),
    "buckets": ("temporary", "gradient buckets"),
    "fixed": ("temporary", "tokens and positions"),
}


def share(size: int, n: int) -> int:
    """A shard of n, rounded up."""
    return -(-size // n)


def estimate_memory(
    arch: Architecture, setup: Setup, adapted: Iterable[Adapted] | None = None, whole: Whole = NOTHING_WHOLE
) -> MemoryEstimate:
    """Peak bytes of one GPU for `setup`; `adapted` are the adapter's matrices, left out for full fine-tuning.

    Raises InputError where the set-up does not go with the model.
    """
    pairs = None if setup.method == "full" else tuple(adapted or ())
    weights = base_weights(arch, setup)
    tensors = trained_tensors(arch, pairs, whole)
    trained = sum(t.size * t.copies for t in tensors)
    width = WIDTHS[setup.trained_dtype]
    held, host = held_weights(weights, setup)
    base: Held = {"weights": held, "fixed": _fixed(arch, setup)}
    if setup.method != "full":
        base["adapter"] = share(trained * width, setup.shards if setup.parameters_sharded else 1)
    states = optimizer_bytes(tensors, setup)
    states = share(states, setup.shards) if setup.states_sharded else states
    if setup.offload in ("optimizer", "all") or setup.optimizer.startswith("paged"):
        host += states
        states = 0
    base["optimizer"] = states
    gradients = (
        0
        if setup.optimizer_in_backward
        else share(trained * width, setup.shards if setup.gradients_sharded else 1)
    )
    if setup.accumulation > 1:
        base["gradients"] = gradients
    base["buckets"] = buckets(trained * width, setup)
    unit, outside = gathered(arch, setup)
    base["gathered"] = outside
    job = Job(arch, setup, pairs, whole, unpacked=weights.unpacked)
    going = course(job, base)
    moments = _moments(going, unit, setup)
    update = {
        **base,
        "gathered": 0,
        "gradients": gradients,
        "temporary": update_bytes(tensors, setup) // (setup.shards if setup.states_sharded else 1),
    }
    moments.append(_moment("optimizer", "step", update))
    extra = overhead(setup, max(m.bytes for m in moments))
    found = MemoryEstimate(
        setup=setup, moments=tuple(moments), overhead=extra, low=0, high=0,
        traffic=traffic(arch, setup, trained), host_bytes=host,
    )  # fmt: skip
    low, high = interval(found)
    return replace(found, low=low, high=high)


def _fixed(arch: Architecture, setup: Setup) -> int:
    """Token ids, labels and their shifted copy (8 bytes each), and the table of rotations."""
    return setup.tokens * 8 * 3


def _moments(going: Course, unit: int, setup: Setup) -> list[Moment]:
    """The highest place of each phase."""
    best: dict[str, tuple[int, Place, Held]] = {}
    for place in going.places:
        held = plus(place.base, place.highest)
        if unit and "layer" in place.where:
            held = plus(held, {"gathered": unit})
        size = sum(held.values())
        if place.phase not in best or size > best[place.phase][0]:
            best[place.phase] = size, place, held
    return [_moment(phase, best[phase][1].where, best[phase][2]) for phase in PHASES if phase in best]


def _moment(phase: str, where: str, held: Held) -> Moment:
    items = [
        Item(*NAMES[label], bytes=max(0, round(size))) for label, size in held.items() if round(size) > 0
    ]
    return Moment(phase, where, tuple(items))  # type: ignore[arg-type]
