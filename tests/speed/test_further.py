"""A fourth gathering of published steps: the first predictions, kept for ever, and today's beside them."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.speed_later import FURTHER, Later, Said, blind, later, said_of
from tools.speed_outliers import far, reason_of

ROOT = Path(__file__).resolve().parents[2]
STATED, ADAPTERS = 63, 30


def _shown(found: list[Said], words: str = "median error ") -> str:
    held = sum(said.inside for said in found) / len(found)
    return f"{words}{np.median([said.error for said in found]):.1%}, {held:.0%}"


def _parts() -> tuple[list[Later], list[Later]]:
    stated = [case for case in later(FURTHER) if case.stated]
    return stated, [case for case in stated if case.method != "full"]


def test_first_predictions_are_kept() -> None:
    """A prediction for every row, of the time it publishes; docs/agreement.md says how far off they were."""
    first, cases = blind(FURTHER), later(FURTHER)
    assert set(first) == {case.number for case in cases} and len(cases) == 116
    for case in cases:
        said = first[case.number]
        assert not said.problem and 0 < said.low < said.seconds < said.high
        assert case.what != "s/step" or said.measured == case.measured
    stated, adapters = _parts()
    assert (len(stated), len(adapters)) == (STATED, ADAPTERS)
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if "#a-fourth-gathering" in line)
    then = [[first[case.number] for case in chosen] for chosen in (stated, adapters)]
    assert f"blind: {_shown(then[0])} within" in row and f"LoRA and QLoRA {_shown(then[1], '')}" in row
    full = [first[case.number] for case in stated if case.method == "full"]
    assert f"full {_shown(full, '')}" in row


def test_today_is_no_worse_and_what_is_far_off_is_explained() -> None:
    first, (stated, adapters) = blind(FURTHER), _parts()
    for chosen in (stated, adapters):
        now, then = [said_of(case) for case in chosen], [first[case.number] for case in chosen]
        assert np.median([s.error for s in now]) <= np.median([s.error for s in then]) + 1e-4
        assert np.mean([s.inside for s in now]) >= np.mean([s.inside for s in then])
    for case in later(FURTHER):
        said = said_of(case)
        assert not said.problem
        assert not far(said.seconds / said.measured) or reason_of(case)
