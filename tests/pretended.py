"""Runs that take a moment and follow from their configuration. Processes that a test starts import this alone: a
module of tests brings a second of other imports."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from planner.validate.records import RunConfig, RunRecord
from planner.validate.sweep import Sweep

CONFIGS = [
    RunConfig(lr=1e-3 * 2**k, rank=rank, seed=seed) for k in range(4) for rank in (1, 4) for seed in (0, 1)
]


def pretend(config: RunConfig, device: str, beat: Callable[[int], None]) -> RunRecord:
    """A run that takes a moment."""
    for step in range(4):
        time.sleep(0.005)
        beat(step)
    return RunRecord(
        config, "ok", curve=(config.lr, config.rank / 7), evaluations=((4, config.lr + config.seed),)
    )


def drive(folder: str, log: str) -> None:
    """A driver whose runs take 20 ms and follow from their configuration; each start of a run is noted in a log."""

    def run(config: RunConfig, device: str, beat: Callable[[int], None]) -> RunRecord:
        with open(log, "a", encoding="utf-8") as file:
            file.write(f"{os.getpid()} {config.id}\n")
        return pretend(config, device, beat)

    Sweep(folder, "cpu", run=run).run(CONFIGS)
