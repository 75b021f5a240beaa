"""A real step of a small model on the CPU beside its simulation: bytes that autograd holds when the backward pass
begins, and the most that the step allocates.

Both are told by torch's profiler, which hears of every allocation from the allocator itself, those inside kernels
too. The simulation runs with the CPU's way of doing things
(no stand-ins for CUDA's kernels), which is the same code otherwise.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch.profiler import ProfilerActivity, profile

from planner.adapter import AdapterSpec
from planner.schema import Architecture
from planner.setup import Setup
from planner.simulate.core import simulate_step
from planner.simulate.layers import everyone, stacks
from planner.simulate.model import Made, make
from planner.simulate.step import Run, inputs, run
from planner.simulate.timeline import PARTS
from planner.simulate.tracker import Tracker

LORA = AdapterSpec(rank=8, layers=("all-linear",), experts="none")
CPU = Run(cuda=False)
STEP = Setup(precision="fp32", attention_kernel="eager", micro_batch=2, seq_len=64)


@dataclass(frozen=True)
class Measured:
    """Bytes measured and simulated: held by autograd, and the most allocated."""

    held: int
    simulated_held: int
    top: int
    simulated_top: int

    @property
    def held_error(self) -> float:
        """Simulated over measured, less 1."""
        return self.simulated_held / self.held - 1

    @property
    def top_error(self) -> float:
        """Simulated over measured, less 1."""
        return self.simulated_top / self.top - 1


def real(config: dict[str, Any], spec: AdapterSpec, setup: Setup, arch: Architecture | None = None) -> Made:
    """The model with weights, on the CPU; `arch` is its inventory, which says what images its sequences have."""
    made = make(config, spec, setup, arch)
    torch.manual_seed(0)
    model = made.model.to_empty(device="cpu")
    whole = model.get_base_model() if hasattr(model, "get_base_model") else model
    whole.tie_weights()  # which moving has untied
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
        for buffer in model.buffers():
            buffer.fill_(1)
    return Made(model, {}, made.notes, made.images)


def step(made: Made, setup: Setup) -> Callable[[], None]:
    """A forward and backward pass, as a training loop runs it."""
    data = inputs(made.model, setup, "cpu", made.images)
    checkpointed(made, setup)

    def once() -> None:
        batch = {name: tensor.clone() for name, tensor in data.items()}
        loss = made.model(**batch).loss
        loss.backward()

    return once


def checkpointed(made: Made, setup: Setup) -> None:
    """Have layers run again where the set-up says so."""
    if setup.checkpointing != "none":
        made.model._set_gradient_checkpointing(
            enable=True,
            gradient_checkpointing_func=lambda f, *args: torch.utils.checkpoint.checkpoint(
                f, *args, use_reentrant=setup.reentrant, preserve_rng_state=False
            ),
        )


def allocated(once: Callable[[], Any]) -> tuple[int, int]:
    """The most bytes that a call holds at once, and those that it leaves while its result is there, as the profiler
    hears them from the allocator."""
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
            result = once()
    finally:
        gc.enable()
    found = [e for e in told.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = top = 0
    for event in sorted(found, key=lambda e: e.start_ns()):
        level += event.nbytes()
        top = max(top, level)
    del result
    return top, level


def taken(config: dict[str, Any], setup: Setup, spec: AdapterSpec = LORA) -> int:
    """The most bytes that a simulated pass takes beyond what is held when it begins."""
    found = simulate_step(config, spec, setup, block_bytes=1, how=CPU)
    parts = found.moments["optimizer"].parts
    held = sum(parts[: PARTS.index("gradients")]) + parts[PARTS.index("optimizer")]
    if setup.accumulation > 1:
        held += parts[PARTS.index("gradients")]
    return max(peak.bytes for name, peak in found.moments.items() if name != "optimizer") - held


def measured(made: Made, setup: Setup) -> tuple[int, int]:
    """Bytes that a forward pass leaves for its backward pass, and the most that both hold, what comes in left out."""
    batch = inputs(made.model, setup, "cpu", made.images)
    checkpointed(made, setup)
    losses: list[Any] = []
    forward, held = allocated(lambda: losses.append(made.model(**batch).loss))
    backward, _ = allocated(lambda: losses.pop().backward())
    return held, max(forward, held + backward)


def simulated(
    config: dict[str, Any], setup: Setup, spec: AdapterSpec = LORA, arch: Architecture | None = None
) -> tuple[int, int]:
    """The same of a simulated pass of all layers."""
    made = make(config, spec, setup, arch)
    every = [everyone(stack.path, stack.length) for stack in stacks(made.model)]
    record = run(made, setup, every, Tracker(1), CPU)
    begin = next(start for start, place in record.marks if place.phase == "backward")
    level = top = held = 0
    for number, event in enumerate(record.events):
        if number == begin:
            held = level
        level += record.blocks[abs(event) - 1].bytes * (1 if event > 0 else -1)
        top = max(top, level)
    data = inputs(made.model, setup, images=made.images).values()
    given = sum(tensor.nbytes for tensor in data if tensor.device.type == "meta")
    return held - given, top - given


def measure(
    config: dict[str, Any], setup: Setup, spec: AdapterSpec = LORA, arch: Architecture | None = None
) -> Measured:
    """One step, measured and simulated."""
    (held, top), (like_held, like_top) = (
        measured(real(config, spec, setup, arch), setup),
        simulated(config, setup, spec, arch),
    )
    return Measured(held, like_held, top, like_top)
