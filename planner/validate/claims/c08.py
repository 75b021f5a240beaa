"""C8: on a mixture of experts, one LoRA an expert at rank / active experts behaves alike; other layouts beside it."""

from __future__ import annotations

from collections.abc import Sequence

from ... import facts
from ..adapters import planned
from ..experts import CONVENTIONS
from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..models import shape
from ..records import RunConfig
from . import Claim, Judgement, Setting, against, undecided
from .arms import MIDDLE_RANK, at_best, excess_percent, full, log_rates, lora, needs, paired_losses, ratio
from .c17 import LAW

MODEL = "mixture"
FACTOR = 2.0


def model_of(setting: Setting) -> str:
    """The setting's first mixture of experts, the zoo's where it has none."""
    return next((name for name in setting.models if "num_experts_per_tok" in shape(name)), MODEL)


def _layout(setting: Setting, name: str) -> Cell:
    return lora(setting, MIDDLE_RANK, model=model_of(setting), experts=name)


def cells(setting: Setting) -> Sequence[Cell]:
    """Full fine-tuning and the article's layout at swept rates, the other layouts where their loss is lowest."""
    first, *others = CONVENTIONS
    return [
        full(setting, model=model_of(setting)),
        _layout(setting, first),
        *(at_best(_layout(setting, name)) for name in others),
    ]


def _params(config: RunConfig) -> int:
    return int(planned(config, shape(config.model)).adapter.params)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """The ratio of best rates against the law's multiplier; layouts side by side among the details."""
    whole, *arms = cells(setting)
    full_rates, low_rates = (log_rates(cell, lookup, setting.seeds) for cell in (whole, arms[0]))
    if full_rates is None or low_rates is None:
        return undecided(f"no optimum inside the grid on {model_of(setting)}")
    base = paired_losses(whole, lookup, setting.seeds)
    losses = {
        name: paired_losses(cell, lookup, setting.seeds) for name, cell in zip(CONVENTIONS, arms, strict=True)
    }
    if base is None or any(found is None for found in losses.values()):
        return undecided("a layout has no finished run")
    excess = {name: excess_percent(found or [], base) for name, found in losses.items()}
    details = {
        "model": model_of(setting), "rank": MIDDLE_RANK,
        "params": {name: _params(cell.base) for name, cell in zip(CONVENTIONS, arms, strict=True)},
        "excess_percent": {
            name: {"value": one.value, "low": one.low, "high": one.high} for name, one in excess.items()
        },
        "best_rate": {name: best.lr for name, cell in zip(CONVENTIONS, arms, strict=True)
                      if (best := cell.optimum(lookup, 0)) is not None},
    }  # fmt: skip
    predicted = CLAIM.predicted(setting)
    what = "LoRA's best rate over full's on a mixture of experts"
    return against(ratio(low_rates, full_rates), predicted / FACTOR, predicted * FACTOR, what, details)


CLAIM = Claim(
    "C8", "With one LoRA an expert at rank / active experts, the ratio of best rates stays about 10.",
    "LoRA Without Regret, Qwen3-30B-A3B", "ratio of best rates",
    f"confirmed where the 95% interval lies within a factor {FACTOR:g} of the law's multiplier, refuted outside",
    lambda setting: facts.law(LAW).lora_multiplier, judge, needs(cells),
    lambda setting: runs(2, setting.seeds) + runs(len(CONVENTIONS) - 1, setting.seeds, 1),
)  # fmt: skip
