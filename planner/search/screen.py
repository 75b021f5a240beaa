"""All plans of a space at once, as arrays: the formulas of planner/speed and planner/memory over many set-ups.

A table is one adapter on one base with or without checkpointing; its work is walked once and is linear in the
micro-batch and in the rank (mixed). Times are the scalar formula's; memory is taken between points of it (peaks).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataclass import dataclass
from ..objective_rules import SEQUENCES
from ..pacing import padded_length
from ..setup import Setup
from ..speed.communication import gathers
from ..speed.efficiency import constants
from ..speed.roofline import gather_s, loop_s, on_host_s, rates
from ..speed.step import step_bytes
from ..speed.trained import Held
from ..speed.work import PHASES, Work
from ..workers import done
from .evaluate import machine_of, price_of, regret_of
from .layout import Layout
from .makers import learnt, makers, making_s
from .mixed import Mixed
from .moving import Probes, moving_s, probes
from .peaks import peaks, upper_ends
from .space import Choice, Job, Space, alone_of, families, setup_of
from .tables import Table, tables
from .twins import in_float16, twin_of

if TYPE_CHECKING:
    from ..fact_types import Accelerator

Array = Any  # a numpy array
AXES = ("table", "micro", "layout", "batch", "gpu", "seconds", "usd", "over", "over_high", "regret")
ROOMS = 8  # parts that differ in the GPUs' memory alone, which are worth a process
TOLERANCE = 0.02  # of a GPU's memory: plans so little over it are checked one by one


@dataclass(frozen=True)
class Cells:
    """Every plan of a space, flat: figures and the numbers of its values on each axis. `over` is memory over what the
    GPU has, as a share, and `over_high` that of the upper end of its interval; infinite where the parts of a plan do
    not go together. `usd` is NaN without a price."""

    job: Job
    space: Space
    tables: tuple[Table, ...]
    table: Array
    micro: Array
    layout: Array
    batch: Array
    gpu: Array
    seconds: Array
    usd: Array
    over: Array
    over_high: Array
    regret: Array

    def choice(self, cell: int) -> Choice:
        """The plan of a cell."""
        table, space = self.tables[int(self.table[cell])], self.space
        return Choice(
            space.accelerators[int(self.gpu[cell])], space.layouts[int(self.layout[cell])], table.rank, table.layers,
            table.quantize, table.checkpointing, space.micro_batches[int(self.micro[cell])],
            space.batches[int(self.batch[cell])],
        )  # fmt: skip


# Time


@dataclass(frozen=True)
class _Packed:
    """Works as arrays, tables x kernels (padded with kernels of no calls)."""

    kinds: list[tuple[Any, str]]
    kind: Array
    calls: Array
    flops: Array
    tiles: Array
    bytes: Array
    phase: Array
    sweeps: Array
    dequantise: Array
    operations: Array


def _pack(works: Sequence[Mixed]) -> _Packed:
    walked = {id(work): work for each in works for _, work in each.parts}
    place = {own: number for number, own in enumerate(walked)}
    shares = np.zeros((len(works), len(walked)))
    for number, each in enumerate(works):
        for weight, work in each.parts:
            shares[number, place[id(work)]] = weight
    alike = [place[id(each.some)] for each in works]  # kernels are those of any of its parts
    own = _walked(list(walked.values()))

    def summed(values: Array) -> Array:
        return np.tensordot(shares, values, 1)

    return _Packed(
        own.kinds, own.kind[alike], own.calls[alike], summed(own.flops), summed(own.tiles), summed(own.bytes),
        own.phase[alike], summed(own.sweeps), summed(own.dequantise), summed(own.operations),
    )  # fmt: skip


def _walked(works: Sequence[Work]) -> _Packed:
    """`_pack` of works as they were walked."""
    kinds = sorted({(gemm.kind, gemm.dtype) for work in works for gemm in work.gemms})
    width = max(len(work.gemms) for work in works)
    shape = (len(works), width)
    kind, phase = np.zeros(shape, int), np.zeros(shape, int)
    calls, flops, moved = np.zeros(shape), np.zeros((*shape, 2)), np.zeros((*shape, 2))
    tiles = np.zeros(shape)
    sweeps, dequantise = np.zeros((len(works), 2, 2)), np.zeros((len(works), 2, 2))
    operations = np.zeros((len(works), 2))
    for t, work in enumerate(works):
        for k, gemm in enumerate(work.gemms):
            kind[t, k] = kinds.index((gemm.kind, gemm.dtype))
            phase[t, k], calls[t, k] = PHASES.index(gemm.phase), gemm.calls
            tiled = gemm.product.tiled
            flops[t, k], tiles[t, k] = (tiled.fixed, tiled.sequence), gemm.product.tile
            moved[t, k] = gemm.bytes.fixed, gemm.bytes.sequence
        for sweep in work.sweeps:
            into = dequantise if sweep.what == "dequantise" else sweeps
            into[t, PHASES.index(sweep.phase)] += sweep.bytes.fixed, sweep.bytes.sequence
        operations[t] = [work.operations[name] for name in PHASES]
    return _Packed(kinds, kind, calls, flops, tiles, moved, phase, sweeps, dequantise, operations)


def _phases_s(
    packed: _Packed, works: Sequence[Mixed], job: Job, gpu: Accelerator, micro: Array
) -> list[tuple[Array, Array]]:
    """Seconds of a micro-step's forward and backward, tables x micro-batches, on the GPU and of the host."""
    efficiency = constants().efficiency
    known = [rates(machine_of(job, gpu, 1), each.some, efficiency, job.setup) for each in works[:1]]
    for each in works:  # formats differ between tables at most by the adapter's
        if len(known[0].products) == len(packed.kinds):
            break
        known[0].products.update(rates(machine_of(job, gpu, 1), each.some, efficiency, job.setup).products)
    rate = np.array([known[0].products[key] for key in packed.kinds])[packed.kind]
    bytes_per_s, dequantise_per_s = known[0].bytes_per_s, known[0].dequantise_bytes_per_s
    at = np.stack(
        [np.ones_like(micro), micro * SEQUENCES.get(job.setup.objective, 1)]
    )  # coefficients meet (1, B)
    covered = packed.flops @ at + (packed.tiles * known[0].idle_tiles)[..., None]
    slower = np.maximum(covered / rate[..., None], (packed.bytes @ at) / bytes_per_s)
    seconds = packed.calls[..., None] * slower
    found = []
    for phase in range(len(PHASES)):
        busy = np.where((packed.phase == phase)[..., None], seconds, 0.0).sum(axis=1)
        busy += (packed.sweeps[:, phase] @ at) / bytes_per_s
        busy += (packed.dequantise[:, phase] @ at) / dequantise_per_s
        launched = packed.operations[:, phase, None]
        found.append((busy + launched * efficiency.start_s, launched * efficiency.host_s))
    return found


def _left(table: Table, setup: Setup, over: int) -> float:
    """The share of what is trained that one GPU holds where it is sharded over so many."""
    experts = table.apart if setup.expert_parallel > 1 else 0.0
    return Held(1.0 - experts, experts / setup.expert_parallel).share(setup, over)


@dataclass(frozen=True)
class _Kept:
    """Of a layout, by table, whatever the GPU: the trained parameters that one holds, bytes moved as gradients are
    added to those before and as the optimizer steps, the units that are gathered, and what is sent."""

    mine: Array
    adding: Array
    updating: Array
    units: Array
    sent: dict[tuple[Any, ...], Probes]


def _kept(found: Sequence[Table], job: Job, layout: Layout, space: Space) -> _Kept:
    setups = {(q, c): setup_of(job, q, c, layout, 1, 1) for q in space.quantize for c in space.checkpointing}
    some, stages = next(iter(setups.values())), layout.pipeline_parallel
    per_shard = some.shards if some.states_sharded else 1
    per_gradient = some.shards if some.gradients_sharded else 1
    own = [setups[t.quantize, t.checkpointing] for t in found]
    mine = np.array([t.work.stepped / stages * _left(t, some, per_shard) for t in found])
    adding = np.array([t.work.accumulate_bytes / stages * _left(t, some, per_gradient) for t in found])
    moved = mine * np.array([step_bytes(setup) for setup in own])
    units = np.array([gathers(job.arch, setup, t.pairs) for setup, t in zip(own, found, strict=True)])
    return _Kept(mine, adding[:, None, None], moved[:, None, None], units, probes(job, layout, found))


def _step_s(
    phases: Sequence[tuple[Array, Array]], found: Sequence[Table], job: Job, space: Space, gpu: Accelerator,
    steps: Array, kept: Sequence[_Kept],
) -> Array:  # fmt: skip
    """Seconds of an optimizer step: tables x micro-batches x layouts x batches; `steps` are micro-steps of each, and
    `kept` what no GPU changes, by layout."""
    efficiency = constants().efficiency
    bandwidth = (gpu.bandwidth_bytes_per_s or 0.0) * efficiency.memory
    micro = np.array(space.micro_batches, float)
    result = np.empty((len(found), len(micro), len(space.layouts), len(space.batches)))
    launched = np.array([t.work.optimizer_operations for t in found])[:, None, None]
    for number, (layout, own) in enumerate(zip(space.layouts, kept, strict=True)):
        some = setup_of(job, space.quantize[0], space.checkpointing[0], layout, 1, 1)
        m, stages = steps[None, :, number, :], layout.pipeline_parallel
        gathering = own.units[:, None] / len(PHASES) * gather_s(some, efficiency)
        passes = sum(np.maximum(busy, host + gathering) for busy, host in phases)
        micro_s = loop_s(job.setup.trainer, efficiency) + passes / stages
        computing = micro_s[:, :, None] * m + (own.adding * (m - 1) + own.updating) / bandwidth
        computing = computing + launched * efficiency.start_s
        if some.offload in ("optimizer", "all"):
            beside = machine_of(job, gpu, layout.gpus).per_node
            computing = computing + (own.mine * beside * on_host_s(some))[:, None, None]
        sent = moving_s(own.sent, job, layout, found, gpu, efficiency, micro, steps[:, number, :])
        exposed = sent - efficiency.overlap * np.minimum(computing, sent)
        result[:, :, number, :] = computing * (1 + (stages - 1) / m) + exposed
    return result


@dataclass(frozen=True)
class _Timed:
    """Tables with their work at one length of sequences, packed."""

    tables: Sequence[Table]
    works: Sequence[Mixed]
    packed: _Packed
    padded: Sequence[Mixed] | None
    kept: Sequence[_Kept]


def _of_length(job: Job, space: Space, own: Sequence[Table], length: int) -> _Timed:
    """The tables of a length."""
    works = [table.work for table in own]
    padded = [table.padded or table.work for table in own] if any(table.padded for table in own) else None
    kept = [_kept(own, job.at(length), layout, space) for layout in space.layouts]
    return _Timed(own, works, _pack(works), padded, kept)


def _phases_of(own: _Timed, job: Job, gpu: Accelerator, micro: Array) -> list[tuple[Array, Array]]:
    """`_phases_s`, of several sequences with the kernel that they take."""
    phases = _phases_s(own.packed, own.works, job, gpu, micro)
    if own.padded is None:
        return phases
    slower = _phases_s(_pack(own.padded), own.padded, job, gpu, micro)
    return [(np.where(micro > 1, b, a), host) for (a, host), (b, _) in zip(phases, slower, strict=True)]


def _lengths(job: Job, space: Space) -> Array:
    """The length at which the step of each micro-batch and batch is timed: of padded samples that of a micro-step's
    longest, of completions that of a batch's."""
    if job.setup.objective == "grpo":
        found = [[learnt(job, space, batch) for batch in space.batches]] * len(space.micro_batches)
        return np.array(found)
    quantize, checkpointing, layout = space.quantize[0], space.checkpointing[0], space.layouts[0]
    setups = [setup_of(job, quantize, checkpointing, layout, size, 1) for size in space.micro_batches]
    lengths = [padded_length(setup, job.samples) or setup.seq_len for setup in setups]
    return np.repeat(np.array(lengths)[:, None], len(space.batches), axis=1)


def _steps_s(
    at: dict[int, tuple[Job, _Timed]], timed: Array, space: Space, gpu: Accelerator, steps: Array
) -> Array:
    """Seconds of an optimizer step on a GPU, each micro-batch and batch at its own length of sequences."""
    micro, parts = np.array(space.micro_batches, float), []
    for length, (mine, own) in at.items():
        phases = _phases_of(own, mine, gpu, micro)
        parts.append((length, _step_s(phases, own.tables, mine, space, gpu, steps, own.kept)))
    found = parts[0][1]
    for length, seconds in parts[1:]:
        np.copyto(found, seconds, where=(timed == length)[None, :, None, :])
    return found


def _run_steps(job: Job, space: Space, batch: int) -> int:
    """Optimizer steps of the run: of padded samples by their number."""
    setup = setup_of(job, space.quantize[0], space.checkpointing[0], space.layouts[0], 1, 1)
    if job.samples is not None and padded_length(setup, job.samples) is not None:
        return job.samples.steps(job.epochs, batch)
    each = SEQUENCES.get(setup.objective, 1)
    return max(1, math.ceil(job.tokens / (batch * each * job.setup.seq_len)))


# All together


def screen(job: Job, space: Space) -> Cells:
    """Time, cost, memory and regret of every plan of the space."""
    known: dict[Any, Any] = {}
    parts = list(_parts(job, space))
    usual = any(part.job.setup == job.setup for part in parts)
    alike = [_alike(part, known, job if usual else part.job) for part in parts]
    kinds = [*map(id, alike)]
    made = done(lambda number: _figures(parts[number], alike[number], known), kinds, enough=ROOMS)
    axes: dict[str, list[Array]] = {name: [] for name in AXES}
    for part, own, figures in zip(parts, alike, made, strict=True):
        gpu, table, micro, layout, batch = (axis.ravel() for axis in np.indices(figures[0].shape))
        quality = [regret_of(part.job, each.params) for each in own.tables]
        regret = np.array([item.value if item else 0.0 for item in quality])
        numbers = (table, micro, np.array(part.layouts)[layout], batch, np.array(part.gpus)[gpu])
        for name, axis in zip(
            AXES, (*numbers, *(each.ravel() for each in figures), regret[table]), strict=True
        ):
            axes[name].append(axis)
    found: dict[str, Any] = {name: np.concatenate(each) for name, each in axes.items()}
    return Cells(job, space, alike[0].tables, **found)


@dataclass(frozen=True)
class _Part:
    """GPUs that run a job alike with layouts under which they compute alike, with the numbers of both."""

    job: Job
    space: Space
    layouts: tuple[int, ...]
    gpus: tuple[int, ...]


def _parts(job: Job, space: Space) -> Iterator[_Part]:
    for mine, some in _kinds(job, space.accelerators):
        gpus = tuple(space.accelerators[number] for number in some)
        for numbers in families(mine, space):
            within = tuple(space.layouts[number] for number in numbers)
            own = mine.computed_in(within[0].precision)
            yield _Part(own, replace(space, accelerators=gpus, layouts=within), numbers, tuple(some))


def _kinds(job: Job, accelerators: Sequence[Accelerator]) -> list[tuple[Job, list[int]]]:
    """The job as kinds of GPU run it, with the numbers of those that run it alike."""
    found: list[tuple[Job, list[int]]] = []
    for number, accelerator in enumerate(accelerators):
        mine = job.on(accelerator)
        for other, numbers in found:
            if other.setup == mine.setup and other.room == mine.room:
                numbers.append(number)
                break
        else:
            found.append((mine, [number]))
    return found


@dataclass(frozen=True)
class _Alike:
    """What parts have that differ in the GPUs' memory alone: the length at which a step is timed, its micro-steps,
    tables, these by length, and `peaks`; `counted` is the job whose memory is theirs too."""

    counted: Job
    timed: Array
    steps: Array
    tables: tuple[Table, ...]
    at: dict[int, tuple[Job, _Timed]]
    peaks: tuple[Array, Array, Array]


def _alike(part: _Part, known: dict[Any, Any], base: Job) -> _Alike:
    """What is `known` of a part, or made of it; `base` is the job of the most usual GPUs."""
    job, space = part.job, part.space
    setups = (alone_of(job, q, c, space.layouts[0]) for q in space.quantize for c in space.checkpointing)
    key = (*setups, space.layouts)
    if key not in known:
        counted = twin_of(job, base, space)
        timed = _lengths(job, space)
        micro, batches = np.array(space.micro_batches, float), np.array(space.batches)
        copies = np.array([layout.data_parallel for layout in space.layouts])
        steps = batches[None, None, :] / (micro[:, None, None] * copies[None, :, None])
        lengths = sorted({job.setup.seq_len, *timed.ravel().tolist()})
        made = _tables_of(job, counted, space, lengths, known)
        found = made[lengths.index(job.setup.seq_len)]
        at = {
            length: (job.at(length), _of_length(job, space, own, length))
            for length, own in zip(lengths, made, strict=True)
            if (timed == length).any()
        }
        held = peaks(counted, space, found, steps, known)
        known[key] = _Alike(counted, timed, steps, found, at, held)
    alike: _Alike = known[key]
    return alike


def _tables_of(
    job: Job, counted: Job, space: Space, lengths: Sequence[int], known: dict[Any, Any]
) -> list[tuple[Table, ...]]:
    """Tables at each length, in the job's type, from those of the job that is `counted`."""
    setups = (alone_of(counted, q, c, space.layouts[0]) for q in space.quantize for c in space.checkpointing)
    key = ("tables", *setups, *lengths)
    if key not in known:
        known[key] = done(lambda number: tuple(tables(counted.at(lengths[number]), space)), lengths, enough=1)
    found: list[tuple[Table, ...]] = known[key]
    return found if counted is job else [in_float16(own) for own in found]


def _figures(part: _Part, own: _Alike, known: dict[Any, Any]) -> tuple[Array, ...]:
    """Seconds, dollars, and memory over what a GPU has, as expected and at the upper end: GPUs x tables x
    micro-batches x layouts x batches. `known` holds what GPUs of other memory have made."""
    job, space = part.job, part.space
    held, cached, plain = own.peaks
    whole = (own.steps >= 1) & (own.steps == np.floor(own.steps))
    run_steps = np.array([_run_steps(job, space, batch) for batch in space.batches])
    ends, paid = upper_ends(job, space, own.tables), np.array([layout.paid for layout in space.layouts])
    completions = makers(job, own.counted, space, own.tables, known)
    found: list[tuple[Array, ...]] = []
    for accelerator in space.accelerators:
        step = _steps_s(own.at, own.timed, space, accelerator, own.steps)
        told = job.calibration.correction(accelerator.name, job.setup.trainer, 0.0, constants().any_spread)
        making = making_s(job, space, own.tables, accelerator, known)
        run = (step * math.exp(told[0]) + making[:, None]) * run_steps
        price = price_of(job, accelerator)
        rate = price.usd_per_gpu_hour if price else math.nan
        room = float(accelerator.memory_bytes or 0)
        needed = held if completions is None else completions.needed(held)
        most = np.minimum.reduce(
            [
                high * (held + extra) + cached
                if completions is None
                else completions.over(held, cached, plain, high, extra)
                for high, extra in ends
            ]
        )
        together = whole[None] & np.isfinite(run)
        shares = (taken / room - 1 if room else np.full_like(taken, math.inf) for taken in (needed, most))
        over, over_high = (np.where(together, share, math.inf) for share in shares)
        found.append((run, run / 3600 * paid[None, None, :, None] * rate, over, over_high))
    return tuple(np.stack(each) for each in zip(*found, strict=True))
