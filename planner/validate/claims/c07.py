"""C7: LoRA on attention alone is worse, at equal parameters too; on MLPs alone it is about as good as on all."""

from __future__ import annotations

from ..adapters import planned
from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..models import shape
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, excess_percent, lora, losses, needs


def _params(setting: Setting, layers: str, rank: int) -> int:
    return int(planned(setting.base(layers=layers, rank=rank), shape(setting.model)).adapter.params)


def mlp_rank(setting: Setting) -> int:
    """The largest rank on the MLPs that takes no more parameters than the middle rank on attention."""
    return max(1, _params(setting, "attention", MIDDLE_RANK) // _params(setting, "mlp", 1))


def cells(setting: Setting) -> tuple[Cell, ...]:
    """Attention, MLPs with no more parameters, and both at the middle rank."""
    return (
        lora(setting, MIDDLE_RANK, layers="attention"),
        lora(setting, mlp_rank(setting), layers="mlp"),
        lora(setting, MIDDLE_RANK, layers="attention,mlp"),
    )


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The excess of attention's loss over the MLPs'."""
    attention, mlp, both = (losses(cell, lookup, setting.seeds) for cell in cells(setting))
    if attention is None or mlp is None or both is None:
        return undecided("a sweep has no finished run")
    other = excess_percent(mlp, both)
    details = {
        "params": {
            "attention": _params(setting, "attention", MIDDLE_RANK),
            "mlp": _params(setting, "mlp", mlp_rank(setting)),
            "attention,mlp": _params(setting, "attention,mlp", MIDDLE_RANK),
        },
        "loss": {"attention": attention, "mlp": mlp, "attention,mlp": both},
        "mlp_over_both_percent": {"value": other.value, "low": other.low, "high": other.high},
    }  # fmt: skip
    what = "attention's loss above the MLPs' in percent"
    return against(excess_percent(attention, mlp), 0.0, float("inf"), what, details)


CLAIM = Claim(
    "C7", "LoRA on attention alone is worse than on the MLPs alone with no more parameters.",
    "LoRA Without Regret: attention at rank 256 (0.25B) below MLP at rank 128 (0.24B)", "percent of loss",
    "confirmed where the 95% interval of attention's excess loss lies above 0, refuted where below",
    lambda setting: 0.0, judge, needs(cells), lambda setting: runs(3, setting.seeds),
)  # fmt: skip
