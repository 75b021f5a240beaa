"""A row of the comparison of memory: a point of the grid, what simulation says of it, and the estimate beside it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from planner.moments import MemoryEstimate

from .memory_grid import Point


def write_rows(
    path: Path, head: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], name: str = "rows"
) -> None:
    """A record: what it is, and its rows, each on a line of its own."""
    lines = ",\n".join(json.dumps(row, sort_keys=True) for row in rows)
    path.write_text(f'{json.dumps(head, indent=1)[:-2]},\n "{name}": [\n{lines}\n ]\n}}\n', encoding="utf-8")


HELD = ("weights", "adapter", "gradients", "optimizer")


@dataclass(frozen=True)
class Row:
    """A point with its simulated peak (None where the libraries cannot run it, for the reason given), and what
    torch's allocator reserves (None where that was not asked for)."""

    point: Point
    simulated_bytes: int | None
    moments: dict[str, int]
    parts: dict[str, int]
    moment: str
    reason: str = ""
    reserved_bytes: int | None = None

    def to_dict(self) -> dict[str, Any]:
        """The row of the record."""
        found = {"family": self.point.family, "model": self.point.model, "options": self.point.options}
        if self.simulated_bytes is None:
            return {**found, "reason": self.reason}
        return {
            **found, "peak_bytes": self.simulated_bytes, "moment": self.moment, "moments": self.moments,
            "parts": self.parts, **({"reserved_bytes": self.reserved_bytes} if self.reserved_bytes else {}),
        }  # fmt: skip


@dataclass(frozen=True)
class Compared:
    """A row beside its estimate: relative errors of the peak, and of what it holds beyond weights and states."""

    row: Row
    estimate: MemoryEstimate
    analytic_bytes: int

    @property
    def error(self) -> float:
        """Analytic over simulated, less 1."""
        return self.analytic_bytes / (self.row.simulated_bytes or 1) - 1

    @property
    def transient_error(self) -> float:
        """The difference over what the simulated peak holds beyond weights, adapter, gradients and states."""
        beyond = sum(size for part, size in self.row.parts.items() if part not in HELD)
        return (self.analytic_bytes - (self.row.simulated_bytes or 0)) / max(1, beyond)


@dataclass(frozen=True)
class Drawn:
    """A point of a seed with its simulated row, and the error when it was first run (None where it was refused).
    `flops`: FLOPs of its step as simulated, `first_flops` the error of the closed form when they were first compared
    (None where there is none). `stale`: what a simulation does has changed since, and it was not run again."""

    seed: int
    row: Row
    first_error: float | None
    flops: int | None = None
    first_flops: float | None = None
    stale: bool = False

    def to_dict(self) -> dict[str, Any]:
        """The row of the record."""
        return {
            "seed": self.seed,
            **self.row.to_dict(),
            "changes": self.row.point.changes,
            "first": self.first_error,
            "flops": self.flops,
            "first_flops": self.first_flops,
            **({"stale": True} if self.stale else {}),
        }
