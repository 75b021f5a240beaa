"""What single choices change in a simulated step, by numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from planner.adapter import AdapterSpec
from planner.errors import ConfigError, InputError
from planner.setup import Setup
from planner.simulate.core import Simulation, simulate_step
from planner.simulate.timeline import PARTS

from .small import CONFIGS, LORA

LLAMA = CONFIGS["llama"]
TOKENS, VOCAB, WIDTH = 2 * 32, 320, 64
BASE = Setup(micro_batch=2, seq_len=32, method="lora")


def run(setup: Setup, spec: AdapterSpec | None = LORA, config: dict[str, Any] = LLAMA) -> Simulation:
    return simulate_step(config, spec, setup, block_bytes=1)


def part(found: Simulation, phase: str, name: str) -> int:
    return found.moments[phase].parts[PARTS.index(name)]


def test_losses_hold_their_copies_of_the_logits() -> None:
    """Peak of the loss: logits in 16 bits, cast to float32, log-softmax of these; before transformers 4.50 the cast
    alone, its copy of all but the last position and their log-softmax; fused, the logits."""
    narrow, wide, short = TOKENS * VOCAB * 2, TOKENS * VOCAB * 4, 2 * 31 * VOCAB * 4
    held = {
        loss: part(run(replace(BASE, loss=loss)), "loss", "logits") for loss in ("full", "shifted", "fused")
    }
    slack = 3 * 8 * TOKENS + 16  # labels, and sums over rows
    assert held["full"] == pytest.approx(narrow + 2 * wide, abs=slack)
    assert held["shifted"] == pytest.approx(wide + 2 * short, abs=slack)
    assert held["fused"] == pytest.approx(narrow, abs=slack)


@pytest.mark.parametrize("kind", ["nf4", "nf4-double", "int8", "fp8"])
def test_dora_runs_on_quantised_weights(kind: Any) -> None:
    """The magnitudes (one for each output of the 7 matrices of 8 layers) are trained, and norms take memory."""
    setup = replace(BASE, method="qlora", quantize=kind)
    plain, dora = run(setup), run(setup, replace(LORA, variant="dora"))
    outputs = 64 + 2 * 32 + 64 + 2 * 144 + 64
    assert dora.trained - plain.trained == 8 * outputs
    assert dora.moments["forward"].bytes > plain.moments["forward"].bytes


def test_muon_leaves_the_tables_to_adamw() -> None:
    """One float32 state for each matrix's value, two for those of both tables and of the norms' weights."""
    found = run(replace(BASE, method="full", precision="fp32", optimizer="muon"), None)
    matrices = 8 * (64 * 64 * 2 + 2 * 64 * 32 + 3 * 64 * 144)
    others = 2 * VOCAB * WIDTH + 17 * WIDTH
    steps = 4 * 19  # AdamW's step counts
    assert part(found, "optimizer", "optimizer") == pytest.approx(4 * (matrices + 2 * others), abs=steps)


def test_what_cannot_run_is_said_in_one_line() -> None:
    with pytest.raises(InputError, match="flash attention takes 16 bits"):
        run(replace(BASE, precision="fp32", attention_kernel="flash"))
    peft = AdapterSpec(rank=8, layers=("all",), experts="peft")
    with pytest.raises(ConfigError, match="lora_dropout"):
        run(replace(BASE, lora_dropout=0.1), peft, CONFIGS["qwen3_moe"])
