"""C6: LoRA loses more than full fine-tuning as the batch grows, alike at every rank."""

from __future__ import annotations

from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..models import shape
from ..statistics import interval
from . import Claim, Judgement, Setting, against, undecided
from .arms import at_best, full, lora, needs, paired_losses

BATCHES = (8, 32, 128)
LOW_RANK, RANK = 4, 32
STANDARD_BATCH = 16


def _ranks(setting: Setting) -> tuple[int, int]:
    """A low and a high rank; no higher than the model is wide."""
    return LOW_RANK, min(RANK, int(shape(setting.model)["hidden_size"]))


def _arms(setting: Setting, batch: int) -> dict[int, Cell]:
    """Full fine-tuning (rank 0) and LoRA on the same number of tokens."""
    steps = max(10, 2 * setting.steps * STANDARD_BATCH // batch)
    shift = (batch // 8).bit_length() // 2
    return {
        0: at_best(full(setting, shift, batch=batch, steps=steps)),
        **{
            rank: at_best(lora(setting, rank, 2 + shift, batch=batch, steps=steps))
            for rank in _ranks(setting)
        },
    }


def cells(setting: Setting) -> list[Cell]:
    """Every arm at every batch."""
    return [cell for batch in BATCHES for cell in _arms(setting, batch).values()]


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """How much LoRA's excess loss grows from the smallest batch to the largest, in percentage points."""
    ranks = _ranks(setting)
    gaps: dict[int, dict[int, list[float]]] = {rank: {} for rank in ranks}
    for batch in BATCHES:
        found = {
            rank: paired_losses(cell, lookup, setting.seeds) for rank, cell in _arms(setting, batch).items()
        }
        if any(value is None for value in found.values()):
            return undecided(f"a sweep at batch {batch} has no finished run")
        for rank in ranks:
            pairs = zip(found[rank] or [], found[0] or [], strict=True)
            gaps[rank][batch] = [100 * (a / b - 1) for a, b in pairs]
    growth = {
        rank: [b - a for a, b in zip(g[BATCHES[0]], g[BATCHES[-1]], strict=True)] for rank, g in gaps.items()
    }
    both = [sum(values) / len(values) for values in zip(*growth.values(), strict=True)]
    apart = interval([b - a for a, b in zip(growth[ranks[0]], growth[ranks[1]], strict=True)])
    details = {
        "excess_percent": {
            str(rank): {str(batch): sum(v) / len(v) for batch, v in g.items()} for rank, g in gaps.items()
        },
        "difference_between_ranks": {"value": apart.value, "low": apart.low, "high": apart.high},
        "confound": "at equal tokens a larger batch takes fewer steps",
    }
    what = f"growth of LoRA's excess loss from batch {BATCHES[0]} to {BATCHES[-1]} in percentage points"
    return against(interval(both), 0.0, float("inf"), what, details)


CLAIM = Claim(
    "C6", "LoRA's disadvantage grows with the batch, hardly depending on rank.",
    "LoRA Without Regret, batch sizes on 10,000 examples of OpenThoughts3", "percentage points of loss",
    "confirmed where the 95% interval of the growth, over both ranks, lies above 0, refuted where below",
    lambda setting: 0.0, judge, needs(cells), lambda setting: runs(len(BATCHES) * 3, setting.seeds, 1),
)  # fmt: skip
