"""Models of published measurements that the catalogue lacks, by the shapes in their configs, and other names."""

from __future__ import annotations

from typing import Any


def _llama(hidden: int, layers: int, heads: int, width: int, vocab: int) -> dict[str, Any]:
    return {
        "model_type": "llama", "hidden_act": "silu", "max_position_embeddings": 32768, "hidden_size": hidden,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": heads,
        "intermediate_size": width, "vocab_size": vocab,
    }  # fmt: skip


def _neox(hidden: int, layers: int, heads: int, width: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "gpt_neox", "hidden_size": hidden, "num_hidden_layers": layers, "num_attention_heads": heads,
        "intermediate_size": width, "vocab_size": vocab, "max_position_embeddings": 4096, **more,
    }  # fmt: skip


def _llava(text: dict[str, Any], **vision: Any) -> dict[str, Any]:
    return {"model_type": "llava", "text_config": text, "vision_config": vision}


def _gpt2(hidden: int, layers: int, heads: int, positions: int, vocab: int, **more: Any) -> dict[str, Any]:
    return {
        "model_type": "gpt2", "n_embd": hidden, "n_layer": layers, "n_head": heads, "n_positions": positions,
        "vocab_size": vocab, **more,
    }  # fmt: skip


CLIP = {
    "model_type": "clip_vision_model", "hidden_size": 1024, "num_hidden_layers": 24, "num_attention_heads": 16,
    "intermediate_size": 4096, "image_size": 336, "patch_size": 14, "projection_dim": 768,
}  # fmt: skip
STABLELM = _neox(4096, 16, 32, 16384, 50688)
# Qwen 1 is Llama with a bias on a fused q, k, v; its MLP's two halves are half of intermediate_size wide.
CONFIGS: dict[str, dict[str, Any]] = {
    "Qwen/Qwen-7B": _llama(4096, 32, 32, 11008, 151936),
    # A ViT-bigG before Qwen-7B, and SigLIP before Llama 3: as Llava, which has no resampler.
    "Qwen/Qwen-VL": _llava(
        _llama(4096, 32, 32, 11008, 151936), model_type="clip_vision_model", hidden_size=1664, num_hidden_layers=48,
        num_attention_heads=16, intermediate_size=8192, image_size=448, patch_size=14, projection_dim=4096,
    ),
    "openbmb/MiniCPM-Llama3-V-2_5": _llava(
        {**_llama(4096, 32, 32, 14336, 128256), "num_key_value_heads": 8}, model_type="siglip_vision_model",
        hidden_size=1152, num_hidden_layers=27, num_attention_heads=16, intermediate_size=4304, image_size=980,
        patch_size=14,
    ),
    "llava-hf/llava-1.5-13b-hf": _llava(_llama(5120, 40, 40, 13824, 32064), **CLIP),
    "nanotron 1.5B": {**_llama(2048, 28, 16, 5632, 32000), "tie_word_embeddings": True},
    "Llama 162M of 50,304 tokens": _llama(768, 12, 12, 2048, 50304),
    "Llama-3.2-1B of 32,768 tokens": {
        **_llama(2048, 16, 32, 8192, 32768), "num_key_value_heads": 8, "tie_word_embeddings": True,
    },
    "BAAI/Aquila2-7B": _llama(4096, 32, 32, 11008, 100008),
    "TencentARC/LLaMA-Pro-8B": {**_llama(4096, 40, 32, 11008, 32000), "use_cache": False},
    "unsloth/Phi-4": {**_llama(5120, 40, 40, 17920, 100352), "num_key_value_heads": 10},
    "Llama 3.1 8B with 50,432 tokens": {**_llama(4096, 32, 32, 14336, 50432), "num_key_value_heads": 8},
    "Qwen/Qwen-14B": _llama(5120, 40, 40, 13696, 152064),
    "Qwen/Qwen-14B-Chat": _llama(5120, 40, 40, 13696, 152064),
    "qwen-14b-chat": _llama(5120, 40, 40, 13696, 152064),
    "Qwen/Qwen-72B-Chat": _llama(8192, 80, 64, 24576, 152064),
    "custom transformer 6.86B (h4096, 32 layers, 32 heads)": _neox(
        4096, 32, 32, 16384, 50257, use_parallel_residual=False
    ),
    "bigcode/gpt_bigcode-santacoder": {
        "model_type": "gpt_bigcode", "n_embd": 2048, "n_layer": 24, "n_head": 16, "n_inner": 8192,
        "vocab_size": 49280, "n_positions": 2048, "multi_query": True,
    },
    "bigcode/starcoderbase-1b": {
        "model_type": "gpt_bigcode", "n_embd": 2048, "n_layer": 24, "n_head": 16, "n_inner": 8192,
        "vocab_size": 49152, "n_positions": 8192, "multi_query": True,
    },
    "bigcode/starcoder": {
        "model_type": "gpt_bigcode", "n_embd": 6144, "n_layer": 40, "n_head": 48, "n_inner": 24576,
        "vocab_size": 49152, "n_positions": 8192, "multi_query": True,
    },
    "Open-Llama 7B": _llama(4096, 32, 32, 11008, 68762),
    "Open-Llama 13B": _llama(5120, 40, 40, 13824, 68762),
    "Open-Llama 33B": _llama(6656, 60, 52, 17920, 68762),
    "Open-Llama 65B": _llama(8192, 80, 64, 22016, 68762),
    "GPT-2 small of 50,304 tokens": _gpt2(768, 12, 12, 1024, 50304),
    "GPT of 24 layers and 250,000 tokens": _gpt2(1024, 24, 16, 2048, 250000),
    "AuroraGPT 2B": {**_llama(2048, 12, 16, 11008, 256000), "num_key_value_heads": 4},
    "GPT-2 small, untied": _gpt2(768, 12, 12, 1024, 50257, tie_word_embeddings=False),
    "GPT-2 small, untied, 50,304 tokens": _gpt2(768, 12, 12, 1024, 50304, tie_word_embeddings=False),
    "torchao Llama2-1B": _llama(1536, 24, 24, 6144, 32000),
    "Llama 3 8B, tied": {
        **_llama(4096, 32, 32, 14336, 128256), "num_key_value_heads": 8, "tie_word_embeddings": True
    },
    "GPT-3 125M": _gpt2(768, 12, 12, 2048, 50264),
    "GPT of 6.7B with 32,768 positions": _gpt2(4096, 32, 32, 32768, 50304),
    "GPT-2 1.2B of 1,024 tokens": _gpt2(1536, 40, 16, 1024, 50304),
    "GPT-2 8.3B of 1,024 tokens": _gpt2(3072, 72, 32, 1024, 50304),
    "GPT-2 22B of 2,048 tokens": _gpt2(6144, 48, 64, 2048, 51200),
    "GPT of 12 layers, 512 wide": _gpt2(512, 12, 8, 1024, 50304),
    # A GPT of Megatron's with grouped keys and values: as StarCoder 2, which turns them in place of learnt positions.
    "Megatron 7B, as StarCoder 2": {
        **_llama(4096, 32, 32, 16384, 131200), "model_type": "starcoder2", "num_key_value_heads": 8,
        "hidden_act": "gelu_pytorch_tanh", "use_bias": True, "tie_word_embeddings": False, "residual_dropout": 0.1,
        "attention_dropout": 0.1,
    },
    "distilbert/distilbert-base-uncased": {
        "model_type": "distilbert", "dim": 768, "hidden_dim": 3072, "n_layers": 6, "n_heads": 12,
        "vocab_size": 30522, "max_position_embeddings": 512, "activation": "gelu", "tie_weights_": True,
        "architectures": ["DistilBertForSequenceClassification"],
    },
    "mikustojk/LLaMA2-215M": {
        **_llama(1024, 18, 16, 2752, 6144), "num_key_value_heads": 8, "max_position_embeddings": 512,
        "tie_word_embeddings": True,
    },
    "deepaksatna/TinyGPT-A": {
        **_gpt2(1024, 16, 16, 2048, 32000), "activation_function": "gelu",
    },
    "bastile/Qwen3-8B-14336": {
        "model_type": "qwen3", "architectures": ["Qwen3ForCausalLM"], "vocab_size": 151936, "hidden_size": 4096,
        "intermediate_size": 14336, "num_hidden_layers": 36, "num_attention_heads": 32, "num_key_value_heads": 8,
        "head_dim": 128, "max_position_embeddings": 40960, "tie_word_embeddings": False,
    },
    "LGAI-EXAONE/EXAONE-3.5-7.8B-Instruct": {**_llama(4096, 32, 32, 14336, 102400), "num_key_value_heads": 8},
    # Two of the catalogue's that ran as classifiers of sequences, without an unembedding.
    "google-bert/bert-base-uncased": {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 30522,
        "max_position_embeddings": 512,
    },
    "google-bert/bert-large-uncased as a classifier": {
        "model_type": "bert", "architectures": ["BertForSequenceClassification"], "hidden_size": 1024,
        "num_hidden_layers": 24, "num_attention_heads": 16, "intermediate_size": 4096, "vocab_size": 30522,
        "max_position_embeddings": 512, "type_vocab_size": 2,
    },
    "FacebookAI/roberta-base": {
        "model_type": "roberta", "architectures": ["RobertaForSequenceClassification"], "hidden_size": 768,
        "num_hidden_layers": 12, "num_attention_heads": 12, "intermediate_size": 3072, "vocab_size": 50265,
        "max_position_embeddings": 514, "type_vocab_size": 1,
    },
    # Under a head of its own with a few classes, which is left out.
    "Llama 3.2 1B without an unembedding": {
        **_llama(2048, 16, 32, 8192, 128256), "num_key_value_heads": 8, "head_dim": 64,
        "architectures": ["LlamaModel"], "tie_word_embeddings": True,
    },
    "GPT-3 355M": _gpt2(1024, 24, 16, 2048, 50264),
    "GPT-3 760M": _gpt2(1536, 24, 16, 2048, 50264),
    "GPT-3 1.3B": _gpt2(2048, 24, 16, 2048, 50264),
    "GPT-3 2.7B": _gpt2(2560, 32, 20, 2048, 50264),
    "GPT 2.6B of 51,200 tokens": _gpt2(2560, 32, 32, 1024, 51200),
    "Megatron 1.3B of 2,048 tokens": _gpt2(2048, 24, 16, 2048, 50304),
    "GPT-2 52B": _gpt2(8192, 64, 32, 1024, 50257),
    "Tele-AI/telechat-7B": _llama(4096, 30, 32, 12288, 160256),
    "Tele-AI/TeleChat-12B": _llama(5120, 38, 32, 12288, 120000),
    "Baichuan2 13B as Llama": _llama(5120, 40, 40, 13696, 125696),
    **{f"Llama 2 13B of {layers} layers": _llama(5120, layers, 40, 13824, 32000) for layers in (4, 10, 20)},
    "Deep One 1.7B, as Llama": _llama(2048, 32, 16, 5376, 32000),
    "Qwen3 8B of 3 layers, 512 wide": {
        **_llama(512, 3, 32, 12288, 151936), "model_type": "qwen3", "num_key_value_heads": 8, "head_dim": 128,
        "tie_word_embeddings": False,
    },
    "open_lm_160m": _llama(768, 12, 12, 2048, 50432),
    "open_lm_410m": _llama(1024, 24, 16, 2816, 50432),
    "open_lm_830m": _llama(1536, 24, 16, 4096, 50432),
    "stabilityai/stablelm-base-alpha-3b": STABLELM,
    "stablelm-base-alpha-3b": STABLELM,
}  # fmt: skip
NAMES = {
    "chatglm3-6b": "THUDM/chatglm3-6b", "yi-6b-chat": "01-ai/Yi-6B-Chat", "yi-34b-chat": "01-ai/Yi-34B",
    "gemma-2-2b": "google/gemma-2-2b", "gemma-2-9b": "google/gemma-2-9b",
    "mistral-7b-v0.2": "mistralai/Mistral-7B-Instruct-v0.2",
    "mistralai/Devstral-Small-2507": "mistralai/Devstral-Small-2505",
    "mistralai/Ministral-3-3B-Reasoning-2512": "mistralai/Ministral-3-3B-Base-2512",
    "allenai/Olmo-3-7B-Instruct-SFT": "allenai/Olmo-3-1025-7B",
}  # fmt: skip
