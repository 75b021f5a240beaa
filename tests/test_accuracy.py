"""data/measured/accuracy.csv is what the program predicts now, and the report sums it up."""

from __future__ import annotations

import csv
import io
import itertools
import statistics
from collections import Counter

import pytest

from planner import facts
from planner.report.accuracy import pairs, summary
from tools.write_accuracy import flops, memory, parameters, times


def rows() -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(facts.read_data("measured", "accuracy.csv"))))


def test_the_table_is_up_to_date() -> None:
    kept = rows()
    for name, lines in (
        ("parameters", parameters()),
        ("flops", flops()),
        ("memory", memory()),
        ("time", times()),
    ):
        there = [row for row in kept if row["quantity"] == name]
        found = list(itertools.islice(lines, 60))
        assert len(there) >= len(found) > 5
        for row, line in zip(there, found, strict=False):
            assert (row["source"], row["name"], row["fitted"]) == (line[2], line[3], line[6])
            assert float(row["predicted"]) == pytest.approx(line[4], rel=1e-6), row
            assert float(row["measured"]) == pytest.approx(line[5], rel=1e-6), row


def test_counts_are_equal_and_estimates_close() -> None:
    found = pairs()
    assert Counter(pair.quantity for pair in found)["parameters"] >= 480
    assert all(pair.error == 0 for pair in found if pair.quantity in ("parameters", "flops"))
    for quantity, limit in (("memory", 0.06), ("time", 0.15)):
        judged = [pair.error for pair in found if pair.quantity == quantity and not pair.fitted]
        assert len(judged) > 100 and statistics.median(judged) < limit


def test_summary_adds_up() -> None:
    found = pairs()
    for row in summary(found):
        if row["source"]:
            continue
        chosen = [p for p in found if p.quantity == row["quantity"] and p.fitted == row["fitted"]]
        assert row["rows"] == len(chosen)
        assert row["median"] == statistics.median(p.error for p in chosen)
