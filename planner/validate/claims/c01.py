"""C1: a LoRA of high rank learns like full fine-tuning."""

from __future__ import annotations

from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from . import Claim, Judgement, Setting, against, undecided
from .arms import excess_percent, fitting, full, lora, losses, needs

MARGIN_PERCENT = 1.0


def cells(setting: Setting) -> tuple[Cell, ...]:
    """Full fine-tuning and the high rank, each at its own best rate."""
    return full(setting), lora(setting, fitting(setting)[-1])


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The excess of LoRA's loss over full fine-tuning's."""
    whole, low = (losses(cell, lookup, setting.seeds) for cell in cells(setting))
    if whole is None or low is None:
        return undecided("a sweep has no finished run")
    found, rank = excess_percent(low, whole), fitting(setting)[-1]
    return against(
        found, -float("inf"), MARGIN_PERCENT, f"rank {rank}'s excess loss in percent",
        {"full_loss": whole, "lora_loss": low, "rank": rank},
    )  # fmt: skip


CLAIM = Claim(
    "C1", "LoRA of high rank on all layers reaches full fine-tuning's loss, each at its best rate.",
    "LoRA Without Regret, Figure 1", "percent of full fine-tuning's loss",
    f"confirmed where the 95% interval of the excess loss lies below {MARGIN_PERCENT:g}%, refuted where above it",
    lambda setting: 0.0, judge, needs(cells), lambda setting: runs(2, setting.seeds),
)  # fmt: skip
