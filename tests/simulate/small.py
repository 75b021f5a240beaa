"""Small models of many kinds, and real ones of them on the CPU."""

from __future__ import annotations

from tools.measured_memory import LORA, real
from tools.tiny_models import CONFIGS as EVERY

# Enough kinds of stacks for tests that run each several times.
KINDS = (
    "llama", "qwen2 tied", "gemma3 sliding and full", "gemma2 eager, capped", "qwen3_moe",
    "deepseek_v3 dense prefix and experts", "jamba mamba and attention", "qwen3_next linear and full", "gpt2",
    "t5 two stacks",
)  # fmt: skip
CONFIGS = {name: EVERY[name] for name in KINDS}

__all__ = ["CONFIGS", "LORA", "real"]
