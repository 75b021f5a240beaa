"""Every target: its options are names that the trainer's own source has, and its numbers are the plan's."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

import planner
from planner import estimate, export
from planner.errors import InputError
from planner.exports.lines import Line, Section, yaml_number, yaml_text
from planner.exports.registry import TARGETS
from planner.exports.trainers import trainer

from ..test_peft import MODELS
from .reading import python_settings
from .reading import settings as read

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SFT: dict[str, Any] = {
    "model": LLAMA,
    "dataset": "no-robots",
    "layers": "attention,mlp",
    "batch": 16,
    "accumulation": 4,
}
# Where each trainer keeps rank, alpha, rate, micro-batch, accumulation and length.
WHERE: dict[str, tuple[str, str, str, str, str, str]] = {
    "trl-sft": ("lora_r", "lora_alpha", "learning_rate", "per_device_train_batch_size",
                "gradient_accumulation_steps", "max_length"),
    "axolotl": ("lora_r", "lora_alpha", "learning_rate", "micro_batch_size", "gradient_accumulation_steps",
                "sequence_len"),
    "llamafactory": ("lora_rank", "lora_alpha", "learning_rate", "per_device_train_batch_size",
                     "gradient_accumulation_steps", "cutoff_len"),
    "unsloth": ("r", "lora_alpha", "learning_rate", "per_device_train_batch_size", "gradient_accumulation_steps",
                "max_length"),
}  # fmt: skip
# Names that belong to the libraries around a trainer's own: the data loader's, the Trainer's beside LLaMA-Factory.
AROUND = {
    "unsloth": {"model", "processing_class", "train_dataset", "args", "split"},
    "tinker": {"split", "seed", "loss_fn", "name", "MODEL", "DATA", "SEED", "EPOCHS", "BATCH", "MAX_LENGTH"},
    "megatron": {"MODEL", "WEIGHTS", "load_weights", "seq_length"},
}


def of(target: str, **options: Any) -> planner.exports.Exported:
    return export(target, **{**SFT, **options})


@pytest.mark.parametrize(
    "target", [name for name in TARGETS if name not in ("peft", "deepspeed", "trl-grpo")]
)
def test_options_are_in_the_trainers_own_source(target: str) -> None:
    known = set(trainer(target).options) | AROUND.get(target, set())
    if target in ("unsloth", "llamafactory"):
        known |= trainer("trl-sft").options
    found = set(read(of(target, checkpointing="layer", gpus=1)))
    assert len(found) > 5
    assert found - known == set()


def test_the_help_names_every_target() -> None:
    from click.testing import CliRunner

    from planner.cli.main import cli

    text = CliRunner().invoke(cli, ["export", "--help"]).output
    assert all(name in text.split("Model and adapter")[0] for name in TARGETS)


def test_grpo_options_are_in_the_trainers_own_source() -> None:
    found = export(
        "trl-grpo",
        LLAMA,
        layers="attention,mlp",
        episodes=32_000,
        rank=1,
        batch=32,
        group=8,
        prompt_tokens=512,
    )
    said = read(found)
    assert set(said) - trainer("trl-grpo").options == set()
    assert (said["num_generations"], said["max_completion_length"], said["max_steps"]) == (
        8,
        2048 - 512,
        1000,
    )


@pytest.mark.parametrize("target", WHERE)
def test_the_numbers_are_the_plans(target: str) -> None:
    found = of(target, rank=24, alpha=48, seq_len=1536, lr=2.5e-4)
    said = read(found)
    assert [said[name] for name in WHERE[target]] == [24, 48, 2.5e-4, 4, 4, 1536]


@pytest.mark.parametrize("target", [*WHERE, "tinker", "torchtune", "megatron"])
def test_the_rate_is_what_lr_says_for_this_batch_and_length(target: str) -> None:
    plan = estimate(**SFT)
    steps = -(-1754840 // (16 * plan.workload.seq_len))
    if target == "megatron":  # which pads each of the 9,500 samples, and packs none
        steps = -(-9500 // 16)
        assert f"train_iters={steps}," in of(target).text
    expected = planner.lr(LLAMA, rank=32, batch=16, steps=steps).value
    text = of(target).text
    rate = (yaml.safe_load(text)["optimizer"]["lr"] if target == "torchtune"
            else read(of(target)).get("learning_rate", read(of(target)).get("lr")))  # fmt: skip
    assert rate == pytest.approx(expected, rel=0.005)
    assert "lora-plan-2026-11" in text and "fitted" in text


def test_tinker_has_alpha_32_whatever_the_plan_says() -> None:
    at_32 = python_settings(of("tinker").text)["learning_rate"]
    assert python_settings(of("tinker", alpha=8).text)["learning_rate"] == at_32
    # A given rate for alpha 8 is B's: alpha x LR_B is what decides, 8 x 4e-4 = 32 x 1e-4.
    assert python_settings(of("tinker", alpha=8, lr=4e-4).text)["learning_rate"] == pytest.approx(1e-4)


def test_megatron_draws_a_as_peft_does() -> None:
    said = read(of("megatron", sharding="zero1", gpus=8, batch=32, accumulation=1))
    assert said["lora_A_init_method"] == "kaiming"
    assert said["target_modules"] == [
        "linear_q", "linear_k", "linear_v", "linear_proj", "linear_fc1_gate", "linear_fc1_up", "linear_fc2",
    ]  # fmt: skip
    assert (said["global_batch_size"], said["micro_batch_size"], said["use_distributed_optimizer"]) == (
        32,
        4,
        True,
    )


def test_megatron_names_experts_as_its_source_does() -> None:
    model, parts = "Qwen/Qwen3-30B-A3B", "experts.gate_up_proj,experts.down_proj"
    found = export("megatron", model, layers="attention", rank=32, tokens=10**7, target_parameters=parts,
                   rank_pattern="experts.gate_up_proj=4,experts.down_proj=4", batch=8)  # fmt: skip
    said = read(found)
    assert said["share_expert_adapters"] is False and said["normalize_moe_lora"] is True
    with pytest.raises(InputError, match=r"--target-parameters experts\.gate_up_proj"):
        export("megatron", model, layers="attention,mlp", rank=32, tokens=10**7, batch=8)


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("trl-sft", {"rank_pattern": "q_proj=8"}, "one rank for all"),
        ("trl-sft", {"layers": "all"}, "--layers attention,mlp"),
        ("axolotl", {"layers": "all", "kernels": "liger"}, "--layers attention,mlp"),
        ("trl-sft", {"quantize": "int8", "gpus": 2, "sharding": "fsdp"}, "The nearest is nf4"),
        ("trl-sft", {"quantize": "fp8"}, "int8"),
        ("trl-sft", {"packing": "packed"}, "--packing full"),
        ("trl-sft", {"tensor_parallel": 2, "gpus": 2}, "The nearest is 1"),
        ("axolotl", {"alpha": 7.5}, "The nearest is 8"),
        ("axolotl", {"packing": "full"}, "The nearest is"),
        ("llamafactory", {"precision": "bf16-master"}, "bf16 with autocast"),
        ("llamafactory", {"checkpointing": "layer-offload"}, "The nearest is layer"),
        ("unsloth", {"layers": "all"}, "--layers attention,mlp"),
        ("unsloth", {"gpus": 4, "sharding": "fsdp"}, "ddp"),
        ("tinker", {"layers": None, "targets": "q_proj"}, "--layers"),
        ("tinker", {"quantize": "nf4"}, "The nearest is none"),
        ("torchtune", {"layers": None, "targets": "q_proj,gate_proj"}, "--layers attention,mlp"),
        ("torchtune", {"model": "Qwen/Qwen3-8B"}, "The nearest in name is"),
        ("torchtune", {"layers_to_transform": "0-3"}, "layers-to-transform"),
        ("megatron", {"layers": "all"}, "--layers attention,mlp"),
        ("megatron", {"use_rslora": True}, "The nearest is alpha"),
        ("accelerate", {"gpus": 2, "sharding": "fsdp-hybrid"}, "The nearest is fsdp"),
        ("deepspeed", {"gpus": 2, "sharding": "fsdp"}, "one of zero1, zero2, zero3"),
        ("trl-grpo", {}, "trl-sft"),
    ],
)  # fmt: skip
def test_what_a_trainer_cannot_express_is_refused_with_the_nearest(
    target: str, options: dict[str, Any], said: str
) -> None:
    with pytest.raises(InputError) as caught:
        of(target, **options)
    assert said in str(caught.value)


def test_experts_of_tinker_are_its_own() -> None:
    found = export("tinker", "Qwen/Qwen3-30B-A3B", experts="shared-outer", tokens=10**7, batch=8)
    assert "train_mlp=True" in found.text
    with pytest.raises(InputError, match="--experts shared-outer --layout tinker"):
        export("tinker", "Qwen/Qwen3-30B-A3B", tokens=10**7, batch=8)


@pytest.mark.parametrize(
    ("sharding", "kind"), [("ddp", "MULTI_GPU"), ("fsdp", "FSDP"), ("zero3", "DEEPSPEED")]
)
def test_launchers_follow_the_sharding(sharding: str, kind: str) -> None:
    found = of("accelerate", gpus=16, sharding=sharding, batch=64, accumulation=2)
    said = read(found)
    assert (said["distributed_type"], said["num_processes"], said["num_machines"]) == (kind, 16, 2)
    if sharding == "zero3":
        config = json.loads(found.files["deepspeed.json"])
        assert config["zero_optimization"]["stage"] == 3
        sizes = config["train_micro_batch_size_per_gpu"], config["gradient_accumulation_steps"]
        assert config["train_batch_size"] == 64 == sizes[0] * sizes[1] * 16


def test_script_arguments_say_what_the_yaml_says() -> None:
    import shlex

    found = of("trl-sft", checkpointing="layer", quantize="nf4")
    words = shlex.split(found.files["trl-sft.sh"].replace("\\\n", " "), comments=True)
    said = read(found)
    names = {word.removeprefix("--") for word in words if word.startswith("--")}
    assert names == set(said)
    assert words[words.index("--learning_rate") + 1] == str(said["learning_rate"])


def test_a_plan_exports_as_its_options_do() -> None:
    plan = estimate(**SFT, rank=8, quantize="nf4")
    assert export("axolotl", plan).files == of("axolotl", rank=8, quantize="nf4").files
    assert export("axolotl", plan, rank=16).files == of("axolotl", rank=16, quantize="nf4").files


def test_without_a_batch_a_usual_one_is_split_and_said() -> None:
    found = export("trl-sft", LLAMA, layers="mlp", tokens=10**7, gpus=8, sharding="ddp")
    said = read(found)
    assert (said["per_device_train_batch_size"], said["gradient_accumulation_steps"]) == (1, 4)
    assert {notice.code for notice in found.notices} == {"batch-assumed", "no-data"}
    assert "dataset_name" not in said and "# dataset_name:" in found.text


def test_hostile_names_stay_in_their_place(tmp_path: Path) -> None:
    evil = "x\n- rm: '$(touch pwned)' # \"`id`"
    for target in ("trl-sft", "axolotl", "llamafactory", "unsloth", "tinker", "megatron"):
        found = of(target, train_data=evil, out=evil)
        said = read(found)
        assert "rm" not in said
        values = json.dumps(said)
        assert json.dumps(evil)[1:-1] in values
    script = of("trl-sft", train_data=evil).files["trl-sft.sh"]
    import subprocess

    command = script.replace("trl sft", "printf '%s'", 1)
    subprocess.run(["sh", "-c", command], cwd=tmp_path, check=True, capture_output=True)
    assert not list(tmp_path.iterdir())


@given(st.floats(min_value=1e-12, max_value=1e12, allow_nan=False))
def test_floats_are_floats_in_yaml(value: float) -> None:
    assert yaml.safe_load(yaml_number(value)) == value
    assert isinstance(yaml.safe_load(yaml_number(value)), float)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(min_size=1, max_size=8), inner, max_size=3),
    max_leaves=8,
)  # fmt: skip


@settings(max_examples=60)
@given(VALUES, st.text(max_size=60))
def test_yaml_reads_back_what_was_written(value: Any, why: str) -> None:
    text = yaml_text([why], [Section(why, (Line("key", value, why), Line("next", 1)))])
    assert yaml.safe_load(text) == {"key": value, "next": 1}


@pytest.mark.parametrize("name", ["llama", "gpt_oss", "qwen3_moe"])
def test_bare_configs_export_with_a_place_for_the_name(name: str) -> None:
    found = export("trl-sft", MODELS[name], layers="attention", rank=2, tokens=10**6, seq_len=16, lr=1e-4)
    assert read(found)["model_name_or_path"] == "YOUR-ORG/YOUR-MODEL"
    assert "no-model" in {notice.code for notice in found.notices}


def test_writing_is_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = of("trl-sft", gpus=2, sharding="zero2")
    assert sorted(path.rsplit("/", 1)[-1] for path in found.write(tmp_path)) == sorted(found.files)
    before = {path.name: path.read_text() for path in tmp_path.iterdir()}

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(InputError, match="No space left"):
        of("trl-sft", rank=4, gpus=2, sharding="zero2").write(tmp_path)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == before


def test_the_best_plan_of_a_search_is_exported_as_it_was_found() -> None:
    found = planner.plan(LLAMA, tokens="5M", budget=50, layers="all-linear", gpu="h100", gpus="1,8")
    plan = estimate(**found.options())
    best = found.best
    memory = (plan.memory or {})["qlora" if best.choice.quantize != "none" else "lora"]
    assert memory["per_gpu_bytes"] == best.memory.per_gpu_bytes
    assert plan.time is not None and plan.time["seconds"] == best.seconds
    said = read(export("trl-sft", **found.options()))
    assert (said["lora_r"], said["per_device_train_batch_size"]) == (
        best.choice.rank,
        best.choice.micro_batch,
    )


FULL: dict[str, Any] = {"model": LLAMA, "dataset": "no-robots", "batch": 16, "accumulation": 2, "full": True}
# By trainer: how its file says that all parameters train.
SAYS = {
    "trl-sft": ("use_peft", False),
    "llamafactory": ("finetuning_type", "full"),
    "axolotl": ("adapter", None),
}


@pytest.mark.parametrize("target", list(SAYS))
def test_full_fine_tuning_is_written_too(target: str) -> None:
    done = export(target, **FULL, gpus=8, gpu="h100")
    told = yaml.safe_load(done.text)
    name, value = SAYS[target]
    assert told.get(name) == value and set(told) <= trainer(target).options
    assert not any("lora" in option for option in told)
    rate = planner.lr(LLAMA, method="full", batch=16, steps=None).value
    assert told["learning_rate"] == pytest.approx(rate, rel=0.01)
    own: dict[str, Any] = {"packing": "packed", "attention_kernel": "flash"} if target == "axolotl" else {}
    plan = estimate(
        LLAMA, dataset="no-robots", batch=16, accumulation=2, gpus=8, gpu="h100", precision="autocast", **own
    )
    assert done.plan and plan.memory and done.plan.memory
    assert f"{plan.model.params:,} parameters" in done.text
    assert (
        done.plan.memory["full"] == plan.memory["full"] and done.plan.memory["full"]["per_gpu_bytes"] > 1e10
    )


@pytest.mark.parametrize(
    ("target", "options", "said"),
    [
        ("peft", {}, "full: found True, expected nothing: what is written for PEFT"),
        ("unsloth", {}, "The nearest is trl-sft"),
        ("trl-sft", {"rank": 8}, "rank: found 8, expected nothing: full fine-tuning has no adapter"),
        ("trl-sft", {"quantize": "nf4"}, "quantize: found 'nf4'"),
        (
            "trl-sft",
            {"gpus": 2, "sharding": "zero3", "precision": "bf16"},
            "precision: found 'bf16', expected bf16-master",
        ),
        ("axolotl", {"precision": "autocast"}, "The nearest is bf16"),
    ],
)
def test_what_full_fine_tuning_has_not_is_refused(target: str, options: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as caught:
        export(target, **{**FULL, **options})
    assert said in str(caught.value)


@pytest.mark.parametrize(
    ("target", "gpus", "sharding", "told"),
    [
        ("trl-sft", 1, None, {"dtype": "float32", "bf16": True}),
        ("trl-sft", 2, "zero3", {"dtype": "bfloat16", "bf16": True, "deepspeed": "deepspeed.json"}),
        ("axolotl", 1, None, {"bf16": True}),
        ("llamafactory", 1, None, {"bf16": True}),
        ("llamafactory", 2, "fsdp", {"bf16": True, "fsdp": True}),
    ],
)
def test_weights_are_held_as_the_trainer_holds_them(
    target: str, gpus: int, sharding: str | None, told: dict[str, Any]
) -> None:
    way = {"sharding": sharding} if sharding else {}
    found = yaml.safe_load(export(target, **FULL, gpus=gpus, **way).text)
    assert {name: found.get(name) for name in told} == told


@pytest.mark.parametrize("target", ["peft", "trl-sft", "axolotl", "unsloth", "llamafactory"])
def test_the_nearest_choice_of_experts_is_one_that_the_trainer_takes(target: str) -> None:
    """What the refusal of scaled experts says to type is typed, and has the parameters that it said."""
    model = "Qwen/Qwen3-30B-A3B"
    own: dict[str, Any] = {} if target == "peft" else {"dataset": "alpaca"}
    with pytest.raises(InputError, match="The nearest") as caught:
        export(target, model, layers="attention,mlp", **own)
    said = str(caught.value).partition("The nearest")[2].rstrip(".")
    count = re.findall(r"([\d,]+) parameters", said)[0]
    words = said.partition("parameters: ")[2].split()
    names = [word.lstrip("-").replace("-", "_") for word in words[::2]]
    options: dict[str, Any] = dict(zip(names, words[1::2], strict=True))
    found = export(target, model, **{"layers": "attention,mlp", **own, **options})
    assert f"{estimate(model, **{'layers': 'attention,mlp', **options}).adapter.params:,}" == count
    assert target == "peft" or count in found.text
