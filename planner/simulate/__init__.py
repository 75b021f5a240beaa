"""The fake-tensor level: the real training step, run without weights, and what it takes.

transformers' own model code, PEFT's adapters, torch's automatic differentiation and optimizer run on the meta device,
where tensors have shapes and types and no values, while every allocation is watched.
"""

from .report import SimulatedStep, SimulatedSteps
from .request import simulate

__all__ = ["SimulatedStep", "SimulatedSteps", "simulate"]
