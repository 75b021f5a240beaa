"""The sixth set of published memory, predicted twice before it was looked at; docs/agreement.md says how it went."""

from __future__ import annotations

import statistics
from pathlib import Path

from tools.published_memory_later import RUN
from tools.published_memory_sixth import Pair, both, held

ROOT = Path(__file__).parents[1]


def _shown(found: list[Pair]) -> str:
    errors = [abs(s.predicted / c.measured - 1) for c, s in found if c.stated and c.metric not in RUN]
    assert len(errors) == 57
    ninth = sorted(errors)[int(0.9 * len(errors))]
    return (
        f"median error {100 * statistics.median(errors):.0f}%, 90th percentile {100 * ninth:.0f}%, "
        f"{100 * held(found):.0f}% within the interval"
    )


def test_a_sixth_set_predicted_twice() -> None:
    first, second = both()
    assert len(first) == len(second) == 75
    assert [c.number for c, s in (*first, *second) if s.problem] == []
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| the same, on a sixth set |"))
    assert f"blind: {_shown(first)} of then" in row
    assert f"blind again, after the fifth set's mends: {_shown(second)}" in row


def test_its_commands_were_not_changed_since() -> None:
    """What was typed first stands: a profile that comes later goes beside it, into `now`."""
    commands = [(c.options, c.now) for c, _ in both()[0]]
    assert {now for _, now in commands} == {""}
    assert sum("--trainer llama-recipes-2023" in options for options, _ in commands) == 16
