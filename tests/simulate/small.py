"""Small models of many kinds, with enough layers that some can be left out, and real ones of them on the CPU."""

from __future__ import annotations

from typing import Any

import torch

from planner.adapter import AdapterSpec
from planner.setup import Setup
from planner.simulate.model import Made, make

LORA = AdapterSpec(rank=8, layers=("all-linear",), experts="none")
TOKENS = {"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
WIDTHS = {"hidden_size": 64, "intermediate_size": 144, "max_position_embeddings": 2048, **TOKENS}
EXPERTS = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2}


def _config(model_type: str, architecture: str, **fields: Any) -> dict[str, Any]:
    return {**WIDTHS, **HEADS, "model_type": model_type, "architectures": [architecture], **fields}


SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _config("llama", "LlamaForCausalLM", num_hidden_layers=8, tie_word_embeddings=False),
    "qwen2 tied": _config("qwen2", "Qwen2ForCausalLM", num_hidden_layers=7, tie_word_embeddings=True),
    "gemma3 sliding and full": _config(
        "gemma3_text", "Gemma3ForCausalLM", num_hidden_layers=12, layer_types=SLIDING * 4, sliding_window=24,
    ),
    "gemma2 eager, capped": _config("gemma2", "Gemma2ForCausalLM", num_hidden_layers=8, sliding_window=24),
    "qwen3_moe": _config("qwen3_moe", "Qwen3MoeForCausalLM", num_hidden_layers=7, **EXPERTS),
    "deepseek_v3 dense prefix and experts": _config(
        "deepseek_v3", "DeepseekV3ForCausalLM", num_hidden_layers=9, first_k_dense_replace=2, n_group=1, topk_group=1,
        num_key_value_heads=4, n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1,
        moe_intermediate_size=48,
        q_lora_rank=24, kv_lora_rank=16, qk_nope_head_dim=16, qk_rope_head_dim=8, v_head_dim=16, head_dim=8,
    ),
    "jamba mamba and attention": _config(
        "jamba", "JambaForCausalLM", num_hidden_layers=12, attn_layer_period=4, attn_layer_offset=1,
        expert_layer_period=4, expert_layer_offset=3, num_experts=4, mamba_d_state=8, mamba_dt_rank=8,
        use_mamba_kernels=False,
    ),
    "qwen3_next linear and full": _config(
        "qwen3_next", "Qwen3NextForCausalLM", num_hidden_layers=12, full_attention_interval=4,
        linear_num_key_heads=2, linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
        shared_expert_intermediate_size=48, **EXPERTS,
    ),
    "gpt2": {
        "model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "n_embd": 64, "n_head": 4, "n_layer": 7,
        "n_positions": 512, **TOKENS,
    },
    "t5 two stacks": {
        "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_ff": 128, "d_kv": 16,
        "num_heads": 4, "num_layers": 7, "num_decoder_layers": 7, **TOKENS, "decoder_start_token_id": 0,
    },
}  # fmt: skip


def real(config: dict[str, Any], spec: AdapterSpec, setup: Setup) -> Made:
    """The model with weights, on the CPU."""
    made = make(config, spec, setup)
    torch.manual_seed(0)
    model = made.model.to_empty(device="cpu")
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0, 0.02)
        for buffer in model.buffers():
            buffer.fill_(1)
    return Made(model, {}, made.notes)
