"""FLOPs of an estimate against those that the simulated step counts, where the library runs more than the pairs."""

from __future__ import annotations

from typing import Any

import pytest

from planner import estimate
from planner.adapter import AdapterSpec
from planner.setup import Setup
from planner.simulate.core import simulate_step
from tools.tiny_models import CONFIGS

LLAMA, DEEPSEEK = CONFIGS["llama"], CONFIGS["deepseek_v3 dense prefix and experts"]
CASES: dict[str, tuple[dict[str, Any], dict[str, Any], dict[str, Any]]] = {
    # DoRA makes W x again of what dropout leaves, and so it does where a trainer sets the rate to 0.
    "dropped": (LLAMA, {"variant": "dora"}, {"lora_dropout": 0.1}),
    "dropped and run again": (LLAMA, {"variant": "dora"}, {"lora_dropout": 0.1, "checkpointing": "layer"}),
    "dropped by name": (
        LLAMA, {"variant": "dora"}, {"lora_dropout": 0.1, "objective": "dpo", "reference": "precomputed"},
    ),
    # A pass without gradients comes first, whose lowered weights the trained one must not take.
    "kto, lowered": (LLAMA, {}, {"objective": "kto", "autocast": True}),
    # PEFT turns names of modules of this type into parameters, into which it folds pairs.
    "folded": (DEEPSEEK, {}, {}),
    "folded and run again": (DEEPSEEK, {}, {"checkpointing": "layer"}),
    # What bitsandbytes' products keep is no part of a checkpoint, which stops before a last one.
    "int8": (LLAMA, {"layers": ("attention",)}, {"quantize": "int8", "checkpointing": "layer"}),
}  # fmt: skip


@pytest.mark.parametrize("name", sorted(CASES))
def test_an_estimate_counts_what_the_library_runs(name: str) -> None:
    config, pairs, how = CASES[name]
    layers = pairs.get("layers", ("all-linear",))
    spec = AdapterSpec(rank=8, alpha=8, layers=layers, experts="none", variant=pairs.get("variant", "lora"))
    setup = Setup(
        method="qlora" if "quantize" in how else "lora",
        seq_len=32,
        micro_batch=2,
        attention_kernel="eager",
        **how,
    )
    options = {**how, "checkpointing": "checkpointing" in how}
    found = estimate(
        config, rank=8, layers=",".join(layers), experts="none", variant=spec.variant, seq_len=32, batch=2,
        loss="full", **options,
    )  # fmt: skip
    assert found.flops is not None
    assert found.flops.counted_lora == simulate_step(config, spec, setup).total_flops
