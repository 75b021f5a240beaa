"""The learning-rate laws against published values, our own against its sweep, and `lr` with its factors."""

from __future__ import annotations

import csv
import json
import math
import statistics
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

import planner
from planner import estimate, facts
from planner.cli.main import cli
from planner.errors import InputError
from planner.learning_rate.advice import Advice, lr, rate_grid
from planner.learning_rate.law import learning_rate
from planner.learning_rate.lookup import DEFAULT_LAW, look_up
from tools import law_spread

TINKER = "tinker-cookbook-2025-11"

# get_lr of tinker-cookbook for LoRA, as its users see it.
PUBLISHED = {
    ("meta-llama/Llama-3.2-1B", 2048): 4.908e-4,
    ("meta-llama/Llama-3.2-3B", 3072): 3.576e-4,
    ("meta-llama/Llama-3.1-8B", 4096): 2.856e-4,
    ("meta-llama/Llama-3.1-70B", 8192): 1.662e-4,
    ("Qwen/Qwen3-30B-A3B", 2048): 4.991e-4,
    ("Qwen/Qwen3-4B", 2560): 4.905e-4,
    ("Qwen/Qwen3-8B", 4096): 4.730e-4,
    ("Qwen/Qwen3-32B", 5120): 4.649e-4,
}


def ends(advice: Advice) -> tuple[float, float]:
    """The interval, where there is one."""
    assert advice.low is not None and advice.high is not None
    return advice.low, advice.high


@pytest.mark.parametrize(("model", "hidden"), sorted(PUBLISHED))
def test_published_rates(model: str, hidden: int) -> None:
    advice = lr(model, law=TINKER)
    assert advice.value == pytest.approx(PUBLISHED[(model, hidden)], rel=2e-4)
    low, high = ends(advice)
    assert advice.hidden_size == hidden and low <= advice.value <= high
    found = look_up(model_id=model, model_type="", hidden_size=hidden, named=True, law=TINKER)
    assert found.full_finetune == pytest.approx(PUBLISHED[(model, hidden)] / 10, rel=2e-4)


def test_the_rate_at_the_reference_width_is_base_times_multiplier() -> None:
    rate = learning_rate(base=5e-5, multiplier=10, reference_width=2000, hidden_size=2000, exponent=0.781)
    assert rate == pytest.approx(5e-4)


# Our own law


def by_hand(family: str | None, rank: int) -> float:
    law = facts.law(DEFAULT_LAW)
    return law.rates[family or "population"][str(rank)]


@pytest.mark.parametrize(
    ("model", "family"),
    [
        ("meta-llama/Llama-3.1-8B", "llama"),
        ("Qwen/Qwen3-8B", "qwen3"),
        ("Qwen/Qwen3.5-4B", "qwen3.5"),
        ("deepseek-ai/DeepSeek-V3.1", "deepseek"),
        ("openai/gpt-oss-20b", "gpt-oss"),
        ("mistralai/Mistral-7B-v0.1", None),
        ("01-ai/Yi-34B", None),
        ("Qwen/Qwen2.5-7B", None),
    ],
)
@pytest.mark.parametrize("rank", [1, 32, 128])
def test_every_family_gets_a_value_and_unknown_ones_a_wider_interval(
    model: str, family: str | None, rank: int
) -> None:
    plan = estimate(model, rank=rank)
    data = plan.to_dict()["learning_rate"]
    assert data["value"] == pytest.approx(by_hand(family, rank))
    assert data["full_finetune"] == pytest.approx(by_hand(family, 32) / 10)
    assert data["low"] < data["value"] < data["high"] and data["level"] == 0.9
    assert data["law"] == DEFAULT_LAW and data["basis"] == "fitted"
    assert data["family_known"] is (family is not None)
    codes = {notice.code for notice in plan.warnings}
    assert ("learning-rate-family" in codes) is (family is None)
    known = estimate("meta-llama/Llama-3.1-8B", rank=rank).to_dict()["learning_rate"]
    if family is None:
        assert data["high"] / data["low"] > known["high"] / known["low"]
    assert lr(model, rank=rank).value == pytest.approx(data["value"])


def test_outside_of_what_was_swept_the_interval_grows_and_a_notice_says_so() -> None:
    inside, outside = (estimate("Qwen/Qwen3-8B", rank=rank) for rank in (64, 1024))
    widths = [math.log(p.learning_rate.high / p.learning_rate.low) for p in (inside, outside)]  # type: ignore[operator]
    assert widths[1] > widths[0]
    assert "learning-rate-rank" in {notice.code for notice in outside.warnings}
    small = estimate("HuggingFaceTB/SmolLM2-135M")
    assert "learning-rate-width" in {notice.code for notice in small.warnings}


def test_an_unnamed_config_is_judged_by_its_type_with_a_notice() -> None:
    found = look_up(model_id="config", model_type="llama", hidden_size=4096, named=False)
    assert found.family == "llama" and found.by_architecture
    assert (
        look_up(model_id="config", model_type="qwen3_5_moe", hidden_size=4096, named=False).family
        == "qwen3.5"
    )
    other = look_up(model_id="config", model_type="mistral", hidden_size=4096, named=False)
    assert other.value and not other.family_known
    theirs = look_up(model_id="config", model_type="llama", hidden_size=4096, named=False, law=TINKER)
    assert theirs.family == "llama" and theirs.by_architecture


def test_laws_that_have_no_rate_are_refused_with_the_reason() -> None:
    with pytest.raises(InputError, match="cannot be evaluated"):
        lr("meta-llama/Llama-3.1-8B", law="lora-without-regret-2025-09")
    with pytest.raises(InputError, match=f"Llama and Qwen models only.*{DEFAULT_LAW} covers every family"):
        lr("mistralai/Mistral-7B-v0.1", law=TINKER)


# Factors


def factor(advice: Advice, name: str) -> Any:
    return next(one for one in advice.factors if one.name == name)


def test_short_runs_want_fifteen_instead_of_ten() -> None:
    assert factor(lr("Qwen/Qwen3-8B", steps=100), "steps").value == pytest.approx(1.5)
    assert factor(lr("Qwen/Qwen3-8B", steps=30), "steps").value == pytest.approx(1.5)
    assert 1 < factor(lr("Qwen/Qwen3-8B", steps=300), "steps").value < 1.5
    assert not lr("Qwen/Qwen3-8B", steps=2000).factors
    short = lr("Qwen/Qwen3-8B", steps=100)
    full = lr("Qwen/Qwen3-8B", steps=100, method="full")
    assert short.value / full.value == pytest.approx(15)  # the article's ratio


@given(alpha=st.floats(1, 512), rank=st.integers(1, 256))
def test_alpha_lies_between_no_effect_and_inverse(alpha: float, rank: int) -> None:
    start, moved = lr("Qwen/Qwen3-8B", rank=rank), lr("Qwen/Qwen3-8B", rank=rank, alpha=alpha)
    assert moved.value == pytest.approx(start.value * (32 / alpha) ** 0.5)
    if not math.isclose(alpha, 32):
        one = factor(moved, "alpha")
        assert [one.low, one.high] == pytest.approx(sorted([1, 32 / alpha]))
        (low, high), (low_before, high_before) = ends(moved), ends(start)
        assert math.log(high / low) >= math.log(high_before / low_before) - 1e-9


def test_rslora_is_alpha_times_root_rank() -> None:
    plain = lr("Qwen/Qwen3-8B", rank=64, alpha=32 * 8)
    assert lr("Qwen/Qwen3-8B", rank=64, scaling="alpha/sqrt(rank)").value == pytest.approx(plain.value)
    assert lr("Qwen/Qwen3-8B", rank=64, scaling="none").value == pytest.approx(
        lr("Qwen/Qwen3-8B", rank=64, alpha=64).value
    )


def test_batch_and_method() -> None:
    base = lr("Qwen/Qwen3-8B")
    assert lr("Qwen/Qwen3-8B", batch=32).value == pytest.approx(base.value / 2)
    assert lr("Qwen/Qwen3-8B", batch=128).value == pytest.approx(base.value)
    for rank in (1, 32, 256):
        assert lr("Qwen/Qwen3-8B", rank=rank, method="full").value == pytest.approx(base.value / 10)
    assert "large-batch" in {notice.code for notice in lr("Qwen/Qwen3-8B", batch=512).warnings}


def gathered() -> list[dict[str, str]]:
    with (facts.data_dir() / "sweeps" / "lora_vs_full.csv").open(encoding="utf-8", newline="") as file:
        return list(csv.DictReader(file))


def test_rates_of_reinforcement_learning_are_those_gathered() -> None:
    rows = [row for row in gathered() if row["task"] == "rl" and row["swept"] == "yes"]
    for method, id in (("lora", "rl-lora"), ("full", "rl-full")):
        mine = [row for row in rows if row["method"] == method]
        best = [float(row["best_lr"]) for row in mine]
        fact = facts.rate_contexts()[id]
        tops = [float(row["plateau_high"] or row["best_lr"]) for row in mine]
        assert fact.low == pytest.approx(min(best)) and fact.high == pytest.approx(max(tops))
        middle = statistics.median(best) if method == "lora" else math.sqrt(sorted(best)[1] * sorted(best)[2])
        assert fact.value == pytest.approx(middle, rel=0.02)
        advice = lr("Qwen/Qwen3-8B", task="rl", method=method)
        assert (advice.value, advice.low, advice.high) == (fact.value, fact.low, fact.high)
        assert advice.basis == "measured" and len(advice.grid) >= 5
    assert lr("Qwen/Qwen3-8B", task="rl", rank=1).value == lr("Qwen/Qwen3-8B", task="rl", rank=64).value
    assert "rl-rank" in {notice.code for notice in lr("Qwen/Qwen3-8B", task="rl", rank=128).warnings}
    with pytest.raises(InputError, match="no law with task rl"):
        lr("Qwen/Qwen3-8B", task="rl", law=TINKER)


def test_the_multiplier_s_interval_holds_the_published_pairs() -> None:
    """Pairs of LoRA and full fine-tuning swept with Adam at alpha 32 on grids finer than a decade."""
    fact = facts.rate_contexts()["full-finetune"]
    rows = [row for row in gathered() if row["source"] == "zhu-2025" and row["task"] == "sft"]
    full = next(float(row["best_lr"]) for row in rows if row["method"] == "full")
    ratios = [float(row["best_lr"]) / full for row in rows if row["method"] == "lora"]
    assert len(ratios) == 5 and min(ratios) == pytest.approx(fact.low)
    assert all(fact.low <= ratio <= fact.high for ratio in ratios)


@pytest.mark.parametrize(
    "row", [r for r in gathered() if r["source"] == "zhu-2025" and r["task"] == "sft"], ids=str
)
def test_an_independent_sweep_lies_in_the_interval(row: dict[str, str]) -> None:
    """Best rates that the law never saw: Qwen3-4B on No Robots, batch 32, 200 steps."""
    rank = int(row["rank"] or 32)
    advice = lr(row["model"], rank=rank, method=row["method"], steps=200, batch=32)
    low, high = ends(advice)
    assert low <= float(row["best_lr"]) <= high


def test_every_row_gathered_has_a_source() -> None:
    with (facts.data_dir() / "sweeps" / "SOURCES.csv").open(encoding="utf-8", newline="") as file:
        sources = {row["source"]: row for row in csv.DictReader(file)}
    assert {row["source"] for row in gathered()} <= sources.keys()
    assert all(row["title"] and row["locator"] and row["date"] and row["kind"] for row in sources.values())


def test_high_rates_carry_the_warning_about_forgetting() -> None:
    assert "forgetting" in {notice.code for notice in lr("Qwen/Qwen3-8B", rank=64).warnings}
    assert "forgetting" not in {notice.code for notice in lr("Qwen/Qwen3-8B", rank=1, batch=8).warnings}


@given(st.floats(1e-6, 1e-2), st.floats(1.05, 6), st.floats(1.05, 10))
def test_the_grid_covers_the_interval_through_the_value(value: float, down: float, up: float) -> None:
    grid = rate_grid(value, value / down, value * up)
    assert 1 <= len(grid) <= 7 and list(grid) == sorted(set(grid))
    assert any(rate == pytest.approx(value, rel=0.05) for rate in grid)
    assert grid[0] >= value / down * 0.94 and grid[-1] <= value * up * 1.06


BAD: list[tuple[dict[str, Any], str]] = [
    ({"model": "meta-llama/Llama-3.1-8C"}, "Llama-3.1-8B"),
    ({"model": None}, "model"),
    ({"model": None, "family": "qwen3"}, "hidden-size"),
    ({"model": None, "family": "lama", "hidden_size": 4096}, "Did you mean llama"),
    ({"family": " "}, "family"),
    ({"rank": 0}, "rank"),
    ({"rank": -3}, "rank"),
    ({"alpha": 0}, "alpha"),
    ({"alpha": float("inf")}, "alpha"),
    ({"method": "lroa"}, "Did you mean lora"),
    ({"task": "dpo"}, "sft, rl"),
    ({"scaling": "alpha"}, "scaling"),
    ({"steps": 0}, "steps"),
    ({"batch": "many"}, "batch"),
    ({"law": "tinker"}, "data/laws.toml"),
]


@pytest.mark.parametrize(("change", "message"), BAD, ids=[str(change) for change, _ in BAD])
def test_bad_input(change: dict[str, Any], message: str) -> None:
    options: dict[str, Any] = {"model": "Qwen/Qwen3-8B", **change}
    with pytest.raises(planner.PlannerError, match=message):
        lr(**options)


def test_a_family_nobody_knows_is_named() -> None:
    advice = lr(family="acme", hidden_size=4096)
    assert advice.value == pytest.approx(by_hand(None, 32)) and advice.model is None
    assert "No sweep covers the family acme" in advice.extrapolates[0].message


def test_the_command() -> None:
    run = CliRunner().invoke(cli, "lr -m Qwen/Qwen3-8B --rank 1 --batch 32 --steps 150 --json".split())
    data = json.loads(run.output)
    assert data["learning_rate"]["low"] < data["learning_rate"]["value"] < data["learning_rate"]["high"]
    assert (
        data["law"] == DEFAULT_LAW
        and len(data["grid"]) >= 3
        and {f["name"] for f in data["factors"]} == {"batch", "steps"}
    )
    assert all(source["url"].startswith("https://") for source in data["sources"])
    page = CliRunner().invoke(cli, "lr -m mistralai/Mistral-7B-v0.1".split()).output
    assert "No sweep covers the family mistral" in " ".join(page.split())
    assert planner.lr("Qwen/Qwen3-8B").to_dict()["model"] == "Qwen/Qwen3-8B"


# The spread of the published law


def test_the_best_rate_is_the_vertex_of_the_parabola() -> None:
    points = [(1e-4, 0.80), (3e-4, 0.77), (1e-3, 0.79)]
    a, b, _ = np.polyfit([math.log(lr) for lr, _ in points], [loss for _, loss in points], 2)
    assert law_spread.best_rate(points) == (pytest.approx(math.exp(-b / (2 * a))), True)
    assert law_spread.best_rate(points[:2]) == (3e-4, False)


def test_the_shipped_spread_is_the_sweep_s() -> None:
    ratios = facts.law(TINKER).optimum_ratio
    found = law_spread.quotients(facts.data_dir() / "sweeps" / "tinker_sft.csv")
    assert {family: len(values) for family, values in found.items()} == {"llama": 15, "qwen": 57}
    for family, values in found.items():
        assert ratios[f"{family}_low"] == pytest.approx(law_spread.percentile(values, 0.1), rel=5e-3)
        assert ratios[f"{family}_high"] == pytest.approx(law_spread.percentile(values, 0.9), rel=5e-3)
