"""From ids and options to a Report: which runs are needed, running them within the budget, and judging."""

from __future__ import annotations

import os
import re
import time
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ..errors import InputError, hint
from . import models, tasks
from .claims import Claim, Judgement, Setting, claims, undecided
from .executors import NAMES, Executor, executor_of
from .grid import Lookup
from .records import RunConfig, RunRecord
from .report import Found, Report
from .require import device_of, require
from .sweep import Clock, Progress, Sweep, check_folder
from .train import OutOfTimeError

_UNITS = {"s": 1, "m": 60, "h": 3600, "": 1}
_BUDGET = re.compile(r"(\d+(?:\.\d+)?)\s*([smh]?)")


def seconds_of(budget: str | float | None) -> float | None:
    """A budget in seconds: a number of them, or 90s, 10m, 2h. Raises InputError."""
    if budget is None:
        return None
    match = _BUDGET.fullmatch(str(budget).strip().lower())
    if isinstance(budget, bool) or not match or not float(match[1]) > 0:
        raise InputError("budget", budget, "a time such as 90s, 10m or 2h")
    return float(match[1]) * _UNITS[match[2]]


def _whole(name: str, value: object, least: int = 1) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise InputError(name, value, f"a whole number of at least {least}")
    return value


def setting_of(
    model: str, seeds: int, steps: int, data: str | os.PathLike[str] | None = None, **standard: Any
) -> Setting:
    """Models (a comma list), seeds, steps, the user's own text and further fields of the standard run as a Setting;
    models and text are looked up."""
    names = tuple(name.strip() for name in model.split(",") if name.strip())
    if not names:
        raise InputError("model", model, "a name such as tiny, or several with commas between them")
    for name in names:
        models.check(name)
    name = Setting.task if data is None else f"file:{os.path.abspath(data)}"
    tasks.task(name)
    found = Setting(names, _whole("seeds", seeds), _whole("steps", steps, 10), name, **standard)
    _whole("batch", found.batch)
    _whole("seq_len", found.seq_len, 2)
    found.base()
    return found


class _Read:
    """A lookup that remembers which records a claim read."""

    def __init__(self, record_of: Lookup) -> None:
        self.record_of = record_of
        self.read: dict[str, RunRecord] = {}

    def __call__(self, config: RunConfig) -> RunRecord | None:
        record = self.record_of(config)
        if record is not None:
            self.read[record.id] = record
        return record


def judge(claim: Claim, setting: Setting, record_of: Lookup) -> Found:
    """A claim's verdict on the records that `record_of` finds; undecided while runs are missing."""
    lookup = _Read(record_of)
    missing = claim.needs(setting, lookup)
    judgement: Judgement
    if missing:
        there = len(lookup.read)
        judgement = undecided(
            f"the budget ended with {there} runs done and at least {len(missing)} to go; the same command goes on"
        )
    else:
        judgement = claim.judge(setting, lookup)
    return Found(claim, claim.predicted(setting), judgement, tuple(sorted(lookup.read)))


def _work(chosen: Sequence[Claim], setting: Setting, sweep: Sweep, executor: Executor) -> bool:
    """Run what the claims need, in rounds; False where the budget ended first. One run at a time goes claim by claim,
    so that a budget ends with whole claims; a wide executor is given the runs of all claims at once."""
    for group in [chosen] if executor.wide else [[claim] for claim in chosen]:
        while wanted := [config for claim in group for config in claim.needs(setting, sweep.record)]:
            if not executor.run(wanted, sweep):
                return False
    return True


def run_claims(
    claims_chosen: str | Sequence[str] | None, *, model: str, device: str, budget: str | float | None,
    out: str | os.PathLike[str], seeds: int, workers: int, executor: str, threads: int, steps: int = 120,
    address: str | None = None, data: str | os.PathLike[str] | None = None,
    progress: Callable[[Any], None] | None = None, **standard: Any,
) -> Report:  # fmt: skip
    """What planner.validate does; `standard` are further fields of the standard run."""
    chosen = claims(claims_chosen)
    if executor not in NAMES:
        raise InputError("executor", executor, f"one of {', '.join(NAMES)}", hint(executor, NAMES).strip())
    clock = Clock(seconds_of(budget))
    _whole("workers", workers)
    _whole("threads", threads)
    setting = setting_of(model, seeds, steps, data, **standard)
    check_folder(out)
    started = time.monotonic()
    sweep, complete = Sweep(out, "none", clock, progress), True
    if any(claim.needs(setting, sweep.record) for claim in chosen):
        torch = require()
        place = device if executor == "ray" else device_of(device)
        using = executor_of(executor, workers=workers, device=place, threads=threads, address=address)
        try:
            sweep.device = using.device
            torch.set_num_threads(threads)
            models.prepare(setting.models, _making(progress, clock))
            complete = _work(chosen, setting, sweep, using)
        except OutOfTimeError:  # while a model was being made
            complete = False
        finally:
            using.close()
    found = tuple(judge(claim, setting, sweep.record) for claim in chosen)
    counts = Counter(str(record.status) for record in sweep.known.values())
    return Report(
        setting, sweep.device, found, time.monotonic() - started, os.fspath(out), complete, dict(counts)
    )


def _making(progress: Callable[[Any], None] | None, clock: Clock) -> Callable[[str, int, int], None]:
    """What is called at each step of a model's pretraining: it shows how far that is, and keeps the budget."""

    def beat(name: str, done: int, total: int) -> None:
        if clock.over:
            raise OutOfTimeError
        if progress is not None:
            progress(Progress(0, 1, f"making the model {name}", done, total))

    return beat


def listing(
    chosen: str | Sequence[str] | None = None, model: str = "tiny", seeds: int = 3, steps: int = 120
) -> list[dict[str, Any]]:
    """Every claim with its rule and its expected duration on this machine, by steps measured now.

    Claims share runs, so that several together take less than the sum. Seconds are null where a model is none of the
    zoo's or torch is not installed.
    """
    from ..errors import MissingDependencyError
    from .duration import claim_seconds

    setting = setting_of(model, seeds, steps)
    found = []
    for claim in claims(chosen):
        seconds: float | None
        try:
            seconds = claim_seconds(claim, setting)
        except MissingDependencyError:
            seconds = None
        found.append(
            {
                "id": claim.id, "statement": claim.statement, "source": claim.source, "rule": claim.rule,
                "unit": claim.unit, "runs": claim.expected_runs(setting),
                "seconds": None if seconds is None else round(seconds, 1),
            }
        )  # fmt: skip
    return found
