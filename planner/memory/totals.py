"""What the tensors come to that a GPU trains: parameters, bytes, and what the optimizer takes for them."""

from __future__ import annotations

from ..dataclass import dataclass
from ..setup import Setup
from .optimizers import optimizer_bytes, update_bytes, wide_tables
from .states import Tensor, trained_bytes


@dataclass(frozen=True)
class Totals:
    """Parameters, those of experts that other GPUs do not hold (`apart`), bytes, those of the optimizer's states and
    those that its step takes."""

    count: int
    apart: int
    bytes: int
    states: int
    update: int


def seen_by_totals(setup: Setup) -> tuple[str, str, bool, bool]:
    """Everything of a set-up that `totals` of tensors depend on."""
    return setup.optimizer, setup.optimizer_kernel, setup.masters, wide_tables(setup)


def totals(tensors: tuple[Tensor, ...], setup: Setup) -> Totals:
    """Sums over trained tensors."""
    return Totals(
        sum(t.size * t.copies for t in tensors), sum(t.size * t.copies for t in tensors if t.apart),
        trained_bytes(tensors), optimizer_bytes(tensors, setup), update_bytes(tensors, setup),
    )  # fmt: skip
