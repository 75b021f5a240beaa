"""How many parameters a step trains, and how many of them one GPU holds."""

from __future__ import annotations

from collections.abc import Iterable

from ..adapter import Adapted
from ..adapter.whole import NOTHING_WHOLE, Whole
from ..dataclass import dataclass
from ..schema import Architecture
from ..setup import Setup


@dataclass(frozen=True)
class Held:
    """Trained parameters that one GPU holds before its states are sharded: those of experts apart, which
    expert-parallel GPUs split."""

    shared: float
    experts: float

    def share(self, setup: Setup, over: int) -> float:
        """What is left of them on a GPU where states are sharded over `over`: experts are sharded among the GPUs
        that hold the same ones."""
        return self.shared / over + self.experts / setup.expert_shards(over)


def trained_params(arch: Architecture, setup: Setup, adapted: Iterable[Adapted], whole: Whole) -> int:
    """Parameters that a step updates, on all GPUs together."""
    if setup.method == "full":
        return arch.params - (arch.tower_params if setup.frozen_towers else 0)
    return sum(item.params for item in adapted) + whole.params


def held(arch: Architecture, setup: Setup, adapted: Iterable[Adapted], whole: Whole = NOTHING_WHOLE) -> Held:
    """Trained parameters of one GPU: 1 / (tensor x pipeline parallel) of all, and of experts 1 / expert parallel of
    that. What tensor parallelism copies (norms, the narrow factor of a pair) is neglected, as are experts trained in
    full beside an adapter."""
    pairs = tuple(adapted)
    split = setup.tensor_parallel * setup.pipeline_parallel
    total = trained_params(arch, setup, pairs, whole)
    if setup.expert_parallel == 1:
        return Held(total / split, 0.0)
    if setup.method == "full":
        experts = sum(m.params for m in arch.matrices if m.kind == "experts")
    else:
        experts = sum(item.params for item in pairs if item.matrix.kind == "experts")
    return Held((total - experts) / split, experts / split / setup.expert_parallel)
