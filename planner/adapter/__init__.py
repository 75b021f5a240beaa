"""What is trained: a spec's choice of matrices and ranks over an inventory, counted as PEFT or Tinker would."""

from .pairs import Adapted, Pair, Slope, adapt, by_matrix, params, select, slope
from .spec import (
    ALL_LINEAR,
    LAYER_SETS,
    PRESETS,
    AdapterSpec,
    Bias,
    ExpertConvention,
    Layout,
    Variant,
    check_spec,
)

__all__ = [
    "ALL_LINEAR",
    "LAYER_SETS",
    "PRESETS",
    "Adapted",
    "AdapterSpec",
    "Bias",
    "ExpertConvention",
    "Layout",
    "Pair",
    "Slope",
    "Variant",
    "adapt",
    "by_matrix",
    "check_spec",
    "params",
    "select",
    "slope",
]
