"""Which learning rate a law gives for a model, how far the best may lie from it, and what that extrapolates over."""

from __future__ import annotations

import math
from dataclasses import dataclass

from .. import facts
from ..schema import Basis, Notice
from .families import family_of_name
from .law import REFERENCE_RANK, deviation, learning_rate, rank_factor, rank_feature

DEFAULT_LAW = "lora-plan-2026-11"
LAW_ALPHA = 32
LEVEL = 0.9
_HALF = 1.6449  # standard deviations on either side of the middle 90% of a normal distribution


@dataclass(frozen=True)
class LearningRate:
    """LoRA's rate, full fine-tuning's, and where they come from. `low` to `high` holds the best rate of a model at
    `level`; for laws of others it holds 80% of the best rates of a sweep, where one is known.

    Everything but `law` is None where the law was not fitted on the family; `reason` then says so. `family_known` is
    false where the rate is the population's. `extrapolates` names what lies outside of what the law was fitted on.
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
    family_known: bool = True
    level: float | None = None
    extrapolates: tuple[Notice, ...] = ()


def family_of(model_id: str, model_type: str, named: bool) -> tuple[str | None, bool]:
    """The published law's family of a model, and whether only its architecture says so.

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
    *, model_id: str, model_type: str, hidden_size: int, named: bool, law_id: str = DEFAULT_LAW,
    rank: int = REFERENCE_RANK, family: str | None = None,
) -> LearningRate:  # fmt: skip
    """The law's rate for a model. `named` says that model_id is a model's name and not a file's; `family` overrides
    what the name says."""
    law = facts.law(law_id)
    if law.population:
        return _ours(law, model_id, model_type, hidden_size, named, rank, family)
    found, by_architecture = (family, False) if family else family_of(model_id, model_type, named)
    if law.base is None or found is None or found not in law.exponents:
        return LearningRate(None, None, None, None, law.id, None, None, _reason(law))
    base, exponent = law.base, law.exponents[found]

    def rate(multiplier: float, pow_: float) -> float:
        return learning_rate(
            base=base, multiplier=multiplier, reference_width=law.reference_width, hidden_size=hidden_size,
            exponent=exponent + pow_,
        )  # fmt: skip

    value = rate(law.lora_multiplier, law.lora_pow)
    low, high = (law.optimum_ratio.get(f"{found}_{end}") for end in ("low", "high"))
    return LearningRate(
        value, None if low is None else value * min(1.0, low), None if high is None else value * max(1.0, high),
        rate(1.0, 0.0), law.id, "fitted", found, by_architecture=by_architecture,
        level=None if low is None or high is None else 0.8,
    )  # fmt: skip


def _reason(law: facts.LawFact) -> str:
    if law.base is None:
        return f"the law {law.id} cannot be evaluated: its authors did not print all of its constants"
    known = " and ".join(name.capitalize() for name in law.exponents)
    return (
        f"the law {law.id} was fitted on {known} models only; this one is neither, and a rate for it would be a "
        f"guess; {DEFAULT_LAW} covers every family"
    )


def _ours(
    law: facts.LawFact,
    model_id: str,
    model_type: str,
    hidden_size: int,
    named: bool,
    rank: int,
    family: str | None,
) -> LearningRate:
    """A law with a population: every family gets a value, one that it was not fitted on a wider interval."""
    assert law.base is not None
    by_architecture = family is None and not named
    found = family or family_of_name(model_type if by_architecture else model_id)
    known = found in law.multipliers
    full = law.base * law.multipliers.get(found, 1.0)
    value = full * law.lora_multiplier * rank_factor(rank, law.rank_pow, law.rank_sat_pow)
    features = {"base": 1.0, "rank_pow": math.log(rank / REFERENCE_RANK), "rank_sat_pow": rank_feature(rank)}
    if known:
        features[f"family[{found}]"] = 1.0
    sd = deviation(law.spread["known_family" if known else "unknown_family"], features, law.covariance)
    factor = math.exp(_HALF * sd)
    return LearningRate(
        value, value / factor, value * factor, full, law.id, "fitted", found,
        by_architecture=by_architecture and known, family_known=known, level=LEVEL,
        extrapolates=tuple(_outside(law, found if not known else None, hidden_size, rank)),
    )  # fmt: skip


def _outside(law: facts.LawFact, unknown: str | None, hidden_size: int, rank: int) -> list[Notice]:
    """What lies outside of what the law was fitted on."""
    notes = []
    if unknown is not None:
        known = ", ".join(law.multipliers)
        notes.append(Notice(
            "learning-rate-family",
            f"No sweep covers the family {unknown}: the rate is that of all families together ({known}), with "
            "the wider interval of a family that was not seen.",
        ))  # fmt: skip
    for code, label, value in (("rank", "Rank", rank), ("width", "Width", hidden_size)):
        low, high = law.ranges["rank" if code == "rank" else "hidden_size"]
        if not low <= value <= high:
            text = f"{label} {value:,} lies outside of {low:,} to {high:,}, where the learning-rate law was fitted."
            notes.append(Notice(f"learning-rate-{code}", text))
    return notes
