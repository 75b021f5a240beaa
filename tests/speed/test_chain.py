"""How often intervals of step times held sources that nobody had looked at, as docs/methods.md says it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import pytest

from tools.speed_chain import First, chain, first
from tools.speed_later import FURTHER, NEWEST, UNSEEN

ROOT = Path(__file__).resolve().parents[2]


def share(found: Sequence[First]) -> float:
    """Of sources, held, each counting the same."""
    each: dict[str, list[bool]] = {}
    for case, said in found:
        each.setdefault(case.source, []).append(said.low <= said.measured <= said.high)
    return sum(sum(held) / len(held) for held in each.values()) / len(each)


def test_methods_say_how_often_first_predictions_were_held() -> None:
    text = " ".join((ROOT / "docs" / "methods.md").read_text(encoding="utf-8").split())
    *sets, together = chain(stated=True)
    a, b, c, d, e = (f"{each.then:.0%}" for each in sets)
    assert f"held {a}, {b}, {c}, {d} and {e} of the sources that state their set-up" in text
    assert f"({together.then:.0%} of {together.sources} in all)" in text
    every = chain(stated=False)[-1]
    assert f"{every.then:.0%} of {every.sources} where it may be guessed" in text


def test_a_share_of_sources_by_hand() -> None:
    """Of the last sets, counted source by source from the file itself."""
    for name, sources in ((FURTHER, 5), (UNSEEN, 3)):
        found = next(one for one in chain(stated=True) if one.name == name)
        assert found.then == pytest.approx(share(first(name, stated=True)))
        assert found.sources == sources


def test_a_width_is_that_of_the_sets_before() -> None:
    """The factor that the newest set is judged by is one of the errors of the two sets before it."""
    names = ("speed_later", "speed_latest")
    off = [abs(math.log(said.measured / said.seconds)) for name in names for _, said in first(name, True)]
    found = next(one for one in chain(stated=True) if one.name == NEWEST)
    assert found.factor is not None
    assert min(abs(math.log(found.factor) - one) for one in off) < 1e-9
