"""Classifiers of sequences, simulated: one label a sequence; the analytic peak beside it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.near import is_near
from tools.memory_grid import Point

pytest.importorskip("torch")

USUAL: dict[str, Any] = {
    "precision": "bf16", "autocast": False, "optimizer": "adamw", "optimizer_kernel": "fused",
    "checkpointing": "none", "attention_kernel": "sdpa", "packing": "full", "loss": "full", "accumulation": 1,
    "quantize": "none", "upcast_small": False, "lora_dropout": 0.0, "adapter_dtype": None,
    "micro_batch": 8, "seq_len": 512,
}  # fmt: skip
PAIRS = {"method": "lora", "rank": 8, "layers": "all-linear", "experts": "none"}


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("options", [PAIRS, {"method": "full"}], ids=["pairs", "full"])
def test_a_step_of_a_classifier(options: dict[str, Any], labels: int) -> None:
    """One label is a number to come near to, several are classes."""
    changes = {"architectures": ["RobertaForSequenceClassification"], "num_labels": labels}
    point = Point("roberta", "FacebookAI/roberta-base", {**USUAL, **options}, changes)
    assert is_near(point, 0.006)
