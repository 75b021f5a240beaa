"""C15: LoRA costs about two thirds of full fine-tuning's FLOPs."""

from __future__ import annotations

from ..adapters import planned
from ..counting import SQUARE
from ..grid import Lookup
from ..models import shape
from ..records import RunConfig
from . import Claim, Judgement, Setting, exact, undecided
from .arms import RANKS, fitting


def _configs(setting: Setting) -> dict[tuple[int, bool], RunConfig]:
    """Full fine-tuning (rank 0) and each rank, with and without checkpointing."""
    base = RunConfig(kind="flops", model=setting.model, task="dialect", steps=1, batch=2, rank=1)
    found = {}
    for again in (False, True):
        found[0, again] = base.but(method="full", rank=0, checkpointing=again)
        found.update({(rank, again): base.but(rank=rank, checkpointing=again) for rank in fitting(setting)})
    return found


def needs(setting: Setting, lookup: Lookup) -> list[RunConfig]:
    """The counts that are not there yet."""
    return [config for config in _configs(setting).values() if lookup(config) is None]


def rule(width: int, rank: int) -> float:
    """The article's rule for a square matrix: 2/3 + 2 R / N."""
    return 2 / 3 + 2 * rank / width


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The planner's count of a whole step and the rule for a square layer, against torch's counter."""
    found = {key: lookup(config) for key, config in _configs(setting).items()}
    if any(record is None or record.status != "ok" for record in found.values()):
        return undecided("a count is missing")
    worst, rows, square = 0, {}, 0.0
    for (rank, again), record in found.items():
        assert record is not None
        config = record.config.but(seq_len=record.measured["length"])
        plan = planned(config, shape(setting.model))
        if plan.flops is None:
            return undecided("the planner has no exact count for this model")
        counted = plan.flops.counted_lora if rank else plan.flops.counted_full
        worst = max(worst, abs(counted - (record.flops or 0)))
        full = found[0, again]
        assert full is not None
        if rank:
            rows[f"rank {rank}{', checkpointing' if again else ''}"] = (record.flops or 0) / (full.flops or 1)
            square = max(square, abs(record.measured["square_ratio"] - rule(SQUARE, rank)))
    details = {
        "ratio_of_a_step": rows, "square_layer_off_by": square, "square_width": SQUARE,
        "rule_of_model": {str(rank): _rule_of(setting, rank) for rank in fitting(setting)},
    }  # fmt: skip
    return exact(
        worst == 0 and square < 1e-12, float(worst),
        f"the planner's {len(found)} counts equal torch's counter to the last FLOP, and 2/3 + 2R/N holds for a "
        "square layer whose input needs a gradient",
        f"counts differ by up to {worst:,} FLOPs, the rule by {square:.3g}",
        details,
    )  # fmt: skip


def _rule_of(setting: Setting, rank: int) -> float | None:
    plan = planned(RunConfig(model=setting.model, rank=rank), shape(setting.model))
    return plan.flops.rule_ratio if plan.flops else None


CLAIM = Claim(
    "C15", "LoRA's step costs 2/3 + 2R/N of full fine-tuning's FLOPs on an N x N layer; the planner's count of a "
    "whole step is exact.", "LoRA Without Regret", "FLOPs off torch's counter",
    "confirmed where every count is equal and the rule holds to 1e-12, else refuted",
    lambda setting: 0.0, judge, needs, lambda setting: 2 * (1 + len(RANKS)),
)  # fmt: skip
