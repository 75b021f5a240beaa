"""From a config, an adapter and a set-up to the simulated step: the peak, its parts and its moment, and FLOPs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from ..adapter import AdapterSpec
from ..memory.peak import WORKSPACES
from ..schema import Architecture
from ..setup import Setup
from .between import Between, Each, Recorded, recorded
from .check import check_setup, clear_errors
from .images import towers_whole
from .layers import Stack, everyone, stacks
from .model import Made, load_libraries, make
from .optimizers import Update, optimizer_step
from .orders import Orders, orders
from .requests import Unrolled
from .reserving import Requests, reserved_bytes, serves
from .spread import Spread
from .step import BLOCK_BYTES, PLAIN, Run, evaluate, run
from .timeline import (
    GRADIENTS,
    PARTS,
    IrregularError,
    Peak,
    Place,
    Recording,
    multiplicity,
    peaks,
    stretches,
    unroll,
    unroll_flops,
)
from .tracker import Tracker

WEIGHTS, ADAPTER, OPTIMIZER, TEMPORARY = (
    PARTS.index(n) for n in ("weights", "adapter", "optimizer", "temporary")
)
TRANSIENT = slice(PARTS.index("activations"), None)


@dataclass(frozen=True)
class Simulation:
    """A simulated step: its peak, the peak of each phase, FLOPs by phase and operator, how many layers ran of how
    many, parameters trained, what to note, and where that was asked for what the allocator reserves, whether a card
    of so much room serves it, and both where micro-steps are as long as data has them."""

    peak: Peak
    moments: dict[str, Peak]
    flops: dict[str, dict[str, int]]
    layers_run: int
    layers: int
    trained: int
    notes: tuple[str, ...] = ()
    reserved_bytes: int | None = None
    served: bool | None = None
    varied: Orders | None = None

    @property
    def parts(self) -> dict[str, int]:
        """Bytes of the peak by part."""
        return dict(zip(PARTS, self.peak.parts, strict=True))

    @property
    def total_flops(self) -> int:
        """FLOPs of forward and backward, as torch's counter counts them."""
        return sum(sum(by_operator.values()) for by_operator in self.flops.values())


def prepare(config: Mapping[str, Any], setup: Setup) -> None:
    """Import what the steps need; raises what `simulate_step` of this set-up does before it has a model."""
    check_setup(setup)
    with clear_errors(str(config.get("model_type"))):
        load_libraries(config)


def simulate_step(
    config: Mapping[str, Any], spec: AdapterSpec | None, setup: Setup, *, whole: bool = False,
    block_bytes: int = BLOCK_BYTES, how: Run = PLAIN, arch: Architecture | None = None, reserve: bool = False,
    room: int | None = None, spread: Spread | None = None,
) -> Simulation:  # fmt: skip
    """Run a step on the meta device, once as it begins and with what a later one finds: the optimizer's states.

    `whole` runs every layer instead of a few that stand for all; `arch` is the config's inventory where it is known;
    `reserve`: with what torch's allocator reserves for it (reserving.py), and whether `room` bytes are enough; so too
    where samples have the lengths of a `spread`, of which none is longer than the set-up's.
    Raises ConfigError where transformers or PEFT cannot run it, InputError for what is not simulated.
    """
    check_setup(setup)
    with clear_errors(str(config.get("model_type"))):
        made = make(config, spec, setup, arch)
    trained = [p for p in made.model.parameters() if p.requires_grad]
    start = _held(made.model, setup, block_bytes)
    if setup.copies_base:
        start[WEIGHTS] *= 2
    updated = optimizer_step(trained, setup, block_bytes, _ends(made.model))
    start[OPTIMIZER] += updated.state_bytes
    gradients = 0 if setup.optimizer_in_backward else _sum(trained, block_bytes)
    waiting = list(start)
    if setup.accumulation > 1 or setup.gradients_kept:
        start[GRADIENTS] += gradients
    if setup.gradients_kept:
        waiting = list(start)
    found = towers_whole(stacks(made.model), made.images)
    if whole:
        found = [everyone(stack.path, stack.length) for stack in found]
    bytes_of = (start, waiting)
    try:
        passed = _passes(made, setup, found, bytes_of, block_bytes, how)
    except IrregularError:
        found = [everyone(stack.path, stack.length) for stack in found]
        passed = _passes(made, setup, found, bytes_of, block_bytes, how)
    update = list(start)
    update[GRADIENTS] = gradients
    update[TEMPORARY] += updated.extra_bytes
    moments = passed.moments | {"optimizer": Peak(Place("optimizer", "step"), tuple(update))}
    peak = max(moments.values(), key=lambda each: each.bytes)
    ran, layers = sum(len(stack.chosen) for stack in found), sum(stack.length for stack in found)
    asked = _requests(made, setup, found, passed, updated) if reserve else None
    reserved = reserved_bytes(asked) if asked else None
    served = None if asked is None or room is None else (reserved or 0) <= room or serves(asked, room)
    varied = None
    if asked and spread:
        varied = _varied(made, setup, found, asked, spread, how, room)
    return Simulation(
        peak,
        moments,
        passed.flops,
        ran,
        layers,
        sum(p.numel() for p in trained),
        made.notes,
        reserved,
        served,
        varied,
    )


def _ends(model: Any) -> list[Any]:
    """The weights of embedding and unembedding."""
    found = (model.get_input_embeddings(), model.get_output_embeddings())
    return [module.weight for module in found if getattr(module, "weight", None) is not None]


def _round(number: int, to: int) -> int:
    return -(-number // to) * to


def _sum(tensors: Sequence[Any], block_bytes: int) -> int:
    return sum(_round(t.numel() * t.element_size(), block_bytes) for t in tensors)


def _held(model: Any, setup: Setup, block_bytes: int) -> list[int]:
    """Bytes by part that a model holds throughout: weights (with buffers) and the adapter."""
    held = [0] * len(PARTS)
    for storage, trained in _storages(model):
        part = ADAPTER if trained and setup.method != "full" else WEIGHTS
        held[part] += _round(storage.nbytes(), block_bytes)
    return held


def _storages(model: Any) -> list[tuple[Any, bool]]:
    """The memory of a model's parameters and buffers, each once, and whether the first of its tensors is trained."""
    found: dict[int, tuple[Any, bool]] = {}
    for tensor in (*model.parameters(), *model.buffers()):
        storage = tensor.untyped_storage()
        found.setdefault(storage._cdata, (storage, tensor.requires_grad))
    return list(found.values())


@dataclass(frozen=True)
class _Passed:
    """The passes of a step and of an evaluation: the highest points of each, FLOPs of the step, and recordings."""

    moments: dict[str, Peak]
    flops: dict[str, dict[str, int]]
    step: Recording
    evaluation: Recording | None


def _passes(
    made: Made, setup: Setup, found: list[Stack], bytes_of: tuple[Sequence[int], Sequence[int]],
    block_bytes: int, how: Run,
) -> _Passed:  # fmt: skip
    """A step, beginning with the first bytes by part, and an evaluation where the set-up names a batch for it: beside
    the second, which wait from step to step, without gradients."""
    start, waiting = bytes_of
    with clear_errors(made.model.config.model_type):
        recording = run(made, setup, found, Tracker(block_bytes), how)
    asked = replace(recording, events=list(recording.events))  # with gradients until the update is done
    made.model.zero_grad(set_to_none=True)
    times = multiplicity(found)
    moments, end = peaks(start, unroll(stretches(recording, times), found))
    if any(end[TRANSIENT]) and not all(stack.whole for stack in found):
        raise IrregularError(f"a step leaves {end[TRANSIENT]} bytes behind")
    flops = unroll_flops(recording.flops, times)
    if not setup.eval_batch:
        return _Passed(moments, flops, asked, None)
    alone = replace(setup, micro_batch=setup.eval_batch, accumulation=1, gradients_kept=False, eval_batch=0)
    with clear_errors(made.model.config.model_type):
        evaluated = evaluate(made, alone, found, Tracker(block_bytes), how)
    passed, _ = peaks(waiting, unroll(stretches(evaluated, times), found))
    highest = max(passed.values(), key=lambda each: each.bytes)
    moments["evaluation"] = replace(highest, place=highest.place._replace(phase="evaluation"))
    return _Passed(moments, flops, asked, evaluated)


def _requests(
    made: Made, setup: Setup, found: list[Stack], passed: _Passed, update: Update
) -> Requests | None:
    """What the run asks the allocator for; None where that cannot be told from the layers that ran."""
    weights = [storage.nbytes() for storage, _ in _storages(made.model)] * (2 if setup.copies_base else 1)
    trained = [p.numel() * p.element_size() for p in made.model.parameters() if p.requires_grad]
    finds = setup.accumulation > 1 or setup.gradients_kept
    try:
        return Requests(
            (*weights, *[setup.workspace_bytes] * WORKSPACES),
            tuple(trained) if finds else (), setup.gradients_kept, tuple(Unrolled(passed.step, found)), update,
            tuple(Unrolled(passed.evaluation, found)) if passed.evaluation else (), setup.expandable_segments,
        )  # fmt: skip
    except IrregularError:
        return None


def _varied(
    made: Made, setup: Setup, found: list[Stack], asked: Requests, spread: Spread, how: Run, room: int | None,
) -> Orders | None:  # fmt: skip
    """What is reserved where samples have lengths of their own; None where that cannot be told from the layers and
    the lengths that ran. An evaluation is as long as the set-up says."""
    drawn = spread.drawn(setup)
    known: dict[int, Recorded] = {}

    def at(length: int) -> Recorded:
        if length not in known:
            known[length] = ran(length)
        return known[length]

    def ran(length: int) -> Recorded:
        with clear_errors(made.model.config.model_type):
            recording = run(made, replace(setup, seq_len=length), found, Tracker(1), how)
        kept = replace(recording, events=list(recording.events))  # with gradients until the update is done
        made.model.zero_grad(set_to_none=True)
        return recorded(Unrolled(kept, found))

    lengths = {length for order in drawn for length in order}
    for way in (
        (Each,) if setup.loss.startswith("recomputed") else (Between, Each)
    ):  # pieces that are made again
        try:
            return orders(asked, way(at, lengths), drawn, setup.accumulation, room)
        except IrregularError:
            continue
    return None
