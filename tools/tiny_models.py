"""Small models of many kinds, to run with weights on a CPU beside their simulation: configs by name.

Widths are odd enough to tell apart, and every stack has enough layers that a few can stand for all.
"""

from __future__ import annotations

from typing import Any

TOKENS = {"vocab_size": 320, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
HEADS = {"num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 16}
WIDTHS = {"hidden_size": 64, "intermediate_size": 144, "max_position_embeddings": 2048, **TOKENS}
EXPERTS = {"moe_intermediate_size": 48, "num_experts": 8, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 24, "kv_lora_rank": 16, "qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16,
    "head_dim": 8, "num_key_value_heads": 4,
}  # fmt: skip
DELTA = {
    "linear_num_key_heads": 2, "linear_num_value_heads": 4, "linear_key_head_dim": 16, "linear_value_head_dim": 16,
}  # fmt: skip


def _config(model_type: str, architecture: str, **fields: Any) -> dict[str, Any]:
    return {
        **WIDTHS, **HEADS, "num_hidden_layers": 7, "model_type": model_type, "architectures": [architecture],
        **fields,
    }  # fmt: skip


def _older(model_type: str, architecture: str, **fields: Any) -> dict[str, Any]:
    return {"model_type": model_type, "architectures": [architecture], **TOKENS, **fields}


GATED_APART: dict[str, Any] = {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False}


def _seeing(model_type: str, architecture: str, text: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """A model with a small encoder of images."""
    vision = {
        "model_type": "siglip_vision_model" if model_type == "gemma3" else "clip_vision_model", "hidden_size": 32,
        "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 28, "patch_size": 7,
    }  # fmt: skip
    return {
        "model_type": model_type,
        "architectures": [architecture],
        "text_config": text,
        "vision_config": vision,
        **fields,
    }


SLIDING = ["sliding_attention", "sliding_attention", "full_attention"]
T5 = {
    "model_type": "t5", "architectures": ["T5ForConditionalGeneration"], "d_model": 64, "d_ff": 128, "d_kv": 16,
    "num_heads": 4, "num_layers": 7, "num_decoder_layers": 7, **TOKENS, "decoder_start_token_id": 0,
}  # fmt: skip
BART = {
    "model_type": "bart", "architectures": ["BartForConditionalGeneration"], "d_model": 64, "encoder_layers": 5,
    "decoder_layers": 5, "encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 144,
    "decoder_ffn_dim": 144, "max_position_embeddings": 256, "activation_function": "gelu", **TOKENS,
    "decoder_start_token_id": 2,
}  # fmt: skip

# Modules that PEFT cannot adapt in them: a router that gives two results, products that kernels take in.
EXCLUDED = {
    "llama4": ("router",), "nemotron_h": ("out_proj",), "falcon_h1": ("out_proj",), "granitemoehybrid": ("out_proj",),
    "jamba mamba and attention": ("out_proj",), "mamba": ("out_proj",),
}  # fmt: skip

CONFIGS: dict[str, dict[str, Any]] = {
    "llama": _config("llama", "LlamaForCausalLM", num_hidden_layers=8, tie_word_embeddings=False),
    "qwen2 tied": _config("qwen2", "Qwen2ForCausalLM", tie_word_embeddings=True),
    "qwen3": _config("qwen3", "Qwen3ForCausalLM", tie_word_embeddings=False),
    "mistral sliding": _config("mistral", "MistralForCausalLM", sliding_window=24, tie_word_embeddings=False),
    "gemma3 sliding and full": _config(
        "gemma3_text", "Gemma3ForCausalLM", num_hidden_layers=12, layer_types=SLIDING * 4, sliding_window=24,
    ),
    "gemma2 eager, capped": _config("gemma2", "Gemma2ForCausalLM", num_hidden_layers=8, sliding_window=24),
    "phi3 fused": _config("phi3", "Phi3ForCausalLM", tie_word_embeddings=False),
    "granite": _config("granite", "GraniteForCausalLM", tie_word_embeddings=True),
    "olmo2": _config("olmo2", "Olmo2ForCausalLM", tie_word_embeddings=False),
    "olmo3": _config(
        "olmo3", "Olmo3ForCausalLM", num_hidden_layers=9, layer_types=SLIDING * 3, sliding_window=24,
    ),
    "glm4": _config("glm4", "Glm4ForCausalLM", tie_word_embeddings=False),
    "cohere": _config("cohere", "CohereForCausalLM"),
    "exaone4": _config("exaone4", "Exaone4ForCausalLM", layer_types=["full_attention"] * 7, sliding_window=None),
    "smollm3": _config("smollm3", "SmolLM3ForCausalLM"),
    "stablelm": _config("stablelm", "StableLmForCausalLM"),
    "starcoder2": _config("starcoder2", "Starcoder2ForCausalLM", tie_word_embeddings=False),
    "gpt2": _older("gpt2", "GPT2LMHeadModel", n_embd=64, n_head=4, n_layer=7, n_positions=512),
    "gptj": _older("gptj", "GPTJForCausalLM", n_embd=64, n_head=4, n_layer=7, n_positions=512, rotary_dim=8),
    "gpt_neox": _older(
        "gpt_neox", "GPTNeoXForCausalLM", hidden_size=64, intermediate_size=256, num_attention_heads=4,
        num_hidden_layers=7, max_position_embeddings=512,
    ),
    "opt": _older(
        "opt", "OPTForCausalLM", hidden_size=64, word_embed_proj_dim=64, ffn_dim=256, num_attention_heads=4,
        num_hidden_layers=7, max_position_embeddings=512,
    ),
    "bloom": _older("bloom", "BloomForCausalLM", hidden_size=64, n_head=4, n_layer=7),
    "falcon": _older(
        "falcon", "FalconForCausalLM", hidden_size=64, num_attention_heads=4, num_hidden_layers=7, multi_query=True,
        parallel_attn=True, new_decoder_architecture=False, bias=False, alibi=False,
    ),
    "phi": _older(
        "phi", "PhiForCausalLM", hidden_size=64, intermediate_size=256, num_attention_heads=4, num_hidden_layers=7,
        max_position_embeddings=512,
    ),
    "qwen3_moe": _config("qwen3_moe", "Qwen3MoeForCausalLM", **EXPERTS),
    "mixtral": _config("mixtral", "MixtralForCausalLM", num_local_experts=4, num_experts_per_tok=2),
    "gpt_oss": _config(
        "gpt_oss", "GptOssForCausalLM", num_local_experts=4, num_experts_per_tok=2, sliding_window=24,
        num_hidden_layers=8, layer_types=["sliding_attention", "full_attention"] * 4,
    ),
    "granitemoe": _config("granitemoe", "GraniteMoeForCausalLM", num_local_experts=4, num_experts_per_tok=2),
    "deepseek_v3 dense prefix and experts": _config(
        "deepseek_v3", "DeepseekV3ForCausalLM", num_hidden_layers=9, first_k_dense_replace=2, n_group=1, topk_group=1,
        n_routed_experts=8, num_experts_per_tok=2, n_shared_experts=1, moe_intermediate_size=48, **LATENT,
    ),
    "llama4": _config(
        "llama4_text", "Llama4ForCausalLM", num_local_experts=4, num_experts_per_tok=1, intermediate_size_mlp=144,
        num_hidden_layers=8, interleave_moe_layer_step=2, attention_chunk_size=512,
    ),
    "jamba mamba and attention": _config(
        "jamba", "JambaForCausalLM", num_hidden_layers=12, attn_layer_period=4, attn_layer_offset=1,
        expert_layer_period=4, expert_layer_offset=3, num_experts=4, mamba_d_state=8, mamba_dt_rank=8,
        use_mamba_kernels=False,
    ),
    "mamba": _older("mamba", "MambaForCausalLM", hidden_size=64, num_hidden_layers=7, state_size=8),
    "qwen3_next linear and full": _config(
        "qwen3_next", "Qwen3NextForCausalLM", num_hidden_layers=12, full_attention_interval=4,
        shared_expert_intermediate_size=48, **DELTA, **EXPERTS,
    ),
    "qwen3_5 linear and full": _config(
        "qwen3_5_text", "Qwen3_5ForCausalLM", num_hidden_layers=12, full_attention_interval=4, **DELTA,
    ),
    "nemotron_h": _config(
        "nemotron_h", "NemotronHForCausalLM", num_hidden_layers=9, hybrid_override_pattern="M-M*-M-M*",
        mamba_num_heads=8, mamba_head_dim=16, ssm_state_size=16, n_groups=2, chunk_size=16,
    ),
    "falcon_h1": _config(
        "falcon_h1", "FalconH1ForCausalLM", mamba_d_ssm=128, mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16,
        mamba_n_groups=1, mamba_chunk_size=16,
    ),
    "granitemoehybrid": _config(
        "granitemoehybrid", "GraniteMoeHybridForCausalLM", num_hidden_layers=8,
        layer_types=["mamba", "mamba", "mamba", "attention"] * 2, mamba_n_heads=8, mamba_d_head=16, mamba_d_state=16,
        mamba_n_groups=1, mamba_expand=2, mamba_chunk_size=16, num_local_experts=4, num_experts_per_tok=2,
        shared_intermediate_size=48,
    ),
    "lfm2": _config("lfm2", "Lfm2ForCausalLM", num_hidden_layers=8, full_attn_idxs=[2, 5, 7]),
    "t5 two stacks": T5,
    "flan-t5": {**T5, "feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
    "bart": BART,
    "mbart": {**BART, "model_type": "mbart", "architectures": ["MBartForConditionalGeneration"]},
    "whisper": {
        **BART, "model_type": "whisper", "architectures": ["WhisperForConditionalGeneration"], "num_mel_bins": 20,
        "max_source_positions": 80, "max_target_positions": 256,
    },
    "mt5": {**T5, "model_type": "mt5", "architectures": ["MT5ForConditionalGeneration"], **GATED_APART},
    "pegasus": {**BART, "model_type": "pegasus", "architectures": ["PegasusForConditionalGeneration"]},
    "bert": _older(
        "bert", "BertForMaskedLM", hidden_size=64, intermediate_size=144, num_attention_heads=4, num_hidden_layers=7,
    ),
    "modernbert": _config("modernbert", "ModernBertForMaskedLM", cls_token_id=1, sep_token_id=2),
    "gpt_bigcode": _older("gpt_bigcode", "GPTBigCodeForCausalLM", n_embd=64, n_head=4, n_layer=7, n_positions=512),
    "mpt": _older("mpt", "MptForCausalLM", d_model=64, n_heads=4, n_layers=7, max_seq_len=256),
    "opt-350m's narrow ends": _older(
        "opt", "OPTForCausalLM", hidden_size=64, word_embed_proj_dim=32, ffn_dim=256, num_attention_heads=4,
        num_hidden_layers=7, max_position_embeddings=512, do_layer_norm_before=False,
    ),
    "qwen2_moe, fused experts and a shared one": _config(
        "qwen2_moe", "Qwen2MoeForCausalLM", shared_expert_intermediate_size=48, **EXPERTS
    ),
    "olmoe, fused experts": _config("olmoe", "OlmoeForCausalLM", **EXPERTS),
    "glm4_moe, fused experts": _config(
        "glm4_moe", "Glm4MoeForCausalLM", n_routed_experts=8, n_shared_experts=1, first_k_dense_replace=1,
        num_experts_per_tok=2, moe_intermediate_size=48, n_group=1, topk_group=1,
    ),
    "lfm2_moe, fused experts": _config(
        "lfm2_moe", "Lfm2MoeForCausalLM", num_hidden_layers=8, num_dense_layers=1, **EXPERTS,
        layer_types=["conv", "conv", "full_attention", "conv"] * 2,
    ),
    "gemma3 with images, text alone": _seeing(
        "gemma3", "Gemma3ForConditionalGeneration", _config("gemma3_text", "", sliding_window=24),
        image_token_index=5, mm_tokens_per_image=4,
    ),
    "llava, text alone": _seeing(
        "llava", "LlavaForConditionalGeneration", _config("llama", ""), image_token_index=5
    ),
    "qwen2_vl, text alone": _config(
        "qwen2_vl", "Qwen2VLForConditionalGeneration", image_token_id=5, video_token_id=6, vision_start_token_id=7,
        rope_parameters={"rope_type": "default", "rope_theta": 1e4, "mrope_section": [2, 3, 3]},
        vision_config={"depth": 2, "embed_dim": 32, "hidden_size": 64, "num_heads": 2, "mlp_ratio": 2},
    ),
}  # fmt: skip

# What libraries refuse of them: DoRA on experts that PEFT reaches as bare parameters alone.
BARE = ("deepseek_v3 dense prefix and experts", "qwen3_next linear and full", "glm4_moe, fused experts")
REFUSED = {(model, ("dora", checkpointing)) for model in BARE for checkpointing in ("none", "layer")}
