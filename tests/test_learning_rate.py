"""The learning-rate law against published values, and its spread against the sweep."""

from __future__ import annotations

import math

import numpy as np
import pytest

from planner import estimate, facts
from planner.learning_rate.law import learning_rate
from planner.learning_rate.lookup import DEFAULT_LAW, look_up
from tools import law_spread

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


@pytest.mark.parametrize(("model", "hidden"), sorted(PUBLISHED))
def test_published_rates(model: str, hidden: int) -> None:
    rate = estimate(model).learning_rate
    assert rate.value == pytest.approx(PUBLISHED[(model, hidden)], rel=2e-4)
    assert rate.full_finetune == pytest.approx(PUBLISHED[(model, hidden)] / 10, rel=2e-4)
    assert rate.low is not None and rate.high is not None and rate.value is not None
    assert rate.low <= rate.value <= rate.high


def test_the_rate_at_the_reference_width_is_base_times_multiplier() -> None:
    rate = learning_rate(base=5e-5, multiplier=10, reference_width=2000, hidden_size=2000, exponent=0.781)
    assert rate == pytest.approx(5e-4)


@pytest.mark.parametrize(
    "model", ["mistralai/Mistral-7B-v0.1", "deepseek-ai/DeepSeek-V3.1", "openai/gpt-oss-20b", "01-ai/Yi-34B"]
)
def test_a_family_without_a_fit_gets_null_and_a_reason(model: str) -> None:
    plan = estimate(model)
    data = plan.to_dict()["learning_rate"]
    assert data["value"] is data["low"] is data["high"] is data["full_finetune"] is None
    assert "fitted on Llama and Qwen" in data["reason"]
    assert "learning-rate-unknown" in {notice.code for notice in plan.warnings}


def test_an_unnamed_config_is_judged_by_its_type_with_a_notice() -> None:
    found = look_up(model_id="config", model_type="llama", hidden_size=4096, named=False)
    assert found.family == "llama" and found.by_architecture
    assert look_up(model_id="config", model_type="mistral", hidden_size=4096, named=False).value is None


def test_the_article_s_own_law_cannot_be_evaluated() -> None:
    found = look_up(
        model_id="meta-llama/Llama-3.1-8B", model_type="llama", hidden_size=4096, named=True,
        law_id="lora-without-regret-2025-09",
    )  # fmt: skip
    assert found.value is None and found.reason


def test_the_best_rate_is_the_vertex_of_the_parabola() -> None:
    points = [(1e-4, 0.80), (3e-4, 0.77), (1e-3, 0.79)]
    a, b, _ = np.polyfit([math.log(lr) for lr, _ in points], [loss for _, loss in points], 2)
    assert law_spread.best_rate(points) == (pytest.approx(math.exp(-b / (2 * a))), True)
    assert law_spread.best_rate(points[:2]) == (3e-4, False)


def test_the_shipped_spread_is_the_sweep_s() -> None:
    ratios = facts.law(DEFAULT_LAW).optimum_ratio
    found = law_spread.quotients(facts.data_dir() / "sweeps" / "tinker_sft.csv")
    assert {family: len(values) for family, values in found.items()} == {"llama": 15, "qwen": 57}
    for family, values in found.items():
        assert ratios[f"{family}_low"] == pytest.approx(law_spread.percentile(values, 0.1), rel=5e-3)
        assert ratios[f"{family}_high"] == pytest.approx(law_spread.percentile(values, 0.9), rel=5e-3)
