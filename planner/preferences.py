"""What an estimate of preferences says and leaves out."""

from __future__ import annotations

from dataclasses import replace

from .learning_rate.lookup import LearningRate
from .plan import Plan
from .schema import Notice

PLAIN_PREFERENCES = Notice(
    "preferences-as-examples",
    "The data are preferences, whose tokens FLOPs, memory, time and cost count as plain examples: --objective dpo "
    "counts pairs and their reference.",
)


def unknown_rate(rate: LearningRate, objective: str) -> LearningRate:
    """No learning rate, with the reason."""
    reason = f"no law and no sweep here is of {objective}"
    return replace(rate, value=None, low=None, high=None, full_finetune=None, basis=None, reason=reason)


def of_preferences(plan: Plan, objective: str) -> Plan:
    """The plan without what was fitted on supervised fine-tuning alone."""
    rate = unknown_rate(plan.learning_rate, objective)
    text = (
        f"Learning rate and price of a rank were fitted on supervised fine-tuning: neither is given for {objective}. "
        "A bit for each loss token is then an upper bound: a preference alone tells at most one bit."
    )
    kept = tuple(each for each in plan.warnings if not each.code.startswith("learning-rate-"))
    return replace(plan, learning_rate=rate, regret=None, warnings=(*kept, Notice("not-supervised", text)))
