"""Which family of models a name belongs to, as the learning-rate laws divide them."""

from __future__ import annotations

import re

# The first expression that is found in the lower-case name decides; Qwen 3.5 and 3.6 are one architecture.
FAMILIES = (
    (r"qwen[-_ ]?3[._][56]", "qwen3.5"),
    (r"qwen[-_ ]?3", "qwen3"),
    (r"qwen|qwq", "qwen"),
    (r"deepseek.*distill.*llama", "llama"),
    (r"deepseek.*qwen", "qwen"),
    (r"llama[-_ ]?3[_.]\d+[-_]nemotron|llama.*nemotron", "llama"),
    (r"nemotron", "nemotron"),
    (r"deepseek", "deepseek"),
    (r"kimi", "kimi"),
    (r"gpt[-_]oss", "gpt-oss"),
    (r"(?<![a-z])tinyllama|(?<![a-z])(meta[-_])?(code)?llama", "llama"),
    (r"mistral|mixtral|ministral|devstral|magistral|mathstral", "mistral"),
    (r"gemma", "gemma"),
    (r"phi[-_]?\d|phi-mini", "phi"),
    (r"olmo", "olmo"),
    (r"glm", "glm"),
    (r"granite", "granite"),
    (r"smollm", "smollm"),
    (r"pythia", "pythia"),
    (r"falcon", "falcon"),
)


def family_of_name(name: str) -> str:
    """The family of a model's name; the organisation, or the first word, where no family is known."""
    lower = name.lower()
    for pattern, family in FAMILIES:
        if re.search(pattern, lower):
            return family
    head = lower.split("/")[0] if "/" in lower else re.split(r"[-_ .]", lower)[0]
    return head or "unknown"
