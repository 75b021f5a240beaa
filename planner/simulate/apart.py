"""The steps of several methods: side by side where the command's process has several cores, else in turn."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

from .. import process, workers
from ..setup import Setup

Result = TypeVar("Result")
NAMES = {"lora": "LoRA", "full": "full fine-tuning", "qlora": "QLoRA"}


def each(
    run: Callable[[Setup], Result], setups: Sequence[Setup], tell: Callable[[str], None]
) -> list[Result]:
    """What `run` gives of every set-up, in their order; `tell` is told what runs.

    Only a process that ends after one answer is forked: another one may hold threads and devices that do not survive
    it. A `tell` that has a thread of its own has `pause`, and goes on when it is next told something.
    """
    if len(setups) > 1 and process.ends_soon:
        getattr(tell, "pause", lambda: None)()
        if workers.cores() > 1:
            return _side_by_side(run, setups, tell)
    found = []
    for setup in setups:
        tell(f"running {NAMES[setup.method]}")
        found.append(run(setup))
    return found


def _side_by_side(
    run: Callable[[Setup], Result], setups: Sequence[Setup], tell: Callable[[str], None]
) -> list[Result]:
    """The same in forked processes and this one, which takes the first. What fails in another is run here once more,
    in its turn, so that it fails as it does alone."""
    here, spent = os.getpid(), time.process_time()
    names = [NAMES[setup.method] for setup in setups]
    told = f"running {', '.join(names[:-1])} and {names[-1]} side by side"
    order = [
        0,
        *range(len(setups) - 1, 0, -1),
    ]  # on two cores LoRA and full fine-tuning take as long as QLoRA

    def task(number: int) -> Result | None:
        setup = setups[order[number]]
        if os.getpid() == here:
            tell(told)
            return run(setup)
        process.spent_before_s = spent
        try:
            return run(setup)
        except Exception:
            return None

    outcomes = dict(zip(order, workers.done(task, range(len(setups)), enough=1), strict=True))
    found = [outcomes[number] for number in range(len(setups))]
    return [run(setup) if result is None else result for setup, result in zip(setups, found, strict=True)]
