"""Fitting learning-rate laws to sweeps (needs numpy, pandas and scipy)."""

from .fitting import fit
from .result import Estimate, FitResult, FormScore, Regret

__all__ = ["Estimate", "FitResult", "FormScore", "Regret", "fit"]
