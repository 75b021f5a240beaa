"""Memory of all plans of a space at once.

It is computed with the scalar formula at a few ranks and micro-batches and taken as linear between them, in
adapter parameters and in micro-batch, moment by moment: exact but where a moment changes its place in the model
(of 1,320 plans of eleven searches 10% too low to 4% too high), and in a step of one micro-step, of which it is a
lower end. What is chosen is checked with the scalar formula.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from ..choices import Quantize
from ..memory.calibration import corrected, telling
from ..memory.constants import constants
from ..memory.interval_kinds import MEASURED
from ..memory.overhead import cached, kind_of
from ..memory.peak import estimate_stages
from ..moments import Interval, MemoryEstimate
from ..objective_rules import SHARES_GPU
from ..setup import Setup
from .layout import NOT_SHARDED, Layout
from .space import NO_ENGINE, Job, Space, setup_of
from .tables import Table

Array = Any  # a numpy array
# Then all that comes before the first step.
MOMENTS = ("evaluation", "forward", "loss", "backward", "optimizer")
WITH_GRADIENTS = MOMENTS[:-1]  # those of micro-steps before, where there are any


def _sample(job: Job, table: Table, layout: Layout, micro_batch: int, micro_steps: int) -> Array:
    """`_figures` of each stage of the pipeline (one where there is none), without a vLLM beside."""
    setup = setup_of(job, table.quantize, table.checkpointing, layout, micro_batch, micro_steps)
    shared = setup.generation in SHARES_GPU
    if shared:
        setup = replace(setup, generation="server", **NO_ENGINE)
    stages = estimate_stages(job.arch, setup, table.pairs, table.whole)
    peaks = job.calibration.peaks
    return np.stack([_figures(corrected(found, job.arch, peaks), setup, shared) for found in stages])


def _figures(found: MemoryEstimate, setup: Setup, shared: bool) -> Array:
    """Bytes of each of MOMENTS and before the first step, of the overhead, of what the allocator keeps of a step, of
    all that it has taken before the first, and of gradients that are held only because there are micro-steps
    before."""
    moments = {str(moment.phase): float(moment.bytes) for moment in found.moments}
    overhead = float(sum(item.bytes for item in found.overhead))
    held = sum(
        i.bytes for m in found.moments if m.phase == "forward" for i in m.items if i.part == "gradients"
    )
    # A vLLM is not there yet while the base is loaded: what is added for it later is not for that moment.
    early = float(found.loading_peak.bytes) if found.loading_peak and not shared else 0.0
    more = float(cached(setup, found.apart_bytes, found.gathered_bytes, found.varied_bytes))
    of_step = (moments.get(phase, 0.0) for phase in MOMENTS)
    return np.array([*of_step, early, overhead, more, float(found.before_bytes), float(held)])


def _between(job: Job, space: Space, found: Sequence[Table], layout: Layout, micro_steps: int) -> Array:
    """Of tables that differ in rank alone, x micro-batches: what is needed, what at least in a step of one
    micro-step, and what the allocator keeps."""
    micro = np.array(space.micro_batches, float)
    picked = sorted({0, len(micro) // 2, len(micro) - 1})
    params = np.array([table.params for table in found], float)
    ends = sorted({int(np.argmin(params)), int(np.argmax(params))})
    along = []  # ends x micro-batches x stages x figures
    for end in ends:
        corner = np.array(
            [_sample(job, found[end], layout, space.micro_batches[at], micro_steps) for at in picked]
        )
        flat = corner.reshape(len(picked), -1).T
        lines = np.stack([np.interp(micro, micro[picked], figure) for figure in flat], -1)
        along.append(lines.reshape(len(micro), *corner.shape[1:]))
    share = np.zeros(len(params))
    if len(ends) > 1:
        share = (params - params[ends[0]]) / (params[ends[1]] - params[ends[0]])
    mixed = along[0] + share[:, None, None, None] * (along[-1] - along[0])
    at, (beyond, more, before, kept) = mixed[..., :-4], np.moveaxis(mixed[..., -4:], -1, 0)
    least = at - kept[..., None] * np.array([moment in WITH_GRADIENTS for moment in (*MOMENTS, "")])
    most = at.max(axis=-1)
    taken = np.maximum(np.maximum(at[..., :-1].max(axis=-1) + more, before), most)
    return _of_stages(np.stack([most + beyond, least.max(axis=-1) + beyond, taken - most]))


def _of_stages(figures: Array) -> Array:
    """The figures of the stage of a pipeline that needs most: (needed, at least, cached) x ... x stages."""
    needed, least, cached = figures
    top = needed.argmax(axis=-1)[..., None]
    return np.stack([needed.max(axis=-1), least.max(axis=-1), np.take_along_axis(cached, top, -1)[..., 0]])


def peaks(job: Job, space: Space, found: Sequence[Table], steps: Array) -> tuple[Array, Array]:
    """Bytes that a GPU needs, and that the allocator keeps beside them: tables x micro-batches x layouts x batches;
    `steps` are micro-steps of each. In a step of one alone, whose gradients come one after another, at least so
    much."""
    shape = (len(found), *steps.shape)
    held, kept = np.empty(shape), np.empty(shape)
    groups: dict[tuple[str, str, str], list[int]] = {}
    for number, table in enumerate(found):
        groups.setdefault((table.layers, table.quantize, table.checkpointing), []).append(number)
    # Loops that hold the last loss, which is more than gradients, or these throughout: of one micro-step apart.
    apart = job.setup.kernels == "litgpt" or job.setup.main_grads or job.setup.gradients_kept
    for numbers in groups.values():
        alike = [found[number] for number in numbers]
        seen: dict[tuple[Layout, int], Array] = {}
        for place, layout in enumerate(space.layouts):
            whole = layout.sharding in NOT_SHARDED  # copies, however many
            key = replace(layout, gpus=0) if whole else layout
            for flight, mine in _flights(layout, steps[:, place], apart):
                if (key, flight) not in seen:
                    seen[key, flight] = _between(job, space, alike, layout, flight)
                needed, least, cached = seen[key, flight][..., None]
                alone = steps[:, place] == 1
                if flight > 1:
                    needed = np.where(alone, least, needed)
                for into, figure in ((held, needed), (kept, cached)):
                    into[numbers, :, place] = np.where(mine, figure, into[numbers, :, place])
    return held, kept


def _flights(layout: Layout, steps: Array, apart: bool) -> Iterator[tuple[int, Array]]:
    """Numbers of micro-steps that stand for all, with where they do: two for several without a pipeline, in which as
    many are in flight as it has stages, if there are so many. One stands for itself where it is told `apart`."""
    stages = layout.pipeline_parallel
    standing = np.clip(np.floor(steps), 1 if apart or stages > 1 else 2, max(2, stages))
    for flight in np.unique(standing):
        yield int(flight), standing == flight


def upper_ends(job: Job, space: Space, found: Sequence[Table]) -> tuple[Array, Array]:
    """The upper ends of intervals, and the bytes that are added to what is needed before: by table, micro-batch (one
    for all), layout and batch."""

    def interval(quantize: Quantize, layout: Layout) -> Interval:
        setup = setup_of(job, quantize, "none", layout, 1, 1)
        measured = telling(job.calibration.peaks, job.arch, setup)
        return constants().of_kind(MEASURED if measured else kind_of(setup, job.lengths_open))

    by_base = {
        quantize: [interval(quantize, layout) for layout in space.layouts] for quantize in space.quantize
    }
    ends = [[(each.high, each.extra_bytes) for each in by_base[table.quantize]] for table in found]
    high, extra = np.moveaxis(np.array(ends), -1, 0)
    return high[:, None, :, None], extra[:, None, :, None]
