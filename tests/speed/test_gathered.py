"""Gatherings of published steps, each predicted before anybody looked, that judge widths made without them: a new one
is a row of `CASES`."""

from __future__ import annotations

import re
from dataclasses import dataclass

import pytest

from tools.speed_firsts import SETS
from tools.speed_gathered_page import SECTIONS
from tools.speed_later import EIGHTH, GATHERED, SEVENTH, SIXTH, UNSEEN, later, set_up
from tools.speed_widths import by_shipped, held_said, share_of

from .gathered import ROOT, agreement, check_tables


@dataclass(frozen=True)
class Case:
    """A gathering: its steps and publishers, those that state everything, adapters among them, and the rest; `again`
    are other pages of publishers that a set before has."""

    name: str
    steps: int
    sources: int
    counts: tuple[int, int, int]
    again: int = 0

    @property
    def link(self) -> str:
        """As in the page's heading."""
        return self.name.removeprefix("speed_")


CASES = (
    Case(SIXTH, 72, 20, (46, 12, 26)),
    Case(SEVENTH, 68, 30, (28, 8, 40), again=19),
    Case(EIGHTH, 55, 16, (49, 21, 6), again=2),
)
EACH = pytest.mark.parametrize("case", CASES, ids=lambda case: case.link)


def test_every_judge_is_here() -> None:
    assert [case.name for case in CASES] == [each.name for each in SECTIONS if each.judges]


@EACH
def test_predictions_are_kept_and_said(case: Case) -> None:
    found = later(case.name)
    assert (len(found), len({one.source for one in found})) == (case.steps, case.sources)
    row, said = check_tables(case.name, case.link, case.counts)
    medians, held = (re.findall(r"([\d.]+%)", part) for part in row.split("|")[3].split(";"))
    place = [each.name for each in SECTIONS].index(case.name)
    assert len(medians) == len(SECTIONS) and held.pop() == "90%" and len(held) == len(SECTIONS)
    assert (medians[place], held[place]) == tuple(said.removeprefix("stated ").split(", "))


@EACH
def test_nothing_rests_on_it(case: Case) -> None:
    """No rate, and no width: it judges them. Other pages of a publisher are marked, and at most a third."""
    cases = later(case.name)
    before = [each.name for each in SECTIONS[: [each.name for each in SECTIONS].index(case.name)]]
    assert set(before) >= {*GATHERED, UNSEEN}
    known = [one for name in before for one in later(name)]
    assert not {one.url for one in known} & {one.url for one in cases}
    again = [one for one in cases if one.notes.startswith("again:")]
    assert all(one in again for one in cases if one.source in {each.source for each in known})
    assert len(again) == case.again <= len(cases) / 3
    assert case.name not in (*GATHERED, *SETS)


@EACH
def test_what_the_widths_hold_of_it_is_said(case: Case) -> None:
    known, guessed = held_said(by_shipped(case.name)), held_said(by_shipped(case.name, False))
    assert f"{known}, guessed {guessed}" in agreement(case.link)
    readme = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    assert known.replace(" sources and", " and").replace(" steps", "") in readme.replace(
        " sources and", " and"
    )


def test_what_they_hold_together_is_said() -> None:
    found = [pair for case in CASES for pair in by_shipped(case.name)]
    assert f"with the sixth and seventh {held_said(found)}" in agreement(CASES[-1].link)
    page = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    assert f"({share_of(found):.1%}, where 90% are stated: less than a tenth of one source is missing" in page
    sources = {each.source for each, _ in found}
    assert 0 < (0.9 - share_of(found)) * len(sources) < 0.1


@EACH
def test_set_ups_parse(case: Case) -> None:
    for one in later(case.name):
        assert set_up(one).setup.gpus == one.gpus
