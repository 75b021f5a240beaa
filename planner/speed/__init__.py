"""How long a step takes: work, roofline, communication, and how far measured runs lie from them."""

from .calibration import NOTHING_MEASURED, Calibration, Measurement
from .timing import StepTime, step_time, time_gap, tokens_of
from .trained import held, trained_params

__all__ = [
    "NOTHING_MEASURED",
    "Calibration",
    "Measurement",
    "StepTime",
    "held",
    "step_time",
    "time_gap",
    "tokens_of",
    "trained_params",
]
