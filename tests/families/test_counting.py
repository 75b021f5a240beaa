"""The tests' own sum of FLOPs is that of torch's counter."""

from __future__ import annotations

from typing import Any

import pytest
from torch.utils.flop_counter import FlopCounterMode

from tools.tiny_models import CONFIGS

from .. import oracle

TWO: dict[str, Any] = {"num_hidden_layers": 2}
KINDS: dict[str, dict[str, Any]] = {
    "llama": TWO, "gemma2 eager, capped": TWO, "gpt2": {"n_layer": 2}, "qwen3_moe": TWO,
    "t5 two stacks": {"num_layers": 2, "num_decoder_layers": 2}, "jamba mamba and attention": TWO,
}  # fmt: skip


@pytest.mark.parametrize("checkpointing", [False, True])
@pytest.mark.parametrize("kind", KINDS)
def test_flops_are_those_of_torchs_counter(kind: str, checkpointing: bool) -> None:
    config = {**CONFIGS[kind], **KINDS[kind]}
    model = oracle.cpu_model(config)
    if checkpointing:
        model.gradient_checkpointing_enable()
    if kind == "llama":
        model = oracle.with_lora(model, 2)
    inputs = oracle.token_inputs(config, 2, 7)
    with FlopCounterMode(display=False) as counter:
        model(**inputs).loss.backward()
    assert oracle.count_flops(model, inputs) == counter.get_total_flops() > 0
