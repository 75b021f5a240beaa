"""README's three lines of first predictions, each made of all that were kept, and the tables of sets."""

from __future__ import annotations

import csv
import statistics
from pathlib import Path

import pytest

from tools.blind_together import LINES, PAGE, memory, seconds, tables, with_tables

ROOT = Path(__file__).parents[1]
BLIND = sorted((ROOT / "data" / "measured").glob("speed_*_blind.csv"))
UNITS = {"GB": 1e9, "GiB": 2**30, "MiB": 2**20}


@pytest.mark.parametrize("name", LINES)
def test_what_is_said(name: str) -> None:
    row = f"| {name} | {LINES[name]()} |"
    for page in ("README.md", "docs/agreement.md"):
        assert row in (ROOT / page).read_text(encoding="utf-8").splitlines(), page


def test_a_line_of_every_set() -> None:
    text = PAGE.read_text(encoding="utf-8")
    assert with_tables(text) == text
    numbers = [line.split(" | ")[1] for line in tables().splitlines() if line.endswith("% |")]
    together = (memory(), seconds())
    sets = [int(line.split(" sources in ")[1].split()[0]) for line in together]
    assert len(numbers) == sum(sets)
    assert sum(map(int, numbers[: sets[0]])) == int(together[0].split()[0])
    assert sum(map(int, numbers[sets[0] :])) == int(together[1].split()[0])


def _rows(name: str) -> list[dict[str, str]]:
    with (ROOT / "data" / "measured" / name).open(encoding="utf-8", newline="") as text:
        return list(csv.DictReader(text))


def test_steps_counted_from_the_files() -> None:
    """By line of each file, without the tools that read them."""
    off, held = [], []
    for name in (each.name.removesuffix("_blind.csv") for each in BLIND):
        cases = dict(enumerate(_rows(f"{name}.csv"), 2))
        for said in _rows(f"{name}_blind.csv"):
            if cases[int(said["row"])]["stated"] == "yes":
                measured = float(said["measured"])
                off.append(abs(float(said["seconds"]) / measured - 1))
                held.append(float(said["low"]) <= measured <= float(said["high"]))
    line = seconds()
    assert line.startswith(f"{len(off)} published steps of ")
    assert f"median error {statistics.median(off):.1%}, {statistics.mean(held):.0%} within" in line


def test_runs_counted_from_the_file() -> None:
    cases = dict(enumerate(_rows("memory_later.csv"), 2))
    off = []
    for said in _rows("memory_later_blind.csv"):
        case = cases[int(said["row"])]
        if case["stated"] == "yes" and case["unit"] and case["set"] != "after":
            measured = float(case["measured"]) * UNITS[case["unit"]]
            off.append(abs(float(said["predicted"]) / measured - 1))
    assert memory().startswith(f"{len(off)} published runs of ")
    assert f"median error {statistics.median(off):.1%}, " in memory()
