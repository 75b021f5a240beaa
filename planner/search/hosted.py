"""What plans keep in the host's memory of a machine, of all of a space at once.

It is computed with the scalar formula for every kind of GPU and layout that keeps something there, at the ranks that
`over_ranks` asks for, and with one micro-batch: states, weights and gradients are as many whatever that is (of a
pipeline those of the stage that needs most with it).
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from ..memory.peak import estimate_memory
from ..setup import Setup
from .evaluate import host_on
from .peaks import over_ranks
from .screen import Cells
from .space import Job, setup_of
from .tables import Table

Array = Any  # a numpy array


def host_bytes(cells: Cells) -> Array:
    """Bytes of a machine's host memory that the plan of each cell takes; 0 where its parts do not go together."""
    space = cells.space
    found = np.zeros((len(space.accelerators), len(cells.tables), len(space.layouts)))
    groups: dict[tuple[Any, ...], list[int]] = {}
    for number, table in enumerate(cells.tables):
        groups.setdefault((table.layers, table.quantize, table.checkpointing), []).append(number)
    alike, group_of = list(groups.values()), np.empty(len(cells.tables), np.intp)
    for number, numbers in enumerate(alike):
        group_of[numbers] = number
    own = np.flatnonzero(np.isfinite(cells.over))
    kinds = (cells.gpu[own] * len(space.layouts) + cells.layout[own]) * len(alike) + group_of[
        cells.table[own]
    ]
    for cell in own[np.unique(kinds, return_index=True)[1]]:  # one of every GPU, layout and group
        choice = cells.choice(int(cell))
        job = cells.job.on(choice.accelerator)
        setup = setup_of(
            job, choice.quantize, choice.checkpointing, choice.layout, choice.micro_batch, choice.accumulation
        )
        if keeps(setup):
            numbers = alike[group_of[cells.table[cell]]]
            tables = [cells.tables[number] for number in numbers]
            found[cells.gpu[cell], numbers, cells.layout[cell]] = over_ranks(
                tables, partial(_bytes, job, setup)
            )
    return found[cells.gpu, cells.table, cells.layout]


def keeps(setup: Setup) -> bool:
    """Whether anything lies in the host's memory."""
    return setup.offload != "none" or setup.optimizer.startswith("paged")


def _bytes(job: Job, setup: Setup, table: Table) -> Array:
    memory = estimate_memory(job.arch, setup, table.pairs, table.whole)
    return np.array(float(host_on(job, memory).node_bytes))
