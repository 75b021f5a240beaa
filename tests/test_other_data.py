"""The interval of `lr` for other data, and the exponent of the batch, against what others published."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from planner import facts, lr
from tools import other_data


def test_the_scatter_that_ships_is_the_one_of_the_table() -> None:
    one = facts.rate_contexts()["other-data"]
    half = other_data.scatter(other_data.published())
    assert (one.low, one.high) == pytest.approx((math.exp(-half), math.exp(half)), rel=0.03)
    n = len(other_data.published())
    models = {row.unit for row in other_data.published()}
    told = f"{n} best rates of {len(models)} models that seven sources"
    assert told in one.statement and len(other_data.sources(other_data.published())) == 7


def test_by_hand_on_two_sources() -> None:
    """Two models of one source and one of another; a bound inside the law's interval says nothing."""
    rows = [r for r in other_data.published() if r.row["source"] in ("apertus-2026", "zhu-2025", "kdu-2026")]
    assert not next(r for r in rows if r.row["source"] == "kdu-2026").tells
    apertus, zhu = ([r.gap**2 - r.spread**2 for r in rows if r.row["source"] == s]
                    for s in ("apertus-2026", "zhu-2025"))  # fmt: skip
    variance = (np.mean(apertus) + np.mean(zhu)) / 2
    assert other_data.scatter(rows) == pytest.approx(stats.t.ppf(0.95, 2) * math.sqrt(variance))


def test_nine_in_ten_models_lie_inside_on_sources_that_did_not_set_it() -> None:
    """And not so without it: that the interval is for data like the law's is no idle word."""
    shares: dict[tuple[str, str], list[tuple[bool, bool]]] = {}
    for row in other_data.published():
        both = row.inside(0.0), row.inside(other_data.others(row.row["source"]))
        shares.setdefault(row.unit, []).append(both)
    plain, wide = np.mean([np.mean(marks, axis=0) for marks in shares.values()], axis=0)
    assert plain < 0.85 and wide >= 0.9


def test_lr_gives_both_intervals() -> None:
    advice = lr("Qwen/Qwen3-8B", rank=16)
    told = advice.to_dict()["learning_rate"]
    other, one = told["other_data"], facts.rate_contexts()["other-data"]
    assert other["low"] < told["low"] < told["value"] < told["high"] < other["high"]
    expected = math.hypot(math.log(told["high"] / told["value"]), math.log(one.high))
    assert math.log(other["high"] / told["value"]) == pytest.approx(expected)
    rl = lr("Qwen/Qwen3-8B", task="rl").to_dict()["learning_rate"]
    assert rl["other_data"] == {
        "low": rl["low"],
        "high": rl["high"],
        "level": None,
    }  # measured on several set-ups


def test_the_batch_moves_the_rate_as_published() -> None:
    """Every variant's exponent lies in the interval that `lr` assumes, and near its value."""
    batch = facts.rate_contexts()["batch"]
    found = [other_data.batch_exponent(bests) for bests in other_data.batch_bests().values()]
    assert len(found) == 5 and all(batch.low < one < batch.high for one in found)
    assert max(abs(one - batch.value) for one in found) < 0.15
    assert f"{min(found):.2f} to {max(found):.2f}" in batch.statement


def test_the_top_of_a_parabola() -> None:
    rates = [1e-4 * 2**i for i in range(6)]
    scores = [20 - math.log(rate / 4.5e-4) ** 2 for rate in rates]
    assert other_data.best_of_parabola(rates, scores) == pytest.approx(4.5e-4)


def test_every_row_has_a_source() -> None:
    known = {row["source"]: row for row in other_data.read("SOURCES.csv")}
    for name in ("published_best.csv", "published_batches.csv"):
        assert {row["source"] for row in other_data.read(name)} <= known.keys()
    assert all(
        known[name]["url"] and known[name]["locator"] for name in other_data.sources(other_data.published())
    )
