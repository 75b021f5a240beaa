"""Configs of models that see images and are not in the catalogue."""

from __future__ import annotations

from typing import Any

# Of the shape of published models that are not in the catalogue.
SMOLVLM: dict[str, Any] = {
    "model_type": "smolvlm", "architectures": ["SmolVLMForConditionalGeneration"], "scale_factor": 4,
    "vision_config": {"model_type": "smolvlm_vision", "hidden_size": 768, "intermediate_size": 3072,
                      "num_hidden_layers": 12, "num_attention_heads": 12, "image_size": 512, "patch_size": 16},
    "text_config": {"model_type": "llama", "hidden_size": 576, "intermediate_size": 1536, "num_hidden_layers": 30,
                    "num_attention_heads": 9, "num_key_value_heads": 3, "vocab_size": 49280, "head_dim": 64,
                    "max_position_embeddings": 8192},
}  # fmt: skip
IDEFICS3: dict[str, Any] = {
    "model_type": "idefics3", "architectures": ["Idefics3ForConditionalGeneration"], "scale_factor": 2,
    "vision_config": {"model_type": "idefics3_vision", "hidden_size": 1152, "intermediate_size": 4304,
                      "num_hidden_layers": 27, "num_attention_heads": 16, "image_size": 364, "patch_size": 14},
    "text_config": {"model_type": "llama", "hidden_size": 4096, "intermediate_size": 14336, "num_hidden_layers": 32,
                    "num_attention_heads": 32, "num_key_value_heads": 8, "vocab_size": 128259,
                    "max_position_embeddings": 131072},
}  # fmt: skip
INTERNVL: dict[str, Any] = {
    "model_type": "internvl", "architectures": ["InternVLForConditionalGeneration"],
    "vision_config": {"model_type": "internvl_vision", "hidden_size": 1024, "intermediate_size": 4096,
                      "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": [448, 448],
                      "patch_size": [14, 14], "attention_bias": True, "use_qk_norm": False},
    "text_config": {"model_type": "qwen2", "hidden_size": 896, "intermediate_size": 4864, "num_hidden_layers": 24,
                    "num_attention_heads": 14, "num_key_value_heads": 2, "vocab_size": 151674,
                    "max_position_embeddings": 32768, "tie_word_embeddings": True},
}  # fmt: skip
PIXTRAL: dict[str, Any] = {
    "model_type": "llava", "architectures": ["LlavaForConditionalGeneration"], "vision_feature_layer": -1,
    "vision_feature_select_strategy": "full", "image_token_index": 10,
    "vision_config": {"model_type": "pixtral", "hidden_size": 1024, "intermediate_size": 4096,
                      "num_hidden_layers": 24, "num_attention_heads": 16, "image_size": 1024, "patch_size": 16,
                      "hidden_act": "silu"},
    "text_config": {"model_type": "mistral", "hidden_size": 5120, "intermediate_size": 14336, "num_hidden_layers": 40,
                    "num_attention_heads": 32, "num_key_value_heads": 8, "head_dim": 128, "vocab_size": 131072,
                    "max_position_embeddings": 1024000, "sliding_window": None},
}  # fmt: skip
PICTURED: dict[str, dict[str, Any]] = {
    "Idefics 3, as 8B": IDEFICS3, "SmolVLM, as 256M": SMOLVLM, "InternVL3, as 1B": INTERNVL,
    "Pixtral, as 12B": PIXTRAL,
}  # fmt: skip
