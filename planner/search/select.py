"""From all plans to the best, the next best, the frontier and what binds: order and comparison over arrays."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from copy import copy
from dataclasses import replace
from functools import cached_property
from typing import Any

import numpy as np

from ..regret import least_seen
from .evaluate import Evaluated, evaluate
from .hosted import host_bytes
from .layout import WAYS, Layout
from .screen import TOLERANCE, Cells
from .space import Fit, Limits

Array = Any  # a numpy array
SAME_REGRET = 1e-3  # excess loss (as a share of the loss) below which quality counts as equal
SAME = 1.02  # costs and times so close count as equal
NO_PRICE = 1e30  # dollars, where none is known: dearer than all, and equal among themselves
ROUNDED = 1 + 1e-9  # what sums in another order may differ by: who so nearly breaks a limit is tried in full
MOST_TRIED = 400  # plans checked with the scalar formulas before giving up
NEAR = 16  # of the best plans, those that are checked at once where one of them does not keep the limits


class Chooser:
    """The cells of a search with the plans already checked in full. A cell found not to fit is struck out."""

    def __init__(
        self, cells: Cells, fit: Fit = "expected", known: dict[int, Evaluated] | None = None
    ) -> None:
        self.cells = cells
        self.fit: Fit = fit
        self.fits = self.missing <= TOLERANCE
        self._known: dict[int, Evaluated] = {} if known is None else known

    @property
    def missing(self) -> Array:
        """What is over of a GPU's memory in each cell, as a share."""
        return self.cells.over_high if self.fit == "sure" else self.cells.over

    @cached_property
    def host(self) -> Array:
        """Bytes of a machine's host memory that the plan of each cell takes."""
        return host_bytes(self.cells)

    def full(self, cell: int) -> Evaluated:
        """The plan of a cell in full."""
        if cell not in self._known:
            self._known[cell] = evaluate(self.cells.job, self.cells.choice(cell), as_screened=True)
        return self._known[cell]

    def surely(self) -> Chooser:
        """The same plans where the upper end of the memory's interval has to fit."""
        return Chooser(self.cells, "sure", self._known)

    def misses(self, cell: int) -> bool:
        """Whether the plan of a cell, in full, does not fit."""
        return self.full(cell).over_bytes(self.fit) > 0

    def fails(self, cell: int, limits: Limits) -> bool:
        """Whether the plan of a cell, in full, breaks a limit; what does not fit is struck out."""
        if self.misses(cell):
            self.fits[cell] = False
        return bool(self.full(cell).failures(replace(limits, fit=self.fit)))

    def keeps(self, cell: int, limits: Limits) -> bool:
        """Whether a cell keeps the limits by more than what sums in another order may differ by."""
        cells = self.cells
        given = (
            (limits.deadline_s, cells.seconds), (limits.budget_usd, cells.usd), (limits.max_regret, cells.regret)
        )  # fmt: skip
        kept = all(most is None or figures[cell] * ROUNDED < most for most, figures in given)
        return bool(kept and self.missing[cell] < -TOLERANCE) and limits.host_bytes is None

    def within(self, limits: Limits) -> Array:
        """Which cells keep the limits, memory among them, as far as the screen's figures tell."""
        cells, allowed = self.cells, self.fits.copy()
        if limits.deadline_s is not None:
            allowed &= cells.seconds <= limits.deadline_s * ROUNDED
        if limits.budget_usd is not None:
            allowed &= cells.usd <= limits.budget_usd * ROUNDED  # false where no price is known
        if limits.max_regret is not None:
            allowed &= cells.regret <= limits.max_regret * ROUNDED
        if limits.host_bytes is not None:
            allowed &= self.host <= limits.host_bytes * ROUNDED
        return allowed

    def count(self, limits: Limits) -> int:
        """How many cells keep the limits, by the screen's memory but where it was found out in full."""
        known = [cell for cell in self._known if self.fits[cell]]
        kept = self.within(limits) & (self.missing <= 0)
        kept[known] = [not self.fails(cell, limits) for cell in known]
        return int(kept.sum())

    def order(self, allowed: Array, limits: Limits) -> tuple[Array, list[int]]:
        """The best NEAR of the allowed cells, best first, and those that the comparison rests on.

        By quality: least regret (what no sweep could tell from the least counts as equal, and so does all that is
        below the least that was seen), then least cost, then least time (2% counts as equal in both), and of equal
        plans the one with less regret. By cost and by time: that alone, ties by the other and by regret.
        """
        found = np.flatnonzero(allowed)
        if not len(found):
            return found, []
        cells = self.cells
        usd = np.nan_to_num(cells.usd[found], nan=NO_PRICE)
        seconds, regret = cells.seconds[found], cells.regret[found]
        keys: tuple[Array, ...]
        anchors: list[int] = []
        if limits.prefer == "cost":
            keys = (regret, seconds, usd)
        elif limits.prefer == "time":
            keys = (regret, usd, seconds)
        else:
            every = np.ones(len(found), bool)
            seen = np.maximum(regret, least_seen(moe=cells.job.arch.has_experts))
            tier, anchor = _as_one(seen, every, 1.0, SAME_REGRET)
            cost, second = _as_one(usd, tier == tier[anchor], SAME)
            time, third = _as_one(seconds, (tier == tier[anchor]) & (cost == cost[second]), SAME)
            keys, anchors = (usd, seconds, regret, time, cost, tier), [anchor, second, third]
        order = found[first_of(keys, NEAR)]
        return order, [int(found[place]) for place in anchors] + [int(order[0])]

    def first(self, allowed: Array, limits: Limits) -> int | None:
        """The best of the allowed cells that keeps the limits in full."""
        left = allowed.copy()
        for _ in range(MOST_TRIED):
            order, anchors = self.order(left & self.fits, limits)
            if not len(order):
                return None
            *others, best = anchors  # what others tell of limits is enough, but the best is shown
            false = [cell for cell in others if not self.keeps(cell, limits) and self.fails(cell, limits)]
            false += [best] if self.fails(best, limits) else []
            if not false:
                return best
            near = [int(cell) for cell in order]
            left[[*false, *(cell for cell in near if self.fails(cell, limits))]] = False
        return None

    def best(self, limits: Limits) -> int | None:
        """The best cell within the limits."""
        return self.first(self.within(limits), limits)

    def next_best(self, best: int, limits: Limits, count: int) -> list[int]:
        """The best of each other way to do it: other GPUs (or, of one kind, another layout), or a base in 16 bits
        or in fewer."""
        cells = self.cells
        quantised = np.array([table.quantize != "none" for table in cells.tables])[cells.table]
        machine = cells.gpu if len(cells.space.accelerators) > 1 else cells.layout
        found: list[int] = []
        left = self.within(limits)
        taken = best
        while len(found) < count:
            left &= ~((machine == machine[taken]) & (quantised == quantised[taken])) & self.fits
            cell = self.first(left, limits)
            if cell is None:
                break
            found.append(cell)
            taken = cell
        return found

    def frontier(self, limits: Limits, most: int) -> list[int]:
        """Cells that none within the limits beats in time, cost and regret at once, checked in full, at most so many:
        the ends and cells spread evenly between them by time. Without prices, of time and regret."""
        left = self.within(limits)
        while True:
            allowed = np.flatnonzero(left & self.fits)
            cells = self.cells
            usd = np.nan_to_num(cells.usd[allowed], nan=NO_PRICE)
            front = allowed[non_dominated(cells.seconds[allowed], usd, cells.regret[allowed])]
            shown = _spread(front, cells, most)
            false = [cell for cell in shown if self.fails(cell, limits)]
            if not false:
                return shown
            left[false] = False


def _as_one(values: Array, among: Array, factor: float, more: float = 0.0) -> tuple[Array, int]:
    """The values, those up to factor times (plus `more` than) the least among some taken as that least, and where
    that one is."""
    place = int(np.argmin(np.where(among, values, math.inf)))
    least = float(values[place])
    return np.where(values <= least * factor + more, least, values), place


def first_of(keys: Sequence[Array], count: int) -> Array:
    """`np.lexsort(keys)[:count]`, without sorting all: each key in turn, the last one first, leaves open which come
    first only of those that it puts on a par with the last of so many."""
    ahead, open_ = np.empty(0, int), np.arange(len(keys[-1]))
    for key in reversed(keys):
        left = count - len(ahead)
        if len(open_) <= left:
            break
        own = key[open_]
        least = np.partition(own, left - 1)[left - 1]
        ahead, open_ = np.concatenate([ahead, open_[own < least]]), open_[own == least]
    found = np.sort(np.concatenate([ahead, open_[: count - len(ahead)]]))
    return found[np.lexsort([key[found] for key in keys])]


def _spread(front: Array, cells: Cells, most: int) -> list[int]:
    """At most so many cells of a front by time: the quickest, the cheapest, the best, the slowest, some between."""
    front = front[np.argsort(cells.seconds[front], kind="stable")]
    if len(front) <= most:
        return [int(cell) for cell in front]
    usd = np.nan_to_num(cells.usd[front], nan=math.inf)
    ends = dict.fromkeys((0, int(np.argmin(usd)), int(np.argmin(cells.regret[front])), len(front) - 1))
    kept = set(list(ends)[:most])
    kept |= {round(step) for step in np.linspace(0, len(front) - 1, most - len(kept))}
    return [int(front[place]) for place in sorted(kept)]


def non_dominated(seconds: Array, usd: Array, regret: Array) -> Array:
    """Numbers of the points that no other is at least as good as in all three and better in one; of equal points the
    first. Points are taken in the order of regret, then time, then cost; each has to be cheaper than every earlier
    one that is as quick."""
    order = np.lexsort((usd, seconds, regret))
    kept: list[int] = []
    # Of the points kept so far, times and the least cost up to each time, both sorted.
    times, costs = np.empty(0), np.empty(0)
    start = 0
    while start < len(order):
        level = regret[order[start]]
        stop = int(np.searchsorted(regret[order], level, side="right"))
        mine = order[start:stop]
        # Within a level: cheaper than every quicker one (a running minimum), and than what is kept from before.
        least = np.minimum.accumulate(usd[mine])
        new = np.concatenate([[True], usd[mine][1:] < least[:-1]])
        mine = mine[new]
        place = np.searchsorted(times, seconds[mine], side="right")
        before = np.where(place > 0, costs[np.maximum(place - 1, 0)] if len(costs) else math.inf, math.inf)
        mine = mine[usd[mine] < before]
        kept.extend(int(point) for point in mine)
        joined = np.concatenate([times, seconds[mine]])
        value = np.concatenate([costs, usd[mine]])
        by_time = np.argsort(joined, kind="stable")
        times, costs = joined[by_time], np.minimum.accumulate(value[by_time])
        start = stop
    return np.array(kept, int)


# What binds, and what stands beside the best


RELAXED: dict[str, Callable[[Limits], Limits]] = {
    "budget": lambda limits: replace(limits, budget_usd=None),
    "deadline": lambda limits: replace(limits, deadline_s=None),
    "regret": lambda limits: replace(limits, max_regret=None),
    "host-memory": lambda limits: replace(limits, host_bytes=None),
}


def better(chooser: Chooser, one: int, other: int, limits: Limits) -> bool:
    """Whether the first cell is better than the second."""
    mask = np.zeros(len(chooser.cells.seconds), bool)
    mask[[one, other]] = True
    return int(chooser.order(mask, limits)[0][0]) == one and one != other


def binding(chooser: Chooser, best: int, limits: Limits) -> Iterator[tuple[str, Evaluated]]:
    """Each limit without which a better plan would be open, with that plan; memory last."""
    given = {
        "budget": limits.budget_usd, "deadline": limits.deadline_s, "regret": limits.max_regret,
        "host-memory": limits.host_bytes,
    }  # fmt: skip
    for name, relax in RELAXED.items():
        if given[name] is not None:
            freed = chooser.best(relax(limits))
            if freed is not None and freed != best and better(chooser, freed, best, relax(limits)):
                yield name, chooser.full(freed)
    roomy = copy(chooser)
    roomy.fits = np.isfinite(chooser.cells.over)
    order = roomy.order(roomy.within(limits), limits)[0]
    if len(order) and int(order[0]) != best and better(roomy, int(order[0]), best, limits):
        yield "memory", chooser.full(int(order[0]))


def neighbours(cells: Cells, best: int) -> Iterator[tuple[str, int]]:
    """Cells one step away on one axis, with the name of the step; other GPUs at the same count."""
    axes = {
        "micro_batch": cells.micro, "layout": cells.layout, "batch": cells.batch, "gpu": cells.gpu,
        "table": cells.table,
    }  # fmt: skip
    same = {name: axis == axis[best] for name, axis in axes.items()}

    def beside(axis: str, value: int) -> int | None:
        mask = axes[axis] == value
        for name in axes:
            if name != axis:
                mask = mask & same[name]
        found = np.flatnonzero(mask)
        return int(found[0]) if len(found) else None

    steps = [("micro_batch", int(cells.micro[best]) + step) for step in (1, -1)]
    steps += [("batch", int(cells.batch[best]) + step) for step in (1, -1)]
    layouts = cells.space.layouts
    own = layouts[int(cells.layout[best])]
    steps += [("layout", number) for number, other in enumerate(layouts) if _one_step(own, other)]
    steps += [("gpu", number) for number in range(len(cells.space.accelerators))]
    mine = cells.tables[int(cells.table[best])]
    axis_of = {"rank": cells.space.ranks, "layers": cells.space.layers, "quantize": cells.space.quantize}
    for number, table in enumerate(cells.tables):
        differs = [
            name
            for name in ("rank", "layers", "quantize", "checkpointing")
            if getattr(table, name) != getattr(mine, name)
        ]
        near = True
        if differs == ["rank"]:
            ranks = axis_of["rank"]
            near = abs(ranks.index(table.rank) - ranks.index(mine.rank)) == 1
        if len(differs) == 1 and near:
            steps.append(("table", number))
    for axis, value in steps:
        cell = beside(axis, value)
        if cell is not None and cell != best and math.isfinite(cells.over[cell]):
            yield axis, cell


def _one_step(own: Layout, other: Layout) -> bool:
    """Whether two layouts differ in one thing at most: the trainer's GPUs with their sharding, how many of them share
    experts, matrices, layers or sequences (with which nothing may be left to shard), what is offloaded, who makes
    completions, the precision."""
    ways = ("expert_parallel", *WAYS, "offload", "precision")
    differs = sum(getattr(own, way) != getattr(other, way) for way in ways)
    differs += (own.generation, own.vllm_gpus) != (other.generation, other.vllm_gpus)
    spread = own.sharding != other.sharding or own.shard_size != other.shard_size
    if differs and "none" in (own.sharding, other.sharding):
        spread = False
    return int(differs) + (spread or own.gpus != other.gpus) <= 1
