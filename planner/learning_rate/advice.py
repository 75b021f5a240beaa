"""lr: the learning rate to start from, its interval, the few rates worth sweeping, and what all that rests on.

Pure Python, so that a look-up takes milliseconds. A law gives the rate for its own set-up; factors with their own
basis move it to another alpha, batch, number of steps or method. Intervals combine as independent errors of log
rate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .. import facts
from ..architecture.build import build
from ..architecture.resolve import ResolvedConfig, resolve
from ..errors import InputError, hint
from ..schema import Architecture, Basis, Notice, Source
from ..units import parse_count
from .law import REFERENCE_ALPHA, rank_factor
from .lookup import DEFAULT_LAW, LearningRate, look_up

if TYPE_CHECKING:
    from ..fact_types import RateContext

SCHEMA = 1
METHODS = ("lora", "full")
TASKS = ("sft", "rl")
SCALINGS = ("alpha/rank", "alpha/sqrt(rank)", "none")
SHORT_STEPS = 100
MOST_RATES = 7
STEP = 1.8  # between rates of the grid; regret is flat enough for the best of them to cost under 0.1%


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
class Advice:
    """The answer of `lr`. `grid` holds the rates worth sweeping, the recommended one among them."""

    model: str | None
    hidden_size: int
    family: str
    method: str
    task: str
    rank: int | None
    value: float
    low: float
    high: float
    level: float
    basis: Basis
    law: str
    law_title: str
    regret_percent: Mapping[str, float]
    factors: tuple[Factor, ...]
    grid: tuple[float, ...]
    extrapolates: tuple[Notice, ...]
    warnings: tuple[Notice, ...]
    sources: tuple[tuple[str, Source], ...]

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract of `lr`."""
        return {
            "schema": SCHEMA,
            "model": self.model,
            "hidden_size": self.hidden_size,
            "family": self.family,
            "method": self.method,
            "task": self.task,
            "rank": self.rank,
            "learning_rate": {
                "value": self.value, "low": self.low, "high": self.high, "level": self.level, "basis": self.basis,
            },
            "law": self.law,
            "law_title": self.law_title,
            "regret_percent": dict(self.regret_percent),
            "factors": [dict(vars(factor)) for factor in self.factors],
            "grid": list(self.grid),
            "extrapolates": [dict(vars(notice)) for notice in self.extrapolates],
            "warnings": [dict(vars(notice)) for notice in self.warnings],
            "sources": [{"used_for": use, **vars(source)} for use, source in self.sources],
        }  # fmt: skip


def round_rate(value: float) -> float:
    """A rate with two significant digits."""
    return float(f"{value:.1e}")


def rate_grid(value: float, low: float, high: float) -> tuple[float, ...]:
    """Rates worth sweeping: about evenly spaced in log rate over low to high, through `value`, at most seven."""
    below = math.ceil(math.log(value / low) / math.log(STEP) - 0.3)
    above = math.ceil(math.log(high / value) / math.log(STEP) - 0.3)
    while below + above + 1 > MOST_RATES:
        if below >= above:
            below -= 1
        else:
            above -= 1
    down = (low / value) ** (1 / max(below, 1))
    up = (high / value) ** (1 / max(above, 1))
    rates = (
        [value * down**i for i in range(below, 0, -1)]
        + [value]
        + [value * up**i for i in range(1, above + 1)]
    )
    return tuple(dict.fromkeys(round_rate(rate) for rate in rates))


def _power_factor(name: str, context: RateContext, ratio: float, reason: str) -> Factor:
    """A factor ratio ** exponent, whose exponent has an interval."""
    ends = sorted((ratio**context.low, ratio**context.high))
    return Factor(name, ratio**context.value, ends[0], ends[1], context.basis, reason)


def _steps_factor(context: RateContext, steps: int, usual: int) -> Factor | None:
    """The factor of a short run: 1.5 up to 100 steps, 1 from the law's own number on, evenly in log steps between."""
    if steps >= usual:
        return None
    share = min(1.0, math.log(usual / steps) / math.log(usual / SHORT_STEPS))
    text = f"{steps:,} steps: LoRA's best rate is up to 1.5 times higher in runs of some {SHORT_STEPS} steps"
    return Factor("steps", context.value**share, 1.0, context.high**share, context.basis, text)


def _factors(
    contexts: Mapping[str, RateContext], law: facts.LawFact, method: str, rank: int, alpha: float, scaling: str,
    steps: int | None, batch: int | None,
) -> Iterator[Factor]:  # fmt: skip
    """Everything that moves the rate away from the law's set-up."""
    usual_batch, usual_steps = (int(law.ranges[key][0]) if key in law.ranges else n for key, n in
                                (("batch", 128), ("steps", 1000)))  # fmt: skip
    if method == "full":
        one = contexts["full-finetune"]
        text = f"full fine-tuning: LoRA's rate over {one.value:g} (4.8 to 15)"
        yield Factor("method", 1 / one.value, 1 / one.high, 1 / one.low, one.basis, text)
    else:
        scale = {"alpha/rank": alpha, "alpha/sqrt(rank)": alpha * rank**0.5, "none": float(rank)}[scaling]
        if not math.isclose(scale, REFERENCE_ALPHA):
            text = f"scale {scale / rank:g} instead of {REFERENCE_ALPHA / rank:g}: exactly, only B's rate changes"
            yield _power_factor("alpha", contexts["alpha"], REFERENCE_ALPHA / scale, text)
        if steps is not None and (found := _steps_factor(contexts["short-run"], steps, usual_steps)):
            yield found
    if batch is not None and batch != usual_batch:
        text = f"batch {batch} instead of {usual_batch}: square root, from no effect to proportional"
        yield _power_factor("batch", contexts["batch"], batch / usual_batch, text)


def _combined(found: LearningRate, value: float, factors: tuple[Factor, ...]) -> tuple[float, float, float]:
    """Value and interval after the factors: squares of the log half-widths add on either side."""
    start = found.value or value
    down = math.log(start / found.low) ** 2 if found.low else 0.0
    up = math.log(found.high / start) ** 2 if found.high else 0.0
    for factor in factors:
        value *= factor.value
        down += math.log(factor.value / factor.low) ** 2
        up += math.log(factor.high / factor.value) ** 2
    return value, value * math.exp(-math.sqrt(down)), value * math.exp(math.sqrt(up))


def _notes(
    contexts: Mapping[str, RateContext], high: float, method: str, task: str, rank: int, batch: int | None
) -> Iterator[Notice]:
    """What to mind beside the rate."""
    one = contexts["forgetting"]
    limit = one.value if method == "lora" else one.value / contexts["full-finetune"].value
    if task == "sft" and high >= 0.9 * limit:
        yield Notice(
            "forgetting",
            f"The lowest loss is not the safest rate: around {limit:g} the model forgot other skills in a measured "
            f"case ({one.source.title}). Where they matter, check them, or start at the lower end.",
        )
    if task == "rl":
        yield Notice(
            "rl-sweep",
            "In RL best rates differ more between set-ups than any law explains: sweep the whole grid.",
        )
        if method == "lora" and rank > 64:
            yield Notice("rl-rank", "Collapse above rank 64 was reported in RL; ranks 1 to 32 did as well.")
    if task == "sft" and method == "lora" and batch is not None and batch > 128:
        yield Notice(
            "large-batch", "LoRA loses more than full fine-tuning at large batches, whatever the rank."
        )


def _model(
    model: str | os.PathLike[str] | Mapping[str, Any] | None, hidden_size: int | None, family: str | None
) -> tuple[ResolvedConfig | None, Architecture | None, int]:
    """The model, if there is one, and the width."""
    if model is None:
        if hidden_size is None or family is None:
            remedy = "Or give hidden-size and family instead."
            raise InputError(
                "model", None, "a model's name, a config.json or its folder, or a hub id", remedy
            )
        return None, None, hidden_size
    found = resolve(model)
    arch = build(found.config)
    return found, arch, hidden_size or arch.hidden_size


def _family(name: str | None) -> str | None:
    """A family as given: one that is spelled almost like a known one is refused."""
    if name is None:
        return None
    plain = name.strip().lower()
    known = {family for law in facts.laws() for family in (*law.multipliers, *law.exponents)}
    if not plain:
        raise InputError("family", name, f"a family such as {', '.join(sorted(known))}")
    if plain not in known and (near := hint(plain, known, cutoff=0.75)):
        raise InputError(
            "family", name, f"one of {', '.join(sorted(known))}, or a name unlike these", near.strip()
        )
    return plain


def _checked(
    method: str, task: str, scaling: str, alpha: object, counts: Mapping[str, object]
) -> dict[str, int | None]:
    """The options as numbers, or InputError."""
    for field, value, choices in (
        ("method", method, METHODS),
        ("task", task, TASKS),
        ("scaling", scaling, SCALINGS),
    ):
        if value not in choices:
            raise InputError(field, value, f"one of {', '.join(choices)}", hint(str(value), choices).strip())
    if isinstance(alpha, bool) or not isinstance(alpha, (int, float)) or not 0 < alpha < math.inf:
        raise InputError("alpha", alpha, "a positive number")
    numbers: dict[str, int | None] = {}
    for field, given in counts.items():
        number = None if given is None else parse_count(field, given)
        if number is not None and number < 1:
            raise InputError(field, given, "a whole number of at least 1")
        numbers[field] = number
    return numbers


def lr(
    model: str | os.PathLike[str] | Mapping[str, Any] | None = None, *, rank: int = 32, alpha: float = 32,
    method: str = "lora", steps: int | str | None = None, batch: int | str | None = None, task: str = "sft",
    law: str | None = None, scaling: str = "alpha/rank", family: str | None = None,
    hidden_size: int | str | None = None,
) -> Advice:  # fmt: skip
    """The learning rate for a run: a value, an interval, a grid worth sweeping, and what they rest on.

    The options are those of `lora-plan lr`, by the same names. Raises a PlannerError whose message says what to do.
    """
    counts = _checked(
        method, task, scaling, alpha,
        {"rank": rank, "steps": steps, "batch": batch, "hidden-size": hidden_size},
    )  # fmt: skip
    if task == "rl" and law is not None:
        raise InputError(
            "law", law, "no law with task rl", "No law covers it: the rates are those that sweeps found."
        )
    chosen = _family(family)
    found, arch, width = _model(model, counts["hidden-size"], chosen)
    fact = facts.law(law or DEFAULT_LAW)
    looked = look_up(
        model_id=found.model_id if found else str(chosen), model_type=arch.model_type if arch else str(chosen),
        hidden_size=width, named=found is None or found.origin in ("catalogue", "hub"), law_id=fact.id,
        rank=counts["rank"] or rank, family=chosen,
    )  # fmt: skip
    if looked.value is None or looked.family is None:
        ours = facts.law(DEFAULT_LAW).id
        raise InputError(
            "law", fact.id, f"a law that has a rate for this model, such as {ours}", f"{looked.reason}."
        )
    return _advice(found, width, looked, fact, method, task, counts, float(alpha), scaling)


def _advice(
    found: ResolvedConfig | None, width: int, looked: LearningRate, fact: facts.LawFact, method: str, task: str,
    counts: Mapping[str, int | None], alpha: float, scaling: str,
) -> Advice:  # fmt: skip
    contexts, rank = facts.rate_contexts(), counts["rank"] or 32
    used: list[tuple[str, Source]] = []
    extrapolates = list(looked.extrapolates)
    factors: tuple[Factor, ...] = ()
    basis: Basis = "fitted"
    law_id, title, regret = fact.id, fact.title, fact.regret_percent
    level = looked.level or 0.9
    if task == "rl":
        one = contexts["rl-lora" if method == "lora" else "rl-full"]
        value, low, high, basis = one.value, one.low, one.high, one.basis
        law_id, title, regret, extrapolates = one.id, one.statement, {}, []
        used.append(("learning rate", one.source))
    else:
        start = looked.value or 0.0
        if method == "full":
            start /= rank_factor(rank, fact.rank_pow, fact.rank_sat_pow) if fact.population else 1.0
            extrapolates = [note for note in extrapolates if note.code != "learning-rate-rank"]
        factors = tuple(
            _factors(contexts, fact, method, rank, alpha, scaling, counts["steps"], counts["batch"])
        )
        value, low, high = _combined(looked, start, factors)
        used.append(("learning rate", fact.source))
        names = {"method": "full-finetune", "alpha": "alpha", "steps": "short-run", "batch": "batch"}
        used += [(f"factor of {factor.name}", contexts[names[factor.name]].source) for factor in factors]
        extrapolates += _task_notes(fact, counts)
    notes = tuple(_notes(contexts, high, method, task, rank, counts["batch"]))
    if any(note.code == "forgetting" for note in notes):
        used.append(("forgetting", contexts["forgetting"].source))
    warned = (*(found.notices if found else ()), *notes)
    if looked.by_architecture:
        text = f"The config names no model: its type places it in the family {looked.family}."
        warned = (*warned, Notice("learning-rate-by-architecture", text))
    return Advice(
        found.model_id if found else None, width, str(looked.family), method, task,
        rank if method == "lora" else None, value, low, high, level, basis, law_id, title, regret, factors,
        rate_grid(value, low, high), tuple(extrapolates), warned, tuple(used),
    )  # fmt: skip


def _task_notes(fact: facts.LawFact, counts: Mapping[str, int | None]) -> Iterator[Notice]:
    """What every use of a law extrapolates over."""
    if fact.ranges and counts["batch"] is None:
        yield Notice("learning-rate-batch", "The law holds at batch 128: give the batch size for another.")
    if fact.ranges and counts["steps"] is None:
        yield Notice(
            "learning-rate-steps", "The law holds at 780 steps: give the number of steps of a shorter run."
        )
    yield Notice("learning-rate-data", f"Fitted on {fact.fitted_on}; other data may have another best rate.")
