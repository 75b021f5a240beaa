"""Layers that run again by LLaMA-Factory's own code, against what torch's profiler saw of it."""

from __future__ import annotations

from typing import Any

import pytest

from planner.running import running

TINY: dict[str, Any] = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": 2000, "hidden_size": 256,
    "intermediate_size": 1024, "num_hidden_layers": 4, "num_attention_heads": 4, "num_key_value_heads": 2,
    "tie_word_embeddings": False, "max_position_embeddings": 2048,
}  # fmt: skip
LOG_SOFTMAX = 4 * 512 * 2000 * 4
# Bytes held when the loss is there, beyond weights: prepare_model_for_training of 0.9.3 and 0.9.5
# (model/model_utils/checkpointing.py), what is trained in float32 and LoRA of rank 8 on all layers' matrices as
# model/adapter.py makes them, on a CPU with transformers 5.6, PEFT 0.18 and bf16 under accelerate's autocast.
HELD = {
    ("lora", None): 22_855_432,
    ("lora", "none"): 139_628_776,
    ("full", None): 31_350_536,
    ("full", "none"): 165_216_264,
}

# So too with pure_bf16, where there is no autocast and nothing is cast: PEFT leaves pairs float32.
PURE = {
    ("lora", None): 22_855_432, ("lora", "none"): 182_141_160, ("full", None): 24_952_584,
    ("full", "none"): 134_176_776,
}  # fmt: skip


@pytest.mark.parametrize(("method", "checkpointing"), HELD)
@pytest.mark.parametrize("trainer", ["llama-factory-0.9.4", "llama-factory-0.9.5"])
def test_what_its_own_code_holds(trainer: str, method: str, checkpointing: str | None) -> None:
    asked: dict[str, Any] = {
        "trainer": trainer,
        "method": method,
        "batch": 4,
        "seq_len": 512,
        "packing": "full",
    }
    asked |= {"rank": 8, "targets": "all-linear"} if method == "lora" else {}
    found = running(TINY, asked | ({"checkpointing": checkpointing} if checkpointing else {})).memory()
    loss = next(moment.parts() for moment in found.moments if moment.phase == "loss")
    lowered = (
        2 * 256 * (4 * 512 + 2000) if method == "full" else 0
    )  # hidden states and unembedding in 16 bits
    held = HELD[method, checkpointing] - LOG_SOFTMAX - lowered
    assert loss["activations"] == pytest.approx(held, rel=0.035)


@pytest.mark.parametrize(("method", "checkpointing"), PURE)
def test_what_its_own_code_holds_with_pure_bf16(method: str, checkpointing: str | None) -> None:
    asked: dict[str, Any] = {"trainer": "llama-factory-0.9.5", "method": method, "batch": 4, "seq_len": 512}
    asked |= {"packing": "full", "precision": "bf16", "autocast": False}
    asked |= {"rank": 8, "targets": "all-linear"} if method == "lora" else {}
    found = running(TINY, asked | ({"checkpointing": checkpointing} if checkpointing else {})).memory()
    loss = next(moment.parts() for moment in found.moments if moment.phase == "loss")
    assert loss["activations"] == pytest.approx(PURE[method, checkpointing] - LOG_SOFTMAX, rel=0.035)
