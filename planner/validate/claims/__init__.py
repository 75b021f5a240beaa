"""The article's claims as code: one file a claim, with the verdict's rule fixed before any run.

A claim says which runs it needs next, given the records there are (`needs`), and judges once nothing is missing
(`judge`). What it predicts comes from the planner's own functions and facts.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from importlib import import_module
from typing import Any, Literal

from ...errors import InputError, hint
from ..grid import Lookup
from ..records import RunConfig
from ..statistics import Interval

Verdict = Literal["confirmed", "refuted", "undecided"]
# The article's twenty claims, then questions that it leaves open.
IDS = (*(f"C{number}" for number in range(1, 21)), "V1")


@dataclass(frozen=True)
class Setting:
    """What claims are tried on: models (the first where one is enough), seeds, and the standard run's steps, task,
    batch, longest sequence in tokens, precision and gradient checkpointing."""

    models: tuple[str, ...] = ("tiny",)
    seeds: int = 3
    steps: int = 120
    task: str = "dialect"
    batch: int = 16
    seq_len: int = 64
    precision: str = "float32"
    checkpointing: bool = False

    @property
    def model(self) -> str:
        """The model of claims that need one."""
        return self.models[0]

    def base(self, **changes: Any) -> RunConfig:
        """The standard supervised run at constant rate, by itself on fresh text of a language that the model has not
        seen."""
        steps = changes.get("steps", self.steps)
        marks = tuple(sorted({max(1, steps // n) for n in (8, 4, 2, 1)}))
        fields = {
            "model": self.model, "task": self.task, "steps": steps, "evaluate_at": marks, "rank": 16,
            "batch": self.batch, "seq_len": self.seq_len, "precision": self.precision,
            "checkpointing": self.checkpointing,
        }  # fmt: skip
        return RunConfig(**{**fields, **changes})


@dataclass(frozen=True)
class Judgement:
    """A verdict with what was measured. `details` are further figures, plain JSON."""

    verdict: Verdict
    reason: str
    measured: Interval
    details: Mapping[str, Any] = field(default_factory=dict)


def _no_runs(setting: Setting, lookup: Lookup) -> list[RunConfig]:
    return []


def _none(setting: Setting) -> int:
    return 0


@dataclass(frozen=True)
class Claim:
    """One claim. `predicted` is the planner's figure, `unit` what it and the measured value are, `rule` the verdict's
    rule in words; `expected_runs` is their usual number, from which the duration is told before anything has run."""

    id: str
    statement: str
    source: str
    unit: str
    rule: str
    predicted: Callable[[Setting], float]
    judge: Callable[[Setting, Lookup], Judgement]
    needs: Callable[[Setting, Lookup], list[RunConfig]] = _no_runs
    expected_runs: Callable[[Setting], int] = _none


@lru_cache(maxsize=32)
def claim(claim_id: str) -> Claim:
    """The claim of this id, in any case. Raises InputError with the nearest."""
    name = str(claim_id).strip().upper()
    if name not in IDS:
        raise InputError("claims", claim_id, f"ids from {IDS[0]} to {IDS[-1]}", hint(name, IDS).strip())
    found: Claim = import_module(f".{name[0].lower()}{int(name[1:]):02d}", __package__).CLAIM
    return found


def claims(chosen: str | Sequence[str] | None = None) -> tuple[Claim, ...]:
    """Claims by id (a comma or space list, or a sequence), each once; all of them by default."""
    if chosen is None:
        names: Sequence[str] = IDS
    else:
        names = chosen.replace(",", " ").split() if isinstance(chosen, str) else chosen
    found = [claim(name) for item in names for name in item.replace(",", " ").split()]
    if not found:
        raise InputError("claims", chosen, f"at least one of {IDS[0]} to {IDS[-1]}")
    return tuple(dict.fromkeys(found))


def exact(
    holds: bool, value: float, yes: str, no: str, details: Mapping[str, Any] | None = None
) -> Judgement:
    """The judgement of a claim that is exactly so or not."""
    return Judgement(
        "confirmed" if holds else "refuted",
        yes if holds else no,
        Interval(value, value, value),
        details or {},
    )


def undecided(reason: str, value: float = math.nan, details: Mapping[str, Any] | None = None) -> Judgement:
    """A judgement where the runs do not decide."""
    return Judgement("undecided", reason, Interval(value), details or {})


def against(
    measured: Interval, low: float, high: float, what: str, details: Mapping[str, Any] | None = None
) -> Judgement:
    """Confirmed where the 95% interval lies within low to high, refuted where it lies outside, else undecided.

    `what` names the quantity in the reason. Without an interval (one seed) nothing is decided.
    """
    if measured.low is None or measured.high is None:
        return Judgement(
            "undecided", f"{what}: one seed gives no interval, --seeds 3 does", measured, details or {}
        )
    allowed = _bound(low, high)
    shown = f"{what} is {measured.value:.3g} ({measured.low:.3g} to {measured.high:.3g})"
    if low <= measured.low and measured.high <= high:
        return Judgement("confirmed", f"{shown}, within the bound ({allowed})", measured, details or {})
    if measured.high < low or measured.low > high:
        return Judgement("refuted", f"{shown}, outside the bound ({allowed})", measured, details or {})
    return Judgement("undecided", f"{shown}, across the bound ({allowed})", measured, details or {})


def _bound(low: float, high: float) -> str:
    if math.isinf(high):
        return f"at least {low:.3g}"
    return f"at most {high:.3g}" if math.isinf(low) else f"{low:.3g} to {high:.3g}"
