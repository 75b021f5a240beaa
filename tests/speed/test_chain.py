"""How often intervals of step times held sources that nobody had looked at, as docs/methods.md and README say it."""

from __future__ import annotations

import math
from pathlib import Path

import pytest

from tools.speed_chain import chain, first
from tools.speed_later import FURTHER, NEWEST

ROOT = Path(__file__).resolve().parents[2]


def test_methods_and_readme_say_how_often_first_predictions_were_held() -> None:
    text = " ".join((ROOT / "docs" / "methods.md").read_text(encoding="utf-8").split())
    *sets, together = chain(stated=True)
    a, b, c, d = (f"{each.then:.0%}" for each in sets)
    assert f"held {a}, {b}, {c} and {d} of the sources that state their set-up" in text
    assert f"({together.then:.0%} of {together.sources} in all)" in text
    every = chain(stated=False)[-1]
    assert f"{every.then:.0%} of {every.sources} where it may be guessed" in text
    assert f"would be {sets[-1].factor:.2f} times or over, and hold all {sets[-1].sources} sources" in text
    assert sets[-1].before == 1
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    said = f"{1 - sets[-1].then:.0%} of the last set's sources that state their set-up"
    assert f"{said}, {1 - together.then:.0%} of {together.sources} in all four" in readme


def test_a_share_of_sources_by_hand() -> None:
    """Of the last set, counted source by source from the file itself."""
    each: dict[str, list[bool]] = {}
    for case, said in first(FURTHER, stated=True):
        each.setdefault(case.source, []).append(said.low <= said.measured <= said.high)
    shares = [sum(held) / len(held) for held in each.values()]
    found = next(one for one in chain(stated=True) if one.name == FURTHER)
    assert found.then == pytest.approx(sum(shares) / len(shares))
    assert found.sources == len(shares)


def test_a_width_is_that_of_the_sets_before() -> None:
    """The factor that the newest set is judged by is one of the errors of the two sets before it."""
    names = ("speed_later", "speed_latest")
    off = [abs(math.log(said.measured / said.seconds)) for name in names for _, said in first(name, True)]
    found = next(one for one in chain(stated=True) if one.name == NEWEST)
    assert found.factor is not None
    assert min(abs(math.log(found.factor) - one) for one in off) < 1e-9
