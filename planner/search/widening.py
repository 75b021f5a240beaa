"""The search itself, and what it tries where nothing fits: experts divided, then every sequence shared."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np

from .. import units
from ..errors import InputError
from .layout import Layout, divided, shared
from .refused import nothing_fits
from .screen import screen
from .select import Chooser
from .space import Job, Limits, Space
from .usable import Open

Tried = Callable[..., Chooser]  # of layouts, and of whether `short` screens do
FEW = 4  # layouts of which the nearest plan is looked for first


def best_of(job: Job, space: Space, within: Limits, open_: Open) -> tuple[Chooser, int]:
    """The plans of the space and the best of them; where none keeps the limits, those of wider spaces. Raises
    InputError, naming the nearest of all that were tried."""

    known: dict[Any, Any] = {}

    def tried(layouts: tuple[Layout, ...], short: bool = True) -> Chooser:
        return Chooser(screen(job, replace(space, layouts=layouts), known, short), within.fit)

    seen: list[Chooser] = []
    for layouts in _wider(job, space, open_, seen):
        seen.append(tried(layouts))
        best = seen[-1].best(within)
        if best is not None:
            return seen[-1], best
    raise _nothing(seen, within, open_, tried)


def _wider(job: Job, space: Space, open_: Open, seen: list[Chooser]) -> Iterator[tuple[Layout, ...]]:
    """The layouts that are asked for, those with experts divided, and where none of all these fits on a GPU, both
    with sequences shared."""
    yield space.layouts
    apart = divided(space.layouts, job.arch.n_experts) if open_.experts else ()
    if apart:
        yield apart
    if not open_.sequences or any(each.fits.any() for each in seen) or not _possible(seen[0]):
        return
    if found := shared(job.arch, job.setup, (*space.layouts, *apart)):
        yield found


def _possible(chooser: Chooser) -> bool:
    """Whether there is a plan whose parts go together, fit or not."""
    return bool(np.isfinite(chooser.cells.over).any())


def _nothing(seen: list[Chooser], within: Limits, open_: Open, tried: Tried) -> InputError:
    """Why no plan keeps the limits: by the last plans among which some fit, else by those of which one is nearest to
    fitting; and what would fit where weights and states lie in the host's memory."""
    fitting = [each for each in seen if each.fits.any()]
    if fitting or not _possible(seen[0]):
        return nothing_fits((fitting or seen)[-1 if fitting else 0], within, open_)
    told = _offloaded(seen, within, tried) if open_.offload else ""
    nearest = min(_in_full(seen, tried), key=lambda each: float(each.missing.min()))
    return nothing_fits(nearest, within, open_, told)


def _in_full(seen: list[Chooser], tried: Tried) -> list[Chooser]:
    """Those of the plans among which the nearest to fitting is, with all that they need: of plans that cannot fit a
    short screen has what they need at least."""
    least = []
    for each in seen:
        least.append(np.full(len(each.cells.space.layouts), np.inf))
        np.minimum.at(least[-1], each.cells.layout, each.missing)
    every = [(float(value), own) for each, by in zip(seen, least, strict=True)
             for value, own in zip(by, each.cells.space.layouts, strict=True)]  # fmt: skip
    first = sorted(every, key=lambda pair: pair[0])[:FEW]
    most = float(tried(tuple(dict.fromkeys(own for _, own in first)), short=False).missing.min())
    open_ = [
        tuple(own for value, own in zip(by, each.cells.space.layouts, strict=True) if value <= most)
        for each, by in zip(seen, least, strict=True)
    ]
    return [tried(layouts, short=False) for layouts in open_ if layouts]


def _offloaded(seen: list[Chooser], within: Limits, tried: Tried) -> str:
    """What would fit with weights and states in the host's memory, as it is typed: of the layouts in the order in
    which they were tried, those that are asked for first."""
    for each in seen:
        away = tried(tuple(dict.fromkeys(replace(own, offload="all") for own in each.cells.space.layouts)))
        if (best := away.best(within)) is not None:
            plan = away.full(best)
            return f" --offload all would do, in {units.duration(plan.seconds)}: {plan.choice.text}."
    return ""
