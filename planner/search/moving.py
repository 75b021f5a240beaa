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
from ..speed.communication import pace_of, sent_bytes, stays
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
    two), with FEW and MANY parameters in one micro-step and in two, and with FEW and MANY more of experts; `alone`:
    whether all that is trained is theirs."""

    nothing: tuple[Sent, ...]
    shared: tuple[Sent, ...]
    experts: tuple[Sent, ...]
    alone: bool

    @property
    def each(self) -> tuple[Sent, ...]:
        """All of them."""
        return self.nothing + self.shared + self.experts


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
    beside experts (`shared`) and of theirs (`experts`), and whether of a kind all that is trained belongs to these
    (`alone`). `sent` are entries of kinds x probes by their `way`: bytes that a GPU sends, calls; of each way `some`
    entry that goes so."""

    layout: Layout
    alone: Array
    which: Array
    shared: Array
    experts: Array
    some: tuple[Traffic, ...]
    way: Array
    sent: Array
    calls: Array

    @classmethod
    def of(cls, job: Job, layout: Layout, found: Sequence[Table]) -> Sending:
        """That of tables."""
        by_key = probes(job, layout, found)
        kinds = list(dict.fromkeys(by_key.values()))
        numbers = {key: kinds.index(own) for key, own in by_key.items()}
        parts = layout.expert_parallel
        apart = np.array([table.apart if parts > 1 else 0.0 for table in found])
        params = np.array([table.params for table in found], float)
        params = params / (layout.tensor_parallel * layout.pipeline_parallel)
        return cls(
            layout, np.array([own.alone for own in kinds]),
            np.array([numbers[kept_apart(table, layout)] for table in found]),
            params * np.where(apart > 1 - 1e-9, 0.0, 1 - apart), params * apart / parts,
            *_entries([own.each for own in kinds]),
        )  # fmt: skip

    def seconds(self, job: Job, gpu: Accelerator, known: Efficiency) -> Array:
        """Seconds of each probe of each kind on a GPU, as `speed.communication.total_s` has them."""
        machine = machine_of(job, gpu, self.layout.gpus)
        paces = [pace_of(entry, machine, known.link, known.staged) for entry in self.some]
        rate, each_s = np.array(paces).reshape(-1, 2).T
        return (self.sent / rate[self.way] + self.calls * each_s[self.way]).sum(axis=-1)


def _entries(kinds: Sequence[Sequence[Sent]]) -> tuple[tuple[Traffic, ...], Array, Array, Array]:
    """`Sending`'s some, way, sent and calls, by kind, probe and place among its entries; behind these nothing."""
    width = max(len(sent) for probes in kinds for sent in probes)
    shape = len(kinds), len(kinds[0]), width
    way, moved, calls = np.zeros(shape, int), np.zeros(shape), np.zeros(shape)
    some: dict[Any, Traffic] = {}
    numbers: dict[Any, int] = {}
    for kind, probes in enumerate(kinds):
        for probe, sent in enumerate(probes):
            for place, entry in enumerate(sent):
                if not stays(entry):
                    how = entry.collective, entry.group, entry.group_size
                    some.setdefault(how, entry)
                    at = kind, probe, place
                    way[at] = numbers.setdefault(how, len(numbers))
                    moved[at], calls[at] = sent_bytes(entry), entry.calls
    return tuple(some.values()), way, moved, calls


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
            layout.expert_parallel > 1 and _only_experts(table),
        )
    return made


def _line(few: Array, few_two: Array, many: Array, many_two: Array) -> Array:
    """a + b P + (c + d P) m from its values at FEW and MANY parameters P in one micro-step m and in two."""
    each_few, each_many = few_two - few, many_two - many
    b, d = ((many - each_many) - (few - each_few)) / (MANY - FEW), (each_many - each_few) / (MANY - FEW)
    return np.array([few - each_few - b * FEW, b, each_few - d * FEW, d])


def _coefficients(own: Sending, seconds: Array) -> Array:
    """Of the `seconds` on a GPU, by kind: with nothing trained a, a micro-step's and what each further sequence adds
    to it; then of shared parameters and of experts beside them `_line`."""
    one, two, wider, *ends = seconds.T
    nothing, shared, experts = np.array([one, two, one, two]), ends[:4], ends[4:]
    beside = np.where(own.alone, nothing, [*shared[:2], *shared[:2]])
    lines = (_line(*shared - nothing), _line(*experts - beside) if experts else np.zeros((4, len(one))))
    return np.concatenate([[2 * one - two, two - one, wider - one], *lines]).T


def moving_s(
    own: Sending, job: Job, gpu: Accelerator, known: Efficiency, micro: Array, steps: Array
) -> Array:
    """Seconds of communication of a step: tables x micro-batches x batches; `steps` are micro-steps of each."""
    rows = _coefficients(own, own.seconds(job, gpu, known))[own.which]
    m = steps[None]
    sent = rows[:, 0, None, None] + (rows[:, 1, None] + rows[:, 2, None] * (micro - 1))[..., None] * m
    for line, mine in ((rows[:, 3:7], own.shared), (rows[:, 7:], own.experts)):
        a, b, c, d = line.T
        some = mine > 0
        fixed, each = np.where(some, a + b * mine, 0.0), np.where(some, c + d * mine, 0.0)
        sent = sent + fixed[:, None, None] + each[:, None, None] * m
    return sent
