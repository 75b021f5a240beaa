"""Small models of every type whose images have an account: as many parts as the real ones, few layers."""

from __future__ import annotations

from typing import Any

from planner.architecture.build import build
from planner.architecture.images import with_images
from planner.schema import Architecture

TEXT: dict[str, Any] = {
    "vocab_size": 320, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 4096,
}  # fmt: skip
SQUARE = {
    "hidden_size": 64, "intermediate_size": 80, "num_hidden_layers": 3, "num_attention_heads": 4, "patch_size": 8,
}  # fmt: skip

QWEN3 = {
    "hidden_size": 64, "depth": 4, "num_heads": 4, "intermediate_size": 80, "out_hidden_size": 64,
    "deepstack_visual_indexes": [1], "num_position_embeddings": 64,
}  # fmt: skip


def _model(model_type: str, name: str, text: str, vision: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {
        "model_type": model_type, "architectures": [f"{name}ForConditionalGeneration"], "image_token_id": 7,
        "text_config": {**TEXT, "model_type": text}, "vision_config": vision, **more,
    }  # fmt: skip


CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2_vl": _model(
        "qwen2_vl", "Qwen2VL", "qwen2_vl_text",
        {"embed_dim": 64, "depth": 3, "num_heads": 4, "mlp_ratio": 2, "hidden_size": 64},
    ),
    "qwen2_5_vl": _model(
        "qwen2_5_vl", "Qwen2_5_VL", "qwen2_5_vl_text",
        {"hidden_size": 64, "depth": 4, "num_heads": 4, "intermediate_size": 80, "out_hidden_size": 64,
         "fullatt_block_indexes": [1, 3]},
    ),
    "qwen3_vl": _model("qwen3_vl", "Qwen3VL", "qwen3_vl_text", QWEN3),
    "qwen3_vl_moe": _model("qwen3_vl_moe", "Qwen3VLMoe", "qwen3_vl_moe_text", QWEN3),
    "qwen3_5": _model("qwen3_5", "Qwen3_5", "qwen3_5_text", QWEN3),
    "qwen3_5_moe": _model("qwen3_5_moe", "Qwen3_5Moe", "qwen3_5_moe_text", QWEN3),
    "gemma3": _model(
        "gemma3", "Gemma3", "gemma3_text", {**SQUARE, "model_type": "siglip_vision_model", "image_size": 64,
                                            "vision_use_head": False},
        mm_tokens_per_image=16,
    ),
    "gemma4": _model(
        "gemma4", "Gemma4", "gemma4_text", {
            **SQUARE, "model_type": "gemma4_vision", "num_key_value_heads": 4, "head_dim": 16, "patch_size": 4,
            "position_embedding_size": 256, "use_clipped_linears": True, "standardize": True,
        },
        vision_soft_tokens_per_image=70, audio_config=None,
    ),
    "idefics3": _model("idefics3", "Idefics3", "llama", {**SQUARE, "image_size": 64}, scale_factor=2),
    "smolvlm": _model("smolvlm", "SmolVLM", "llama", {**SQUARE, "image_size": 32}, scale_factor=2),
    "llava": _model("llava", "Llava", "llama", {**SQUARE, "model_type": "clip_vision_model", "image_size": 64}),
    "internvl": _model(
        "internvl", "InternVL", "qwen2",
        {**SQUARE, "image_size": [64, 64], "patch_size": [8, 8], "attention_bias": True, "use_qk_norm": False},
    ),
    "mistral3": _model(
        "mistral3", "Mistral3", "mistral", {**SQUARE, "model_type": "pixtral", "image_size": 96},
        spatial_merge_size=2, vision_feature_layer=-1,
    ),
    "pixtral": _model(
        "llava", "Llava", "mistral", {**SQUARE, "model_type": "pixtral", "image_size": 64},
        vision_feature_layer=-1, vision_feature_select_strategy="full",
    ),
}  # fmt: skip
CONFIGS["gemma4"]["text_config"].update(
    head_dim=16, global_head_dim=16, hidden_size_per_layer_input=8, vocab_size_per_layer_input=320,
    sliding_window=64, num_kv_shared_layers=0, use_bidirectional_attention="vision",
    layer_types=["sliding_attention", "full_attention"],
)  # fmt: skip
for kind in ("qwen3_vl", "qwen3_vl_moe"):
    CONFIGS[kind]["text_config"].update(
        head_dim=16, rope_scaling={"rope_type": "default", "mrope_section": [2, 3, 3]}
    )
for kind in ("qwen3_5", "qwen3_5_moe"):
    CONFIGS[kind]["text_config"].update(
        head_dim=16, layer_types=["linear_attention", "full_attention"], linear_num_key_heads=2,
        linear_num_value_heads=4, linear_key_head_dim=16, linear_value_head_dim=16,
        rope_parameters={"rope_type": "default", "mrope_section": [1, 1, 0], "partial_rotary_factor": 0.25},
    )  # fmt: skip
CONFIGS["qwen3_5_moe"]["text_config"].update(
    num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32, shared_expert_intermediate_size=32
)
CONFIGS["qwen3_vl_moe"]["text_config"].update(num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32)
for kind in ("qwen2_vl", "qwen2_5_vl"):
    CONFIGS[kind]["text_config"]["rope_scaling"] = {"type": "mrope", "mrope_section": [2, 3, 3]}
CONFIGS["gemma3"]["text_config"].update(head_dim=16, sliding_window=64, layer_types=[
    "sliding_attention", "full_attention",
])  # fmt: skip
SIZES = {"idefics3": "90x60", "smolvlm": "90x60"}


def with_some(kind: str, count: int = 2, size: str | None = None) -> Architecture:
    """The small model of a type with images in every sequence."""
    config = CONFIGS[kind]
    by_size = kind not in ("gemma3", "llava")
    return with_images(build(config), config, count, size or (SIZES.get(kind, "150x90") if by_size else None))
