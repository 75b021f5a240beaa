"""lora-plan: parameters, FLOPs, memory, time, cost, capacity and learning rate of a fine-tune, from a config."""

from __future__ import annotations

import sys
from importlib import import_module
from types import ModuleType
from typing import TYPE_CHECKING, Any

from .dataset import dataset  # light, like report
from .errors import PlannerError
from .report import report
from .version import __version__

if TYPE_CHECKING:  # imported where they are called: no command needs all of them
    from .comparing import Comparison
    from .exports import export
    from .exports.imported import import_config
    from .exports.review import review
    from .learning_rate.advice import lr
    from .learning_rate.fit import fit
    from .learning_rate.parametrisation import convert
    from .measuring import Calibrated
    from .plan import Plan
    from .planning import estimate
    from .search import Found
    from .simulate.report import SimulatedSteps


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


def simulate(model: Any, **options: Any) -> SimulatedSteps:
    """The training step without weights; see planner.simulate.simulate for the options."""
    from .simulate import simulate as run

    return run(model, **options)


def validate(*claims: Any, **options: Any) -> Any:
    """Verdicts on the article's claims from short runs; see planner.validate.validate for the options."""
    from .validate import validate as run

    return run(*claims, **options)


# Imported when first used: an estimate needs few of them, and `fit` brings numpy and pandas.
_LATER = {
    "Plan": "plan",
    "convert": "learning_rate.parametrisation",
    "estimate": "planning",
    "export": "exports",
    "fit": "learning_rate.fit",
    "import_config": "exports.imported",
    "lr": "learning_rate.advice",
    "review": "exports.review",
}


def __getattr__(name: str) -> Any:
    if name not in _LATER:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found = globals()[name] = getattr(import_module(f".{_LATER[name]}", __name__), name)
    return found


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


__all__ = [
    "Plan", "PlannerError", "__version__", "calibrate", "compare", "convert", "dataset", "estimate", "export", "fit",
    "import_config", "lr", "plan", "report", "review", "simulate", "validate",
]  # fmt: skip


class _Api(ModuleType):
    """This package. Some functions are named like the module they come from, and loading a submodule binds its name
    here: not over a function."""

    def __setattr__(self, name: str, value: Any) -> None:
        if not (isinstance(value, ModuleType) and name in __all__):
            super().__setattr__(name, value)


sys.modules[__name__].__class__ = _Api
