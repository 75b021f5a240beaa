"""The memory that a file's first lines state is what a review of the file says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from planner import estimate, export, review, units

QWEN = "Qwen/Qwen3-8B"
PLAIN: dict[str, Any] = {"layers": "attention,mlp", "dataset": "alpaca", "batch": 8, "accumulation": 4}


@pytest.mark.parametrize(
    ("target", "options"),
    [
        ("trl-sft", {"quantize": "nf4", "checkpointing": "layer"}),
        ("trl-sft", {"seq_len": 1024}),
        ("trl-sft", {"packing": "padded", "optimizer": "adamw-8bit"}),
        ("axolotl", {"quantize": "nf4", "checkpointing": "layer"}),
        ("axolotl", {"gpus": 2, "sharding": "fsdp"}),
        ("axolotl", {"gpus": 2, "sharding": "zero2"}),
        ("llamafactory", {"model": "bigscience/bloom-560m", "gpus": 2, "sharding": "zero3"}),
        ("llamafactory", {"quantize": "nf4-double", "checkpointing": "layer", "lora_dropout": 0.05}),
        ("llamafactory", {"kernels": "unsloth", "checkpointing": "layer"}),
        ("torchtune", {"model": "meta-llama/Llama-3.1-8B", "checkpointing": "layer"}),
    ],
)
def test_it_is_that_of_the_trainers_own_step(target: str, options: dict[str, Any], tmp_path: Path) -> None:
    options = {"model": QWEN, **PLAIN, **options}
    found = export(target, output=tmp_path, **options)
    stated = re.findall(r"A GPU needs about (.*?) \((.*?) to (.*?); analytic\)", found.text)
    main = next(tmp_path / name for name in found.files if name.endswith(("yaml", "yml")))
    read = review(main, gpus=options.get("gpus", 1), dataset="alpaca")
    memory = (read.plan.memory or {})[read.method]
    assert stated == [tuple(units.byte_size(memory[key]) for key in ("per_gpu_bytes", "low", "high"))]


def test_a_script_that_is_not_read_back_is_of_its_trainer_too() -> None:
    options: dict[str, Any] = {**PLAIN, "quantize": "nf4-double", "checkpointing": "layer"}
    own = estimate(QWEN, **options, trainer="unsloth", optimizer="adamw").memory or {}
    assert (
        f"about {units.byte_size(own['qlora']['per_gpu_bytes'])} (" in export("unsloth", QWEN, **options).text
    )


def test_bf16_under_deepspeed_is_no_autocast() -> None:
    """Its engine computes in 16 bits without: BLOOM had a third more by its norms in float32."""
    options: dict[str, Any] = {"gpus": 2, "sharding": "zero2", "batch": 4, "accumulation": 1, "experts": "peft",
                               "layers": "attention", "packing": "padded", "attention_kernel": "sdpa"}  # fmt: skip
    found = export("llamafactory", "bigscience/bloom-560m", dataset="alpaca", **options)
    own = (
        estimate("bigscience/bloom-560m", **options, trainer="llama-factory", checkpointing="none").memory
        or {}
    )
    assert own["lora"]["setup"]["autocast"] is False
    assert f"about {units.byte_size(own['lora']['per_gpu_bytes'])} (" in found.text
    assert "bf16: true" in found.text
