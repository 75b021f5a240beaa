"""V1, a question that the article leaves open: are LoRA's variants better once each has its learning rate swept?"""

from __future__ import annotations

import math

from ..adapters import VARIANTS
from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..statistics import Interval
from . import Claim, Judgement, Setting, undecided
from .arms import MIDDLE_RANK, at_best, excess_percent, lora, needs, paired_losses

MARGIN_PERCENT = 2.0
# Where a variant's scale of changes differs from the plain one's, the search starts elsewhere (powers of 2).
CENTRES = {"plain": 3, "rslora": 1, "loraplus": 1, "dora": 3, "pissa": 1}


def cells(setting: Setting) -> tuple[Cell, ...]:
    """The plain adapter first, then every variant, each at its own best rate."""
    return tuple(
        lora(setting, MIDDLE_RANK, CENTRES[name], variant=name)
        if name == "plain"
        else at_best(lora(setting, MIDDLE_RANK, CENTRES[name], variant=name))
        for name in VARIANTS
    )


def _shown(found: Interval) -> dict[str, float | None]:
    return {"value": found.value, "low": found.low, "high": found.high}


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """Each variant's loss over the plain adapter's; the value is the one farthest from it."""
    losses = {
        name: paired_losses(cell, lookup, setting.seeds)
        for name, cell in zip(VARIANTS, cells(setting), strict=True)
    }
    if any(found is None for found in losses.values()):
        return undecided("a variant has no finished run")
    plain = losses.pop("plain") or []
    excess = {name: excess_percent(found or [], plain) for name, found in losses.items()}
    rates = {
        name: best.lr
        for name, cell in zip(VARIANTS, cells(setting), strict=True)
        if (best := cell.optimum(lookup, 0)) is not None
    }
    details = {
        "excess_percent": {name: _shown(found) for name, found in excess.items()}, "best_rate": rates,
        "rank": MIDDLE_RANK,
    }  # fmt: skip
    far = max(excess, key=lambda name: abs(excess[name].value))
    one = excess[far]
    if one.low is None:
        return Judgement("undecided", "one seed gives no interval", one, details)
    outside = [name for name, e in excess.items() if _low(e) > MARGIN_PERCENT or _high(e) < -MARGIN_PERCENT]
    if outside:
        shown = ", ".join(f"{name} {excess[name].value:+.2g}%" for name in outside)
        return Judgement(
            "refuted", f"outside {MARGIN_PERCENT:g}% of plain LoRA's loss: {shown}", one, details
        )
    if all(_low(e) >= -MARGIN_PERCENT and _high(e) <= MARGIN_PERCENT for e in excess.values()):
        reason = f"all within {MARGIN_PERCENT:g}% of plain LoRA's loss, {far} the farthest"
        return Judgement("confirmed", reason, one, details)
    return Judgement("undecided", f"the interval of some variant crosses {MARGIN_PERCENT:g}%", one, details)


def _low(found: Interval) -> float:
    return math.nan if found.low is None else found.low


def _high(found: Interval) -> float:
    return math.nan if found.high is None else found.high


CLAIM = Claim(
    "V1", "With the rate swept for each, PiSSA, LoRA+, rsLoRA and DoRA end within 2% of plain LoRA's loss.",
    "left open by the article; 'Learning Rate Matters' (2602.04998) finds 1 to 2% for nine variants",
    "percent of plain LoRA's loss",
    f"confirmed where every variant's 95% interval lies within {MARGIN_PERCENT:g}% of plain LoRA's loss, refuted "
    "where one lies outside",
    lambda setting: 0.0, judge, needs(cells), lambda setting: runs(1, setting.seeds) + runs(4, setting.seeds, 1),
)  # fmt: skip
