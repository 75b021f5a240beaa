"""Which 16-bit format a run takes on GPUs without units for bfloat16."""

from __future__ import annotations

from typing import Any

import pytest

from planner import estimate
from planner.running import running
from planner.search import plan


def test_float16_is_taken_where_nobody_says_otherwise() -> None:
    def precision(**options: Any) -> str:
        return running("meta-llama/Llama-3.1-8B", options).setup.precision

    assert precision(gpu="t4") == precision(gpu="v100", trainer="trl") == "fp16"
    assert precision(gpu="t4", precision="bf16") == precision(gpu="a100") == precision() == "bf16"
    given: dict[str, Any] = {
        "tokens": "10M", "gpus": 1, "quantize": "nf4-double", "checkpointing": "layer", "layers": "mlp",
    }  # fmt: skip
    found = plan("Qwen/Qwen3-8B", gpu="t4", **given).best
    again = estimate(
        "Qwen/Qwen3-8B", gpu="t4", rank=found.choice.rank, layers="mlp", quantize="nf4-double", checkpointing="layer",
        accumulation=found.choice.accumulation, batch=32,
    )  # fmt: skip
    assert again.time and again.time["step"]["seconds"] == pytest.approx(found.run.step.seconds)
    assert (
        found.run.step.seconds
        < 0.4 * plan("Qwen/Qwen3-8B", gpu="t4", precision="bf16", **given).best.run.step.seconds
    )
