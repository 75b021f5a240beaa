"""Experts in FP8, simulated by transformers' own FP8Experts: the analytic peak and the FLOPs beside it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.near import is_near
from tools.compare_memory import simulated
from tools.memory_grid import Point
from tools.random_flops import analytic_flops, simulated_flops

pytest.importorskip("torch")

USUAL: dict[str, Any] = {
    "method": "qlora", "precision": "bf16", "autocast": False, "optimizer": "adamw", "optimizer_kernel": "fused",
    "checkpointing": "none", "attention_kernel": "sdpa", "packing": "full", "loss": "fused", "accumulation": 1,
    "quantize": "fp8", "quantize_experts": True, "upcast_small": False, "lora_dropout": 0.0, "adapter_dtype": None,
    "rank": 8, "layers": "attention", "experts": "none", "micro_batch": 2, "seq_len": 1024,
}  # fmt: skip
GRANITE, QWEN, DEEPSEEK = (
    "ibm-granite/granite-3.1-1b-a400m-instruct",
    "Qwen/Qwen3-30B-A3B",
    "deepseek-ai/DeepSeek-V3",
)
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "small": (GRANITE, {}),
    "norms in float32": (GRANITE, {"upcast_small": True, "checkpointing": "layer"}),
    "pairs on experts": (GRANITE, {"layers": "all-linear", "experts": "per-expert"}),
    "all made whole at once": (QWEN, {}),
    "pairs on experts and the router": (QWEN, {"layers": "all-linear", "experts": "per-expert"}),
    "in turns, a gibibyte each": (DEEPSEEK, {"checkpointing": "layer"}),
}


@pytest.mark.parametrize("case", CASES)
def test_peak_and_flops_are_those_of_the_simulation(case: str) -> None:
    model, options = CASES[case]
    point = Point("experts", model, {**USUAL, **options})
    assert is_near(point, 0.001)
    assert analytic_flops(point) == simulated_flops(point)


def test_experts_with_biases_are_refused() -> None:
    """As transformers' class asserts."""
    row = simulated(Point("experts", "openai/gpt-oss-20b", USUAL))
    assert "Its experts have biases" in row.reason
