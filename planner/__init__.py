"""lora-plan: parameters, FLOPs, capacity and learning rate of a LoRA fine-tune, from a model's config."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from .errors import PlannerError
from .estimator import estimate
from .exports import export
from .plan import Plan
from .version import __version__

if TYPE_CHECKING:
    from .learning_rate.advice import lr
    from .learning_rate.fit import fit
    from .learning_rate.parametrisation import convert

__all__ = ["Plan", "PlannerError", "__version__", "convert", "estimate", "export", "fit", "lr"]

# Imported when first used: an estimate needs none of them, and `fit` brings numpy and pandas.
_LAZY = {
    "convert": "learning_rate.parametrisation",
    "fit": "learning_rate.fit",
    "lr": "learning_rate.advice",
}


def __getattr__(name: str) -> Any:
    if name in _LAZY:
        return getattr(import_module(f".{_LAZY[name]}", __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
