"""The work of a step at many ranks from that at a few.

Of a low-rank product FLOPs (2 m k n), bytes and parameters are linear in its rank, and of a step nothing else depends
on ranks. The work at ranks r is therefore sum c_i x work at ranks r_i, for weights with sum c_i = 1 and
sum c_i r_i = r: of two ranks where all pairs have the same, of three where experts' grow otherwise than the others'.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from ..adapter import Adapted
from ..adapter.pairs import Pair
from ..dataclass import dataclass
from ..speed.work import Work

Array = Any  # a numpy array
Pairs = tuple[Adapted, ...]
NEAR = 1e-9  # of a rank: how far a weighted sum may lie from it by what is rounded
_BESIDE_RANK = attrgetter(*(name for name in Pair.__dataclass_fields__ if name != "rank"))


@dataclass(frozen=True)
class Mixed:
    """A weighted sum of works whose kernels are the same ones, each in its own size."""

    parts: tuple[tuple[float, Work], ...]

    @property
    def some(self) -> Work:
        """One of them, for its kernels."""
        return self.parts[0][1]

    def _sum(self, name: str) -> float:
        return float(sum(weight * getattr(work, name) for weight, work in self.parts))

    @property
    def stepped(self) -> float:
        """Trained parameters of a GPU's share that are updated."""
        return self._sum("stepped")

    @property
    def accumulate_bytes(self) -> float:
        """Bytes that adding a micro-step's gradients to those before moves."""
        return self._sum("accumulate_bytes")

    @property
    def optimizer_operations(self) -> float:
        """Kernels that the optimizer launches."""
        return self._sum("optimizer_operations")


def _shape(pairs: Pairs) -> tuple[Any, ...]:
    """Adapted matrices without their ranks."""
    return tuple((item.index, item.layers, tuple(map(_BESIDE_RANK, item.pairs))) for item in pairs)


def _kernels(work: Work) -> tuple[Any, ...]:
    """The kernels of a work, whatever their size."""
    gemms = tuple((gemm.kind, gemm.phase, gemm.dtype, gemm.calls) for gemm in work.gemms)
    return gemms, tuple((sweep.what, sweep.phase) for sweep in work.sweeps)


def weights(adapters: Sequence[Pairs]) -> Array:
    """Weights by which each adapter's ranks are a sum of others', adapters x adapters; columns of those that no sum
    needs are zero. One row for each adapter by itself where they differ in more than ranks."""
    count = len(adapters)
    if len(set(map(_shape, adapters))) > 1:
        return np.eye(count)
    ranks = ([float(pair.rank) for item in pairs for pair in item.pairs] + [1.0] for pairs in adapters)
    points = np.array(sorted(set(zip(*ranks, strict=True)))).T  # each pair's ranks over the adapters, once
    basis = list(dict.fromkeys((0, count - 1)))
    result = np.zeros((count, count))
    for number in range(count):
        found = _sum_of(points, basis, number)
        if found is None:
            basis.append(number)
    for number in range(count):
        result[number, basis] = _sum_of(points, basis, number)
    return result


def _sum_of(points: Array, basis: Sequence[int], number: int) -> Array | None:
    """The weights that make a point of others; None where none do."""
    if number in basis:
        return np.array([float(each == number) for each in basis])
    found = np.linalg.lstsq(points[list(basis)].T, points[number], rcond=None)[0]
    off = np.abs(found @ points[list(basis)] - points[number]).max()
    return found if off <= NEAR * max(1.0, float(np.abs(points[number]).max())) else None


def mixed(shares: Array, work_at: Callable[[int], Work]) -> list[Mixed]:
    """The work of each adapter by `weights`; `work_at` walks one."""
    own = {int(number): work_at(int(number)) for number in np.flatnonzero(shares.any(axis=0))}
    if len({_kernels(work) for work in own.values()}) > 1:  # products that are one at some ranks alone
        return [Mixed(((1.0, own.get(number) or work_at(number)),)) for number in range(len(shares))]
    return [
        Mixed(tuple((float(row[number]), own[number]) for number in own if row[number])) for row in shares
    ]
