"""Completions of GRPO over all plans of a space: the memory and the time that making them takes.

Both are the scalar formulas', called for every kind of plan that differs in them: by GPU, layout, batch and base,
and at a few ranks where the trainer's own model makes completions (peaks.over_ranks).
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataclass import dataclass, replace
from ..errors import InputError
from ..memory import estimate_memory
from ..memory.caching import varied_bytes
from ..memory.calibration import corrected
from ..memory.engine import awake, engine
from ..memory.engine import beside as engine_beside
from ..memory.making import making_moment
from ..memory.overhead import cached, overhead, stated_bytes
from ..memory.peak import token_bytes
from ..setup import Setup
from ..speed.decode import Load
from ..speed.policy import generation_s, learnt_tokens, made_load
from ..workers import done
from .evaluate import machine_of
from .layout import Layout
from .peaks import over_ranks, sure
from .space import Job, Space, alone_of, setup_of
from .tables import Table
from .twins import workspaces_beyond

if TYPE_CHECKING:
    from ..fact_types import Accelerator

Array = Any  # a numpy array
FEW = 4  # layouts of which what completions take is worth a process


@dataclass(frozen=True)
class Makers:
    """Of GRPO, tables x micro-batches x layouts x batches: `moment` is what is needed while completions are made and
    `stated` what of it is taken by definition; `beside` is what a vLLM keeps while the trainer steps, `varied` what
    the allocator keeps of completions whose lengths vary. Infinite where a vLLM holds not even one completion."""

    moment: Array
    stated: Array
    beside: Array
    varied: Array

    def needed(self, held: Array) -> Array:
        """What is needed with completions, of what a step holds: the higher of the step's, beside which a vLLM keeps
        its part, and that of making them."""
        return np.maximum(held + self.beside, self.moment)

    def over(self, held: Array, kept: Array, plain: Array, high: Array, extra: Array) -> Array:
        """The upper end of what is needed, of what a step holds, what the allocator keeps beside and what it keeps of
        a step whose lengths are alike. No error is on what is taken by definition."""
        making = high * (self.moment - self.stated + extra) + self.stated + plain + self.varied
        of_step = high * (held + extra) + kept + self.beside
        return np.where(held + self.beside >= self.moment, of_step, making)


def makers(
    job: Job, counted: Job, space: Space, found: Sequence[Table], known: dict[Any, Any]
) -> Makers | None:
    """Memory that completions take; None where there are none. `known` has what does not hang on a GPU's memory, of
    the job that is `counted` (`make_ready`)."""
    if job.setup.objective != "grpo":
        return None
    shape = (len(found), len(space.micro_batches), len(space.layouts), len(space.batches))
    moment, stated, beside, varied = (np.zeros(shape) for _ in range(4))
    more = workspaces_beyond(job, counted)
    micro, groups = np.array(space.micro_batches)[:, None] - 1, _alike(found)
    for place, at in itertools.product(range(len(space.layouts)), range(len(space.batches))):
        layout, batch = space.layouts[place], space.batches[at]
        if batch % layout.data_parallel or layout.generation == "server":
            continue
        shares: dict[str, tuple[float, float] | None] = {}
        for (_, quantize), numbers in groups.items():
            some = found[numbers[0]]
            if quantize not in shares:
                shares[quantize] = _share(job, some, layout, batch)
            if (share := shares[quantize]) is None:
                moment[numbers, :, place, at] = beside[numbers, :, place, at] = math.inf
                continue
            own = known[_making_key(counted, some, layout, batch)]
            one = setup_of(job, some.quantize, some.checkpointing, layout, 1, 1)
            moment[numbers, :, place, at] = own[:, 0, None] + share[0] + more + (micro * token_bytes(one)).T
            varied[numbers, :, place, at] = own[:, 1, None]
            stated[numbers, :, place, at], beside[numbers, :, place, at] = share
    return Makers(moment, stated, beside, varied)


def _share(job: Job, some: Table, layout: Layout, batch: int) -> tuple[float, float] | None:
    """What a vLLM takes while it makes completions, and beside the trainer's step; None where it holds not even
    one."""
    try:
        vllm = engine(job.arch, _setup(job, some, layout, batch))
    except InputError:
        return None
    return awake(vllm), engine_beside(vllm)


def _alike(found: Sequence[Table]) -> dict[tuple[str, str], list[int]]:
    """Numbers of tables by layers and base: completions are made without recompute."""
    groups: dict[tuple[str, str], list[int]] = {}
    for number, table in enumerate(found):
        groups.setdefault((table.layers, table.quantize), []).append(number)
    return groups


def _setup(job: Job, table: Table, layout: Layout, batch: int) -> Setup:
    """The set-up of a batch in micro-steps of one sequence."""
    return setup_of(job, table.quantize, table.checkpointing, layout, 1, batch // layout.data_parallel)


def make_ready(job: Job, space: Space, found: Sequence[Table], known: dict[Any, Any]) -> None:
    """Put what completions take into `known` for every layout and batch, and the loads of their passes for the
    adapters that are surely asked for, shared among the cores."""
    if job.setup.objective == "grpo":
        _make_memory(job, space, found, known)
        _make_loads(job, space, found, known)


def _make_loads(job: Job, space: Space, found: Sequence[Table], known: dict[Any, Any]) -> None:
    wanted: dict[Any, tuple[Table, Layout, int]] = {}
    for numbers in _alike(found).values():
        own = [found[number] for number in numbers]
        for layout, batch in itertools.product(space.layouts, space.batches):
            if batch % layout.data_parallel == 0:
                for table in sure(own) if layout.generation == "transformers" else own[:1]:
                    wanted.setdefault(_load_key(job, table, layout), (table, layout, batch))

    def task(number: int) -> Load:
        table, layout, batch = wanted[open_[number]]
        return made_load(job.arch, _setup(job, table, layout, batch), table.pairs)

    open_ = [key for key in wanted if key not in known]
    kinds = [(wanted[key][0].layers, wanted[key][0].quantize) for key in open_]
    known.update(zip(open_, done(task, kinds, enough=FEW), strict=True))


def _load_key(job: Job, table: Table, layout: Layout) -> tuple[Any, ...]:
    own = (table.rank, table.layers) if layout.generation == "transformers" else ()
    return "load", layout.generation, alone_of(job, table.quantize, "none", layout), own


def _make_memory(job: Job, space: Space, found: Sequence[Table], known: dict[Any, Any]) -> None:
    wanted: dict[Any, tuple[Sequence[Table], Layout, int]] = {}
    for numbers in _alike(found).values():
        own = [found[number] for number in numbers]
        for layout, batch in itertools.product(space.layouts, space.batches):
            if batch % layout.data_parallel == 0 and layout.generation != "server":
                key = _making_key(job, own[0], layout, batch)
                if key not in known:
                    wanted.setdefault(key, (own, layout, batch))

    def task(number: int) -> Array:
        own, layout, batch = wanted[open_[number]]
        setup = replace(_setup(job, own[-1], layout, batch), gpu_bytes=0)  # as the last of equal adapters
        return over_ranks(own, lambda table: np.array(_making(job, table, setup)))

    open_ = list(wanted)
    kinds = [(own[0].layers, own[0].quantize) for own, _, _ in wanted.values()]
    known.update(zip(open_, done(task, kinds, enough=FEW), strict=True))


def _making_key(job: Job, some: Table, layout: Layout, batch: int) -> tuple[Any, ...]:
    """What the memory of making completions hangs on, of tables that differ in rank and recompute: no GPU's memory,
    and where a vLLM makes them not how many micro-steps there are of several."""
    number = batch // layout.data_parallel
    if layout.generation != "transformers":
        number = min(2, number)
    return (
        "making",
        job.setup.precision,
        job.setup.workspace_bytes,
        some.layers,
        some.quantize,
        layout,
        number,
    )


def _making(job: Job, table: Table, setup: Setup) -> tuple[float, float]:
    """What is needed while completions are made with one sequence a micro-step, without a vLLM's share, and what the
    allocator keeps where their lengths vary."""
    moment = None
    if not job.calibration.peaks:  # they correct a whole estimate
        moment = making_moment(job.arch, setup, table.pairs, table.whole, table.made)
    if moment is None:
        found = estimate_memory(job.arch, setup, table.pairs, table.whole)
        found = corrected(found, job.arch, job.calibration.peaks)
        moment = next(moment for moment in found.moments if moment.phase == "generation")
        beyond = found.overhead
    else:
        beyond = overhead(setup)
    needed = moment.bytes + sum(item.bytes for item in beyond) - stated_bytes(moment)
    return float(needed), float(cached(setup, 0, 0, varied_bytes([moment], setup)))


def making_s(
    job: Job, space: Space, found: Sequence[Table], gpu: Accelerator, loads: dict[tuple[Any, ...], Load]
) -> Array:
    """Seconds of making a step's completions and of handing weights over: tables x layouts x batches. Infinite where
    an engine holds not even one."""
    result = np.zeros((len(found), len(space.layouts), len(space.batches)))
    if job.setup.objective != "grpo":
        return result
    known: dict[tuple[Any, ...], Any] = {}
    for (layers, quantize), numbers in _alike(found).items():
        tables = [found[number] for number in numbers]
        for place, at in itertools.product(range(len(space.layouts)), range(len(space.batches))):
            layout, batch = space.layouts[place], space.batches[at]
            if batch % layout.data_parallel:
                continue
            by_trainer = layout.generation == "transformers"
            key = (
                layout.generation, layout.vllm_gpus, layout.gpus, layout.data_parallel, batch, quantize,
                layers if by_trainer else "",
            )  # fmt: skip
            if key not in known:
                known[key] = _seconds(job, tables if by_trainer else tables[:1], layout, batch, gpu, loads)
            result[numbers, place, at] = known[key]
    return result


def _seconds(
    job: Job, tables: Sequence[Table], layout: Layout, batch: int, gpu: Accelerator,
    loads: dict[tuple[Any, ...], Load],
) -> Array | float:  # fmt: skip
    """`_making_s` of each table, or of one for all. A step's passes are sums of what is the largest of several lines
    in the FLOPs of a token, which are linear in ranks."""
    try:
        return over_ranks(
            tables, lambda table: np.array(_making_s(job, table, layout, batch, gpu, loads)), 1e-12
        )
    except InputError:
        return math.inf


def _making_s(
    job: Job, table: Table, layout: Layout, batch: int, gpu: Accelerator, loads: dict[tuple[Any, ...], Load]
) -> float:
    setup = _setup(job, table, layout, batch)
    load = _load(job, table, layout, setup, loads)
    return sum(generation_s(job.arch, setup, machine_of(job, gpu, layout.gpus), table.pairs, load))


def _load(job: Job, table: Table, layout: Layout, setup: Setup, loads: dict[tuple[Any, ...], Load]) -> Load:
    """The load of the passes of one adapter on one base, by layout found at once."""
    short = ("load", layout, table.quantize, table.rank, table.layers)
    if short not in job.made:
        key = _load_key(job, table, layout)
        if key not in loads:
            loads[key] = made_load(job.arch, setup, table.pairs)
        job.made[short] = loads[key]
    found: Load = job.made[short]
    return found


def learnt(job: Job, space: Space, batch: int) -> int:
    """Tokens of a sequence as a step learns from it: by the longest completion of its batch."""
    setup = setup_of(job, space.quantize[0], space.checkpointing[0], space.layouts[0], 1, 1)
    return learnt_tokens(setup, batch)
