"""A set-up's peak by an estimate beside that of the same step on tensors without values."""

from __future__ import annotations

import pytest

from tools.compare_memory import analytic, simulated
from tools.memory_grid import Point


def is_near(point: Point, within: float) -> bool:
    """Whether the analytic peak is the simulated one within this share; why a point did not run is told."""
    row = simulated(point)
    assert row.simulated_bytes, row.reason
    return bool(analytic(point)[1] == pytest.approx(row.simulated_bytes, rel=within))
