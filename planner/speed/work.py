"""What a micro-step does, part by part: matrix products, attention, scans, memory-bound passes, operations launched.

Everything is of one GPU and linear in the micro-batch B: FLOPs and bytes are `fixed + sequence * B` at a given
sequence length, so that a search evaluates many batches at once from one walk over the model.
"""

from __future__ import annotations

from functools import cached_property
from typing import Literal, NamedTuple

from ..dataclass import dataclass

Phase = Literal["forward", "backward"]
PHASES: tuple[Phase, ...] = ("forward", "backward")
# "base": the model's own products; "adapter": low-rank ones; "attention": fused scores and values; "masked": the same
# with a mask of its own for every sequence; "scan": products inside state-space and linear-attention cores.
Kind = Literal["base", "adapter", "attention", "masked", "scan"]
# What memory-bound time is spent on.
Pass = Literal[
    "norm", "activation", "rotary", "residual", "adapter", "scores", "loss", "dequantise", "quantise", "optimizer"
]  # fmt: skip


class Linear(NamedTuple):
    """fixed + sequence * B."""

    fixed: float = 0.0
    sequence: float = 0.0

    def at(self, batch: float) -> float:
        """Its value at a micro-batch."""
        return self.fixed + self.sequence * batch

    def plus(self, other: Linear) -> Linear:
        """The sum."""
        return Linear(self.fixed + other.fixed, self.sequence + other.sequence)

    def times(self, factor: float) -> Linear:
        """A multiple."""
        return Linear(self.fixed * factor, self.sequence * factor)


class Product(NamedTuple):
    """A matrix product (or attention kernel): FLOPs, bytes, and the FLOPs of the whole tiles that cover its output.

    `tile` is FLOPs of one tile: a product runs in waves of as many tiles as the chip has multiprocessors, and of the
    last wave a part stands idle. Experts that one kernel works through share a wave; 0 where tiles are neglected.
    """

    flops: Linear
    bytes: Linear
    tiled: Linear
    tile: float = 0.0


@dataclass(frozen=True)
class Gemm:
    """`calls` equal products, and the format that they run in."""

    kind: Kind
    phase: Phase
    dtype: str
    calls: float
    product: Product

    @property
    def flops(self) -> Linear:
        """FLOPs of one call."""
        return self.product.flops

    @property
    def bytes(self) -> Linear:
        """Bytes of one call."""
        return self.product.bytes


@dataclass(frozen=True)
class Sweep:
    """Bytes that memory-bound kernels of one sort move in a phase of a micro-step."""

    what: Pass
    phase: Phase
    bytes: Linear


@dataclass(frozen=True)
class Work:
    """A micro-step of one GPU, and the optimizer's step after the last one (`optimizer_bytes`).

    `stepped` parameters of a GPU's share are updated. `operations` are kernels that the host launches, by phase;
    `accumulate_bytes` is what adding a micro-step's gradients to the earlier ones moves; `gathers` are the sharded
    units that a micro-step gathers.
    """

    gemms: tuple[Gemm, ...]
    sweeps: tuple[Sweep, ...]
    operations: dict[Phase, float]
    stepped: float
    optimizer_bytes: float
    optimizer_operations: float
    accumulate_bytes: float
    gathers: float

    @cached_property
    def of_phase(self) -> dict[Phase, tuple[Gemm, ...]]:
        """The products by phase."""
        return {phase: tuple(gemm for gemm in self.gemms if gemm.phase == phase) for phase in PHASES}

    def flops(self, batch: int) -> float:
        """FLOPs of a micro-step."""
        return sum(g.calls * g.flops.at(batch) for g in self.gemms)
