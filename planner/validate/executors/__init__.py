"""Where runs are carried out: in this process, in several processes of this machine, or on a Ray cluster.

An executor works through configurations and leaves each finished run as a record in the sweep's folder. Which runs
are wanted, what a record is and what it means is not its business, so that every executor ends with the same records.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ...errors import InputError, hint
from ..records import RunConfig
from ..sweep import Sweep

NAMES = ("local", "ray")


class Executor(Protocol):
    """`wide` says that many runs go on at once, so that the runs of all claims are best given together; `device` is
    where they run."""

    wide: bool
    device: str

    def run(self, configs: Sequence[RunConfig], sweep: Sweep) -> bool:
        """Work through configurations; False where the budget ended first."""

    def close(self) -> None:
        """Let go of what was taken."""


def executor_of(name: str, *, workers: int, device: str, threads: int, address: str | None) -> Executor:
    """The executor of this name. Raises InputError, and MissingDependencyError where Ray is not installed."""
    if name not in NAMES:
        raise InputError("executor", name, f"one of {', '.join(NAMES)}", hint(name, NAMES).strip())
    if name == "ray":
        if workers != 1:
            raise InputError("workers", workers, "1 with --executor ray", "The cluster's size decides.")
        from .cluster import RayExecutor

        return RayExecutor(address or "auto", device, threads)
    if address is not None:
        raise InputError("address", address, "--executor ray beside it")
    from .workers import LocalExecutor

    return LocalExecutor(workers, device, threads)
