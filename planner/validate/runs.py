"""From a configuration to a finished record: which loop runs it, and what is noted of machine and versions."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from datetime import datetime, timezone

from ..errors import PlannerError
from .records import RunConfig, RunRecord
from .require import hardware, require, versions
from .train import Outcome, OutOfTimeError, train

Beat = Callable[[int], None]


def _loop(config: RunConfig) -> Callable[[RunConfig, str, Beat | None], Outcome]:
    if config.kind == "rl":
        from .policy import train_policy

        return train_policy
    if config.kind == "flops":
        from .counting import count_step

        return count_step
    if config.kind == "kernel":
        from .kernel import tangent_kernel

        return tangent_kernel
    return train


def command() -> str:
    """How this process was called, without folders of this machine."""
    return " ".join([sys.argv[0].replace("\\", "/").rsplit("/", 1)[-1], *sys.argv[1:]])


def perform(config: RunConfig, device: str, beat: Beat | None = None) -> RunRecord:
    """Run a configuration. A run that torch cannot finish (out of memory, an unsupported operation) is a record with
    status failed and the reason; a bad configuration and the end of the budget are raised."""
    require()
    started = time.perf_counter()
    try:
        outcome = _loop(config)(config, device, beat)
    except (PlannerError, OutOfTimeError, KeyboardInterrupt):
        raise
    except RuntimeError as error:
        outcome = Outcome(
            status="failed", reason=f"{type(error).__name__}: {str(error).splitlines()[0][:200]}"
        )
    return RunRecord(
        config=config, status=outcome.status, reason=outcome.reason, curve=tuple(outcome.curve),
        evaluations=tuple(outcome.evaluations), norms=outcome.norms, measured=outcome.measured,
        flops=outcome.flops, trainable=outcome.trainable, step_s=outcome.step_s,
        wall_s=time.perf_counter() - started, peak_memory_bytes=outcome.peak_memory_bytes,
        weights=outcome.weights, hardware=hardware(device), versions=versions(), command=command(),
        date=datetime.now(timezone.utc).isoformat(timespec="seconds"),
    )  # fmt: skip
