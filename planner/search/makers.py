"""Completions of GRPO over all plans of a space: the memory and the time that making them takes.

Both are the scalar formulas', called once for every kind of plan that differs in them: by GPU, layout, batch and
base, and by adapter where the trainer's own model makes completions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataclass import dataclass
from ..errors import InputError
from ..memory import estimate_memory
from ..memory.overhead import stated_bytes
from ..objective_rules import SHARES_GPU
from ..speed.decode import Load
from ..speed.policy import generation_s, learnt_tokens, made_load
from .evaluate import machine_of
from .layout import Layout
from .space import Job, Space, setup_of
from .tables import Table

if TYPE_CHECKING:
    from ..fact_types import Accelerator

Array = Any  # a numpy array


@dataclass(frozen=True)
class Makers:
    """Of GRPO, tables x layouts x batches: `moment` is what is needed while completions are made and `stated` what of
    it is taken by definition; `beside` is what a vLLM keeps while the trainer steps, `cached` what the allocator does
    where completions take most. Infinite where a vLLM holds not even one completion."""

    moment: Array
    stated: Array
    beside: Array
    cached: Array

    def over(self, held: Array, most: Array, high: Array, extra: Array) -> tuple[Array, Array]:
        """What is needed and its upper end, with completions: the higher of the step's, beside which a vLLM keeps its
        part, and that of making them. No error is on what is taken by definition."""
        figures = (self.moment, self.stated, self.beside, self.cached)
        moment, stated, beside, cached = (figure[:, None] for figure in figures)
        making = high * (moment - stated + extra) + cached + stated
        return np.maximum(held + beside, moment), np.where(held + beside >= moment, most + beside, making)


def makers(job: Job, space: Space, found: Sequence[Table], known: dict[Any, Any]) -> Makers | None:
    """Memory that completions take; None where there are none. Computed at the ranks' ends, linear between them;
    `known` holds what does not hang on a GPU's memory."""
    if job.setup.objective != "grpo":
        return None
    groups: dict[tuple[str, str], list[int]] = {}
    for number, table in enumerate(found):  # completions are made without recompute
        groups.setdefault((table.layers, table.quantize), []).append(number)
    result = np.zeros((4, len(found), len(space.layouts), len(space.batches)))
    for numbers in groups.values():
        params = np.array([found[number].params for number in numbers], float)
        ends = sorted({int(np.argmin(params)), int(np.argmax(params))})
        share = np.zeros(len(params))
        if len(ends) > 1:
            share = (params - params[ends[0]]) / (params[ends[1]] - params[ends[0]])
        for place, at in itertools.product(range(len(space.layouts)), range(len(space.batches))):
            layout, batch = space.layouts[place], space.batches[at]
            if batch % layout.data_parallel == 0:
                low, high = (
                    _remembered(job, found[numbers[end]], layout, batch, known) for end in (ends[0], ends[-1])
                )
                for figure in range(4):
                    rise = high[figure] - low[figure] if math.isfinite(high[figure]) else 0.0
                    result[figure][numbers, place, at] = low[figure] + share * rise
    return Makers(*result)


def _remembered(
    job: Job, table: Table, layout: Layout, batch: int, known: dict[Any, Any]
) -> tuple[float, float, float, float]:
    """`_making`, once for GPUs of every memory where no vLLM takes a share of it."""
    if layout.generation in SHARES_GPU:
        return _making(job, table, layout, batch)
    key = ("making", job.setup.precision, table.rank, table.layers, table.quantize, layout, batch)
    if key not in known:
        known[key] = _making(job, table, layout, batch)
    found: tuple[float, float, float, float] = known[key]
    return found


def _making(job: Job, table: Table, layout: Layout, batch: int) -> tuple[float, float, float, float]:
    """The moment of making completions, what of it is taken by definition, what a vLLM keeps beside a step, and what
    the allocator keeps."""
    setup = setup_of(job, table.quantize, table.checkpointing, layout, 1, batch // layout.data_parallel)
    try:
        found = estimate_memory(job.arch, setup, table.pairs, table.whole)
    except InputError:  # what holds not even one completion
        return math.inf, 0.0, math.inf, 0.0
    stated = {moment.phase: stated_bytes(moment) for moment in found.moments}
    making = next((moment.bytes for moment in found.moments if moment.phase == "generation"), 0)
    overhead = sum(item.bytes for item in found.overhead)
    by_definition = float(stated.get("generation", 0)), float(stated["forward"])
    return float(making + overhead), *by_definition, float(found.cached_bytes)


def making_s(
    job: Job, space: Space, found: Sequence[Table], gpu: Accelerator, loads: dict[tuple[Any, ...], Load]
) -> Array:
    """Seconds of making a step's completions and of handing weights over: tables x layouts x batches. Infinite where
    an engine holds not even one."""
    result = np.zeros((len(found), len(space.layouts), len(space.batches)))
    if job.setup.objective != "grpo":
        return result
    known: dict[tuple[Any, ...], float] = {}
    for number, layout, at in itertools.product(range(len(found)), space.layouts, range(len(space.batches))):
        table, batch, place = found[number], space.batches[at], space.layouts.index(layout)
        if batch % layout.data_parallel:
            continue
        own = (table.rank, table.layers) if layout.generation == "transformers" else ()
        key = (
            layout.generation,
            layout.vllm_gpus,
            layout.gpus,
            layout.data_parallel,
            batch,
            table.quantize,
            own,
        )
        if key not in known:
            known[key] = _making_s(job, table, layout, batch, gpu, loads)
        result[number, place, at] = known[key]
    return result


def _making_s(
    job: Job, table: Table, layout: Layout, batch: int, gpu: Accelerator, loads: dict[tuple[Any, ...], Load]
) -> float:
    setup = setup_of(job, table.quantize, table.checkpointing, layout, 1, batch // layout.data_parallel)
    own = (table.rank, table.layers) if layout.generation == "transformers" else ()
    key = ("load", layout.generation, setup.precision, table.quantize, own)
    if key not in loads:
        loads[key] = made_load(job.arch, setup, table.pairs)
    try:
        return sum(generation_s(job.arch, setup, machine_of(job, gpu, layout.gpus), table.pairs, loads[key]))
    except InputError:
        return math.inf


def learnt(job: Job, space: Space, batch: int) -> int:
    """Tokens of a sequence as a step learns from it: by the longest completion of its batch."""
    setup = setup_of(job, space.quantize[0], space.checkpointing[0], space.layouts[0], 1, 1)
    return learnt_tokens(setup, batch)
