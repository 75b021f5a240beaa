"""Work gathered over the layers of a model."""

from __future__ import annotations

from dataclasses import field

from ..dataclass import dataclass
from .work import Kind, Linear, Pass, Phase, Product

NOTHING = Linear()


@dataclass
class Sums:
    """Products, bytes and launches of some layers; `times` scales what is added."""

    gemms: dict[tuple[Kind, Phase, str, Product], float] = field(default_factory=dict)
    sweeps: dict[tuple[Pass, Phase], Linear] = field(default_factory=dict)
    operations: dict[Phase, float] = field(default_factory=lambda: {"forward": 0.0, "backward": 0.0})
    times: float = 1.0

    def gemm(self, kind: Kind, phase: Phase, dtype: str, product: Product, calls: float = 1.0) -> None:
        """Add products."""
        key = (kind, phase, dtype, product)
        self.gemms[key] = self.gemms.get(key, 0.0) + calls * self.times

    def sweep(self, what: Pass, phase: Phase, moved: Linear) -> None:
        """Add memory-bound bytes."""
        key, times, before = (what, phase), self.times, self.sweeps.get((what, phase), NOTHING)
        self.sweeps[key] = Linear(
            before.fixed + moved.fixed * times, before.sequence + moved.sequence * times
        )

    def launch(self, phase: Phase, operations: float) -> None:
        """Add kernels that the host launches."""
        self.operations[phase] += operations * self.times

    def add(self, other: Sums, times: float) -> None:
        """Add the work of a layer, so many times over."""
        for key, calls in other.gemms.items():
            self.gemms[key] = self.gemms.get(key, 0.0) + calls * times
        for what, moved in other.sweeps.items():
            self.sweeps[what] = self.sweeps.get(what, NOTHING).plus(moved.times(times))
        for phase, operations in other.operations.items():
            self.operations[phase] += operations * times
