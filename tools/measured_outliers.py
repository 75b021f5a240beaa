"""Why published measurements lie further than a quarter from what is predicted: what is not known of them, or what
the formula lacks. Found by reading the trainers' sources; nothing is computed from these words."""

from __future__ import annotations

from tools.published_memory import DRIVER, Case

NOT_EXPLAINED = "not explained"
# Source, a part of the model's name or of the detail, and the reason.
SANTACODER = (
    "18 bytes a logit were measured, 12 are counted (16-bit logits, their copy, float32 for the loss); what holds "
    "the rest was not found; no other model shows it"
)
MIXTRAL = "transformers 4.48 runs experts one after another; the formula runs them grouped"
CHATGLM = "the model's own code has no flash attention: scores of all pairs of positions, unlike the profile"
LENGTHS = (
    "the longest sample up to the greatest length is not known, nor the order of lengths, which decides what the "
    "allocator keeps"
)
UNSLOTH = (
    "what Unsloth of April 2024 held is not known; figures are whole GB, and checkpointing is not stated"
)
RECIPE = (
    "a README's figure below what the recipe beside it needs: the recipe may be newer, and how the batch was filled "
    "is not known"
)
REASONS = (
    ("foundation-model-stack/fms-acceleration", "santacoder", SANTACODER),
    ("foundation-model-stack/fms-acceleration", "Mixtral", MIXTRAL),
    ("modelscope/ms-swift", "chatglm", CHATGLM),
    ("modelscope/ms-swift", "", LENGTHS),
    ("hiyouga/LLaMA-Factory", "unsloth", UNSLOTH),
    ("axolotl-ai-cloud/axolotl", "", RECIPE),
)


def why(case: Case) -> str:
    """The reason, or that there is none yet."""
    source = case.source.removesuffix(DRIVER)
    for owner, part, reason in REASONS:
        if source == owner and part in f"{case.model} {case.detail}":
            return reason
    return NOT_EXPLAINED
