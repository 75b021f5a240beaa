"""The answer of a search: best, alternatives, frontier, what binds, and why the neighbours lose."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import field
from typing import Any

from .. import units
from ..dataclass import dataclass
from ..learning_rate.lookup import LearningRate
from ..schema import Notice
from ..speed import Calibration
from ..tables import frame, rows_of_search
from ..version import __version__
from .evaluate import Evaluated
from .space import Limits, beside

SCHEMA = 1
WITHOUT = {
    "memory": "With more memory",
    "host-memory": "With more of the host's memory",
    "regret": "Without the limit on regret",
}  # how what binds begins; else "Without the budget"


@dataclass(frozen=True)
class Binding:
    """A limit that keeps a better plan out, with that plan."""

    limit: str
    without: Evaluated
    message: str


@dataclass(frozen=True)
class Rejected:
    """A plan one step from the best, and why it loses. `kind`: memory, host-memory, deadline, budget, regret or
    worse."""

    plan: Evaluated
    change: str
    kind: str
    reason: str


@dataclass(frozen=True)
class Found:
    """What `lora-plan plan` says. `sure` is the best plan of which the upper end of the memory's interval fits too;
    None where that is the best plan itself, or where there is none. `learning_rate` is the best plan's."""

    model: str
    tokens: int
    loss_tokens: int | None
    limits: Limits
    candidates: int
    feasible: int
    best: Evaluated
    sure: Evaluated | None
    alternatives: tuple[Evaluated, ...]
    frontier: tuple[Evaluated, ...]
    binding: tuple[Binding, ...]
    rejected: tuple[Rejected, ...]
    warnings: tuple[Notice, ...]
    learning_rate: LearningRate
    given: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)

    def __repr__(self) -> str:
        """The best plan in two lines."""
        best = self.best
        usd = "" if best.usd is None else f", ${best.usd:,.2f}"
        size, time = units.byte_size(best.memory.per_gpu_bytes), units.duration(best.seconds)
        return f"{self.model}: {best.choice.text}\n{size} a GPU, {time}{usd}; best of {self.feasible:,} plans"

    def options(self, plan: Evaluated | None = None) -> dict[str, Any]:
        """A plan (the best, where none is named) as options of `estimate` and `export`."""
        choice = (plan or self.best).choice
        chosen: dict[str, Any] = {
            "rank": choice.rank,
            "layers": choice.layers,
            "quantize": choice.quantize,
            "batch": choice.batch,
            "checkpointing": choice.checkpointing,
            "accumulation": choice.accumulation,
            "gpu": choice.accelerator.name,
            **choice.layout.chosen,
        }
        left = beside(choice.layout.generation)
        return {**{name: value for name, value in self.given.items() if name not in left}, **chosen}

    def command(self, plan: Evaluated | None = None, command: str = "estimate") -> str:
        """The command line of a plan (the best, where none is named), as an estimate or for `export TARGET`."""
        from ..commands import command_of  # which loads what an estimate does

        options = self.options(plan)
        return command_of(options.pop("model"), options, command)

    def _said(self, plan: Evaluated) -> dict[str, Any]:
        """A plan with its command, for JSON."""
        return {**plan.to_dict(), "command": self.command(plan)}

    def to_dict(self) -> dict[str, Any]:
        """The JSON contract of `plan`."""
        return {
            "schema": SCHEMA,
            "version": __version__,
            "model": self.model,
            "tokens": self.tokens,
            "loss_tokens": self.loss_tokens,
            "limits": {
                "budget_usd": self.limits.budget_usd,
                "deadline_s": self.limits.deadline_s,
                "max_regret": self.limits.max_regret,
                "prefer": self.limits.prefer,
                "fit": self.limits.fit,
                "host_memory_bytes": self.limits.host_bytes,
            },
            "candidates": self.candidates,
            "feasible": self.feasible,
            "best": self._said(self.best),
            "learning_rate": self.learning_rate.to_dict(),
            "options": {name: _plain(value) for name, value in self.options().items()},
            "sure": self.sure and self._said(self.sure),
            "alternatives": list(map(self._said, self.alternatives)),
            "frontier": list(map(self._said, self.frontier)),
            "binding": [
                {"limit": item.limit, "message": item.message, "without": self._said(item.without)}
                for item in self.binding
            ],
            "rejected": [
                {
                    "change": item.change,
                    "kind": item.kind,
                    "reason": item.reason,
                    "plan": self._said(item.plan),
                }
                for item in self.rejected
            ],
            "warnings": [dict(vars(notice)) for notice in self.warnings],
        }

    def to_frame(self, table: str = "plans") -> Any:
        """A table as a pandas DataFrame: plans (best, sure and alternatives), frontier, binding, rejected or
        warnings."""
        return frame(self.to_dict(), table, rows_of_search)


def _plain(value: Any) -> Any:
    """An option as JSON has it: data that were read by the name of their file, measurements as theirs."""
    if isinstance(value, Calibration):
        return value.to_dict()
    if hasattr(value, "data"):
        return value.data
    return os.fspath(value) if isinstance(value, os.PathLike) else value


def changed(best: Evaluated, other: Evaluated) -> str:
    """What is different in a plan: "micro-batch 8", "rank 64"."""
    before, after = best.choice.to_dict(), other.choice.to_dict()
    said = []
    for name, value in after.items():
        if before[name] != value and name != "accumulation":
            said.append(f"{name.replace('_', '-')} {value}")
    return ", ".join(said)


def why(best: Evaluated, other: Evaluated, limits: Limits) -> tuple[str, str]:
    """Why another plan is not the best: the kind of reason, and the reason in figures."""
    broken = other.failures(limits)
    if "memory" in broken:
        return "memory", f"{units.byte_size(other.over_bytes(limits.fit))} over"
    if "host-memory" in broken:
        over = other.host.node_bytes - (limits.host_bytes or 0)
        return "host-memory", f"{units.byte_size(over)} of the host's memory over"
    if "deadline" in broken:
        return "deadline", f"{units.duration(other.seconds - (limits.deadline_s or 0))} late"
    if "budget" in broken:
        if other.usd is None:
            return "budget", "no price is known"
        return "budget", f"{other.usd - (limits.budget_usd or 0):,.2f} USD over"
    if "regret" in broken and other.regret is not None:
        return "regret", f"{units.percent(other.regret.value)} more loss than an ample rank"
    said = []
    if best.regret and other.regret and other.regret.value > best.regret.value + 1e-4:
        said.append(f"{units.percent(other.regret.value - best.regret.value)} more loss")
    if best.usd and other.usd:
        said += _against(other.usd, best.usd, "dearer", "cheaper", "as dear")
    said += _against(other.seconds, best.seconds, "slower", "faster", "as long")
    if best.regret and other.regret and other.regret.value < best.regret.value - 1e-4:
        said.append(f"{units.percent(best.regret.value - other.regret.value)} less loss")
    return "worse", ", ".join(said) or "no better"


def _against(one: float, other: float, more: str, less: str, times: str) -> list[str]:
    """How one figure compares with another: nothing under half a percent, a factor from 2 on."""
    ratio = one / other
    if abs(ratio - 1) <= 5e-3:
        return []
    if ratio >= 2:
        return [f"{units.significant(ratio, 2)} times {times}"]
    return [f"{units.percent(abs(ratio - 1))} {more if ratio > 1 else less}"]
