"""What a run asks of a cluster, by the planner's own memory estimate."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from ... import hardware
from ...errors import PlannerError
from ...planning import estimate
from ..models import shape
from ..records import RunConfig

# On a GPU the host holds torch, transformers and a copy of the weights on their way.
HOST_PROCESS_BYTES = 2 * 2**30
LEAST_SHARE = 0.05
# Above the estimate, for what the allocator keeps. The step is this package's own, so that the interval, which is
# of programs that nobody knows, says nothing of it: real steps lie within 1% of `simulate`, estimates within 4%.
MARGIN = 1.5


@dataclass(frozen=True)
class Need:
    """A task's resources: processor cores, bytes of host memory, a share of a GPU."""

    num_cpus: int
    memory: int
    num_gpus: float = 0.0

    def options(self) -> dict[str, Any]:
        """As Ray's options; no GPU where none is needed."""
        found: dict[str, Any] = {"num_cpus": self.num_cpus, "memory": self.memory}
        return {**found, "num_gpus": self.num_gpus} if self.num_gpus else found


def device_bytes(config: RunConfig) -> int | None:
    """The planner's estimate of a run's memory on its device and a margin, the process's own part included; None
    where the planner has none for the architecture."""
    try:
        plan = estimate(
            dict(shape(config.model)), rank=max(1, config.rank), alpha=config.alpha, layers=config.layers,
            experts=config.experts, batch=config.batch, seq_len=config.seq_len, checkpointing=config.checkpointing,
            attention_kernel="eager", precision="fp32" if config.precision == "float32" else "autocast",
        )  # fmt: skip
    except PlannerError:
        return None
    found = (plan.to_dict()["memory"] or {}).get(config.method)
    return None if found is None else math.ceil(MARGIN * found["per_gpu_bytes"])


def smallest_accelerator(resources: Mapping[str, float]) -> int | None:
    """Memory in bytes of the smallest accelerator among a Ray cluster's resources (accelerator_type:H100), None where
    one of them is not known."""
    names = [key.partition(":")[2] for key in resources if key.startswith("accelerator_type:")]
    try:
        found = [hardware.find(name).memory_bytes for name in names]
    except PlannerError:
        return None
    known = [size for size in found if size is not None]
    return min(known, default=None) if len(known) == len(found) else None


def need(config: RunConfig, device: str, threads: int, resources: Mapping[str, float]) -> Need:
    """What one run takes: on a CPU its whole estimate as host memory; on a GPU the share that the estimate is of the
    smallest accelerator, a whole one where either is not known."""
    wanted = device_bytes(config)
    if device == "cpu":
        return Need(threads, wanted or HOST_PROCESS_BYTES)
    room = smallest_accelerator(resources)
    share = 1.0 if wanted is None or room is None else math.ceil(100 * wanted / room) / 100
    return Need(threads, HOST_PROCESS_BYTES, 1.0 if share > 0.5 else max(LEAST_SHARE, share))
