"""Arms that several claims share, so that one run serves all of them."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

from ..grid import Cell, Lookup, all_wanted
from ..models import shape
from ..records import RunConfig
from ..statistics import Interval, interval
from . import Setting

FULL_CENTRE = 1
LORA_CENTRE = 3
MIDDLE_RANK = 16
RANKS = (1, 4, 16, 64)


def fitting(setting: Setting) -> tuple[int, ...]:
    """The ranks that the model's width allows."""
    width = int(shape(setting.model)["hidden_size"])
    return tuple(rank for rank in RANKS if rank <= width)


def full(setting: Setting, centre: int = FULL_CENTRE, at: tuple[int, ...] = (), **changes: Any) -> Cell:
    """Full fine-tuning at a swept rate."""
    return Cell(setting.base(method="full", rank=0, **changes), centre, at)


def at_best(cell: Cell) -> Cell:
    """The same cell where only losses matter: further seeds run at the first one's best rate alone."""
    return replace(cell, around=(0,))


def lora(
    setting: Setting, rank: int, centre: int = LORA_CENTRE, at: tuple[int, ...] = (), **changes: Any
) -> Cell:
    """LoRA of a rank at a swept rate."""
    return Cell(setting.base(rank=rank, **changes), centre, at)


def needs(cells: Callable[[Setting], Sequence[Cell]]) -> Callable[[Setting, Lookup], list[RunConfig]]:
    """What a list of cells still wants."""
    return lambda setting, lookup: all_wanted(cells(setting), setting.seeds, lookup)


def log_rates(cell: Cell, lookup: Lookup, seeds: int, step: int | None = None) -> list[float] | None:
    """Natural logs of each seed's best rate, None where a seed has none inside its grid."""
    found = [cell.optimum(lookup, seed, step) for seed in range(seeds)]
    if any(best is None or not best.inside for best in found):
        return None
    return [math.log(best.lr) for best in found if best is not None]


def losses(cell: Cell, lookup: Lookup, seeds: int) -> list[float] | None:
    """Each seed's loss at its best rate, None where a seed has none."""
    found = [cell.optimum(lookup, seed) for seed in range(seeds)]
    return None if any(best is None for best in found) else [best.loss for best in found if best is not None]


def paired_losses(cell: Cell, lookup: Lookup, seeds: int) -> list[float] | None:
    """Each seed's loss at the rate where the first seed's is lowest, None where a seed has none.

    One rate for every seed: the lowest over a seed's rates would favour the arm that other claims ran at more rates.
    """
    top = cell.best(lookup, 0)
    found = [] if top is None else [lookup(top.config.but(seed=seed)) for seed in range(seeds)]
    if not found or any(run is None or run.status != "ok" for run in found):
        return None
    return [run.evaluation() for run in found if run is not None]


def ratio(first: Iterable[float], second: Iterable[float]) -> Interval:
    """exp(first - second), paired by seed: a quotient of rates."""
    return interval([a - b for a, b in zip(first, second, strict=True)]).map(math.exp)


def excess_percent(first: Iterable[float], second: Iterable[float]) -> Interval:
    """How much higher the first losses lie, in percent of the second, paired by seed."""
    return interval([100 * (a / b - 1) for a, b in zip(first, second, strict=True)])
