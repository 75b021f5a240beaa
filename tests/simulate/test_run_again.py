"""A checkpointed layer runs again when its backward pass first asks for something kept, not when that begins.

Until then the gradients of its last operations are made (a sum, PEFT's cast to the values' type, the scaling), which
wait meanwhile. Vocabularies are small, so that a layer makes the peak; torch's own automatic differentiation runs
what is simulated.
"""

from __future__ import annotations

from typing import Any

import pytest

from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.running import running

pytest.importorskip("torch")

LLAMA: dict[str, Any] = {
    "model_type": "llama", "architectures": ["LlamaForCausalLM"], "hidden_size": 1024, "num_hidden_layers": 3,
    "num_attention_heads": 16, "num_key_value_heads": 4, "intermediate_size": 2816, "vocab_size": 1000,
    "max_position_embeddings": 4096,
}  # fmt: skip
GEMMA = {**LLAMA, "model_type": "gemma2", "architectures": ["Gemma2ForCausalLM"], "head_dim": 64}
ALL = {"layers": "all-linear"}
CASES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "all": (LLAMA, ALL),
    "in 16 bits": (LLAMA, {**ALL, "adapter_dtype": "bfloat16"}),
    "up and down": (LLAMA, {"targets": "up_proj,down_proj"}),
    "attention alone": (LLAMA, {"layers": "attention"}),
    "dropout": (LLAMA, {**ALL, "lora_dropout": 0.05}),
    "autocast": (LLAMA, {**ALL, "precision": "autocast"}),
    "4 bits, attention alone": (LLAMA, {"layers": "attention", "quantize": "nf4"}),
    "8 bits": (LLAMA, {"layers": "mlp", "quantize": "int8"}),
    "DoRA": (LLAMA, {"layers": "mlp", "variant": "dora"}),
    "offloaded": (LLAMA, {**ALL, "checkpointing": "layer-offload"}),
    "reentrant": (LLAMA, {**ALL, "reentrant": True}),
    "norms behind, flash": (GEMMA, ALL),  # of which flash attention makes no mask
}


@pytest.mark.parametrize("name", CASES)
def test_as_torch_runs_it_again(name: str) -> None:
    from planner.simulate.core import simulate_step

    config, options = CASES[name]
    run = running(config, {
        "method": "qlora" if "quantize" in options else "lora", "rank": 16, "precision": "bf16", "batch": 4,
        "seq_len": 2048, "packing": "full", "attention_kernel": "flash", "checkpointing": "layer", **options,
    })  # fmt: skip
    peak = simulate_step(config, run.spec, run.setup).peak
    assert peak.place.phase == "backward" and peak.place.layer >= 0
    assert abs((run.memory().allocated_bytes - WORKSPACES * WORKSPACE_BYTES) / peak.bytes - 1) <= 0.002
