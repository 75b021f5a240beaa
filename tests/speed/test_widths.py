"""Widths of intervals of step times: what ships is what first predictions give, and no source judges its own."""

from __future__ import annotations

import csv
import io
import math
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest

from planner import facts, hardware
from planner.setup import Setup
from planner.speed.efficiency import constants, evidence_of
from planner.speed.kinds import KINDS, MEASURED, PLACES, RARE, kind_of
from tools.interval_fit import FEWEST
from tools.speed_firsts import FIVE, SETS, TABLE, First, as_first, firsts, grounds_of, left_out_firsts
from tools.speed_fit import LeftOut, fit, halves, log_ratios
from tools.speed_later import UNSEEN, stated_runs
from tools.speed_runs import runs
from tools.speed_widths import (
    ALIKE,
    CHOSEN,
    SLOW,
    Recipe,
    as_then,
    by_shipped,
    held_said,
    in_order,
    judged,
    number_of,
    rule_of,
    share_of,
    shipped_grounds,
    side_of,
    with_shape_of_all,
    without_own,
)
from tools.speed_widths_page import row_of, widths_table

ROOT = Path(__file__).resolve().parents[2]
SHARED = constants().any_spread


def _read(name: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(facts.read_data("measured", f"{name}.csv"))))


def _words(name: str) -> str:
    return " ".join((ROOT / name).read_text(encoding="utf-8").split())


def ends(kind: str) -> str:
    """The interval of a kind, where host time and communication add nothing."""
    below, above = halves(0.0, 0.0, constants().spreads[kind])
    return f"{math.exp(-below):.2f} to {math.exp(above):.2f}"


def test_what_ships_is_what_first_predictions_give() -> None:
    known = constants()
    assert rule_of(grounds_of(), SHARED) == known.spreads
    assert {kind: rests for kind, rests in known.grounds.items() if kind != MEASURED} == shipped_grounds()


def test_first_predictions_are_those_of_the_files() -> None:
    found = []
    for name in SETS:
        rows = _read(name)
        for said in _read(f"{name}_blind"):
            if not said["problem"]:
                row = rows[int(said["row"]) - 2]
                log = math.log(float(said["measured"]) / float(said["seconds"]))
                found.append((row["source"], pytest.approx(log), row["stated"] == "yes"))
    assert [(each.source, each.log, each.stated) for each in firsts()] == found
    assert not {each.source for each in firsts()} & {each.source for each in left_out_firsts()}


def test_the_first_table_is_left_out_as_it_is_kept() -> None:
    """One source of it, under constants fitted on all others."""
    every = [*runs(), *stated_runs()]
    source = "deepspeedai/DeepSpeedExamples"
    kept = [each for each in left_out_firsts() if each.source == source]
    mine = [run for run in every if run.source == source]
    made = fit([run for run in every if run.source != source], constants().efficiency)
    assert [each.log for each in kept] == pytest.approx(list(log_ratios(mine, made)[0]), abs=1e-3)
    found = [as_first(LeftOut(run, 0.0, 0.0, True)) for run in mine]
    assert [(one.kind, one.place, one.gpu) for one in found] == [
        (one.kind, one.place, one.gpu) for one in kept
    ]


def test_every_kind_by_hand() -> None:
    """From the logarithms themselves, by counting: the least interval that keeps 0.9 (n + 1) / n of n sources."""
    for kind in PLACES:
        found = grounds_of(lambda each, k=kind: each.place == k)  # type: ignore[misc]
        counts = Counter(each.source for each in found)
        assert len(counts) >= FEWEST
        needed = 0.9 * (len(counts) + 1) / len(counts)

        def kept(side: float, found: list[First] = found, counts: Counter[str] = counts) -> float:
            total = 0.0
            for each in found:
                noise = (
                    SHARED.within**2
                    + (SHARED.thin * each.thin) ** 2
                    + (SHARED.staged_spread * each.staged) ** 2
                )
                reach = 1.645 * math.sqrt((side * (SLOW if each.log > 0 else 1)) ** 2 + noise)
                total += (abs(each.log) <= reach + 1e-12) / counts[each.source]
            return total / len(counts)

        below = constants().spreads[kind].below
        assert kept(below) >= needed - 1e-12  # sums of shares, rounded
        assert kept(below - 1.1e-4) < needed - 1e-12 or below == 0.01
        assert constants().spreads[kind].above == pytest.approx(SLOW * below, abs=8e-4)


def test_rare_kinds_are_no_narrower() -> None:
    spreads = constants().spreads
    every = side_of(grounds_of(), SHARED, SLOW)
    for kind in RARE:
        own = grounds_of(lambda each, k=kind: each.kind == k)  # type: ignore[misc]
        enough = len({each.source for each in own}) >= FEWEST
        least = side_of(own, SHARED, SLOW) if enough else every
        assert spreads[kind].below >= max(least, *(spreads[place].below for place in PLACES))
    assert {kind for kind in RARE if constants().grounds[kind].judged >= FEWEST} == {"unseen", "small"}


def test_a_side_of_few_sources_by_hand() -> None:
    """Of ten sources the conformal share, 0.9 x 11 / 10 = 0.99, is all of them: the furthest decides; of four it is
    moved out by ln 10 / ln 5."""
    logs = (*(-0.1,) * 5, *(0.2,) * 4, 0.9)
    found = [First(str(n), "speed_later", log) for n, log in enumerate(logs)]
    furthest = math.sqrt((0.9 / 1.645) ** 2 - SHARED.within**2)
    assert side_of(found, SHARED, 4.0) == pytest.approx(furthest / 4)
    assert side_of(found[-4:], SHARED, 4.0) == pytest.approx(furthest / 4 * math.log(10) / math.log(5))
    assert side_of([replace(each, log=-each.log) for each in found], SHARED, 4.0) == pytest.approx(furthest)


def test_kinds_are_what_is_known_before() -> None:
    one, eight, sixteen = (hardware.cluster(hardware.find("h100"), n) for n in (1, 8, 16))
    setup = Setup(micro_batch=2, seq_len=2048)
    padded = {"packing": "padded", "gpus": 8, "sharding": "ddp"}
    for change, machine, kind in (
        ({}, one, "one"), ({"gpus": 8, "sharding": "ddp"}, eight, "several"),
        ({"gpus": 16, "sharding": "fsdp"}, sixteen, "machines"),
        ({"seq_len": 1023}, one, "small"), ({"offload": "optimizer", "seq_len": 512}, one, "offloaded"),
        ({**padded, "attention_kernel": "sdpa"}, eight, "padded"),
        ({**padded, "attention_kernel": "flash"}, eight, "several"),
    ):  # fmt: skip
        assert kind_of(replace(setup, **change), machine, "known") == kind
    assert kind_of(setup, hardware.cluster(hardware.find("l4")), evidence_of("L4")) == "unseen"
    assert {each.kind for each in grounds_of()} == set(KINDS)


def test_sources_left_out_are_held_as_often_as_is_stated() -> None:
    """Of all, of first predictions alone, and of each kind with ten sources: 90%, by intervals of all others; over
    machines a sixth of one source is missing, as the page says."""
    found = without_own()
    assert number_of(found) == len({each.source for each in grounds_of()})
    assert share_of(found) >= 0.9 and share_of(found, lambda each: each.found != TABLE) >= 0.9
    for kind in KINDS:
        own = [(each, one) for each, one in found if each.kind == kind]
        missing = (0.9 - share_of(own)) * number_of(own)
        assert number_of(own) < FEWEST or missing <= (0.17 if kind == "machines" else 0.0), kind
    assert share_of(found, lambda each: each.kind in RARE) >= 0.9
    until = Recipe(ALIKE, None, False)
    assert share_of(without_own(until, names=FIVE[:-1])) < 0.86  # what was to be mended
    assert with_shape_of_all(FIVE[:-1]) >= 0.9  # and why


def test_no_source_judges_its_own() -> None:
    """By hand, of one source; and one further off than all others at its place is not held."""
    found = without_own()
    source = "FlagOpen/FlagPerf"
    rule = rule_of(grounds_of(lambda each: each.source != source), SHARED)
    for each, one in found:
        if each.source == source:
            below, above = halves(each.thin, each.staged, rule[each.kind])
            assert one.held == (-below <= each.log <= above)
    furthest = max(grounds_of(lambda each: each.place == "machines"), key=lambda each: each.log)
    assert not next(one.held for each, one in found if each is furthest)


def test_a_set_is_judged_by_those_before_it() -> None:
    """By hand: the last set under intervals of those before it and the first table."""
    before = grounds_of(lambda each: each.found != SETS[-1])
    taken = rule_of(before, SHARED)
    found = {id(each): one for each, one in in_order() if each.found == SETS[-1]}
    last = [each for each in firsts() if each.found == SETS[-1] and each.stated]
    assert len(found) == len(last) > 30
    for each in last:
        assert found[id(each)].held == judged(each, taken).held


def test_as_then_is_what_was_kept() -> None:
    """The interval that came with a prediction held what the file says."""
    inside = [
        float(r["low"]) <= float(r["measured"]) <= float(r["high"])
        for name in SETS
        for r in _read(f"{name}_blind")
        if not r["problem"]
    ]
    assert [as_then(each).held for each in firsts()] == inside


def test_the_page_has_the_candidates() -> None:
    text = (ROOT / "docs" / "speed.md").read_text(encoding="utf-8")
    for line in widths_table():
        assert line in text, line
    row = row_of("chosen", CHOSEN)
    assert row.removeprefix("| chosen ") in text


def test_methods_readme_and_agreement_say_how_wide() -> None:
    found = without_own()
    alone = [(each, one) for each, one in found if each.found != TABLE]
    held = f"{share_of(alone):.0%} of {number_of(alone)} sources"
    assert ends(PLACES[0]) in _words("README.md")
    for name in ("docs/methods.md", "docs/agreement.md"):
        text = _words(name)
        for kind in PLACES:
            assert ends(kind) in text, (name, kind)
        assert held in text, name
    row = next(line for line in (ROOT / "docs" / "agreement.md").read_text(encoding="utf-8").splitlines()
               if line.startswith("| the 90% interval of step times |"))  # fmt: skip
    stated = [each for each in firsts() if each.stated]
    assert f"{len(stated)} first predictions of {len({each.source for each in stated})} sources" in row
    order = in_order()
    shares = [share_of(order, lambda each, n=name: each.found == n) for name in SETS[1:]]  # type: ignore[misc]
    said = f"{', '.join(f'{each:.0%}' for each in shares[:-1])} and {shares[-1]:.0%} of the next"
    assert said in row and said in _words("docs/methods.md")
    assert f"held {share_of([(each, as_then(each)) for each in stated]):.0%}" in row


def test_the_shipped_interval_judges_a_set() -> None:
    found = by_shipped(UNSEEN)
    assert found and all(each.found == UNSEEN for each, _ in found)
    held = [one.held for _, one in found]
    assert held_said(found).endswith(f"and {sum(held)} of {len(held)} steps")
