"""A fifth gathering of published steps: predicted first, again when the fourth had been learnt from, and today."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tools.speed_gathered_page import AGAIN
from tools.speed_later import GATHERED, UNSEEN, Later, Said, blind, later, said_of, set_up

ROOT = Path(__file__).resolve().parents[2]


def _parts() -> dict[str, list[Later]]:
    stated = [case for case in later(UNSEEN) if case.stated]
    adapters = [case for case in stated if case.method != "full"]
    return {
        "stated": stated,
        "adapters": adapters,
        "full": [case for case in stated if case.method == "full"],
        "rest": [case for case in later(UNSEEN) if not case.stated],
    }


def _shown(found: list[Said], words: str = "") -> str:
    held = sum(said.inside for said in found) / len(found)
    return f"{words}{np.median([said.error for said in found]):.1%}, {held:.0%}"


@pytest.mark.parametrize("kept", ["blind", AGAIN])
def test_predictions_are_kept(kept: str) -> None:
    """Of every row, of the time it publishes."""
    first, cases = blind(UNSEEN, kept), later(UNSEEN)
    assert set(first) == {case.number for case in cases} and len(cases) == 92
    assert {name: len(found) for name, found in _parts().items()} == {
        "stated": 58,
        "adapters": 21,
        "full": 37,
        "rest": 34,
    }
    for case in cases:
        said = first[case.number]
        assert not said.problem and 0 < said.low < said.seconds < said.high
        assert case.what != "s/step" or said.measured == case.measured


def test_agreement_says_both() -> None:
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if "#a-fifth-gathering" in line)
    parts = _parts()
    for kept, words in (("blind", "blind: median error "), (AGAIN, "not looked at: median error ")):
        first = blind(UNSEEN, kept)
        said = {name: [first[case.number] for case in found] for name, found in parts.items()}
        start = row.index(_shown(said["stated"], words))
        for name, before in (("adapters", "LoRA and QLoRA "), ("full", "full "), ("rest", "not stated ")):
            assert 0 < row.index(_shown(said[name], before), start) - start < 160


def test_no_source_was_known_before_and_no_rate_rests_on_it() -> None:
    known = {case.source for name in GATHERED for case in later(name)}
    assert not known & {case.source for case in later(UNSEEN)} and UNSEEN not in GATHERED


def test_today_is_no_worse_than_at_first() -> None:
    """On steps whose set-up is stated."""
    first, stated = blind(UNSEEN), _parts()["stated"]
    now, then = [said_of(case) for case in stated], [first[case.number] for case in stated]
    assert np.median([said.error for said in now]) <= np.median([said.error for said in then]) + 0.01
    assert np.mean([said.inside for said in now]) >= 0.9


def test_set_ups_parse() -> None:
    for case in later(UNSEEN):
        assert set_up(case).setup.gpus == case.gpus
