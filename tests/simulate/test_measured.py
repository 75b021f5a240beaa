"""Simulated against what a real step on the CPU really allocates, told by torch's profiler and by its own hooks.

The profiler hears of every allocation from the allocator itself, those inside kernels too. The simulation is run
with the CPU's way of doing things (no stand-ins for CUDA's kernels), which is the same code otherwise.
"""

from __future__ import annotations

import gc
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from planner.setup import Setup
from planner.simulate.core import simulate_step
from planner.simulate.layers import everyone, stacks
from planner.simulate.model import Made, make
from planner.simulate.step import Run, inputs, run
from planner.simulate.timeline import PARTS
from planner.simulate.tracker import Tracker

from .small import CONFIGS, LORA, real

CPU = Run(cuda=False)
EAGER = Setup(precision="fp32", attention_kernel="eager", micro_batch=2, seq_len=64)
SETUPS = {
    "lora": EAGER,
    "lora bf16": replace(EAGER, precision="bf16"),
    "lora checkpointed": replace(EAGER, checkpointing="layer"),
    "full": replace(EAGER, method="full"),
    "full checkpointed": replace(EAGER, method="full", checkpointing="layer"),
    "full accumulating": replace(EAGER, method="full", accumulation=2),
}
FAMILIES = ("llama", "qwen2 tied", "gemma3 sliding and full", "gpt2")


def step(made: Made, setup: Setup) -> Callable[[], None]:
    """A forward and backward pass, as a training loop runs it."""
    data = inputs(made.model, setup, "cpu")
    if setup.checkpointing != "none":
        made.model._set_gradient_checkpointing(
            enable=True,
            gradient_checkpointing_func=lambda f, *args: torch.utils.checkpoint.checkpoint(
                f, *args, use_reentrant=False, preserve_rng_state=False
            ),
        )

    def once() -> None:
        batch = {name: tensor.clone() for name, tensor in data.items()}
        loss = made.model(**batch).loss
        loss.backward()

    return once


def allocated(once: Callable[[], None]) -> int:
    """The most bytes that a call holds at once, as the profiler hears it from the allocator."""
    gc.collect()
    gc.disable()
    try:
        with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as told:
            once()
    finally:
        gc.enable()
    found = [e for e in told.profiler.kineto_results.events() if e.name() == "[memory]"]
    level = top = 0
    for event in sorted(found, key=lambda e: e.start_ns()):
        level += event.nbytes()
        top = max(top, level)
    return top


def taken(config: dict[str, Any], setup: Setup) -> int:
    """The most bytes that a simulated pass takes beyond what is held when it begins."""
    found = simulate_step(config, LORA, setup, block_bytes=1, how=CPU)
    held = sum(found.moments["optimizer"].parts[: PARTS.index("gradients")])
    held += found.moments["optimizer"].parts[PARTS.index("optimizer")]
    if setup.accumulation > 1:
        held += found.moments["optimizer"].parts[PARTS.index("gradients")]
    return max(peak.bytes for phase, peak in found.moments.items() if phase != "optimizer") - held


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_a_real_step_allocates_what_was_simulated(setup: Setup) -> None:
    made = real(CONFIGS["llama"], LORA, setup)
    once = step(made, setup)
    if setup.accumulation > 1:
        once()
    assert allocated(once) == pytest.approx(taken(CONFIGS["llama"], setup), rel=0.001)


@pytest.mark.parametrize("family", FAMILIES[1:])
def test_so_it_does_for_other_families(family: str) -> None:
    made = real(CONFIGS[family], LORA, EAGER)
    assert allocated(step(made, EAGER)) == pytest.approx(taken(CONFIGS[family], EAGER), rel=0.01)


def test_both_gradients_of_a_tied_table_meet_in_place() -> None:
    setup = replace(EAGER, method="full", micro_batch=1, seq_len=4)
    config = {**CONFIGS["qwen2 tied"], "vocab_size": 20000}
    made = real(config, LORA, setup)
    assert allocated(step(made, setup)) == pytest.approx(taken(config, setup), rel=0.001)


def test_autocast_as_torch_runs_it() -> None:
    """Autocast's choices of types are ours on the meta device, and torch's own on the CPU. Llama's code asks
    for types
    wherever the lists of CUDA and the CPU differ."""
    setup = replace(EAGER, precision="autocast")
    made = real(CONFIGS["llama"], LORA, setup)

    def under() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            batch = inputs(made.model, setup, "cpu")
            loss = made.model(**batch).loss
        loss.backward()

    assert allocated(under) == pytest.approx(taken(CONFIGS["llama"], setup), rel=0.01)


@pytest.mark.parametrize("method", ["lora", "full"])
@pytest.mark.parametrize("family", FAMILIES)
def test_autograd_keeps_what_was_simulated(family: str, method: Any) -> None:
    """Bytes of the distinct storages that autograd saves, told by its own hooks, against activations and logits."""
    setup = replace(EAGER, method=method)
    made = real(CONFIGS[family], LORA, setup)
    batch = inputs(made.model, setup, "cpu")
    held = {
        t.untyped_storage().data_ptr()
        for t in (*made.model.parameters(), *made.model.buffers(), *batch.values())
    }
    kept: dict[int, Any] = {}

    def pack(tensor: Any) -> Any:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in held:
            kept[storage.data_ptr()] = storage
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        loss = made.model(**batch).loss
    saved = sum(storage.nbytes() for storage in kept.values())
    assert loss.requires_grad
    assert saved == pytest.approx(kept_after_forward(CONFIGS[family], setup), rel=0.01)


def kept_after_forward(config: dict[str, Any], setup: Setup) -> int:
    """Bytes that a simulated pass holds when its backward pass begins, but for tokens and labels."""
    made = make(config, LORA, setup)
    every = [everyone(stack.path, stack.length) for stack in stacks(made.model)]
    record = run(made, setup, every, Tracker(1), CPU)
    end = next(start for start, place in record.marks if place.phase == "backward")
    level = sum(record.blocks[abs(e) - 1].bytes * (1 if e > 0 else -1) for e in record.events[:end])
    return int(level - sum(tensor.nbytes for tensor in inputs(made.model, setup).values()))
