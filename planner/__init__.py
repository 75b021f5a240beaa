"""lora-plan: parameters, FLOPs, memory, time, cost, capacity and learning rate of a fine-tune, from a config."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .errors import PlannerError
from .exports import export
from .plan import Plan
from .planning import estimate
from .version import __version__

if TYPE_CHECKING:  # imported where they are called: an estimate needs none of them
    from .comparing import Comparison
    from .measuring import Calibrated
    from .search import Found
    from .simulate.request import Report


def plan(model: Any, **options: Any) -> Found:
    """The best plan for a model, data, GPUs, a budget and a deadline; see planner.search.plan for the options."""
    from .search import plan as search

    return search(model, **options)


def compare(model: Any, **options: Any) -> Comparison:
    """LoRA, QLoRA and full fine-tuning side by side; see planner.comparing.compare for the options."""
    from .comparing import compare as laid_out

    return laid_out(model, **options)


def calibrate(model: Any = None, **options: Any) -> Calibrated:
    """Learn from a measured step; see planner.measuring.calibrate for the options."""
    from .measuring import calibrate as learn

    return learn(model, **options)


def simulate(model: Any, **options: Any) -> Report:
    """The training step without weights; see planner.simulate.simulate for the options."""
    this = simulate
    from .simulate import simulate as run

    globals()["simulate"] = this  # the import has bound the package of the same name here
    return run(model, **options)


__all__ = [
    "Plan", "PlannerError", "__version__", "calibrate", "compare", "estimate", "export", "plan", "simulate",
]  # fmt: skip
