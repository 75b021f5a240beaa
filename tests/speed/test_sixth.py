"""A sixth gathering of published steps, predicted before anybody looked; it judges widths made without it."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.speed_firsts import SETS
from tools.speed_later import GATHERED, SIXTH, UNSEEN, Later, blind, later, set_up
from tools.speed_widths import by_shipped, held_said

ROOT = Path(__file__).resolve().parents[2]


def _shown(cases: list[Later], words: str) -> str:
    said = [blind(SIXTH)[case.number] for case in cases]
    return f"{words}{np.median([one.error for one in said]):.1%}, {np.mean([one.inside for one in said]):.0%}"


def test_predictions_are_kept_and_said() -> None:
    cases = later(SIXTH)
    first = blind(SIXTH)
    assert set(first) == {case.number for case in cases} and not any(said.problem for said in first.values())
    stated, rest = [c for c in cases if c.stated], [c for c in cases if not c.stated]
    adapters, full = [c for c in stated if c.method != "full"], [c for c in stated if c.method == "full"]
    assert (len(stated), len(adapters), len(rest)) == (46, 12, 26)
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if "#a-sixth-gathering" in line)
    for found, words in (
        (stated, "blind: median error "), (adapters, "LoRA and QLoRA "), (full, "full "), (rest, "not stated "),
    ):  # fmt: skip
        assert _shown(found, words) in row
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    blind_row = next(
        line for line in readme.splitlines() if "seven sets found later, everything stated: 31" in line
    )
    assert f", {_shown(stated, '').split(', ')[0]} and " in blind_row
    assert f", {_shown(stated, '').split(', ')[1]} and " in blind_row


def test_nothing_rests_on_it() -> None:
    """No rate, and no width: it judges them."""
    known = {case.source for name in (*GATHERED, UNSEEN) for case in later(name)}
    assert not known & {case.source for case in later(SIXTH)}
    assert SIXTH not in (*GATHERED, *SETS)


def test_what_the_widths_hold_of_it_is_said() -> None:
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if "#a-sixth-gathering" in line)
    assert (
        f"made without them {held_said(by_shipped(SIXTH))}, guessed {held_said(by_shipped(SIXTH, False))}"
        in row
    )


def test_set_ups_parse() -> None:
    for case in later(SIXTH):
        assert set_up(case).setup.gpus == case.gpus
