"""All plans of a space at once, as arrays: the formulas of planner/speed and planner/memory over many set-ups.

A table is one adapter on one base with or without checkpointing. Times are the scalar formula's (times); memory is
taken between points of it (peaks).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..dataclass import dataclass
from ..speed.efficiency import constants
from ..workers import done
from .evaluate import price_of, regret_of
from .makers import makers, making_s
from .parts import Alike, Known, Part, in_common
from .peaks import upper_ends
from .space import Choice, Job, Space
from .tables import Table
from .times import run_steps, steps_s

Array = Any  # a numpy array
AXES = ("table", "micro", "layout", "batch", "gpu", "seconds", "usd", "over", "over_high", "regret")
ROOMS = 8  # parts that differ in the GPUs' memory alone, which are worth a process
TOLERANCE = 1e-6  # of a GPU's memory: plans so near to it are checked one by one


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


def screen(job: Job, space: Space, known: Known | None = None, short: bool = False) -> Cells:
    """Time, cost, memory and regret of every plan of the space. `known` is what screens of the same job found, of
    spaces that differ in their layouts alone; this one's is added to it. `short`: of a plan that fits on none of the
    GPUs by what it holds throughout, memory is that alone."""
    known = {} if known is None else known
    largest = max((gpu.memory_bytes or 0 for gpu in space.accelerators), default=0)
    parts = in_common(job, space, known, largest * (1 + 2 * TOLERANCE) if short else math.inf)
    made = _dealt_out(parts, known)
    axes: dict[str, list[Array]] = {name: [] for name in AXES}
    for (part, own), figures in zip(parts, made, strict=True):
        gpu, table, micro, layout, batch = (axis.ravel() for axis in np.indices(figures[0].shape))
        quality = [regret_of(part.job, each.params) for each in own.tables]
        regret = np.array([item.value if item else 0.0 for item in quality])
        numbers = (table, micro, np.array(part.layouts)[layout], batch, np.array(part.gpus)[gpu])
        for name, axis in zip(
            AXES, (*numbers, *(each.ravel() for each in figures), regret[table]), strict=True
        ):
            axes[name].append(axis)
    found: dict[str, Any] = {name: np.concatenate(each) for name, each in axes.items()}
    return Cells(job, space, parts[0][1].tables, **found)


def _dealt_out(parts: Sequence[tuple[Part, Alike]], known: Known) -> list[tuple[Array, ...]]:
    """`_figures` of all parts. Layouts that compute alike, and so take as long, are dealt out evenly; GPUs of the
    rarer type are few: what only they need is made in one process."""
    order = sorted(range(len(parts)), key=lambda number: parts[number][0].layouts)
    dealt = [(number, *parts[number]) for number in order]
    kinds = [number if own.counted is part.job else id(own) for number, part, own in dealt]
    made = done(lambda place: _figures(*dealt[place][1:], known), kinds, enough=ROOMS)
    found = dict(zip(order, made, strict=True))
    return [found[number] for number in range(len(parts))]


def _figures(part: Part, own: Alike, known: Known) -> tuple[Array, ...]:
    """Seconds, dollars, and memory over what a GPU has, as expected and at the upper end: GPUs x tables x
    micro-batches x layouts x batches. `known` holds what GPUs of other memory have made."""
    job, space = part.job, part.space
    held, cached, plain = own.peaks
    whole = (own.steps >= 1) & (own.steps == np.floor(own.steps))
    number = np.array([run_steps(job, space, batch) for batch in space.batches])
    ends, paid = upper_ends(job, space, own.tables), np.array([layout.paid for layout in space.layouts])
    completions = makers(job, own.counted, space, own.tables, known)
    found: list[tuple[Array, ...]] = []
    for accelerator in space.accelerators:
        step = steps_s(own.at, own.timed, space, accelerator, own.steps)
        told = job.calibration.correction(accelerator.name, job.setup.trainer, 0.0, constants().any_spread)
        making = making_s(job, space, own.tables, accelerator, known)
        run = (step * math.exp(told[0]) + making[:, None]) * number
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
