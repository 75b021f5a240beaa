"""C16: early in training LoRA's tangent kernel is like full fine-tuning's."""

from __future__ import annotations

from ..grid import Lookup
from ..records import RunConfig
from ..statistics import interval
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, RANKS, fitting

SAMPLES = 24
ALIKE = 0.9


def _configs(setting: Setting) -> dict[tuple[int, int], RunConfig]:
    base = RunConfig(kind="kernel", model=setting.model, task="dialect", steps=1, batch=SAMPLES, rank=1)
    return {
        (rank, seed): base.but(rank=rank, seed=seed)
        for rank in fitting(setting)
        for seed in range(setting.seeds)
    }


def needs(setting: Setting, lookup: Lookup) -> list[RunConfig]:
    """The kernels that are not there yet."""
    return [config for config in _configs(setting).values() if lookup(config) is None]


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """Centred kernel alignment with full fine-tuning by rank; the value is the middle rank's."""
    found: dict[int, list[float]] = {rank: [] for rank in fitting(setting)}
    for (rank, _), config in _configs(setting).items():
        record = lookup(config)
        if record is None or record.status != "ok":
            return undecided("a kernel is missing")
        found[rank].append(record.measured["alignment"])
    details = {
        "alignment": {str(rank): sum(v) / len(v) for rank, v in found.items()},
        "samples": SAMPLES,
        "pitfall": "the last layers can dominate both kernels",
    }
    what = f"kernel alignment at rank {MIDDLE_RANK}"
    return against(interval(found[MIDDLE_RANK]), ALIKE, float("inf"), what, details)


CLAIM = Claim(
    "C16", "At the start of training LoRA's tangent kernel is like full fine-tuning's.",
    "LoRA Without Regret, after Malladi et al. 2023", "centred kernel alignment",
    f"confirmed where the 95% interval at rank {MIDDLE_RANK} lies above {ALIKE:g}, refuted where below",
    lambda setting: 1.0, judge, needs, lambda setting: len(RANKS) * setting.seeds,
)  # fmt: skip
