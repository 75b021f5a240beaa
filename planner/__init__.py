"""lora-plan: parameters, FLOPs, memory, capacity and learning rate of a LoRA fine-tune, from a model's config."""

from typing import TYPE_CHECKING, Any

from .errors import PlannerError
from .exports import export
from .plan import Plan
from .planning import estimate
from .version import __version__

if TYPE_CHECKING:
    from .comparing import compare
    from .simulate import simulate

__all__ = ["Plan", "PlannerError", "__version__", "compare", "estimate", "export", "simulate"]
# What an estimate does not need, with the module that has it.
LATER = {"compare": ".comparing", "simulate": ".simulate"}


def __getattr__(name: str) -> Any:
    """Load what needs more than an estimate on its first use."""
    if name in LATER:
        from importlib import import_module

        return getattr(import_module(LATER[name], __name__), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
