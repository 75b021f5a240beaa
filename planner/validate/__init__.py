"""Short real runs that confirm or refute the article's claims: tasks, training loops, records, sweeps, verdicts.

This module stays light: torch is imported by what it calls, when it is called.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .report import Report


def validate(
    claims: str | Sequence[str] | None = None, *, model: str = "tiny", device: str = "auto",
    budget: str | float | None = None, out: str | os.PathLike[str] = "runs", seeds: int = 3, workers: int = 1,
    executor: str = "local", address: str | None = None, threads: int = 1, steps: int = 120,
    data: str | os.PathLike[str] | None = None, batch: int = 16, seq_len: int = 64, precision: str = "float32",
    checkpointing: bool = False, progress: Callable[[Any], None] | None = None,
) -> Report:  # fmt: skip
    """Run what these claims need (all by default) and judge them: a Report, whose to_dict() is the JSON of --json.

    The options are those of `lora-plan validate`, by the same names. Finished runs lie in `out` and are never run
    twice. Raises a PlannerError: InputError for a bad choice, MissingDependencyError without torch.
    """
    from .api import run_claims

    return run_claims(
        claims, model=model, device=device, budget=budget, out=out, seeds=seeds, workers=workers,
        executor=executor, address=address, threads=threads, steps=steps, data=data, batch=batch, seq_len=seq_len,
        precision=precision, checkpointing=checkpointing, progress=progress,
    )  # fmt: skip
