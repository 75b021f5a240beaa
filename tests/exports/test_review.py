"""What a review finds: each rule fires where it should and not beside it, with a reason and a source."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import planner
from planner import estimate, export, review
from planner.cli.main import cli
from planner.errors import InputError
from planner.exports.checks import SEVERITIES

GOOD: dict[str, Any] = {
    "base_model": "meta-llama/Llama-3.1-8B", "adapter": "lora", "lora_r": 8, "lora_alpha": 32, "sequence_len": 2048,
    "lora_target_modules": ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    "learning_rate": 3e-4, "lr_scheduler": "constant", "micro_batch_size": 4, "gradient_accumulation_steps": 8,
    "bf16": True, "gradient_checkpointing": True, "datasets": [{"path": "allenai/tulu-3-sft-mixture", "type": "x"}],
}  # fmt: skip


def codes(config: dict[str, Any], **options: Any) -> dict[str, str]:
    return {finding.code: finding.severity for finding in review(config, **options).findings}


def test_a_sound_config_has_nothing_wrong() -> None:
    found = review({**GOOD, "lora_r": 64}, gpu="h100")
    assert found.findings == () and found.worst() is None
    assert found.lr == 3e-4 and found.law is not None and found.law.low and found.law.high
    assert found.law.low < 3e-4 < found.law.high


@pytest.mark.parametrize(
    ("change", "options", "code", "severity"),
    [
        ({"lora_target_modules": ["q_proj", "v_proj"]}, {}, "attention-only", "warning"),
        ({"learning_rate": 5e-6}, {}, "learning-rate", "error"),
        ({"learning_rate": 1.5e-3}, {}, "learning-rate", "warning"),
        ({"gradient_accumulation_steps": 64}, {}, "large-batch", "warning"),
        ({"lora_r": 1}, {}, "capacity-exceeded", "warning"),
        ({"lora_r": 256, "lora_alpha": 32}, {"tokens": 10**5}, "rank-far-above", "note"),
        ({"lora_r": 128, "lora_alpha": 256, "learning_rate": 1e-4}, {}, "alpha-grows-with-rank", "note"),
        ({"lr_scheduler": "cosine"}, {}, "schedule", "note"),
        ({"sequence_len": 200_000, "micro_batch_size": 1}, {}, "beyond-context", "error"),
        ({"micro_batch_size": 64}, {"gpu": "a10"}, "does-not-fit", "error"),
        ({"datasets": [{"path": "me/mine", "type": "x"}]}, {}, "no-data-size", "note"),
        ({"lora_dropuot": 0.1}, {}, "unknown-option", "warning"),
        ({"lora_target_modules": ["q_proj", "up_proj", "Wqkv"]}, {}, "unmatched-target", "note"),
        ({"base_model": "Qwen/Qwen3-30B-A3B", "lora_target_modules": ["q_proj", "o_proj"]}, {}, "experts-frozen",
         "warning"),
        ({"base_model": "meta-llama/Llama-3.2-1B", "lora_modules_to_save": ["lm_head"]}, {}, "tied-embeddings",
         "warning"),
        ({"bf16": None, "float32": True}, {}, "weights-of-32-bits", "warning"),
        ({"rl": "dpo", "learning_rate": 1e-6}, {}, "other-stage", "note"),
        ({"lora_r": 2048}, {}, "rank-above-matrix", "warning"),
        ({"lora_target_modules": ["q_proj", "up_proj", "lm_head"], "plugins": ["liger"], "liger_rope": True}, {},
         "head-adapter", "error"),
    ],
)  # fmt: skip
def test_each_rule_fires(change: dict[str, Any], options: dict[str, Any], code: str, severity: str) -> None:
    assert codes({**GOOD, "lora_r": 64}).get(code) is None
    assert codes({**GOOD, **change}, **options).get(code) == severity


def test_findings_say_why_and_where_from_gravest_first() -> None:
    found = review(
        {**GOOD, "lora_target_modules": ["q_proj"], "learning_rate": 1e-6, "lr_scheduler": "cosine"}
    )
    grades = [SEVERITIES.index(finding.severity) for finding in found.findings]
    assert grades == sorted(grades) and len(found.findings) >= 3
    for finding in found.findings:
        assert finding.message and finding.reason and finding.advice
        assert finding.source.title and finding.source.url.startswith("http")


def test_the_rate_is_judged_for_the_configs_own_alpha_batch_and_steps() -> None:
    found = review({**GOOD, "lora_alpha": 128, "learning_rate": 3e-4, "lora_r": 64})
    expected = planner.lr(
        "meta-llama/Llama-3.1-8B", rank=64, alpha=128, batch=32, steps=-(-670_426_314 // (32 * 2048))
    )
    assert found.law is not None and found.law.value == pytest.approx(expected.value, rel=0.005)
    assert (found.law.low, found.law.high) == (expected.low, expected.high)


def test_experts_that_are_named_are_not_frozen() -> None:
    config = {**GOOD, "base_model": "Qwen/Qwen3-30B-A3B", "lora_target_modules": ["q_proj"],
              "lora_target_parameters": ["experts.gate_up_proj", "experts.down_proj"]}  # fmt: skip
    assert "experts-frozen" not in codes(config) and "attention-only" not in codes(config)


def test_a_plan_is_reviewed_too() -> None:
    plan = estimate("meta-llama/Llama-3.1-8B", layers="attention", tokens=10**6, batch=8)
    found = review(plan, lr=1e-6)
    assert {"attention-only", "learning-rate"} <= {finding.code for finding in found.findings}


def test_reinforcement_learning_needs_its_episodes() -> None:
    config = {"model_name_or_path": "Qwen/Qwen3-8B", "use_peft": True, "lora_r": 128, "lora_alpha": 32,
              "lora_target_modules": "all-linear", "reward_funcs": ["accuracy_reward"], "learning_rate": 3e-5,
              "lr_scheduler_type": "constant"}  # fmt: skip
    with pytest.raises(InputError, match="--episodes"):
        review(config)
    assert codes({**config, "max_steps": 1000})["rl-rank"] == "note"
    assert codes(config, episodes=32_000)["rl-rank"] == "note"


def test_the_command_fails_only_where_it_is_asked_to(tmp_path: Path) -> None:
    export(
        "axolotl",
        "meta-llama/Llama-3.1-8B",
        layers="attention",
        dataset="alpaca",
        batch=8,
        lr=1e-6,
        output=tmp_path,
    )
    file = str(tmp_path / "axolotl.yaml")
    run = CliRunner().invoke(cli, ["review", file])
    assert run.exit_code == 0, run.output
    assert "attention-only" in run.stdout and "Source: " in run.stdout
    assert CliRunner().invoke(cli, ["review", file, "--fail-on", "error"]).exit_code == 1
    run = CliRunner().invoke(cli, ["review", file, "--lr", "2e-4", "--fail-on", "error", "--json"])
    data = json.loads(run.stdout)
    assert run.exit_code == 0
    assert {item["severity"] for item in data["findings"]} <= {"warning", "note"}
    assert data["plan"]["adapter"]["params"] and data["learning_rate"]["given"] == 2e-4


def test_an_adapter_alone_is_reviewed(tmp_path: Path) -> None:
    export("peft", "meta-llama/Llama-3.1-8B", targets="q_proj,v_proj", output=tmp_path)
    found = review(tmp_path)
    assert {finding.code for finding in found.findings} == {"attention-only", "no-data-size"}
