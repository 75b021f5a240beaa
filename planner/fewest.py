"""The fewest GPUs on which a run fits.

One GPU is tried by itself, more of them with every state sharded (FSDP), each with one sequence in a micro-step;
where that is too much, with layers computed again in the backward pass, and a mixture's experts divided over as many
GPUs as can be, so that no GPU gathers a whole layer of them. Powers of two only.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

from .dataclass import dataclass
from .memory import estimate_memory
from .memory.sharding import gathered
from .moments import MemoryEstimate, MemoryPart
from .running import Running
from .setup import Checkpointing, Setup, Sharding

MOST_GPUS = 4096
SAFE = 0.9  # of what is not states, taken to stay as it is on more GPUs
STATES: tuple[MemoryPart, ...] = ("weights", "adapter", "optimizer")


@dataclass(frozen=True)
class Fewest:
    """A number of GPUs with the layout and the memory of each."""

    gpus: int
    sharding: Sharding
    checkpointing: Checkpointing
    expert_parallel: int
    per_gpu_bytes: int

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def _on(run: Running, gpus: int, checkpointing: Checkpointing, expert_parallel: int = 1) -> Setup:
    """The run's set-up on so many GPUs, one sequence each."""
    return replace(
        run.setup, gpus=gpus, sharding="none" if gpus == 1 else "fsdp", shard_size=None, tensor_parallel=1,
        pipeline_parallel=1, expert_parallel=expert_parallel, sequence_parallel=1, micro_batch=1,
        checkpointing=checkpointing,
    )  # fmt: skip


def fewest_gpus(run: Running, memory_bytes: int, own: MemoryEstimate | None = None) -> Fewest | None:
    """The least power of two of GPUs of `memory_bytes` each on which the run fits; None above 4,096.

    Starts at the number below which states alone, evenly divided, exceed the memory. Without experts what is not
    states hardly changes with the number, so that counts on which it could not fit are passed over. Neglects layouts
    that split single matrices (tensor parallelism), which a model needs whose dense layers exceed a GPU. `own` is the
    run's memory, where it is known.
    """
    known = {} if own is None else {run.setup: own}

    def memory(setup: Setup) -> MemoryEstimate:
        if setup not in known:
            known[setup] = estimate_memory(run.arch, setup, run.pairs, run.whole)
        return known[setup]

    asked = run.setup.checkpointing
    thrifty: Checkpointing = "layer" if asked == "none" else asked
    alone = own if own is not None and run.setup.gpus == 1 else memory(_on(run, 1, thrifty))
    states = sum(alone.parts()[part] for part in STATES)
    gpus = 1
    while gpus * memory_bytes < states:
        gpus *= 2
    experts = max((m.experts for m in run.arch.matrices if m.kind == "experts"), default=1)
    while gpus <= MOST_GPUS:
        needed = 0
        for apart in sorted({1, math.gcd(gpus, experts)}):
            setup = _on(run, gpus, thrifty, apart)
            if apart == 1 < experts and states / gpus + sum(gathered(run.arch, setup)) > memory_bytes:
                continue  # with a layer's experts gathered whole it cannot fit
            needed = memory(setup).per_gpu_bytes
            if needed <= memory_bytes:
                plain = memory(_on(run, gpus, asked, apart)).per_gpu_bytes
                how, needed = (asked, plain) if plain <= memory_bytes else (thrifty, needed)
                return Fewest(gpus, setup.sharding, how, apart, needed)
        rest = SAFE * (needed - states / gpus) if gpus > 1 and experts == 1 else 0.0
        gpus *= 2
        while gpus <= MOST_GPUS and states / gpus + rest > memory_bytes:
            gpus *= 2
    return None
