"""Simulated against what a real step on the CPU allocates: a sample of tools/measured_memory.py, and its record."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from planner.setup import Setup
from planner.simulate.tracker import sole_owner
from tools.compare_measured_memory import MOST, points, read
from tools.measured_memory import LORA, STEP, allocated, measure, real, step, taken
from tools.tiny_models import CONFIGS

SETUPS = {
    "bf16": replace(STEP, precision="bf16"),
    "full accumulating": replace(STEP, method="full", accumulation=2),
}
SAMPLE = (
    ("llama", "lora", "none"), ("qwen2 tied", "full", "layer"), ("gpt2", "lora", "layer"),
    ("qwen3_next linear and full", "full", "none"), ("t5 two stacks", "full", "layer"), ("bart", "lora", "none"),
)  # fmt: skip


@pytest.mark.parametrize(("model", "method", "checkpointing"), SAMPLE)
def test_a_real_step_takes_what_was_simulated(model: str, method: str, checkpointing: str) -> None:
    found = measure(CONFIGS[model], replace(STEP, method=method, checkpointing=checkpointing))  # type: ignore[arg-type]
    assert found.simulated_held == pytest.approx(found.held, rel=0.002)
    assert found.simulated_top == pytest.approx(found.top, rel=0.002)


@pytest.mark.parametrize("setup", SETUPS.values(), ids=SETUPS)
def test_a_few_layers_take_what_a_real_step_does(setup: Setup) -> None:
    made = real(CONFIGS["llama"], LORA, setup)
    once = step(made, setup)
    if setup.accumulation > 1:
        once()
    assert allocated(once)[0] == pytest.approx(taken(CONFIGS["llama"], setup), rel=0.001)


def test_a_layer_that_runs_again_holds_what_a_real_one_does() -> None:
    """Its sums are made anew, not in place, and attention's weights go with the product that read them."""
    found = measure(CONFIGS["llama"], replace(STEP, precision="bf16", checkpointing="layer", seq_len=256))
    assert found.simulated_top == pytest.approx(found.top, rel=0.002)


def test_autocast_as_torch_runs_it() -> None:
    """Autocast's choices of types are ours on the meta device, and torch's own on the CPU. Llama's code asks
    for types wherever the lists of CUDA and the CPU differ."""
    setup = replace(STEP, precision="autocast")
    made = real(CONFIGS["llama"], LORA, setup)
    once = step(made, setup)

    def under() -> None:
        with torch.autocast("cpu", torch.bfloat16):
            once()

    assert allocated(under)[0] == pytest.approx(taken(CONFIGS["llama"], setup), rel=0.01)


def test_gradients_meet_as_autograd_lets_them() -> None:
    """The gradient of a tied table meets the other's in a third tensor, since the first is a view."""
    config = {**CONFIGS["qwen2 tied"], "vocab_size": 20000}
    found = measure(config, replace(STEP, method="full", micro_batch=1, seq_len=4))
    assert sole_owner() is not None
    assert found.simulated_top == pytest.approx(found.top, rel=0.001)
    assert found.top > 3 * 20000 * 64 * 4


def test_the_record_is_whole_and_within_its_limit() -> None:
    rows = read()
    assert [(row.model, row.method, row.checkpointing) for row in rows] == list(points())
    assert all(abs(error) <= MOST for row in rows for error in row.errors)
