"""What one measured step tells of a source's others: pairs, the factor of the interval after it, and the page."""

from __future__ import annotations

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from planner.speed.efficiency import constants
from planner.speed.kinds import MEASURED
from tools.speed_calibrated import (
    factor_of,
    measured_grounds,
    measured_of,
    needs_of,
    of_firsts,
    pairs_of,
    rows_of,
)
from tools.speed_firsts import First

ROOT = Path(__file__).resolve().parents[2]
SHARED = constants().any_spread


def test_what_ships_is_what_first_predictions_give() -> None:
    """Sources are held as often as is stated, by intervals that they had no part in."""
    found = measured_grounds()
    assert constants().grounds[MEASURED] == found and (found.held or 0) >= SHARED.coverage
    assert constants().any_spread.measured == measured_of(replace(SHARED, measured=1.0))


def test_pairs_by_hand() -> None:
    """Four steps of one trainer and card make twelve pairs, two of another none; the source counts 1."""
    steps = [First("a", "s", 0.1 * n, gpu="x" if n < 4 else "y", trainer="t") for n in range(6)]
    found = pairs_of(steps)
    assert len(found) == 12 and sum(pair.weight for pair in found) == pytest.approx(1.0)
    assert {pair.other.gpu for pair in found} == {"x"}


def test_needs_and_factor_by_hand() -> None:
    """Ten sources of three alike steps at y: what is left is y v / (b^2 + v); the furthest of ten decides."""
    logs = np.linspace(0.1, 1.0, 10)
    found = pairs_of([First(f"s{n}", "s", y, gpu="x") for n, y in enumerate(logs) for _ in range(3)])
    noise, prior = SHARED.noise(0.0), SHARED.between**2
    left = logs * noise / (prior + noise)
    deviation = math.sqrt(1 / (1 / noise + 1 / prior) + noise)
    needs = needs_of(found, SHARED)
    assert sorted(set(np.round(needs, 9))) == pytest.approx(sorted(left / (1.645 * deviation)))
    assert factor_of(found, needs) == pytest.approx(max(1.0, max(needs)), abs=1e-3)


def test_the_page_and_agreement_say_what_it_tells() -> None:
    """Errors after a measured step are less than before, and the words are those of the table."""
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    rows = list(rows_of("first predictions", *of_firsts()))
    assert all(row in text for row in rows)
    (before, at), (after, ends) = (
        (float(cells[4].strip(" %")), cells[6].strip()) for cells in (row.split("|") for row in rows)
    )
    assert after < before and at != ends
    said = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    held = constants().grounds[MEASURED].held
    assert f"({after}% instead of {before}% on first predictions), and an interval of {ends}" in said
    assert f"holds {held:.0%} of {constants().grounds[MEASURED].judged} sources" in said
