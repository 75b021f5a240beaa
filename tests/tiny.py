"""A model whose logits are nearly all of its memory, which trainers' losses are run on."""

from __future__ import annotations

from typing import Any

VOCAB = 50_000
TINY: dict[str, Any] = {
    "model_type": "qwen2", "architectures": ["Qwen2ForCausalLM"], "vocab_size": VOCAB, "hidden_size": 64,
    "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "tie_word_embeddings": False, "max_position_embeddings": 512,
}  # fmt: skip
