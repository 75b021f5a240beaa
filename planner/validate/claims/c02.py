"""C2: a low rank leaves the curve that all share once its capacity is short, the lower the earlier."""

from __future__ import annotations

from ...capacity import BITS_PER_PARAM
from ..adapters import planned
from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..models import shape
from ..statistics import Interval
from ..tasks import task
from . import Claim, Judgement, Setting, undecided
from .arms import at_best, fitting, lora, needs

TASK = "biographies:people=300,choices=16"
STEPS_OF_STANDARD = 4
GAP = 0.02


def _marks(steps: int) -> tuple[int, ...]:
    return tuple(sorted({max(1, round(steps * n / 16)) for n in (1, 2, 3, 4, 5, 6, 8, 10, 12, 14, 16)}))


def cells(setting: Setting) -> tuple[Cell, ...]:
    """Biographies gone through again and again, at every rank."""
    steps = setting.steps * STEPS_OF_STANDARD
    return tuple(
        at_best(lora(setting, rank, task=TASK, steps=steps, batch=32, evaluate_at=_marks(steps)))
        for rank in fitting(setting)
    )


def departures(setting: Setting, lookup: Lookup, seed: int) -> dict[int, int | None]:
    """For each rank but the highest, the first step from which its lowest loss over rates stays more than GAP above
    the highest rank's; None where that never happens."""
    ranks = fitting(setting)
    arms = dict(zip(ranks, cells(setting), strict=True))
    marks = arms[ranks[0]].base.evaluate_at
    found: dict[int, int | None] = {}
    for rank in ranks[:-1]:
        late = None
        for step in reversed(marks):
            top = arms[ranks[-1]].lowest(lookup, seed, step)
            if not arms[rank].lowest(lookup, seed, step) > (1 + GAP) * top:
                break
            late = step
        found[rank] = late
    return found


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """Departure steps by rank; the value is the lowest rank's over the middle one's."""
    ranks = fitting(setting)
    every = [departures(setting, lookup, seed) for seed in range(setting.seeds)]
    details = {
        "departure_steps": [{str(rank): step for rank, step in found.items()} for found in every],
        "bits": task(TASK).bits,
        "capacity_bits": {str(rank): BITS_PER_PARAM * _params(setting, rank) for rank in ranks},
    }
    steps = [[found[rank] for rank in ranks[:-1]] for found in every]
    never = setting.steps * STEPS_OF_STANDARD + 1
    filled = [[never if step is None else step for step in row] for row in steps]
    ordered = [row == sorted(row) for row in filled]
    apart = [row[0] < row[-1] for row in filled]
    value = sum(row[0] / row[-1] for row in filled) / len(filled)
    if all(row[0] == never for row in filled):
        return undecided(
            "no rank left the shared curve: the task is too small or the run too short", 1.0, details
        )
    if all(ordered) and all(apart):
        reason = (
            f"every seed's ranks leave in order, the lowest first, more than {GAP:.0%} above rank {ranks[-1]}"
        )
        return Judgement("confirmed", reason, Interval(value), details)
    if not any(ordered):
        return Judgement("refuted", "no seed's ranks leave in the order of rank", Interval(value), details)
    return undecided("ranks leave in order for some seeds only, or at the same evaluation", value, details)


def _params(setting: Setting, rank: int) -> int:
    return int(planned(setting.base(rank=rank), shape(setting.model)).adapter.params)


CLAIM = Claim(
    "C2", "A low rank leaves the shared learning curve once its capacity is short, the lower the earlier.",
    "LoRA Without Regret, Figure 1", "departure step of the lowest rank over that of the last but one",
    "confirmed where in every seed the departure steps (first evaluation from which the lowest loss over rates stays "
    f"{GAP:.0%} above the highest rank's) rise with rank; refuted where in none",
    lambda setting: fitting(setting)[0] / fitting(setting)[-2], judge, needs(cells),
    lambda setting: runs(len(fitting(setting)), setting.seeds, 1),
)  # fmt: skip
