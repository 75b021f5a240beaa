"""Published peaks that come before the first step, as docs/agreement.md has them."""

from __future__ import annotations

from pathlib import Path

import pytest

from planner.moments import BEFORE
from tools.published_memory_later import Later, Said, blind, estimate_of, inside, later, said_of

ROWS = (56, 73, 81, 253, 586, 587, 588)
AGREEMENT = Path(__file__).resolve().parents[1] / "docs" / "agreement.md"


@pytest.fixture(scope="module")
def found() -> list[tuple[Later, Said, Said]]:
    cases = {case.number: case for case in later()}
    return [(cases[n], blind()[n], said_of(cases[n])) for n in ROWS]


def test_they_are_of_loading_and_within_a_quarter(found: list[tuple[Later, Said, Said]]) -> None:
    """Each by the profile of the version that ran; all were predicted at less than two thirds before."""
    for case, first, now in found:
        estimate = estimate_of(case)
        assert estimate.peak.phase in BEFORE and estimate.reserved_bytes == estimate.before_bytes
        assert first.predicted / case.measured < 0.62
        assert abs(now.predicted / case.measured - 1) < 0.25 and inside(case, now)


def test_their_row_says_so(found: list[tuple[Later, Said, Said]]) -> None:
    row = next(line for line in AGREEMENT.read_text("utf-8").splitlines() if "before the first step" in line)
    blind_ones = [first.predicted / case.measured for case, first, _ in found]
    today = [now.predicted / case.measured for case, _, now in found]
    for ratios in (blind_ones, today):
        assert f"{min(ratios):.2f} to {max(ratios):.2f}" in row
