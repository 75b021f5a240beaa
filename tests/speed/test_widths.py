"""Widths of intervals of step times: what ships is what first predictions give, and no source judges its own."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from planner import facts
from planner.speed.efficiency import constants
from tools.interval_chain import share
from tools.speed_fit import halves
from tools.speed_later import UNSEEN
from tools.speed_widths import (
    CANDIDATES,
    CHOSEN,
    SETS,
    First,
    as_then,
    by_shipped,
    ends_of,
    firsts,
    held_said,
    in_order,
    rule_of,
    widths_table,
    without_own,
)

ROOT = Path(__file__).resolve().parents[2]
STATED = [each for each in firsts() if each.stated]


def _read(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(facts.read_data("measured", f"{name}.csv"))))


def _from_files() -> list[tuple[str, float]]:
    """Source and logarithm of measured over first predicted, read from the files themselves."""
    found = []
    for name in SETS:
        rows = _read(name)
        for said in _read(f"{name}_blind"):
            row = rows[int(said["row"]) - 2]
            if row["stated"] == "yes" and not said["problem"]:
                found.append((row["source"], math.log(float(said["measured"]) / float(said["seconds"]))))
    return found


def test_what_ships_is_what_first_predictions_give() -> None:
    spread = constants().spread
    assert rule_of(firsts(), spread)["all"] == spread
    below, above = ends_of(STATED)
    assert halves(0.0, 0.0, spread) == pytest.approx((below, above), abs=1e-3)
    assert below < above


def test_widths_by_hand() -> None:
    """From the files, by counting: ends such that sources' shares within come to 0.9 (n + 1) / n, no less."""
    found = _from_files()
    counts = Counter(source for source, _ in found)
    assert len(found) == len(STATED) and len(counts) >= 20
    needed = 0.9 * (len(counts) + 1) / len(counts)
    below, above = ends_of(STATED)

    def within(factor: float) -> float:
        held = [-below * factor <= log <= above * factor for _, log in found]
        return sum(ok / counts[source] for ok, (source, _) in zip(held, found, strict=True)) / len(counts)

    assert within(1.0 + 1e-9) >= needed > within(1.0 - 1e-6)


def test_ends_of_few_sources_by_hand() -> None:
    """Of ten sources the conformal share, 0.9 x 11 / 10 = 0.99, is all of them: the ends are the furthest ones."""
    found = [
        First(str(n), "speed_later", log, True) for n, log in enumerate((-0.1,) * 5 + (0.2,) * 4 + (0.8,))
    ]
    assert ends_of(found) == pytest.approx((0.1, 0.8))
    assert ends_of(found, symmetric=True) == pytest.approx((0.8, 0.8))


def test_a_set_is_judged_by_those_before_it() -> None:
    """By hand: the last set under ends of the three before it."""
    spread = constants().spread
    before = [each for each in STATED if each.found != SETS[-1]]
    taken = rule_of(before, spread)["all"]
    judged = {id(each): one for each, one in in_order() if each.found == SETS[-1]}
    last = [each for each in STATED if each.found == SETS[-1]]
    assert len(judged) == len(last) > 30
    for each in last:
        below, above = halves(each.thin, each.staged, taken)
        assert judged[id(each)].held == (-below <= each.log <= above)


def test_no_source_judges_its_own() -> None:
    """A source further off than all others is not held."""
    furthest = max(STATED, key=lambda each: each.log).source
    own = [one for each, one in without_own() if each.source == furthest]
    assert own and not all(one.held for one in own)
    assert len(without_own()) == len(STATED)


def test_as_then_is_what_was_kept() -> None:
    """The interval that came with a prediction held what the file says."""
    rows = {name: {int(r["row"]): r for r in _read(f"{name}_blind")} for name in SETS}
    inside = [
        float(r["low"]) <= float(r["measured"]) <= float(r["high"])
        for name in SETS
        for r in rows[name].values()
        if not r["problem"]
    ]
    assert [as_then(each).held for each in firsts()] == inside


def test_a_kind_of_few_sources_has_the_ends_of_all() -> None:
    recipe = next(one for name, one in CANDIDATES.items() if name.startswith("by accelerator"))
    known = [replace(each, evidence="known") for each in STATED]
    rule = rule_of([*known[:-1], replace(known[-1], evidence="unseen")], constants().spread, recipe)
    assert rule["unseen"].above >= rule["known"].above
    assert rule_of(firsts(), constants().spread, CHOSEN).keys() == {"all"}


def test_the_page_has_the_candidates() -> None:
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    for line in widths_table():
        assert line in text, line
    below, above = ends_of(STATED)
    assert f"from {math.exp(-below):.2f} to {math.exp(above):.2f} times the estimate" in text


def test_methods_and_readme_say_how_wide() -> None:
    below, above = (math.exp(sign * end) for sign, end in zip((-1, 1), ends_of(STATED), strict=True))
    for name in ("docs/methods.md", "README.md"):
        text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
        assert f"{below:.2f} to {above:.2f} times the estimate" in text, name


def test_the_shipped_interval_judges_a_set() -> None:
    found = by_shipped(SETS[-1])
    assert found and all(each.found == SETS[-1] for each, _ in found)


def test_agreement_says_how_often_it_held() -> None:
    """docs/agreement.md: by all other sources, by the intervals of then, and by the sets before."""
    text = (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8")
    row = next(line for line in text.splitlines() if line.startswith("| the 90% interval of step times |"))
    below, above = ends_of(STATED)
    assert f"{len(STATED)} first predictions of {len({each.source for each in STATED})} sources" in row
    assert f"holds {share([one for _, one in without_own()]):.0%} of sources" in row
    assert f"{math.exp(-below):.2f} to {math.exp(above):.2f} times the estimate" in row
    assert f"held {share([as_then(each) for each in STATED]):.0%};" in row
    order = [share([one for each, one in in_order() if each.found == name]) for name in SETS[1:]]
    assert "holds {:.0%}, {:.0%} and {:.0%} of the next".format(*order) in row


def test_the_fifth_set_judges_and_has_no_part() -> None:
    """What the page, README and methods say of the set that came after."""
    assert UNSEEN not in SETS and not {each.source for each in STATED} & {e.source for e in firsts((UNSEEN,))}
    held = [one.held for _, one in by_shipped(UNSEEN)]
    said = held_said(by_shipped(UNSEEN))
    assert said.endswith(f"and {sum(held)} of {len(held)} steps")
    for name in ("docs/methods.md", "README.md", "docs/agreement.md", "docs/speed.md"):
        text = " ".join((ROOT / name).read_text(encoding="utf-8").split())
        assert said in text, name
