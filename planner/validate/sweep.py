"""Sweeps that survive: any number of drivers work through one list of configurations in one folder.

A finished run is one record, named by its configuration's hash and written whole or not at all. A driver that takes
up a run holds an operating-system lock on `.locks/<id>.lock` (filelock), which ends with its process however that
ends: a killed driver leaves no stale lock and no half-written record, and the same command goes on.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from . import records
from .records import RecordError, RunConfig, RunRecord
from .runs import perform
from .train import OutOfTimeError

POLL_S = 0.2


@dataclass(frozen=True)
class Progress:
    """How far a sweep is: runs done of those known, the run under way and its step, seconds left by what has been."""

    done: int
    total: int
    label: str = ""
    step: int = 0
    steps: int = 0
    left_s: float | None = None


@dataclass
class Clock:
    """Time: when the budget ends, and how long a step of each kind of run has taken so far."""

    budget_s: float | None = None
    started: float = field(default_factory=time.monotonic)
    step_s: dict[tuple[str, str], float] = field(default_factory=dict)

    @property
    def left_s(self) -> float | None:
        """Seconds until the budget ends, None without one."""
        return None if self.budget_s is None else self.budget_s - (time.monotonic() - self.started)

    @property
    def over(self) -> bool:
        """Whether the budget is spent."""
        return self.left_s is not None and self.left_s <= 0

    def saw(self, record: RunRecord) -> None:
        """Learn from a finished run."""
        steps = max(1, len(record.curve))
        if record.wall_s:
            self.step_s[record.config.kind, record.config.model] = record.wall_s / steps

    def expects(self, config: RunConfig) -> float | None:
        """Seconds that a run will take, None where none of its kind and model has been."""
        each = self.step_s.get((config.kind, config.model))
        return None if each is None else each * config.steps

    def allows(self, config: RunConfig) -> bool:
        """Whether a run can be expected to end within the budget."""
        left = self.left_s
        return left is None or (left > 0 and (self.expects(config) or 0.0) <= left)


def label(config: RunConfig) -> str:
    """A run in a few words."""
    what = "full" if config.method == "full" else f"rank {config.rank} on {config.layers}"
    return f"{config.model}, {what}, {config.task}, lr {config.lr:.3g}, seed {config.seed}"


def check_folder(folder: str | os.PathLike[str]) -> None:
    """Make the folder and its locks. Raises RecordError where that cannot be."""
    try:
        (Path(folder) / ".locks").mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RecordError(f"out: {folder} cannot hold records: {error.strerror or error}.") from error


def held(folder: Path, config: RunConfig) -> Any:
    """The lock of a run, taken, or None where another driver holds it."""
    from filelock import FileLock, Timeout

    lock = FileLock(folder / ".locks" / f"{config.id}.lock", timeout=0)
    try:
        lock.acquire()
    except Timeout:
        return None
    return lock


class Sweep:
    """One driver on a folder."""

    def __init__(
        self, folder: str | os.PathLike[str], device: str = "cpu", clock: Clock | None = None,
        progress: Callable[[Progress], None] | None = None,
        run: Callable[[RunConfig, str, Callable[[int], None]], RunRecord] = perform,
    ) -> None:  # fmt: skip
        check_folder(folder)
        self.folder, self.device, self.run_one = Path(folder), device, run
        self.clock, self.progress = clock or Clock(), progress
        self.known: dict[str, RunRecord] = {}

    def record(self, config: RunConfig) -> RunRecord | None:
        """The finished record of a configuration, read once."""
        if config.id not in self.known and (found := records.read(self.folder, config.id)) is not None:
            self.known[config.id] = found
            self.clock.saw(found)
        return self.known.get(config.id)

    def run(self, configs: Iterable[RunConfig]) -> bool:
        """Work through configurations; False where the budget ended first. Runs that another driver holds are waited
        for, and taken over if it dies."""
        pending = list({config.id: config for config in configs}.values())
        total = len(pending)
        while True:
            pending = [config for config in pending if self.record(config) is None]
            if not pending:
                return True
            if not any(self.clock.allows(config) for config in pending):
                return False
            if not self._pass(pending, total):
                time.sleep(POLL_S)

    def _pass(self, pending: Sequence[RunConfig], total: int) -> bool:
        """Try every pending run once; whether any was finished here."""
        finished = False
        for number, config in enumerate(pending):
            if self.record(config) is not None or not self.clock.allows(config):
                continue
            lock = held(self.folder, config)
            if lock is None:
                continue
            try:
                if self.record(config) is None:
                    self._finish(config, total - len(pending) + number, total, pending[number:])
                finished = True
            except OutOfTimeError:
                return False
            finally:
                lock.release()
        return finished

    def _finish(self, config: RunConfig, done: int, total: int, rest: Sequence[RunConfig]) -> None:
        expected = [self.clock.expects(item) for item in rest]
        known = [seconds for seconds in expected if seconds is not None]
        after = sum(known) / len(known) * len(rest) if known else None
        started = time.monotonic()

        def beat(step: int) -> None:
            if self.clock.over:
                raise OutOfTimeError
            if self.progress is not None:
                left = None if after is None else max(0.0, after - (time.monotonic() - started))
                self.progress(Progress(done, total, label(config), step, config.steps, left))

        self.keep(self.run_one(config, self.device, beat))

    def keep(self, record: RunRecord) -> None:
        """Write a finished run's record, and learn from it."""
        records.write(self.folder, record)
        self.known[record.id] = record
        self.clock.saw(record)
