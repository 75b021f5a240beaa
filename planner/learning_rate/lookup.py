"""Which learning rate a law gives for a model, how far the best may lie from it, and what that extrapolates over."""

from __future__ import annotations

import math
import os
from typing import TYPE_CHECKING, Any

from .. import facts
from ..dataclass import dataclass
from ..errors import InputError, hint
from ..schema import Basis, Notice
from .families import family_of_name
from .law import (
    POPULATION,
    REFERENCE_ALPHA,
    REFERENCE_BATCH,
    REFERENCE_RANK,
    REFERENCE_STEPS,
    deviation,
    learning_rate,
    rank_feature,
    rate_at,
)

if TYPE_CHECKING:
    from ..fact_types import RateContext

DEFAULT_LAW = "lora-plan-2026-11-28b"
LEVEL = 0.9
_HALF = 1.6449  # standard deviations on either side of the middle 90% of a normal distribution


@dataclass(frozen=True)
class Factor:
    """One thing that moves the rate: what it is, its factor with an interval, and what that rests on."""

    name: str
    value: float
    low: float
    high: float
    basis: Basis
    reason: str


@dataclass(frozen=True)
class LearningRate:
    """LoRA's rate, full fine-tuning's, and where they come from. `low` to `high` holds the best rate of a model at
    `level`; for laws of others it holds 80% of the best rates of a sweep, where one is known.

    Everything but the law is None where it was not fitted on the family; `reason` then says so. `family_known` is
    false where the rate is the population's. `extrapolates` names what lies outside of what the law was fitted on.
    `factors` are those that moved LoRA's rate to the run, which has `batch` sequences a step; `context` is the sweeps
    that it comes from where no law covers the run (reinforcement learning).
    """

    value: float | None
    low: float | None
    high: float | None
    full_finetune: float | None
    fact: facts.LawFact
    basis: Basis | None
    family: str | None
    reason: str | None = None
    by_architecture: bool = False
    family_known: bool = True
    level: float | None = None
    extrapolates: tuple[Notice, ...] = ()
    factors: tuple[Factor, ...] = ()
    batch: float | None = None
    context: RateContext | None = None

    @property
    def law(self) -> str:
        """The id of the law, or of the sweeps."""
        return self.context.id if self.context else self.fact.id

    @property
    def about(self) -> dict[str, str | None]:
        """What the law, or the sweeps, are in words."""
        law = self.fact
        if self.context:
            return {"title": self.context.statement, "form": None, "fitted_on": None, "regret": None}
        return {"title": law.title, "form": law.form, "fitted_on": law.fitted_on, "regret": law.regret_text}

    def to_dict(self) -> dict[str, Any]:
        """The contract's section."""
        return {
            "value": self.value,
            "low": self.low,
            "high": self.high,
            "full_finetune": self.full_finetune,
            "law": self.law,
            "about": self.about,
            "batch": self.batch,
            "factors": [dict(vars(factor)) for factor in self.factors],
            "basis": self.basis,
            "family": self.family,
            "family_known": self.family_known,
            "level": self.level,
            "reason": self.reason,
        }


@dataclass(frozen=True)
class Point:
    """What a law is asked for: `family` as the law spells it, `alpha` at scale alpha / rank. A batch, number of steps
    or alpha that is None is the law's usual one."""

    family: str
    hidden_size: int
    rank: int = REFERENCE_RANK
    method: str = "lora"
    batch: float | None = None
    steps: float | None = None
    alpha: float | None = None


@dataclass(frozen=True)
class Rate:
    """A law's rate at a point, with the interval of a model's best rate (None where the fit gave none)."""

    value: float
    low: float | None
    high: float | None


def find_law(name: str | os.PathLike[str]) -> facts.LawFact:
    """The law of this name, or of a file that `fit` wrote."""
    text = os.fspath(name)
    if text.lower().endswith(".json") or os.sep in text or os.path.isfile(text):
        from .law_file import read_law

        return read_law(text)
    return facts.law(text)


def usual(law: facts.LawFact, what: str) -> float | None:
    """The batch, steps or alpha at which a law holds: the geometric middle of its sweep's; what its authors used for
    laws of others; alpha 32 where a sweep does not say, None for anything else that it does not say."""
    if what in law.ranges:
        low, high = law.ranges[what]
        return math.sqrt(low * high)
    if what == "alpha":
        return float(REFERENCE_ALPHA)
    published = {"batch": REFERENCE_BATCH, "steps": REFERENCE_STEPS}
    return None if law.population else float(published[what])


def swept(law: facts.LawFact, what: str, given: float, rank: int) -> float | None:
    """The batch, steps or alpha of the law's runs that is nearest to the given one; within their range, where the fit
    has found no need for a term, that itself. Runs whose alpha went with the rank (alpha = 2 rank) have that of the
    given rank. None where the sweep does not say."""
    if what == "alpha" and "alpha_over_rank" in law.ranges:
        return law.ranges["alpha_over_rank"][0] * rank
    if what in law.ranges:
        low, high = law.ranges[what]
        return min(max(given, low), high)
    return usual(law, what)


def _features(law: facts.LawFact, at: Point) -> dict[str, float]:
    """What multiplies each coefficient of log rate at a point."""
    width = math.log(law.reference_width / at.hidden_size)

    def log_over(given: float | None, what: str, reference: float) -> float:
        value = given or usual(law, what)
        return math.log(value / reference) if value else 0.0

    found = {
        "base": 1.0, f"family[{at.family}]": 1.0, "model_pow": width, f"model_pow[{at.family}]": width,
        "batch_pow": log_over(at.batch, "batch", REFERENCE_BATCH),
        "steps_pow": log_over(at.steps, "steps", REFERENCE_STEPS),
    }  # fmt: skip
    if at.method == "lora":
        found |= {
            "m_lora": 1.0, "lora_pow": width, "rank_pow": math.log(at.rank / REFERENCE_RANK),
            "rank_sat_pow": rank_feature(at.rank), "alpha_pow": log_over(at.alpha, "alpha", REFERENCE_ALPHA),
        }  # fmt: skip
    return found


def evaluate(law: facts.LawFact, at: Point) -> Rate:
    """The rate of a law with a population at a point, and the interval in which the best rate of a model lies.

    Full fine-tuning by a law of LoRA runs, or LoRA by one of full runs, is the other's times or over the law's
    multiplier, whose own interval is not in this one.
    """
    assert law.base is not None
    own = {
        f"family[{at.family}]": math.log(law.multipliers.get(at.family, 1.0)),
        f"model_pow[{at.family}]": law.exponents.get(at.family, law.model_pow) - law.model_pow,
    }
    shared = {
        name: getattr(law, name)
        for name in (
            "model_pow", "lora_pow", "rank_pow", "rank_sat_pow", "batch_pow", "steps_pow", "alpha_pow",
        )
    }  # fmt: skip
    coefficients = {"base": math.log(law.base), "m_lora": math.log(law.lora_multiplier), **shared, **own}
    features = _features(law, at)
    value = math.exp(sum(coefficients[name] * x for name, x in features.items()))
    if law.rates:
        value = _tabled(law, at)
    spread = law.spread.get("known_family" if at.family in law.families else "unknown_family")
    if spread is None:
        return Rate(value, None, None)
    doubt = features
    if (
        law.rates
    ):  # the spread is that of models left out: only what lies outside of what was swept adds to it
        inside = _features(law, _clamped(law, at))
        doubt = {name: x - inside[name] for name, x in features.items()}
    factor = math.exp(_HALF * deviation(spread, doubt, law.covariance))
    return Rate(value, value / factor, value * factor)


def _clamped(law: facts.LawFact, at: Point) -> Point:
    """The point of what was swept that is nearest to a point."""

    def within(value: int, key: str) -> int:
        low, high = law.ranges.get(key, (value, value))
        return round(min(max(value, low), high))

    return Point(
        at.family, within(at.hidden_size, "hidden_size"), within(at.rank, "rank"), at.method, at.batch, at.steps,
        at.alpha,
    )  # fmt: skip


def _tabled(law: facts.LawFact, at: Point) -> float:
    """The rate of a law with a table: LoRA's at its rank; full fine-tuning's from LoRA's at the reference rank."""
    rates = law.rates.get(at.family) or law.rates[POPULATION]
    if at.method == "lora":
        return rate_at(rates, at.rank)
    return rate_at(rates, REFERENCE_RANK) / law.lora_multiplier


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


def known_family(name: str | None, law: facts.LawFact) -> str | None:
    """A family as given: one that is spelled almost like a known one is refused, unless the law knows it."""
    if name is None:
        return None
    plain = name.strip().lower()
    known = {family for one in (*facts.laws(), law) for family in (*one.families, *one.exponents)}
    if not plain:
        raise InputError("family", name, f"a family such as {', '.join(sorted(known))}")
    if plain not in known and (near := hint(plain, known, cutoff=0.75)):
        raise InputError(
            "family", name, f"one of {', '.join(sorted(known))}, or a name unlike these", near.strip()
        )
    return plain


def look_up(
    *, model_id: str, model_type: str, hidden_size: int, named: bool,
    law: facts.LawFact | str | os.PathLike[str] = DEFAULT_LAW, rank: int = REFERENCE_RANK, family: str | None = None,
) -> LearningRate:  # fmt: skip
    """The law's rate for a model. `named` says that model_id is a model's name and not a file's; `family` overrides
    what the name says."""
    law = law if isinstance(law, facts.LawFact) else find_law(law)
    if law.population:
        return _ours(law, model_id, model_type, hidden_size, named, rank, family)
    found, by_architecture = (family, False) if family else family_of(model_id, model_type, named)
    if law.base is None or found is None or found not in law.exponents:
        return LearningRate(None, None, None, None, law, None, None, _reason(law))
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
        rate(1.0, 0.0), law, "fitted", found, by_architecture=by_architecture,
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
    by_architecture = family is None and not named
    found = family or family_of_name(model_type if by_architecture else model_id)
    known = found in law.families
    at = Point(found, hidden_size, rank)
    rate = evaluate(law, at)
    low, high = rate.low, rate.high
    if low is not None and high is not None and "lora" not in law.methods:
        one = facts.rate_contexts()["full-finetune"]
        low, high = widen(rate.value, (low, high), (one.low / one.value, one.high / one.value))
    return LearningRate(
        rate.value, low, high, evaluate(law, Point(found, hidden_size, method="full")).value, law, "fitted", found,
        by_architecture=by_architecture and known, family_known=known, level=None if low is None else LEVEL,
        extrapolates=outside(law, at),
    )  # fmt: skip


def widen(value: float, ends: tuple[float, float], *factors: tuple[float, float]) -> tuple[float, float]:
    """An interval around `value` after independent factors, each with its low and high: on either side the squares of
    the log half-widths add. Neglects that they need not be normal."""
    down, up = math.log(value / ends[0]) ** 2, math.log(ends[1] / value) ** 2
    for low, high in factors:
        down += math.log(low) ** 2
        up += math.log(high) ** 2
    return value * math.exp(-math.sqrt(down)), value * math.exp(math.sqrt(up))


_COEFFICIENTS = {
    "rank": ("rank_pow", "rank_sat_pow"), "width": ("model_pow",), "batch": ("batch_pow",), "steps": ("steps_pow",)
}  # fmt: skip


def _allowance(law: facts.LawFact, what: str) -> str:
    """What the interval makes of a value outside of the sweep's: it widens where the law has a coefficient for it."""
    if any(name in law.covariance for name in _COEFFICIENTS[what]):
        return "the interval is widened by what the law leaves open"
    return "neither the rate nor the interval allows for it"


def outside(law: facts.LawFact, at: Point) -> tuple[Notice, ...]:
    """What lies outside of what the law was fitted on, and what its fit leaves in doubt."""
    notes = []
    if law.caution:
        notes.append(Notice("learning-rate-law", f"The law {law.id}: {law.caution}"))
    if at.family not in law.families:
        known = ", ".join(law.families[:12]) + (" ..." if len(law.families) > 12 else "")
        whole = "with the wider interval of a family that was not seen"
        if "unknown_family" not in law.spread:
            whole = "without an interval, since there is no other family to judge by"
        notes.append(Notice(
            "learning-rate-family",
            f"No sweep covers the family {at.family}: the rate is that of all families together ({known}), {whole}.",
        ))  # fmt: skip
    elif "known_family" not in law.spread:
        text = f"The law {law.id} has too few models for an interval of a new one's rate."
        notes.append(Notice("learning-rate-interval", text))
    asked: tuple[tuple[str, str, str, float | None], ...] = (
        ("rank", "Rank", "rank", at.rank if at.method == "lora" else None),
        ("width", "Width", "hidden_size", at.hidden_size),
        ("batch", "Batch", "batch", at.batch),
        ("steps", "Number of steps", "steps", at.steps),
    )
    for code, label, key, value in asked:
        if value is None or key not in law.ranges:
            continue
        low, high = law.ranges[key]
        if not low <= value <= high:
            where = f"{low:,.0f} to {high:,.0f}" if low < high else f"{low:,.0f}"
            text = (
                f"{label} {value:,} lies outside of {where}, where the learning-rate law was fitted: nothing was "
                f"measured there, and {_allowance(law, code)}."
            )
            notes.append(Notice(f"learning-rate-{code}", text))
    return tuple(notes)
