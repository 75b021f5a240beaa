"""The fewest GPUs on which a run fits.

One GPU is tried by itself, more of them with every state sharded (FSDP), each with one sequence in a micro-step;
where that is too much, with layers computed again in the backward pass, and a mixture's experts divided over as many
GPUs as can be, so that no GPU gathers a whole layer of them. Where a whole sequence is too much for a GPU, however
many there are, sequences are shared among GPUs. Powers of two only, or those times
the GPUs that run one vLLM together.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from .choices import Checkpointing, Sharding
from .dataclass import dataclass
from .errors import InputError
from .memory import estimate_memory
from .memory.sharding import gathered
from .moments import MemoryEstimate, MemoryPart
from .running import Running, setup_from
from .setup import Setup
from .sharing import most_sequence
from .trainers import sharded_alone, usual

MOST_GPUS = 4096
WITHOUT: dict[str, Any] = {
    "generation": "server", "vllm_memory": None, "vllm_sleep": False, "states_asleep": "none",
    "vllm_tensor_parallel": 1,
}  # fmt: skip
SAFE = 0.9  # of what is not states, taken to stay as it is on more GPUs
STATES: tuple[MemoryPart, ...] = ("weights", "adapter", "optimizer")
Memory = Callable[[Setup], MemoryEstimate]


@dataclass(frozen=True)
class Fewest:
    """A number of GPUs with the layout and the memory of each."""

    gpus: int
    sharding: Sharding
    checkpointing: Checkpointing
    expert_parallel: int
    sequence_parallel: int
    per_gpu_bytes: int
    tensor_parallel: int = 1
    pipeline_parallel: int = 1

    def to_dict(self) -> dict[str, Any]:
        """For JSON."""
        return dict(vars(self))


def _on(run: Running, gpus: int, checkpointing: Checkpointing, experts: int = 1, sequence: int = 1) -> Setup:
    """The run's set-up, as its options make it, on so many GPUs, one sequence each, or each `sequence` of them;
    without the vLLM that more GPUs than these run together."""
    beside = {} if gpus % _together(run) == 0 else WITHOUT
    whole = gpus == 1 and not sharded_alone({"trainer": run.setup.trainer})
    sharding: Sharding = "none" if whole else "fsdp"
    changes: dict[str, Any] = {
        "gpus": gpus, "sharding": sharding, "shard_size": None, "tensor_parallel": 1, "pipeline_parallel": 1,
        "expert_parallel": experts, "sequence_parallel": sequence, "checkpointing": checkpointing, **beside,
    }  # fmt: skip
    if run.given is None:
        said = {"trainer": run.setup.trainer, "method": run.setup.method, "sharding": sharding}
        return replace(run.setup, micro_batch=1, placing=usual(said, "placing") or "unknown", **changes)
    own = {"method": run.setup.method, "accumulation": run.setup.accumulation, "batch": None}
    options = {name: value for name, value in {**run.given, **changes, **own}.items() if value is not None}
    if whole:
        del options["sharding"]
    try:
        return setup_from(options, run.setup.seq_len, run.arch.model_type)
    except InputError:  # what its trainer does on so many does not go with the run's micro-steps
        options["accumulation"] = 1
        return setup_from(options, run.setup.seq_len, run.arch.model_type)


def _together(run: Running) -> int:
    """GPUs of which a vLLM beside the trainer needs a multiple."""
    return run.setup.vllm_tensor_parallel if run.setup.generation == "colocate" else 1


def _shared(
    run: Running, memory_bytes: int, gpus: int, experts: int, thrifty: Checkpointing, memory: Memory
) -> Fewest | None:
    """From `gpus` on, the fewest that fit where as many as can share every sequence, then as few of those as will do;
    None where sequences cannot be shared (an odd length, an objective over pairs) or 4,096 are too few."""

    def fits(count: int, how: Checkpointing, sequence: int) -> Fewest | None:
        for apart in sorted({1, math.gcd(count, experts)}):
            setup = _on(run, count, how, apart, sequence)
            needed = memory(setup).per_gpu_bytes
            if needed <= memory_bytes:
                return Fewest(count, setup.sharding, how, apart, sequence, needed)
        return None

    gpus = max(2, gpus)
    while gpus <= MOST_GPUS:
        sequence = most_sequence(run.arch, gpus, run.setup.seq_len)
        try:
            found = fits(gpus, thrifty, sequence) if sequence > 1 else None
        except InputError:  # what does not go with shared sequences
            return None
        if found is not None:
            while sequence > 2 and (less := fits(gpus, thrifty, sequence // 2)) is not None:
                found, sequence = less, sequence // 2
            return fits(gpus, run.setup.checkpointing, sequence) or found
        gpus *= 2
    return None


def fewest_gpus(run: Running, memory_bytes: int, own: MemoryEstimate | None = None) -> Fewest | None:
    """The fewest GPUs on which the run fits, by the layouts that are tried or by its own: no more than it has where
    it fits there. `own` is its memory, where that is known."""
    found = _tried(run, memory_bytes, own)
    if own is None or not own.fits(memory_bytes) or (found is not None and found.gpus <= run.setup.gpus):
        return found
    s = run.setup
    return Fewest(
        s.gpus, s.sharding, s.checkpointing, s.expert_parallel, s.sequence_parallel, own.per_gpu_bytes,
        s.tensor_parallel, s.pipeline_parallel,
    )  # fmt: skip


def _tried(run: Running, memory_bytes: int, own: MemoryEstimate | None) -> Fewest | None:
    """The least power of two of GPUs of `memory_bytes` each on which the run fits; None above 4,096.

    Sequences are shared only where no number of GPUs is enough with a whole one each: few trainers can. Starts at
    the number below which states alone, evenly divided, exceed the memory. Without experts what is not states
    hardly changes with the number, so that counts on which it could not fit are passed over, and tried where more
    do. Neglects layouts that split single matrices (tensor parallelism), which a model needs whose dense layers
    exceed a GPU.
    """
    known = {} if own is None else {run.setup: own}

    def memory(setup: Setup) -> MemoryEstimate:
        if setup not in known:
            known[setup] = run.corrected(estimate_memory(run.arch, setup, run.pairs, run.whole))
        return known[setup]

    asked = run.setup.checkpointing
    thrifty: Checkpointing = "layer" if asked == "none" else asked
    alone = own if own is not None and run.setup.gpus == 1 else memory(_on(run, 1, thrifty))
    states = sum(alone.parts()[part] for part in STATES)
    gpus = _together(run)
    while gpus * memory_bytes < states:
        gpus *= 2
    least = gpus
    experts = run.arch.n_experts

    def at(count: int) -> tuple[Fewest | None, int]:
        """The layout on which it fits on so many, and what it needs there."""
        needed = 0
        for apart in sorted({1, math.gcd(count, experts)}):
            setup = _on(run, count, thrifty, apart)
            if apart == 1 < experts and states / count + sum(gathered(run.arch, setup)) > memory_bytes:
                continue  # with a layer's experts gathered whole it cannot fit
            needed = memory(setup).per_gpu_bytes
            if needed <= memory_bytes:
                plain = memory(_on(run, count, asked, apart)).per_gpu_bytes
                how, needed = (asked, plain) if plain <= memory_bytes else (thrifty, needed)
                return Fewest(count, setup.sharding, how, apart, 1, needed), needed
        return None, needed

    tried = {gpus // 2}
    while gpus <= MOST_GPUS:
        tried.add(gpus)
        found, needed = at(gpus)
        if found is not None:
            while gpus // 2 not in tried and (less := at(gpus // 2)[0]) is not None:
                found, gpus = less, gpus // 2
            return found
        rest = SAFE * (needed - states / gpus) if gpus > 1 and experts == 1 else 0.0
        gpus *= 2
        while gpus <= MOST_GPUS and states / gpus + rest > memory_bytes:
            gpus *= 2
    return _shared(run, memory_bytes, least, experts, thrifty, memory)
