"""lr: the learning rate to start from, its interval, the few rates worth sweeping, and what all that rests on.

Pure Python, so that a look-up takes milliseconds. A law gives the rate for its own set-up; factors with their own
basis move it to another alpha, batch, number of steps or method. Intervals combine as independent errors of log
rate.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from .. import facts
from ..architecture.build import build
from ..architecture.resolve import ResolvedConfig, resolve
from ..dataclass import dataclass
from ..errors import InputError, hint
from ..schema import Architecture, Basis, Notice, Source
from ..units import parse_count
from .factors import Run, by_law, by_sweeps, on_other_data, sources_of, to_mind
from .lookup import DEFAULT_LAW, Factor, LearningRate, find_law, known_family, look_up, usual

if TYPE_CHECKING:
    from ..fact_types import RateContext

SCHEMA = 1
METHODS = ("lora", "full")
TASKS = ("sft", "rl")
SCALINGS = ("alpha/rank", "alpha/sqrt(rank)", "none")
MOST_RATES = 7
STEP = 1.8  # between rates of the grid; regret is flat enough for the best of them to cost under 0.1%


@dataclass(frozen=True)
class Advice:
    """The answer of `lr`. `grid` holds the rates worth sweeping, the recommended one among them. `low` and `high`
    are None where nothing says how far the best rate may lie; `other_low` and `other_high` are the same for data
    unlike those that the law was fitted on."""

    model: str | None
    hidden_size: int
    family: str
    method: str
    task: str
    rank: int | None
    value: float
    low: float | None
    high: float | None
    level: float | None
    other_low: float | None
    other_high: float | None
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
                "other_data": {"low": self.other_low, "high": self.other_high, "level": self.level},
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


def rate_grid(value: float, low: float | None, high: float | None) -> tuple[float, ...]:
    """Rates worth sweeping: about evenly spaced in log rate over low to high, through `value`, at most seven; two
    steps to either side where there is no interval."""
    low, high = low or value / STEP**2, high or value * STEP**2
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


def _forgetting(contexts: Mapping[str, RateContext], high: float, method: str) -> Iterator[Notice]:
    """Where rates that are as good by the loss cost other skills."""
    one = contexts["forgetting"]
    limit = one.value if method == "lora" else one.value / contexts["full-finetune"].value
    if high >= 0.9 * limit:
        yield Notice(
            "forgetting",
            f"The lowest loss is not the safest rate: around {limit:g} the model forgot other skills in a measured "
            f"case ({one.source.title}). Where they matter, check them, or start at the lower end.",
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
    law: str | os.PathLike[str] | None = None, scaling: str = "alpha/rank", family: str | None = None,
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
    fact = find_law(law or DEFAULT_LAW)
    chosen = known_family(family, fact)
    found, arch, width = _model(model, counts["hidden-size"], chosen)
    looked = look_up(
        model_id=found.model_id if found else str(chosen), model_type=arch.model_type if arch else str(chosen),
        hidden_size=width, named=found is None or found.origin in ("catalogue", "hub"), law=fact,
        rank=counts["rank"] or rank, family=chosen,
    )  # fmt: skip
    if looked.value is None or looked.family is None:
        ours = facts.law(DEFAULT_LAW).id
        raise InputError(
            "law", fact.id, f"a law that has a rate for this model, such as {ours}", f"{looked.reason}."
        )
    run = Run.of(counts["rank"] or 32, float(alpha), scaling, counts["steps"], counts["batch"])
    return _advice(found, width, looked, fact, method, task, run)


def _advice(
    found: ResolvedConfig | None, width: int, looked: LearningRate, law: facts.LawFact, method: str, task: str,
    run: Run,
) -> Advice:  # fmt: skip
    contexts = facts.rate_contexts()
    moved = by_sweeps(method) if task == "rl" else by_law(law, looked, width, method, run)
    rate, factors = moved.rate, moved.factors
    other = rate if moved.context else on_other_data(rate)
    if moved.context:
        law_id, title, regret = moved.context.id, moved.context.statement, dict[str, float]()
        used = [("learning rate", moved.context.source)]
    else:
        law_id, title, regret = law.id, law.title, dict(law.regret_percent)
        used = [("learning rate", law.source), *sources_of(factors)]
        if other.low is not None:
            used.append(("interval on other data", contexts["other-data"].source))
    extrapolates = () if moved.context else (*moved.extrapolates, *_task_notes(law, run))
    forgets = () if task == "rl" else tuple(_forgetting(contexts, rate.high or rate.value, method))
    notes = (*forgets, *to_mind(method, task, run))
    if forgets:
        used.append(("forgetting", contexts["forgetting"].source))
    warned = (*(found.notices if found else ()), *notes)
    if looked.by_architecture:
        text = f"The config names no model: its type places it in the family {looked.family}."
        warned = (*warned, Notice("learning-rate-by-architecture", text))
    return Advice(
        found.model_id if found else None, width, str(looked.family), method, task,
        run.rank if method == "lora" else None, rate.value, rate.low, rate.high, moved.level, other.low, other.high,
        moved.basis, law_id,
        title, regret, factors, rate_grid(rate.value, rate.low, rate.high), extrapolates, warned, tuple(used),
    )  # fmt: skip


def _task_notes(law: facts.LawFact, run: Run) -> Iterator[Notice]:
    """What every use of a law extrapolates over."""
    for code, given, what, remedy in (
        ("batch", run.batch, "batch {}", "another batch may want another rate"),
        ("steps", run.steps, "{} steps", "a run of some 100 steps may want a higher one"),
    ):
        own = usual(law, code)
        if law.population and own is not None and given is None:
            text = f"No {code} given: the rate is for {what.format(f'{own:.0f}')}, the law's own; {remedy}."
            yield Notice(f"learning-rate-{code}", text)
        elif own is None and given is not None:
            text = f"The law's sweep does not say its {code}: the rate is not moved to {what.format(given)}."
            yield Notice(f"learning-rate-{code}", text)
    yield Notice(
        "learning-rate-data",
        f"Fitted on {law.fitted_on}; the interval is for that. On other data, schedules or metrics the best rate may "
        "lie further off: where the best rate of a sweep is its last, go on.",
    )
