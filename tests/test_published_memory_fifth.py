"""The fifth set of published memory, predicted before it was looked at; docs/agreement.md says how that went."""

from __future__ import annotations

import statistics
from pathlib import Path

from tools.published_memory_later import blind, inside, later, said_of

ROOT = Path(__file__).parents[1]


def test_a_fifth_set_predicted_blind() -> None:
    first = blind()
    cases = [case for case in later() if case.fifth and case.stated]
    assert len(cases) == 37
    errors = [abs(first[case.number].predicted / case.measured - 1) for case in cases]
    held = sum(inside(case, said_of(case)) for case in cases) / len(cases)
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| the same, on a fifth set |"))
    assert f"median error {100 * statistics.median(errors):.1f}%" in row
    assert f"{100 * held:.0f}% within today's interval" in row
