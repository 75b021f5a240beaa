"""C11: trained parameters hold about two bits each."""

from __future__ import annotations

import math

from ... import capacity
from ..adapters import planned
from ..grid import Cell, Lookup
from ..grid import typical_runs as runs
from ..models import shape
from ..records import RunRecord
from ..statistics import interval
from ..tasks import task
from . import Claim, Judgement, Setting, against, undecided
from .arms import at_best, lora, needs

# Rank and layer sets; each is given about four bits a parameter to learn, twice what it is predicted to hold.
ARMS = ((1, "all"), (2, "all"), (4, "all"), (4, "attention"), (4, "mlp"))
OFFERED_BITS_A_PARAM = 4.0
LENGTH = 32
BATCH = 16
# Capacity is what many exposures fill: 200 left it rising still, on the narrowest model a CPU affords more.
EXPOSURES, MOST = 200, {"pico": 500}


def _params(setting: Setting, rank: int, layers: str) -> int:
    return int(planned(setting.base(rank=rank, layers=layers), shape(setting.model)).adapter.params)


def _cell(setting: Setting, rank: int, layers: str) -> Cell:
    count = max(1, round(OFFERED_BITS_A_PARAM * _params(setting, rank, layers) / (4 * LENGTH)))
    steps = math.ceil(MOST.get(setting.model, EXPOSURES) * count / BATCH)
    return at_best(
        lora(
            setting, rank, task=f"strings:count={count},length={LENGTH}", layers=layers, steps=steps, batch=BATCH,
            evaluate_at=tuple(steps * share // 8 for share in (1, 2, 4, 6, 8)),
        )
    )  # fmt: skip


def cells(setting: Setting) -> list[Cell]:
    """Random strings, more than the adapter is predicted to hold, each seen as often as the model affords."""
    return [_cell(setting, rank, layers) for rank, layers in ARMS]


def stored_bits(record: RunRecord, step: int | None = None) -> float:
    """Bits of the strings less the bits that the model still needs to write them at a step: at least 0."""
    known = task(record.config.task)
    needed = record.evaluation(step) / math.log(2) * LENGTH * known.size
    return max(0.0, (known.bits or 0.0) - needed)


def judge(setting: Setting, lookup: Lookup) -> Judgement:
    """Bits a parameter at each arm's best rate; the value is the best arm's."""
    found: dict[str, list[float]] = {}
    by_exposures: dict[str, dict[str, float]] = {}
    for (rank, layers), cell in zip(ARMS, cells(setting), strict=True):
        best = [cell.best(lookup, seed) for seed in range(setting.seeds)]
        if any(record is None for record in best):
            return undecided(f"no run of rank {rank} on {layers} finished")
        name = f"rank {rank}, {layers}"
        params = _params(setting, rank, layers)
        found[name] = [stored_bits(record) / params for record in best if record is not None]
        by_exposures[name] = {
            f"{step * BATCH / task(cell.base.task).size:.0f}": sum(
                stored_bits(record, step) / params for record in best if record is not None
            )
            / setting.seeds
            for step in cell.base.evaluate_at
        }
    top = max(found, key=lambda name: sum(found[name]))
    predicted = capacity.BITS_PER_PARAM
    details = {
        "bits_a_parameter": {name: sum(v) / len(v) for name, v in found.items()}, "best": top,
        "by_exposures": by_exposures,
        "offered": OFFERED_BITS_A_PARAM,
        "not_tried": "1 bit a token of natural text: our text is generated",
    }  # fmt: skip
    return against(
        interval(found[top]), predicted / 1.5, predicted * 1.5, f"bits a parameter, {top}", details
    )


CLAIM = Claim(
    "C11", "A trained adapter holds about 2 bits a parameter.",
    "Allen-Zhu and Li 2024, for whole models after 1000 exposures; used by the article", "bits a parameter",
    "confirmed where the 95% interval of the best arm lies within a factor 1.5 of 2, refuted where outside",
    lambda setting: capacity.BITS_PER_PARAM, judge, needs(cells), lambda setting: runs(len(ARMS), setting.seeds, 1),
)  # fmt: skip
