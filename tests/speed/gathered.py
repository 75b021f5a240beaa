"""What the tests of blind gatherings of steps share: that the tables say what was predicted first."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from tools.speed_later import Later, blind, later

ROOT = Path(__file__).resolve().parents[2]


def shown(name: str, cases: list[Later], words: str) -> str:
    """Median error and share held of first predictions, as the tables have them."""
    said = [blind(name)[case.number] for case in cases]
    return f"{words}{np.median([one.error for one in said]):.1%}, {np.mean([one.inside for one in said]):.0%}"


def agreement(name: str) -> str:
    """A gathering's row of docs/agreement.md; `name` as in its link."""
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    return next(line for line in text.splitlines() if f"-{name}-gathering)" in line)


def check_tables(name: str, link: str, counts: tuple[int, int, int]) -> None:
    """First predictions are all there and in docs/agreement.md. `counts`: steps with all stated, adapters among them,
    steps with something guessed."""
    cases, first = later(name), blind(name)
    assert set(first) == {case.number for case in cases} and not any(said.problem for said in first.values())
    stated, rest = [c for c in cases if c.stated], [c for c in cases if not c.stated]
    adapters, full = [c for c in stated if c.method != "full"], [c for c in stated if c.method == "full"]
    assert (len(stated), len(adapters), len(rest)) == counts
    for found, words in (
        (stated, "blind: median error "), (adapters, "LoRA and QLoRA "), (full, "full "), (rest, "not stated "),
    ):  # fmt: skip
        assert not found or shown(name, found, words) in agreement(link)
