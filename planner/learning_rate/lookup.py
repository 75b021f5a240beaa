"""Which learning rate a published law gives for a model, or why it gives none."""

from __future__ import annotations

from dataclasses import dataclass

from .. import facts
from ..schema import Basis
from .law import learning_rate

DEFAULT_LAW = "tinker-cookbook-2025-11"
LAW_ALPHA = 32


@dataclass(frozen=True)
class LearningRate:
    """LoRA's rate, full fine-tuning's, and where they come from. `low` to `high` holds the law's rate and 80% of
    the best rates of a sweep over models and ranks of the family, where one is known.

    Everything but `law` is None where the law was not fitted on the family; `reason` then says so.
    """

    value: float | None
    low: float | None
    high: float | None
    full_finetune: float | None
    law: str
    basis: Basis | None
    family: str | None
    reason: str | None = None
    by_architecture: bool = False


def family_of(model_id: str, model_type: str, named: bool) -> tuple[str | None, bool]:
    """The law's family of a model, and whether only its architecture says so.

    The name decides, as in the law's own code; an unnamed config is judged by its model type. A model that
    merely shares Llama's layout (Yi, SmolLM ...) is of no family.
    """
    name = model_id.lower()
    for family in ("llama", "qwen"):
        if family in name:
            return family, False
    if not named:
        for family in ("llama", "qwen"):
            if model_type == family or (family == "qwen" and model_type.startswith("qwen")):
                return family, True
    return None, False


def look_up(
    *, model_id: str, model_type: str, hidden_size: int, named: bool, law_id: str = DEFAULT_LAW
) -> LearningRate:
    """The law's rate for a model. `named` says that model_id is a model's name and not a file's."""
    law = facts.law(law_id)
    family, by_architecture = family_of(model_id, model_type, named)
    if law.base is None or family is None or family not in law.exponents:
        known = (
            " and ".join(name.capitalize() for name in law.exponents) or "no family with printed constants"
        )
        reason = (
            f"the law {law.id} was fitted on {known} models only; this one is neither, "
            "and a rate for it would be a guess"
        )
        return LearningRate(None, None, None, None, law.id, None, None, reason)

    base, exponent = law.base, law.exponents[family]

    def rate(multiplier: float, power: float) -> float:
        return learning_rate(
            base=base, multiplier=multiplier, reference_width=law.reference_width, hidden_size=hidden_size,
            exponent=exponent + power,
        )  # fmt: skip

    value = rate(law.lora_multiplier, law.lora_pow)
    low, high = (law.optimum_ratio.get(f"{family}_{end}") for end in ("low", "high"))
    return LearningRate(
        value, None if low is None else value * min(1.0, low), None if high is None else value * max(1.0, high),
        rate(1.0, 0.0), law.id, "fitted", family, by_architecture=by_architecture,
    )  # fmt: skip
