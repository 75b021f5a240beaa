"""The published law for the learning rate, as one equation."""

from __future__ import annotations


def learning_rate(
    *, base: float, multiplier: float, reference_width: float, hidden_size: int, exponent: float
) -> float:
    """base * multiplier * (reference_width / hidden_size) ** exponent.

    `base` is a rate for full fine-tuning at the reference width, `multiplier` is 1 for full fine-tuning and
    about 10 for LoRA, `exponent` is the family's model_pow plus LoRA_pow. Neglects rank, batch and steps: on its
    authors' later sweep the rate costs 0.37% of loss in the median and 2.5% at worst. Assumes alpha 32, scale
    alpha / rank, Adam and a constant schedule. Source: LoRA Without Regret (2025); tinker-cookbook.
    """
    return float(base * multiplier * (reference_width / hidden_size) ** exponent)
