"""Configs that people have, read back: the plan that was exported, and nothing that runs, grows or hides."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import planner
from planner import PlannerError, estimate, export, import_config
from planner.cli.main import cli
from planner.errors import InputError

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
# Options of a plan that a trainer's file can carry, by trainer.
COMMON: dict[str, st.SearchStrategy[Any]] = {
    "rank": st.integers(1, 256),
    "alpha": st.integers(1, 128),
    "layers": st.sampled_from(["all", "attention", "attention,mlp", "mlp"]),
    "seq_len": st.integers(16, 8192),
    "epochs": st.integers(1, 4),
    "lora_dropout": st.sampled_from([0.0, 0.05]),
    "quantize": st.sampled_from(["none", "nf4", "nf4-double", "int8"]),
    "optimizer": st.sampled_from(
        ["adamw", "adamw-8bit", "paged-adamw-8bit", "sgd", "sgd-momentum", "lion", "adafactor"]
    ),
    "checkpointing": st.sampled_from(["none", "layer"]),
    "kernels": st.sampled_from(["transformers", "liger"]),
    "attention_kernel": st.sampled_from(["sdpa", "flash"]),
    "precision": st.sampled_from(["bf16", "fp32"]),
    "tf32": st.booleans(),
    "use_rslora": st.booleans(),
    "variant": st.sampled_from(["lora", "dora"]),
    "modules_to_save": st.sampled_from([None, "embed_tokens"]),
    "lr": st.floats(1e-6, 1e-2),
    "seed": st.integers(0, 10**6),
    "schedule": st.sampled_from(["constant", "cosine", "linear"]),
    "warmup": st.sampled_from([0, 10, 0.05]),
    "weight_decay": st.sampled_from([0.0, 0.1]),
}  # fmt: skip
TARGETS = ("trl-sft", "axolotl", "llamafactory")


@st.composite
def plans(draw: st.DrawFn) -> tuple[str, dict[str, Any]]:
    """A trainer, and a plan that it can express."""
    target = draw(st.sampled_from(TARGETS))
    options = {name: draw(values) for name, values in COMMON.items()}
    accumulation, micro = draw(st.integers(1, 8)), draw(st.integers(1, 8))
    gpus = draw(st.sampled_from([1, 2, 8]))
    kinds = ["ddp", "zero2", "zero3", "fsdp"] if gpus > 1 else ["none"]
    if target == "trl-sft" or options["kernels"] == "liger":
        options["layers"] = options["layers"].replace("all", "attention,mlp")
    if target == "trl-sft" and gpus > 1 and options["quantize"] == "int8":
        options["quantize"] = "none"
    if draw(st.booleans()) and target == "axolotl" and options["layers"] != "mlp":
        options["rank_pattern"] = {"q_proj": 8}
    options.update(
        autocast=options["precision"] == "bf16", batch=micro * accumulation * gpus,
        accumulation=accumulation, gpus=gpus,
        sharding=draw(st.sampled_from(kinds)), dataset="no-robots",
        packing="padded" if target == "axolotl" or options["attention_kernel"] == "sdpa" else "packed",
    )  # fmt: skip
    return target, options


def essence(plan: planner.Plan) -> dict[str, Any]:
    """What a plan says, without how its modules were named."""
    data = plan.to_dict()
    adapter = {
        k: data["adapter"][k] for k in ("rank", "alpha", "params", "params_by_role", "variant", "use_rslora")
    }
    keys = ("workload", "flops", "information", "capacity", "learning_rate", "memory", "time", "cost")
    return {"adapter": adapter, **{key: data[key] for key in keys}}


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(plans())
def test_import_after_export_gives_the_same_plan(drawn: tuple[str, dict[str, Any]]) -> None:
    target, options = drawn
    own = {name: options.pop(name) for name in ("lr", "seed", "schedule", "warmup", "weight_decay")}
    plan = estimate(LLAMA, **options)
    written = export(target, plan, **own)
    data = yaml.safe_load(written.text)
    if "deepspeed" in data:
        data["deepspeed"] = json.loads(written.files["deepspeed.json"])
    back = import_config(data, gpus=options["gpus"])
    assert back.format == target and back.unread == ()
    assert [notice.code for notice in back.notices] == ["trainer-of-config"]
    if options["sharding"].startswith("zero"):  # its engine settles that, as the trainer's profile has it
        options["autocast"] = None
    assert essence(back.plan(trainer="plain")) == essence(estimate(LLAMA, **options, trainer="plain"))
    assert essence(back.plan()) == essence(estimate(LLAMA, **options, trainer=back.request["trainer"]))
    for name, value in own.items():
        assert back.run[name] == (pytest.approx(value) if isinstance(value, float) else value), name
    again = export(target, **back.options())
    assert yaml.safe_load(again.text) == yaml.safe_load(written.text)


@pytest.mark.parametrize(
    "options",
    [
        {"layers": "attention,mlp", "rank": 8, "alpha": 16},
        {"layers": "all-linear", "use_rslora": True},
        {
            "targets": "q_proj,v_proj",
            "rank_pattern": "q_proj=4",
            "variant": "dora",
            "layers_to_transform": "0-3",
        },
        {"layers": "attention", "modules_to_save": "lm_head", "bias": "all"},
    ],
)
def test_an_adapter_comes_back_as_it_was_counted(options: dict[str, Any], tmp_path: Path) -> None:
    export("peft", LLAMA, output=tmp_path, **options)
    back = import_config(tmp_path)
    assert back.format == "peft" and back.unread == ()
    assert back.plan().adapter.params == estimate(LLAMA, **options).adapter.params
    assert json.loads(export("peft", **back.request).text) == json.loads(
        (tmp_path / "adapter_config.json").read_text()
    )


def test_one_trainers_config_becomes_anothers() -> None:
    first = export("axolotl", LLAMA, rank=16, alpha=32, dataset="alpaca", batch=8, accumulation=2, packing="padded",
                   lr=1e-4, schedule="cosine")  # fmt: skip
    found = import_config(yaml.safe_load(first.text))
    second = yaml.safe_load(export("llamafactory", **found.options()).text)
    assert (second["lora_rank"], second["learning_rate"], second["lr_scheduler_type"]) == (16, 1e-4, "cosine")
    assert second["per_device_train_batch_size"] == 4 and second["gradient_accumulation_steps"] == 2


AXOLOTL: dict[str, Any] = {
    "base_model": "meta-llama/Llama-3.1-8B", "adapter": "lora", "lora_target_linear": True, "learning_rate": "2e-5",
    "sequence_len": 4096, "micro_batch_size": 2,
}  # fmt: skip
LAUGHS = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + n)}: &{chr(98 + n)} [{', '.join(['*' + chr(97 + n)] * 10)}]\n" for n in range(8)
)


def test_words_that_yaml_leaves_as_words_are_numbers() -> None:
    text = yaml.safe_load("learning_rate: 2e-5")
    assert text == {"learning_rate": "2e-5"}
    found = import_config(AXOLOTL)
    assert found.run["lr"] == 2e-5 and found.request["layers"] == "all-linear"


def test_what_the_plan_has_no_place_for_is_listed() -> None:
    found = import_config({**AXOLOTL, "wandb_project": "x", "lora_dropuot": 0.1})
    listed = {item.name: item for item in found.unread}
    assert set(listed) == {"wandb_project", "lora_dropuot"}
    assert listed["wandb_project"].known and not listed["lora_dropuot"].known
    assert "lora_dropout" in listed["lora_dropuot"].reason


def test_an_optimizer_that_the_plan_has_not_is_said() -> None:
    found = import_config({**AXOLOTL, "optimizer": "came_pytorch", "attn_implementation": "flex_attention"})
    assert (found.request["optimizer"], found.request["attention_kernel"]) == ("adamw", "sdpa")
    assert [notice.code for notice in found.notices] == ["not-planned", "not-planned", "trainer-of-config"]
    assert "came_pytorch" in found.notices[1].message + found.notices[0].message


def test_all_linear_modules_and_names_are_united() -> None:
    assert (
        import_config({**AXOLOTL, "lora_target_modules": ["q_proj", "up_proj"]}).request["layers"]
        == "all-linear"
    )
    found = import_config({**AXOLOTL, "lora_target_modules": ["q_proj", "lm_head"]}).request
    assert "layers" not in found and found["targets"][-1] == "lm_head" and len(found["targets"]) == 8


def test_names_that_match_nothing_are_listed_and_passed_over() -> None:
    found = import_config({**AXOLOTL, "lora_target_linear": False, "lora_target_modules": ["q_proj", "Wqkv"]})
    assert found.request["targets"] == ["q_proj"]
    assert [(item.name, item.value) for item in found.unread] == [("Wqkv", "target")]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("!!python/object/apply:os.system ['touch pwned']", "readable YAML"),
        ("base_model: x\nbase_model: y\n", "twice"),
        (LAUGHS, "at most 20,000"),
        ("base_model: &a [*a]\n", "recursive"),
        ("x: [" * 500 + "]" * 500, "YAML"),
        ("- 1\n- 2\n", "options and values"),
        ("", "options and values"),
        ("base_model: [unclosed\n", "line"),
        ("{\"peft_type\": \"LORA\", \"r\": 8, \"r\": 9}", "twice"),
        ("name: value\n", "--format"),
        ("1: 2\n", "options and values"),
    ],
)  # fmt: skip
def test_hostile_and_broken_files_are_one_error(text: str, said: str, tmp_path: Path) -> None:
    file = tmp_path / "config.yml"
    file.write_text(text)
    with pytest.raises(InputError) as caught:
        import_config(file)
    assert said in str(caught.value)
    assert [path.name for path in tmp_path.iterdir()] == ["config.yml"]
    run = CliRunner().invoke(cli, ["import", str(file)])
    assert run.exit_code != 0 and isinstance(run.exception, (PlannerError, SystemExit))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"lora_r": 0}, "lora_r"),
        ({"lora_r": "many"}, "a number"),
        ({"lora_r": True}, "a number"),
        ({"adapter": "llama-adapter"}, "lora, qlora, or nothing"),
        ({"adapter": None, "unfrozen_parameters": ["lm_head"]}, "an adapter"),
        ({"sample_packing": "perhaps"}, "true or false"),
        ({"lora_target_modules": ["q_.*"]}, "one of the two"),
        ({"base_model": None}, "model"),
        ({"lora_target_linear": False}, "lora_target_linear: true"),
        ({"deepspeed": "mine.json"}, "ZeRO stage"),
        ({"learning_rate": float("nan")}, "a number"),
    ],
)
def test_what_cannot_be_planned_names_its_option(change: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError, match=said):
        import_config({**AXOLOTL, **change}, format="axolotl")


def test_defaults_are_the_trainers_own() -> None:
    """What a file leaves out is taken as the trainer takes it: read off TRL's dataclasses."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    usual = {
        field.name: field.default
        for kind in (trl.SFTConfig, trl.ModelConfig)
        for field in dataclasses.fields(kind)
    }
    found = import_config(
        {"model_name_or_path": LLAMA, "use_peft": True, "lora_target_modules": "all-linear"}
    )
    request, run = found.request, found.run
    assert (request["rank"], request["alpha"], request["lora_dropout"]) == (
        usual["lora_r"], usual["lora_alpha"], usual["lora_dropout"])  # fmt: skip
    assert (
        request["seq_len"] == usual["max_length"] and request["batch"] == usual["per_device_train_batch_size"]
    )
    assert (run["lr"], run["schedule"], run["seed"]) == (
        usual["learning_rate"], usual["lr_scheduler_type"], usual["seed"])  # fmt: skip
    assert request["epochs"] == usual["num_train_epochs"] and usual["dtype"] == "float32"
    assert (request["precision"], request["checkpointing"]) == ("autocast", "layer")
    rl = import_config({"model_name_or_path": LLAMA, "use_peft": True, "lora_target_modules": "all-linear",
                        "reward_funcs": ["accuracy_reward"]})  # fmt: skip
    grpo = {field.name: field.default for field in dataclasses.fields(trl.GRPOConfig)}
    assert (rl.run["lr"], rl.run["group"], rl.request["seq_len"]) == (
        grpo["learning_rate"], grpo["num_generations"], grpo["max_completion_length"])  # fmt: skip


def test_peft_adapts_its_own_choice_where_no_names_are_given() -> None:
    found = import_config({"model_name_or_path": LLAMA, "use_peft": True, "lora_r": 8})
    assert found.request["targets"] == ["q_proj", "v_proj"]


def test_the_commands_read_a_config(tmp_path: Path) -> None:
    file = tmp_path / "axolotl.yml"
    file.write_text(export("axolotl", LLAMA, rank=8, dataset="alpaca", batch=8, accumulation=4, lr=1e-4).text)
    run = CliRunner().invoke(cli, ["import", str(file), "--json"])
    assert run.exit_code == 0, run.output
    assert json.loads(run.stdout)["request"]["rank"] == 8
    run = CliRunner().invoke(cli, ["import", str(file)])
    assert "--rank 8" in run.stdout and "lr 0.0001" in run.stdout
    run = CliRunner().invoke(cli, ["estimate", "--config", str(file), "--rank", "4", "--json"])
    assert run.exit_code == 0, run.output
    data = json.loads(run.stdout)
    assert (data["adapter"]["rank"], data["workload"]["batch"], data["workload"]["dataset"]) == (
        4,
        8,
        "alpaca",
    )
    run = CliRunner().invoke(cli, ["export", "trl-sft", "--config", str(file), "--layers", "attention,mlp"])
    assert run.exit_code == 0, run.output
    said = yaml.safe_load(run.stdout)
    assert (said["lora_r"], said["learning_rate"], said["packing_strategy"]) == (8, 1e-4, "bfd")
    made = CliRunner().invoke(
        cli, ["export", "peft", "--config", str(file), "--json", "-o", str(tmp_path / "new")]
    )
    data = json.loads(made.stdout)
    assert data["files"]["adapter_config.json"] == (tmp_path / "new" / "adapter_config.json").read_text()
    assert data["written"] == [str(tmp_path / "new" / "adapter_config.json")]
    run = CliRunner().invoke(cli, ["export", "llamafactory", "--config", str(file), "--layers", "attention"])
    assert yaml.safe_load(run.stdout)["lora_target"] == "q_proj,k_proj,v_proj,o_proj"


RECIPE = """
base_model: NousResearch/Meta-Llama-3.1-8B
load_in_4bit: true
adapter: qlora
sequence_len: 2048
sample_packing: true
lora_r: 32
lora_target_linear: true
gradient_accumulation_steps: 4
micro_batch_size: 2
optimizer: adamw_bnb_8bit
bf16: auto
gradient_checkpointing: true
"""


@pytest.mark.parametrize(
    ("content", "trainer"),
    [
        (RECIPE, "axolotl"),
        (
            "stage: sft\nfinetuning_type: lora\nmodel_name_or_path: Qwen/Qwen3-8B\ncutoff_len: 512\n",
            "llama-factory",
        ),
        (
            "stage: sft\nfinetuning_type: lora\nmodel_name_or_path: Qwen/Qwen3-8B\nuse_unsloth: true\n",
            "unsloth",
        ),
        ("model_name_or_path: Qwen/Qwen3-8B\nuse_peft: true\nlora_r: 8\n", "trl"),
        ("reward_funcs: [accuracy]\nmodel_name_or_path: Qwen/Qwen3-8B\nuse_peft: true\n", None),
        ("peft_type: LORA\nbase_model_name_or_path: Qwen/Qwen3-8B\nr: 8\ntarget_modules: [q_proj]\n", None),
    ],
)
def test_a_config_brings_its_trainers_profile(content: str, trainer: str | None, tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(content, encoding="utf-8")
    found = import_config(path)
    assert found.request.get("trainer") == trainer
    assert "trainer" not in found.options()  # what another trainer is exported to
    assert ("trainer-of-config" in {notice.code for notice in found.notices}) == (trainer is not None)
    plan = found.plan()
    assert plan.memory is not None
    assert plan.memory["lora"]["setup"]["trainer"] == (trainer or "plain")
    named = sum(use.startswith(f"trainer {trainer}: ") for use, _ in plan.sources)
    assert (named > 0) == (trainer is not None)


def test_the_profile_of_a_config_gives_way(tmp_path: Path) -> None:
    path = tmp_path / "config.yml"
    path.write_text(RECIPE, encoding="utf-8")
    run = CliRunner().invoke
    taken = run(cli, ["estimate", "--config", str(path), "--json"])
    given = run(cli, ["estimate", "--config", str(path), "--trainer", "plain", "--json"])
    assert "as axolotl runs it" in taken.stderr and "runs it" not in given.stderr
    said = [json.loads(found.stdout)["memory"]["qlora"]["setup"]["trainer"] for found in (taken, given)]
    assert said == ["axolotl", "plain"]
    assert "--trainer axolotl" in run(cli, ["import", str(path)]).stdout
    kept = run(cli, ["estimate", "--config", str(path), "--no-checkpointing", "--json"])
    setups = [json.loads(found.stdout)["memory"]["qlora"]["setup"] for found in (taken, kept)]
    assert [setup["checkpointing"] for setup in setups] == ["layer", "none"]


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="expected a readable config file .* No such file or directory"):
        import_config(tmp_path / "axolotl.yaml")
