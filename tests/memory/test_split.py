"""A loss by pieces that are all kept (litgpt, torchtune): the analytic peak against the simulated one, with a short
last piece and without, the unembedding frozen, adapted and trained in full."""

from __future__ import annotations

from typing import Any

import pytest

from tests.near import is_near
from tools.memory_grid import Point

pytest.importorskip("torch")

USUAL: dict[str, Any] = {
    "precision": "bf16", "autocast": False, "optimizer": "adamw", "optimizer_kernel": "fused",
    "checkpointing": "layer", "attention_kernel": "sdpa", "packing": "full", "accumulation": 1, "quantize": "none",
    "upcast_small": False, "lora_dropout": 0.0, "adapter_dtype": None, "micro_batch": 2, "seq_len": 1024,
}  # fmt: skip
PAIRS = {"method": "lora", "rank": 8, "layers": "all-linear", "experts": "none"}
FULL = {"method": "full"}
CASES: dict[str, dict[str, Any]] = {
    "litgpt's, a short last piece": {**PAIRS, "loss": "split", "loss_chunk": 384},
    "the same under autocast": {**PAIRS, "loss": "split", "loss_chunk": 600, "precision": "autocast"},
    "torchtune's": {**PAIRS, "loss": "split-wide", "loss_chunk": 600},
    "of whole pieces": {**PAIRS, "loss": "split-wide", "loss_chunk": 512},
    "pairs on the unembedding": {
        **PAIRS, "loss": "split-fused", "loss_chunk": 1000, "layers": "attention,unembedding",
    },
    "trained, a weight lowered once": {**FULL, "loss": "split", "loss_chunk": 128, "precision": "autocast"},
    "trained, gradients of pieces": {**FULL, "loss": "split-fused", "loss_chunk": 128},
    "pieces that the loop holds": {**PAIRS, "loss": "split", "loss_chunk": 384, "outputs_held": True},
    "the same where they are kept": {**PAIRS, "loss": "split-fused", "loss_chunk": 384, "outputs_held": True},
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_peak_is_that_of_the_simulation(case: str) -> None:
    """These were 3 to 21 % too high when the last piece was taken to be as large as the others."""
    point = Point("dense", "Qwen/Qwen2.5-0.5B", {**USUAL, **CASES[case]})
    assert is_near(point, 0.004)
