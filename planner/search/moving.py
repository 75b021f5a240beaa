"""Seconds of communication of a step over many plans, from what GPUs send each other at a few of them.

Of a layout what is sent is linear in the trained parameters of a GPU (those of experts apart), in micro-steps and in
sequences of one: the scalar formula (`memory.traffic`) is asked at the ends, once for all GPUs, and its entries are
timed on each.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import TYPE_CHECKING, Any

import numpy as np

from ..dataclass import dataclass
from ..memory.traffic import traffic
from ..moments import Traffic
from ..speed.communication import total_s
from ..speed.efficiency import Efficiency
from .evaluate import machine_of
from .layout import Layout
from .space import Job, setup_of
from .tables import Table

if TYPE_CHECKING:
    from ..fact_types import Accelerator

Array = Any  # a numpy array
FEW, MANY = 10**6, 10**9 + 10**6  # parameters: never none, for which nothing is sent at all
Sent = tuple[Traffic, ...]


@dataclass(frozen=True)
class Probes:
    """What is sent of a layout with nothing trained (in a micro-step of one sequence, in two of them, and in one of
    two), with FEW and MANY parameters in one micro-step and in two, and with FEW and MANY more of experts."""

    nothing: tuple[Sent, ...]
    shared: tuple[Sent, ...]
    experts: tuple[Sent, ...]


def kept_apart(table: Table, layout: Layout) -> tuple[Any, ...]:
    """What traffic depends on beside the numbers: the base's form, recompute where activations are sent or pairs are
    gathered apart, and whether all that is trained belongs to experts, so that one part of it moves."""
    inside = layout.expert_parallel * layout.tensor_parallel * layout.sequence_parallel > 1
    sends = inside or layout.sharding.startswith("fsdp")
    alone = layout.expert_parallel > 1 and _only_experts(table)
    return (table.quantize, table.checkpointing, alone) if sends else (table.quantize,)


def _only_experts(table: Table) -> bool:
    return table.apart > 1 - 1e-9


@dataclass(frozen=True)
class Sending:
    """What is sent under a layout, each kind once: which is each table's (`which`), what a GPU has of what is trained
    beside experts (`shared`) and of theirs (`experts`)."""

    layout: Layout
    kinds: dict[tuple[Any, ...], Probes]
    which: Array
    shared: Array
    experts: Array

    @classmethod
    def of(cls, job: Job, layout: Layout, found: Sequence[Table]) -> Sending:
        """That of tables."""
        kinds = probes(job, layout, found)
        places = {key: number for number, key in enumerate(kinds)}
        parts = layout.expert_parallel
        apart = np.array([table.apart if parts > 1 else 0.0 for table in found])
        params = np.array([table.params for table in found], float)
        params = params / (layout.tensor_parallel * layout.pipeline_parallel)
        return cls(
            layout, kinds, np.array([places[kept_apart(table, layout)] for table in found]),
            params * np.where(apart > 1 - 1e-9, 0.0, 1 - apart), params * apart / parts,
        )  # fmt: skip


def probes(job: Job, layout: Layout, found: Sequence[Table]) -> dict[tuple[Any, ...], Probes]:
    """What is sent under a layout, by `kept_apart` of each table."""
    made: dict[tuple[Any, ...], Probes] = {}
    for table in found:
        key = kept_apart(table, layout)
        if key in made:
            continue

        def sent(shared: int, experts: int, micro_steps: int, micro_batch: int, table: Table = table) -> Sent:
            setup = setup_of(job, table.quantize, table.checkpointing, layout, micro_batch, micro_steps)
            return traffic(job.arch, setup, shared, experts)

        ends = tuple(product((FEW, MANY), (1, 2)))
        apart, beside = ends if layout.expert_parallel > 1 else (), 0 if _only_experts(table) else FEW
        made[key] = Probes(
            (sent(0, 0, 1, 1), sent(0, 0, 2, 1), sent(0, 0, 1, 2)),
            tuple(sent(params, 0, steps, 1) for params, steps in ends),
            tuple(sent(beside, params, steps, 1) for params, steps in apart),
        )
    return made


def _line(few: float, few_two: float, many: float, many_two: float) -> Array:
    """a + b P + (c + d P) m from its values at FEW and MANY parameters P in one micro-step m and in two."""
    each_few, each_many = few_two - few, many_two - many
    b, d = ((many - each_many) - (few - each_few)) / (MANY - FEW), (each_many - each_few) / (MANY - FEW)
    return np.array([few - each_few - b * FEW, b, each_few - d * FEW, d])


def _coefficients(
    own: Probes, job: Job, layout: Layout, gpu: Accelerator, known: Efficiency, only_experts: bool
) -> Array:
    """Of the seconds on a GPU: with nothing trained a, a micro-step's and what each further sequence adds to it; then
    of shared parameters and of experts beside them `_line`."""
    machine = machine_of(job, gpu, layout.gpus)

    def seconds(sent: Sent) -> float:
        return total_s(sent, machine, known.link, known.staged)

    one, two, wider = map(seconds, own.nothing)
    shared, experts = ([seconds(sent) for sent in ends] for ends in (own.shared, own.experts))
    before = (one, two) if only_experts else shared[:2]
    lines = (
        _line(*(value - at[number % 2] for number, value in enumerate(ends))) if ends else np.zeros(4)
        for ends, at in ((shared, (one, two)), (experts, before))
    )
    return np.concatenate([[2 * one - two, two - one, wider - one], *lines])


def moving_s(
    own: Sending, job: Job, gpu: Accelerator, known: Efficiency, micro: Array, steps: Array
) -> Array:
    """Seconds of communication of a step: tables x micro-batches x batches; `steps` are micro-steps of each."""
    kinds = [
        _coefficients(each, job, own.layout, gpu, known, key[-1] is True) for key, each in own.kinds.items()
    ]
    rows = np.array(kinds)[own.which]
    m = steps[None]
    sent = rows[:, 0, None, None] + (rows[:, 1, None] + rows[:, 2, None] * (micro - 1))[..., None] * m
    for line, mine in ((rows[:, 3:7], own.shared), (rows[:, 7:], own.experts)):
        a, b, c, d = line.T
        some = mine > 0
        fixed, each = np.where(some, a + b * mine, 0.0), np.where(some, c + d * mine, 0.0)
        sent = sent + fixed[:, None, None] + each[:, None, None] * m
    return sent
