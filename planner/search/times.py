"""Seconds of an optimizer step of all plans of a space: the formulas of planner/speed over many set-ups.

A table's work is walked once and is linear in the micro-batch and in the rank (mixed); times are the scalar
formula's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataclass import dataclass
from ..objective_rules import SEQUENCES
from ..pacing import padded_length
from ..setup import Setup
from ..speed.communication import gathers
from ..speed.efficiency import constants
from ..speed.roofline import gather_s, loop_s, on_host_s, rates_of
from ..speed.step import step_bytes
from ..speed.trained import Held
from ..speed.work import PHASES, Work
from .evaluate import machine_of
from .layout import Layout
from .makers import learnt
from .mixed import Mixed
from .moving import Sending, moving_s
from .space import Job, Space, setup_of
from .tables import Table

if TYPE_CHECKING:
    from ..fact_types import Accelerator

Array = Any  # a numpy array


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


def _phases_s(packed: _Packed, job: Job, gpu: Accelerator, micro: Array) -> list[tuple[Array, Array]]:
    """Seconds of a micro-step's forward and backward, tables x micro-batches, on the GPU and of the host."""
    efficiency = constants().efficiency
    known = rates_of(packed.kinds, gpu, efficiency, job.setup)
    rate = np.array([known.products[key] for key in packed.kinds])[packed.kind]
    bytes_per_s, dequantise_per_s = known.bytes_per_s, known.dequantise_bytes_per_s
    at = np.stack(
        [np.ones_like(micro), micro * SEQUENCES.get(job.setup.objective, 1)]
    )  # coefficients meet (1, B)
    covered = packed.flops @ at + (packed.tiles * known.idle_tiles)[..., None]
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
class Kept:
    """Of a layout, by table, whatever the GPU: the trained parameters that one holds, bytes moved as gradients are
    added to those before and as the optimizer steps, the units that are gathered, and what is sent."""

    mine: Array
    adding: Array
    updating: Array
    units: Array
    sent: Sending


def kept_of(found: Sequence[Table], job: Job, layout: Layout, space: Space) -> Kept:
    """What is kept of a layout."""
    setups = {(q, c): setup_of(job, q, c, layout, 1, 1) for q in space.quantize for c in space.checkpointing}
    some, stages = next(iter(setups.values())), layout.pipeline_parallel
    per_shard = some.shards if some.states_sharded else 1
    per_gradient = some.shards if some.gradients_sharded else 1
    own = [setups[t.quantize, t.checkpointing] for t in found]
    mine = np.array([t.work.stepped / stages * _left(t, some, per_shard) for t in found])
    adding = np.array([t.work.accumulate_bytes / stages * _left(t, some, per_gradient) for t in found])
    moved = mine * np.array([step_bytes(setup) for setup in own])
    units = np.array([gathers(job.arch, setup, t.pairs) for setup, t in zip(own, found, strict=True)])
    return Kept(mine, adding[:, None, None], moved[:, None, None], units, Sending.of(job, layout, found))


def _step_s(
    phases: Sequence[tuple[Array, Array]], timed: Timed, job: Job, space: Space, gpu: Accelerator, steps: Array
) -> Array:  # fmt: skip
    """Seconds of an optimizer step: tables x micro-batches x layouts x batches; `steps` are micro-steps of each."""
    efficiency = constants().efficiency
    bandwidth = (gpu.bandwidth_bytes_per_s or 0.0) * efficiency.memory
    micro = np.array(space.micro_batches, float)
    result = np.empty((len(timed.tables), len(micro), len(space.layouts), len(space.batches)))
    launched = timed.launched[:, None, None]
    for number, (layout, own) in enumerate(zip(space.layouts, timed.kept, strict=True)):
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
        sent = moving_s(own.sent, job, gpu, efficiency, micro, steps[:, number, :])
        exposed = sent - efficiency.overlap * np.minimum(computing, sent)
        result[:, :, number, :] = computing * (1 + (stages - 1) / m) + exposed
    return result


@dataclass(frozen=True)
class Timed:
    """Tables with their work at one length of sequences, packed: that of one sequence, and of several where these
    take another kernel; kernels that the optimizer `launched`."""

    tables: Sequence[Table]
    packed: _Packed
    padded: _Packed | None
    launched: Array
    kept: Sequence[Kept]


def of_length(found: Sequence[Table], kept: Sequence[Kept]) -> Timed:
    """The tables of a length, and what is kept of them by layout."""
    padded = [table.padded or table.work for table in found] if any(table.padded for table in found) else None
    launched = np.array([table.work.optimizer_operations for table in found])
    packed = _pack([table.work for table in found])
    return Timed(found, packed, _pack(padded) if padded else None, launched, kept)


def _phases_of(own: Timed, job: Job, gpu: Accelerator, micro: Array) -> list[tuple[Array, Array]]:
    """`_phases_s`, of several sequences with the kernel that they take."""
    phases = _phases_s(own.packed, job, gpu, micro)
    if own.padded is None:
        return phases
    slower = _phases_s(own.padded, job, gpu, micro)
    return [(np.where(micro > 1, b, a), host) for (a, host), (b, _) in zip(phases, slower, strict=True)]


def lengths_of(job: Job, space: Space) -> Array:
    """The length at which the step of each micro-batch and batch is timed: of padded samples that of a micro-step's
    longest, of completions that of a batch's."""
    if job.setup.objective == "grpo":
        found = [[learnt(job, space, batch) for batch in space.batches]] * len(space.micro_batches)
        return np.array(found)
    quantize, checkpointing, layout = space.quantize[0], space.checkpointing[0], space.layouts[0]
    setups = [setup_of(job, quantize, checkpointing, layout, size, 1) for size in space.micro_batches]
    lengths = [padded_length(setup, job.samples) or setup.seq_len for setup in setups]
    return np.repeat(np.array(lengths)[:, None], len(space.batches), axis=1)


def steps_s(
    at: dict[int, tuple[Job, Timed]], timed: Array, space: Space, gpu: Accelerator, steps: Array
) -> Array:
    """Seconds of an optimizer step on a GPU, each micro-batch and batch at its own length of sequences."""
    micro, parts = np.array(space.micro_batches, float), []
    for length, (mine, own) in at.items():
        phases = _phases_of(own, mine, gpu, micro)
        parts.append((length, _step_s(phases, own, mine, space, gpu, steps)))
    found = parts[0][1]
    for length, seconds in parts[1:]:
        np.copyto(found, seconds, where=(timed == length)[None, :, None, :])
    return found


def run_steps(job: Job, space: Space, batch: int) -> int:
    """Optimizer steps of the run: of padded samples by their number."""
    setup = setup_of(job, space.quantize[0], space.checkpointing[0], space.layouts[0], 1, 1)
    if job.samples is not None and padded_length(setup, job.samples) is not None:
        return job.samples.steps(job.epochs, batch)
    each = SEQUENCES.get(setup.objective, 1)
    return max(1, math.ceil(job.tokens / (batch * each * job.setup.seq_len)))
