"""Analytic peaks of small models against the simulated ones, for types whose layers have rules of their own."""

from __future__ import annotations

from typing import Any

import pytest

from planner import estimate
from planner.adapter import AdapterSpec, adapt
from planner.adapter.whole import trained_whole
from planner.architecture.build import build
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.setup import Setup

pytest.importorskip("torch")

USUAL: dict[str, Any] = {
    "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 8192, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "max_position_embeddings": 4096, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {
    "moe_intermediate_size": 256, "num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2,
    "shared_expert_intermediate_size": 256, "num_dense_layers": 1,
}  # fmt: skip
CONFIGS: dict[str, dict[str, Any]] = {
    "BertForMaskedLM": {"model_type": "bert"},
    "ModernBertForMaskedLM": {"model_type": "modernbert", "cls_token_id": 1, "sep_token_id": 2},
    "GraniteSWAForCausalLM": {"model_type": "granite_swa"},
    "DogeForCausalLM": {"model_type": "doge"},
    "Qwen2MoeForCausalLM": {"model_type": "qwen2_moe", **EXPERTS},
    "GraniteMoeSharedForCausalLM": {
        "model_type": "granitemoeshared", **EXPERTS, "intermediate_size": 256, "shared_intermediate_size": 256,
    },
    "Lfm2MoeForCausalLM": {
        "model_type": "lfm2_moe", **EXPERTS, "layer_types": ["conv", "conv", "full_attention", "conv"],
    },
    "GPTNeoXJapaneseForCausalLM": {"model_type": "gpt_neox_japanese", "rotary_pct": 1.0},
    "Jais2ForCausalLM": {"model_type": "jais2"},
    "XGLMForCausalLM": {
        "model_type": "xglm", "d_model": 512, "ffn_dim": 1408, "num_layers": 4, "attention_heads": 8,
        "max_position_embeddings": 512,
    },
    "Gemma4ForCausalLM": {
        "model_type": "gemma4_text", "hidden_size_per_layer_input": 256, "vocab_size_per_layer_input": 4096,
        "head_dim": 64, "global_head_dim": 64, "num_kv_shared_layers": 0,
        "final_logit_softcapping": 30.0,
    },
    "CamembertForCausalLM": {"model_type": "camembert"},
    "HyperCLOVAXForCausalLM": {"model_type": "hyperclovax", "use_post_norm": True},
    "FlexOlmoForCausalLM": {"model_type": "flex_olmo", **EXPERTS, "intermediate_size": 256},
    "LagunaForCausalLM": {
        "model_type": "laguna", **EXPERTS, "head_dim": 64,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
            for kind in ("full_attention", "sliding_attention")
        },
    },
}  # fmt: skip


def test_every_expert_on_every_token_under_autocast() -> None:
    """Llama 4's experts by products that autocast lowers: all their weights in 16 bits are held forward."""
    from planner.simulate.core import simulate_step

    config = {
        **USUAL, **EXPERTS, "model_type": "llama4_text", "head_dim": 64, "intermediate_size": 1024,
        "architectures": ["Llama4ForCausalLM"],
    }  # fmt: skip
    arch, setup = build(config), Setup(method="full", precision="autocast", seq_len=256)
    found = estimate_memory(arch, setup).allocated_bytes - WORKSPACES * WORKSPACE_BYTES
    assert found == pytest.approx(simulate_step(config, None, setup, arch=arch).peak.bytes, rel=0.005)


@pytest.mark.parametrize("name", sorted(CONFIGS))
@pytest.mark.parametrize("kernel", ["sdpa", "eager"])
def test_peaks_are_those_of_the_simulation(name: str, kernel: Any) -> None:
    from planner.simulate.core import simulate_step

    config = {**USUAL, **CONFIGS[name], "architectures": [name]}
    arch, setup = build(config), Setup(method="lora", micro_batch=2, seq_len=512, attention_kernel=kernel)
    spec = AdapterSpec(rank=8, layers=("attention",), experts="none")
    pairs = adapt(arch, spec)
    found = estimate_memory(arch, setup, pairs, trained_whole(arch, spec, pairs))
    ours = found.allocated_bytes - WORKSPACES * WORKSPACE_BYTES
    assert ours == pytest.approx(simulate_step(config, spec, setup, arch=arch).peak.bytes, rel=0.025)


USUAL_STEP: dict[str, Any] = {"method": "lora", "micro_batch": 2, "seq_len": 512}
QUANTISED: dict[str, Any] = {"method": "qlora", "quantize": "nf4"}
CHOICES: dict[str, dict[str, Any]] = {
    "reentrant": {"checkpointing": "layer", "reentrant": True, "autocast": True, "loss": "chunked"},
    "outputs held": {"outputs_held": True, "loss": "fused"},
    "outputs held, shifted": {"outputs_held": True, "loss": "shifted"},
    "loss in float32": {"loss": "wide"},
    "logits divided": {"loss": "scaled-fused"},
    "loss in float32, in place": {"loss": "wide-in-place"},
    "outputs widened": {"outputs_widened": True, "autocast": True, "loss": "fused"},
    "outputs widened, shifted": {"outputs_widened": True, "autocast": True, "loss": "shifted"},
    "inputs kept": {**QUANTISED, "quantised_inputs_kept": True},
    "wide norms": {**QUANTISED, "upcast_norms": True, "checkpointing": "layer"},
    "wide norms, autocast": {**QUANTISED, "upcast_norms": True, "autocast": True},
    "math attention": {"attention_kernel": "math", "autocast": True},
    "math attention, masked": {"attention_kernel": "math", "packing": "padded", "checkpointing": "layer"},
    "dpo": {"objective": "dpo", "loss": "tiled", "checkpointing": "layer"},
    "dpo, all logits": {"objective": "dpo", "loss": "full", "autocast": True, "packing": "padded"},
    "kto": {"objective": "kto", "loss": "tiled", "reference": "precomputed"},
    "grpo": {
        "objective": "grpo",
        "loss": "tiled",
        "reference": "none",
        "generation": "server",
        "prompt_tokens": 100,
        "checkpointing": "layer",
    },
    "dora beside 4 bits": {**QUANTISED, "autocast": True, "variant": "dora"},
}
MODELS: dict[str, dict[str, Any]] = {
    "llama": {"model_type": "llama"},
    "gemma2": {"model_type": "gemma2", "head_dim": 64, "tie_word_embeddings": True},
    "gpt2": {"model_type": "gpt2", "n_embd": 512, "n_layer": 4, "n_head": 8, "n_positions": 4096},
}


@pytest.mark.parametrize("model", sorted(MODELS))
@pytest.mark.parametrize("choice", sorted(CHOICES))
def test_choices_of_trainers_are_those_of_the_simulation(model: str, choice: str) -> None:
    """What a trainer's loop holds, and what older libraries kept or widened, on either side."""
    from planner.simulate.core import simulate_step

    given = {**USUAL_STEP, **CHOICES[choice]}
    config, variant = {**USUAL, **MODELS[model]}, given.pop("variant", "lora")
    arch, setup = build(config), Setup(**given)
    spec = AdapterSpec(rank=8, layers=("attention", "mlp"), experts="none", variant=variant)
    pairs = adapt(arch, spec)
    found = estimate_memory(arch, setup, pairs, trained_whole(arch, spec, pairs))
    ours = found.allocated_bytes - WORKSPACES * WORKSPACE_BYTES
    assert ours == pytest.approx(simulate_step(config, spec, setup, arch=arch).peak.bytes, rel=0.01)


def test_a_scan_without_a_rule_leaves_the_memory_open() -> None:
    plan = estimate({"model_type": "kimi_linear", **USUAL, "num_key_value_heads": 8}, gpu="H100")
    assert plan.memory is None
    assert any(notice.code == "no-memory" for notice in plan.warnings)
