"""What moves a law's rate to a run: its alpha, batch, number of steps and method, each a factor with its own basis.

Intervals combine as independent errors of log rate.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import facts
from ..dataclass import dataclass
from ..schema import Basis, Notice, Source
from .law import REFERENCE_ALPHA, REFERENCE_RANK
from .lookup import LEVEL, Factor, LearningRate, Point, Rate, evaluate, outside, swept, usual, widen

if TYPE_CHECKING:
    from ..fact_types import RateContext

SHORT_STEPS = 100
# Which entry of data/rate_contexts.toml each factor rests on.
CONTEXTS = {"method": "full-finetune", "alpha": "alpha", "steps": "short-run", "batch": "batch"}


@dataclass(frozen=True)
class Run:
    """What of the run a rate depends on. `scaled_alpha` is the alpha that has its scale under alpha / rank."""

    rank: int
    scaled_alpha: float
    steps: int | None
    batch: int | None

    @classmethod
    def of(cls, rank: int, alpha: float, scaling: str, steps: int | None, batch: int | None) -> Run:
        """From a trainer's options."""
        scale = {"alpha/rank": alpha, "alpha/sqrt(rank)": alpha * rank**0.5, "none": float(rank)}[scaling]
        return cls(rank, scale, steps, batch)


def _power_factor(name: str, context: RateContext, ratio: float, reason: str) -> Factor:
    """A factor ratio ** exponent, whose exponent has an interval."""
    ends = sorted((ratio**context.low, ratio**context.high))
    return Factor(name, ratio**context.value, ends[0], ends[1], context.basis, reason)


def _steps_factor(context: RateContext, steps: int, own: float) -> Iterator[Factor]:
    """The factor of a short run: 1.5 up to 100 steps, 1 from the law's own number on, evenly in log steps between."""
    if steps >= own or own <= SHORT_STEPS:
        return
    share = min(1.0, math.log(own / steps) / math.log(own / SHORT_STEPS))
    text = f"{steps:,} steps: LoRA's best rate is up to 1.5 times higher in runs of some {SHORT_STEPS} steps"
    yield Factor("steps", context.value**share, 1.0, context.high**share, context.basis, text)


def _method_factor(context: RateContext, law: facts.LawFact, method: str) -> Factor | None:
    """The factor from the method of the law's runs to the other one, where the law has no multiplier of its own."""
    if method in law.methods:
        return None
    if method == "full":
        text = f"full fine-tuning: LoRA's rate over {context.value:g} ({context.low:g} to {context.high:g})"
        return Factor("method", 1 / context.value, 1 / context.high, 1 / context.low, context.basis, text)
    text = f"LoRA: {context.value:g} ({context.low:g} to {context.high:g}) times full fine-tuning's rate"
    return Factor("method", context.value, context.low, context.high, context.basis, text)


def _factors(law: facts.LawFact, method: str, run: Run) -> Iterator[Factor]:
    """Everything that moves the rate away from the law's set-up, as far as the law has no term for it."""
    contexts = facts.rate_contexts()
    if one := _method_factor(contexts["full-finetune"], law, method):
        yield one
    own = swept(law, "alpha", run.scaled_alpha, run.rank) or REFERENCE_ALPHA
    if method == "lora" and not law.alpha_pow and not math.isclose(run.scaled_alpha, own):
        text = f"scale {run.scaled_alpha / run.rank:g} instead of {own / run.rank:g}: exactly, only B's rate changes"
        yield _power_factor("alpha", contexts["alpha"], own / run.scaled_alpha, text)
    steps = swept(law, "steps", run.steps, run.rank) if run.steps else None
    batch = swept(law, "batch", run.batch, run.rank) if run.batch else None
    if method == "lora" and run.steps and steps and not law.steps_pow:
        yield from _steps_factor(contexts["short-run"], run.steps, steps)
    if run.batch and batch and not law.batch_pow and not math.isclose(run.batch, batch):
        text = f"batch {run.batch} instead of {batch:g}: square root, from no effect to proportional"
        yield _power_factor("batch", contexts["batch"], run.batch / batch, text)


def _combined(start: Rate, factors: tuple[Factor, ...]) -> Rate:
    """Value and interval after the factors."""
    value = start.value * math.prod(factor.value for factor in factors)
    if start.low is None or start.high is None:
        return Rate(value, None, None)
    ratio = value / start.value
    ends = (start.low * ratio, start.high * ratio)
    low, high = widen(value, ends, *((one.low / one.value, one.high / one.value) for one in factors))
    return Rate(value, low, high)


def _start(
    law: facts.LawFact, looked: LearningRate, width: int, method: str, run: Run
) -> tuple[Rate, tuple[Notice, ...]]:
    """The law's own rate before the factors, by the method that it was fitted on, and what that extrapolates over."""
    assert looked.value is not None
    if not law.population:
        return Rate(looked.value, looked.low, looked.high), looked.extrapolates
    at = Point(
        str(looked.family), width, run.rank if method == "lora" else REFERENCE_RANK,
        method if method in law.methods else law.methods[0],
        run.batch if law.batch_pow else None, run.steps if law.steps_pow else None,
        run.scaled_alpha if law.alpha_pow else None,
    )  # fmt: skip
    return evaluate(law, at), outside(law, at if method == "lora" else replace(at, method="full"))


def on_other_data(rate: Rate) -> Rate:
    """The rate with the interval of the best one on data unlike the law's: its own, and the scatter of data sets."""
    if rate.low is None or rate.high is None:
        return rate
    one = facts.rate_contexts()["other-data"]
    return Rate(rate.value, *widen(rate.value, (rate.low, rate.high), (one.low, one.high)))


@dataclass(frozen=True)
class Moved:
    """A rate for a run: value and interval (which holds a best rate at `level`, None for the range of sweeps), the
    factors in it, what it extrapolates over; `context` is the sweeps that gave it where no law did."""

    rate: Rate
    level: float | None
    basis: Basis
    factors: tuple[Factor, ...] = ()
    extrapolates: tuple[Notice, ...] = ()
    context: RateContext | None = None


def by_sweeps(method: str) -> Moved:
    """The rate in reinforcement learning, which no law covers: what sweeps found."""
    one = facts.rate_contexts()["rl-lora" if method == "lora" else "rl-full"]
    return Moved(Rate(one.value, one.low, one.high), None, one.basis, context=one)


def by_law(law: facts.LawFact, looked: LearningRate, width: int, method: str, run: Run) -> Moved:
    """A law's rate for a supervised run."""
    factors = tuple(_factors(law, method, run))
    start, outer = _start(law, looked, width, method, run)
    rate = _combined(start, factors)
    level = None if rate.low is None else looked.level or LEVEL
    return Moved(rate, level, "fitted", factors, outer)


def at_run(looked: LearningRate, width: int, task: str, run: Run) -> LearningRate:
    """What was looked up, for a run: LoRA's rate and full fine-tuning's, as `lr` gives them."""
    if task == "rl":
        lora, full = by_sweeps("lora"), by_sweeps("full")
    elif looked.value is None:
        return looked
    else:
        lora, full = (by_law(looked.fact, looked, width, method, run) for method in ("lora", "full"))
    return replace(
        looked, value=lora.rate.value, low=lora.rate.low, high=lora.rate.high, full_finetune=full.rate.value,
        basis=lora.basis, level=lora.level, reason=None, factors=lora.factors, context=lora.context,
        batch=run.batch or (None if lora.context else usual(looked.fact, "batch")),
    )  # fmt: skip


def sources_of(factors: tuple[Factor, ...]) -> list[tuple[str, Source]]:
    """What each factor rests on."""
    known = facts.rate_contexts() if factors else {}
    return [(f"factor of {one.name}", known[CONTEXTS[one.name]].source) for one in factors]


def to_mind(method: str, task: str, run: Run) -> Iterator[Notice]:
    """What to mind beside the rate."""
    if task == "rl":
        yield Notice(
            "rl-sweep",
            "In RL best rates differ more between set-ups than any law explains: sweep the whole grid.",
        )
        if method == "lora" and run.rank > 64:
            yield Notice("rl-rank", "Collapse above rank 64 was reported in RL; ranks 1 to 32 did as well.")
    if task == "sft" and method == "lora" and run.batch is not None and run.batch > 128:
        yield Notice(
            "large-batch", "LoRA loses more than full fine-tuning at large batches, whatever the rank."
        )
