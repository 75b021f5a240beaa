"""The inverse of an estimate: the best plan for a model, data, GPUs, a budget and a deadline."""

from .api import plan
from .result import Found

__all__ = ["Found", "plan"]
