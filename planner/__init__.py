"""lora-plan: parameters, FLOPs, capacity and learning rate of a LoRA fine-tune, from a model's config."""

from .dataset import dataset
from .errors import PlannerError
from .estimator import estimate
from .exports import export
from .plan import Plan
from .version import __version__

__all__ = ["Plan", "PlannerError", "__version__", "dataset", "estimate", "export"]
