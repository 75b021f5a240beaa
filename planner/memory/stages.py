"""Stages of a pipeline: which layers a GPU runs."""

from __future__ import annotations

from ..dataclass import dataclass
from ..schema import Architecture
from ..setup import Setup


@dataclass(frozen=True)
class Stage:
    """What one GPU runs of a pipeline: the layers from `first` up to `end` (by order), whether it holds the two
    ends, and how many micro-batches it has in flight."""

    first: int
    end: int
    stem: bool
    head: bool
    in_flight: int


def whole_model(arch: Architecture) -> Stage:
    """The stage of a model that is not cut."""
    return Stage(0, count_layers(arch), True, True, 1)


def count_layers(arch: Architecture) -> int:
    """Layers of all stacks between the two ends."""
    return sum(len(block.layers) for block in arch.blocks if block.stack != "head")


def stages(arch: Architecture, setup: Setup) -> tuple[Stage, ...]:
    """The stages of a pipeline that can hold most: the first, with the most micro-batches in flight (one for each
    stage, as long as there are so many), and the last, with the unembedding."""
    n, layers = setup.pipeline_parallel, count_layers(arch)
    if n == 1:
        return (whole_model(arch),)
    size = -(-layers // n)
    flight = min(n, setup.accumulation)
    return Stage(0, size, True, False, flight), Stage(min(layers, size * (n - 1)), layers, False, True, 1)
