"""Configs beside adapters of supervised training: full fine-tuning, torchtune's recipes, preferences."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

import planner
from planner import estimate, export, import_config, review
from planner.cli.main import cli
from planner.errors import InputError

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
STEP: dict[str, Any] = {"batch": 16, "accumulation": 2, "seq_len": 1024, "dataset": "no-robots", "epochs": 2}
# Words of a config of full fine-tuning, in each trainer's own names, written by hand from their documentation.
FULL: dict[str, dict[str, Any]] = {
    "axolotl": {
        "base_model": LLAMA, "bf16": "auto", "sequence_len": 1024, "micro_batch_size": 1, "learning_rate": 2e-5,
        "gradient_accumulation_steps": 2, "gradient_checkpointing": True, "optimizer": "adamw_torch_fused",
    },
    "trl-sft": {
        "model_name_or_path": LLAMA, "max_length": 1024, "per_device_train_batch_size": 1, "learning_rate": 2e-5,
        "gradient_accumulation_steps": 2, "dtype": "bfloat16", "dataset_name": "HuggingFaceH4/no_robots",
    },
    "llamafactory": {
        "model_name_or_path": LLAMA, "stage": "sft", "finetuning_type": "full", "cutoff_len": 1024, "bf16": True,
        "pure_bf16": True, "per_device_train_batch_size": 1, "gradient_accumulation_steps": 2, "learning_rate": 2e-5,
    },
}  # fmt: skip
TUNE: dict[str, Any] = {
    "model": {
        "_component_": "torchtune.models.llama3_1.lora_llama3_1_8b", "lora_attn_modules": ["q_proj", "output_proj"],
        "apply_lora_to_mlp": True, "lora_rank": 8, "lora_alpha": 16,
    },
    "checkpointer": {"checkpoint_dir": "/data/Meta-Llama-3.1-8B-Instruct/"},
    "tokenizer": {"max_seq_len": 1024}, "dataset": {"packed": True}, "batch_size": 2,
    "optimizer": {"_component_": "torch.optim.AdamW", "lr": 3e-4},
    "loss": {"_component_": "torchtune.modules.loss.LinearCrossEntropyLoss"}, "dtype": "bf16",
}  # fmt: skip


def _codes(found: planner.Imported) -> list[str]:
    return [notice.code for notice in found.notices]


@pytest.mark.parametrize("target", ["trl-sft", "axolotl", "llamafactory"])
@pytest.mark.parametrize("gpus", [1, 8])
@pytest.mark.parametrize("sharding", ["zero3", "fsdp"])
def test_full_fine_tuning_comes_back_as_it_was_written(target: str, gpus: int, sharding: str) -> None:
    spread: dict[str, Any] = {"gpus": gpus, "sharding": sharding} if gpus > 1 else {}
    first = export(target, LLAMA, full=True, **STEP, **spread)
    data = yaml.safe_load(first.text)
    if "deepspeed" in data:
        data["deepspeed"] = json.loads(first.files["deepspeed.json"])
    back = import_config(data, gpus=gpus)
    assert back.full and back.format == target and "full-config" in _codes(back)
    again = export(target, **back.options())
    assert yaml.safe_load(again.text) == yaml.safe_load(first.text)


@pytest.mark.parametrize("kind", FULL)
def test_weights_and_states_of_a_full_config_are_those_of_its_precision(kind: str) -> None:
    """Bytes a parameter by hand: bfloat16 weights and their two states on one GPU; DeepSpeed's masters and states of
    float32 beside them, an eighth each; accelerate's FSDP in float32, an eighth."""
    config, n = FULL[kind], 8_030_261_248
    apart = {} if kind != "llamafactory" else {"pure_bf16": False}
    zero = {"deepspeed": {"zero_optimization": {"stage": 3}, "bf16": {"enabled": True}}}
    expected = {1: (2, 4), "zero3": (2 / 8, 12 / 8), "fsdp": (4 / 8, 8 / 8)}
    for spread, (weights, states) in expected.items():
        more = {} if spread == 1 else {**apart, **(zero if spread == "zero3" else {"fsdp": "full_shard"})}
        found = import_config({**config, **more}, gpus=1 if spread == 1 else 8)
        assert found.full and "rank" not in found.request
        memory = found.plan().memory
        assert memory is not None
        parts = memory["full"]["parts"]
        assert parts["weights"] == pytest.approx(weights * n, rel=0.01), spread
        assert parts["optimizer"] == pytest.approx(states * n, rel=0.01), spread


def test_an_adapter_in_place_of_full_fine_tuning(tmp_path: Path) -> None:
    file = tmp_path / "axolotl.yml"
    file.write_text(yaml.safe_dump(FULL["axolotl"]))
    run = CliRunner().invoke(cli, ["export", "axolotl", "--config", str(file), "--rank", "16"])
    assert run.exit_code == 0 and "lora_r: 16" in run.output
    run = CliRunner().invoke(cli, ["export", "axolotl", "--config", str(file)])
    assert run.exit_code == 0 and "lora_r" not in run.output
    run = CliRunner().invoke(cli, ["compare", "--config", str(file), "--ranks", "8", "--json"])
    columns = {column["method"]: column for column in json.loads(run.stdout)["columns"]}
    assert set(columns) == {"lora", "qlora", "full"} and columns["lora"]["rank"] == 8
    estimated = CliRunner().invoke(cli, ["estimate", "--config", str(file), "--json"])
    full = json.loads(estimated.stdout)["memory"]["full"]
    assert columns["full"]["memory"]["per_gpu_bytes"] == full["per_gpu_bytes"]


def test_a_review_of_full_fine_tuning_asks_whether_lora_would_do() -> None:
    found = review({**FULL["axolotl"], "learning_rate": 2e-3}, gpu="rtx4090", tokens=1_000_000)
    assert found.method == "full"
    codes = {finding.code: finding for finding in found.findings}
    assert set(codes) == {"does-not-fit", "learning-rate", "bf16-weights", "lora-would-do", "schedule"}
    needed = found.plan.capacity.required_rank
    assert f"rank {needed} " in codes["lora-would-do"].message
    assert "full fine-tuning" in codes["learning-rate"].message and codes["learning-rate"].severity == "error"
    calm = review(FULL["axolotl"], gpu="h200", tokens=1_000_000)
    assert {"does-not-fit", "learning-rate"}.isdisjoint(finding.code for finding in calm.findings)


@pytest.mark.parametrize("quantize", ["none", "nf4"])
@pytest.mark.parametrize("layers", ["attention", "attention,mlp", "all"])
def test_torchtunes_recipe_comes_back_as_it_was_written(layers: str, quantize: str) -> None:
    options: dict[str, Any] = {
        "layers": layers,
        "rank": 8,
        "alpha": 16,
        "quantize": quantize,
    }
    first = export("torchtune", LLAMA, **options, batch=16, accumulation=2, seq_len=1024, packing="packed")
    back = import_config(yaml.safe_load(first.text))
    assert back.format == "torchtune" and back.request["trainer"] == "torchtune" and not back.full
    plan = estimate(LLAMA, **options, batch=16, accumulation=2, seq_len=1024, packing="packed")
    assert back.plan().adapter.params == plan.adapter.params
    assert (back.plan().workload.seq_len, back.request["batch"]) == (1024, 16)
    assert back.request["quantize"] == {"none": "none", "nf4": "nf4-double"}[quantize]


def test_a_recipe_of_torchtune_is_read_by_its_own_defaults() -> None:
    found = import_config(TUNE)
    asked = found.request
    assert asked["model"] == "meta-llama/Meta-Llama-3.1-8B-Instruct" and asked["checkpointing"] == "none"
    assert asked["targets"] == ["q_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    assert (asked["batch"], asked["packing"], asked["precision"]) == (2, "packed", "bf16")
    # rank x (inputs + outputs) of q, o, gate, up and down over 32 layers
    by_hand = 8 * 32 * (2 * (4096 + 4096) + 3 * (4096 + 14336))
    assert found.plan().adapter.params == by_hand
    by_builder = import_config({**TUNE, "checkpointer": {"checkpoint_dir": "/data/mine"}})
    assert by_builder.request["model"] == asked["model"]
    spread = import_config({**TUNE, "tensor_parallel_dim": 2, "fsdp_cpu_offload": True})
    assert (spread.request["gpus"], spread.request["tensor_parallel"], spread.request["offload"]) == (
        2,
        2,
        "all",
    )
    assert "gpus-assumed" in _codes(spread)


def test_torchtunes_full_recipe_updates_in_the_backward_pass() -> None:
    model = {"_component_": "torchtune.models.llama3_1.llama3_1_8b"}
    base = {
        **TUNE,
        "model": model,
        "optimizer": {"_component_": "bitsandbytes.optim.PagedAdamW8bit", "lr": 2e-5},
    }
    peaks = []
    for on in (True, False):
        found = import_config({**base, "optimizer_in_bwd": on, "enable_activation_checkpointing": True})
        assert found.full and found.request["optimizer"] == "paged-adamw-8bit"
        memory = found.plan().memory
        assert memory is not None
        peaks.append(memory["full"]["per_gpu_bytes"])
    assert peaks[1] - peaks[0] > 10 * 2**30  # 15 GiB of gradients are not held at once


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"model": {"_component_": "mine.lora_thing"}, "checkpointer": {}}, "builder of torchtune"),
        ({"model": {**TUNE["model"], "lora_attn_modules": ["qkv"]}}, "lora_attn_modules: found 'qkv'"),
        ({"optimizer": None}, "optimizer"),
        ({"batch_size": 0}, "batch_size"),
        ({"dtype": "int4"}, "dtype"),
    ],
)
def test_a_recipe_that_cannot_be_planned_names_its_option(change: dict[str, Any], said: str) -> None:
    config = {name: value for name, value in {**TUNE, **change}.items() if value is not None}
    with pytest.raises(InputError, match=said):
        import_config(config, format="torchtune")


LORA: dict[str, Any] = {"axolotl": {"adapter": "lora", "lora_target_linear": True}, "llamafactory": {
    "finetuning_type": "lora", "pure_bf16": False}}  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "words", "objective"),
    [
        ("llamafactory", {"stage": "dpo"}, "dpo"),
        ("llamafactory", {"stage": "dpo", "pref_loss": "orpo"}, "orpo"),
        ("llamafactory", {"stage": "kto"}, "kto"),
        ("axolotl", {"rl": "dpo"}, "dpo"),
        ("axolotl", {"rl": "ipo"}, "dpo"),
        ("axolotl", {"rl": "kto"}, "kto"),
    ],
)
def test_preferences_are_planned_as_such(kind: str, words: dict[str, Any], objective: str) -> None:
    config = {**FULL[kind], **LORA[kind], **words}
    found = import_config(config)
    assert found.request["objective"] == objective
    pairs, plain = found.plan().flops, import_config({**FULL[kind], **LORA[kind]}).plan().flops
    assert pairs and plain and pairs.lora > plain.lora
    assert "other-stage" in {finding.code for finding in review(config).findings}
    with pytest.raises(InputError, match="objective: found"):
        export("axolotl", **found.options())


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("llamafactory", {"stage": "rm"}),
        ("llamafactory", {"stage": "ppo"}),
        ("llamafactory", {"stage": "dpo", "pref_loss": "simpo"}),
        ("axolotl", {"rl": "simpo"}),
        ("axolotl", {"reward_model": True}),
        ("axolotl", {"rl": "grpo"}),
    ],
)
def test_a_stage_without_a_model_of_it_is_said(kind: str, words: dict[str, Any]) -> None:
    found = import_config({**FULL[kind], **LORA[kind], **words})
    assert "objective" not in found.request and "stage-not-planned" in _codes(found)
