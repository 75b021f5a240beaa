"""The same run has the same learning rate in `estimate`, in `lr` and in what a trainer loads."""

from __future__ import annotations

import json
import math
import re
import shlex
from typing import Any

import pytest
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner.cli.main import cli
from planner.errors import InputError

LLAMA = "meta-llama/Llama-3.1-8B"
LAWS = (None, "lora-plan-2026-11", "tinker-cookbook-2025-11")


@settings(max_examples=40, deadline=None)
@given(
    rank=st.sampled_from((1, 8, 32, 100, 512)), alpha=st.sampled_from((1.0, 16.0, 32.0, 64.0)),
    batch=st.none() | st.integers(1, 512), tokens=st.none() | st.integers(10_000, 10**9),
    rslora=st.booleans(), law=st.sampled_from(LAWS), model=st.sampled_from((LLAMA, "Qwen/Qwen3-8B")),
)  # fmt: skip
def test_estimate_gives_the_rate_of_lr(
    rank: int,
    alpha: float,
    batch: int | None,
    tokens: int | None,
    rslora: bool,
    law: str | None,
    model: str,
) -> None:
    plan = planner.estimate(
        model, rank=rank, alpha=alpha, batch=batch, tokens=tokens, use_rslora=rslora, law=law, seq_len=1024
    )
    steps = math.ceil(tokens / (batch * 1024)) if batch and tokens else None
    run: dict[str, Any] = {"batch": batch, "steps": steps, "law": law, "rank": rank, "alpha": alpha}
    scaling = "alpha/sqrt(rank)" if rslora else "alpha/rank"
    lora = planner.lr(model, scaling=scaling, **run)
    full = planner.lr(model, scaling=scaling, method="full", **run)
    found = plan.learning_rate
    assert (found.value, found.low, found.high) == (lora.value, lora.low, lora.high)
    assert found.full_finetune == full.value and found.factors == lora.factors
    assert found.batch == (batch or 128)
    named = {use for use, _ in plan.sources if use.startswith("factor of ")}
    assert named == {f"factor of {factor.name}" for factor in lora.factors}


def test_reinforcement_learning_has_the_rates_of_sweeps_and_not_a_law_s() -> None:
    plan = planner.estimate(LLAMA, rank=8, episodes=320_000, law="tinker-cookbook-2025-11")
    rate = plan.to_dict()["learning_rate"]
    lora, full = (planner.lr(LLAMA, rank=8, task="rl", method=method) for method in ("lora", "full"))
    assert (rate["value"], rate["low"], rate["high"]) == (lora.value, lora.low, lora.high)
    assert (rate["full_finetune"], rate["law"], rate["basis"]) == (full.value, "rl-lora", "measured")
    assert rate["batch"] is None and rate["level"] is None and not rate["factors"]
    noted = {each.code: each.message for each in plan.warnings}
    assert "tinker-cookbook-2025-11 is not used" in noted["learning-rate-law"] and "rl-sweep" in noted
    assert {source.locator for use, source in plan.sources if use == "learning rate"} == {
        source.locator for use, source in lora.sources if use == "learning rate"
    }
    page = CliRunner().invoke(cli, ["estimate", "-m", LLAMA, "--episodes", "320000", "--explain"]).output
    assert "no law covers it" in page and "median of 10 sweeps" in " ".join(page.split())


@pytest.mark.parametrize(
    ("asked", "flags"),
    [
        ({"tokens": "20M", "epochs": 2}, "--tokens 20M --epochs 2"),
        ({"episodes": 20_000, "seq_len": 512}, "--episodes 20000 --seq-len 512"),
    ],
)
def test_the_best_plan_has_the_rate_of_its_estimate_which_it_names(asked: dict[str, Any], flags: str) -> None:
    found = planner.plan("Qwen/Qwen3-8B", gpu="rtx4090", gpus="1,2", **asked)
    again = planner.estimate(**found.options())
    assert found.learning_rate == again.learning_rate
    data = found.to_dict()
    assert data["learning_rate"] == again.to_dict()["learning_rate"]
    assert planner.estimate(**data["options"]).to_dict() == again.to_dict()
    page = CliRunner().invoke(cli, f"plan -m Qwen/Qwen3-8B --gpu rtx4090 --gpus 1,2 {flags}".split()).output
    command = shlex.split(re.search(r"in full  lora-plan (.*)", page)[1])  # type: ignore[index]
    typed = json.loads(CliRunner().invoke(cli, [*command, "--json"]).output)
    assert typed == json.loads(json.dumps(again.to_dict()))
    assert data["best"]["memory"]["per_gpu_bytes"] in {
        each["per_gpu_bytes"] for each in typed["memory"].values() if each
    }


@pytest.mark.parametrize("batch", [8, 512])
def test_a_trainer_s_config_has_the_rate_of_the_page(batch: int) -> None:
    words = [
        "-m",
        LLAMA,
        "--layers",
        "attention,mlp",
        "--batch",
        str(batch),
        "--alpha",
        "16",
        "--tokens",
        "20M",
    ]
    page = CliRunner().invoke(cli, ["estimate", *words]).output
    written = CliRunner().invoke(cli, ["export", "trl-sft", *words]).output
    shown = re.search(r"learning rate (\S+)", page)
    put = re.search(r"^learning_rate: (\S+)", written, re.MULTILINE)
    assert shown and put and float(shown[1]) == float(put[1])
    assert "in it, for batch" in page and f"for a batch of    {batch}" in page


@pytest.mark.parametrize("objective", ["dpo", "orpo", "kto"])
def test_no_rate_of_supervised_training_is_given_for_preferences(objective: str) -> None:
    found = planner.estimate("Qwen/Qwen3-0.6B", objective=objective, tokens="1M").to_dict()
    supervised = planner.estimate("Qwen/Qwen3-0.6B", tokens="1M").to_dict()
    rate = found["learning_rate"]
    assert rate["value"] is rate["low"] is rate["full_finetune"] is found["regret"] is None
    assert (
        rate["reason"] == f"no law and no sweep here is of {objective}"
        and supervised["learning_rate"]["value"]
    )
    assert "not-supervised" in {each["code"] for each in found["warnings"]}


def test_no_supervised_file_is_written_for_preferences() -> None:
    with pytest.raises(InputError, match="objective: found 'dpo', expected sft"):
        planner.export("trl-sft", "Qwen/Qwen3-0.6B", objective="dpo", layers="attention,mlp")
