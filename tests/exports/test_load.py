"""The exported files, loaded by the trainers' own packages: without error or warning, and to the plan's numbers.

TRL, PEFT and accelerate come with the tests; the others are tried where they can be imported.
"""

from __future__ import annotations

import dataclasses
import json
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import yaml

from planner import estimate, export

from .. import oracle
from ..test_peft import MODELS

LLAMA = "meta-llama/Llama-3.1-8B-Instruct"
SFT: dict[str, Any] = {
    "model": LLAMA,
    "dataset": "no-robots",
    "batch": 16,
    "accumulation": 4,
    "checkpointing": "layer",
    "layers": "attention,mlp",
}
SETUPS: list[dict[str, Any]] = [
    {},
    {"quantize": "nf4", "rank": 8, "alpha": 16},
    {"gpus": 4, "sharding": "fsdp"},
    {"use_rslora": True, "variant": "dora", "layers": "attention", "lora_dropout": 0.1},
    {"packing": "padded", "optimizer": "paged-adamw-8bit", "checkpointing": "none", "kernels": "liger"},
    {"modules_to_save": "lm_head", "layers": "attention,mlp", "epochs": 3, "precision": "fp16"},
]


def trl_parsed(path: Path, kind: str) -> tuple[Any, Any, Any]:
    """TRL's own dataclasses from a YAML file, with warnings as errors."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from trl.scripts.grpo import GRPOScriptArguments

    types = {
        "sft": (trl.ScriptArguments, trl.SFTConfig, trl.ModelConfig),
        "grpo": (GRPOScriptArguments, trl.GRPOConfig, trl.ModelConfig),
    }[kind]
    on_cpu = ["--use_cpu", "True", "--optim", "adamw_torch"]
    arguments = ["--config", str(path), *on_cpu] if path.suffix == ".yaml" else [*words(path), *on_cpu]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.filterwarnings("ignore", category=ResourceWarning)
        script, training, model = trl.TrlParser(types).parse_args_and_config(arguments)
    return script, training, model


def words(path: Path) -> list[str]:
    """The arguments of a written command, after the name of its script and the launcher's own option."""
    import shlex

    found = shlex.split(path.read_text(encoding="utf-8").replace("\\\n", " "), comments=True)
    first = next(i for i, word in enumerate(found) if word in ("sft", "grpo")) + 1
    return found[first + 2 * (found[first] == "--num_processes") :]


@pytest.mark.parametrize("options", SETUPS)
@pytest.mark.parametrize("name", ["trl-sft.yaml", "trl-sft.sh"])
def test_trl_loads_what_was_exported(options: dict[str, Any], name: str, tmp_path: Path) -> None:
    plan = estimate(**{**SFT, "autocast": True, **options})
    export("trl-sft", plan, output=tmp_path)
    if "modules_to_save" in options:
        assert "lora_modules_to_save" in (tmp_path / name).read_text()
    script, training, model = trl_parsed(tmp_path / name, "sft")
    spec = plan.adapter.spec
    assert (model.lora_r, model.lora_alpha, model.use_dora) == (spec.rank, spec.alpha, spec.variant == "dora")
    assert model.lora_dropout == options.get("lora_dropout", 0.0)
    sizes = training.per_device_train_batch_size, training.gradient_accumulation_steps
    assert sizes[0] * sizes[1] * options.get("gpus", 1) == 16
    assert training.max_length == plan.workload.seq_len and script.dataset_name == "HuggingFaceH4/no_robots"
    assert training.lr_scheduler_type == "constant" and training.num_train_epochs == options.get("epochs", 1)
    on = options.get("checkpointing", "layer") == "layer"
    inner = (training.fsdp_config or {}).get("activation_checkpointing")
    assert (inner if "sharding" in options else training.gradient_checkpointing) is on
    assert training.bf16 is (options.get("precision") != "fp16")


def test_trl_loads_grpo(tmp_path: Path) -> None:
    export(
        "trl-grpo",
        LLAMA,
        layers="attention,mlp",
        episodes=32_000,
        batch=32,
        train_data="a/b",
        output=tmp_path,
    )
    script, training, _ = trl_parsed(tmp_path / "trl-grpo.yaml", "grpo")
    assert (training.num_generations, training.max_steps, training.beta) == (8, 1000, 0.0)
    assert script.reward_funcs == ["accuracy_reward"]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("llama", {"layers": "all-linear"}),
        ("gpt_oss", {"layers": "attention", "target_parameters": "experts.gate_up_proj,experts.down_proj"}),
        ("llama", {"layers": "attention,mlp", "layers_to_transform": "0,2", "variant": "dora"}),
        ("gpt_oss", {"layers": "attention", "experts": "none"}),
        ("deepseek_v3", {"layers": "attention", "experts": "none"}),
    ],
)
def test_trl_trains_exactly_the_plans_parameters(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    """The LoraConfig that TRL makes of its YAML, put on the model without weights."""
    trl = pytest.importorskip("trl", reason="TRL is not installed")
    from peft import get_peft_model

    found = export("trl-sft", MODELS[name], rank=4, seq_len=16, lr=1e-4, batch=1, **options)
    found.write(tmp_path)
    _, _, model = trl_parsed(tmp_path / "trl-sft.yaml", "sft")
    config = trl.get_peft_config(model)
    config.task_type = None
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        trained, _ = get_peft_model(oracle.meta_model(MODELS[name]), config).get_nb_trainable_parameters()
    assert found.plan is not None and trained == found.plan.adapter.params


@pytest.mark.parametrize("sharding", ["none", "ddp", "fsdp", "zero2", "zero3"])
def test_accelerate_loads_its_file(sharding: str, tmp_path: Path) -> None:
    from accelerate.commands.config.config_args import ClusterConfig, load_config_from_file

    gpus = 1 if sharding == "none" else 4
    export("accelerate", **SFT, gpus=gpus, sharding=sharding, output=tmp_path)
    found = load_config_from_file(str(tmp_path / "accelerate.yaml"))
    assert isinstance(found, ClusterConfig) and found.num_processes == gpus
    if sharding == "fsdp":
        from accelerate.utils import FullyShardedDataParallelPlugin

        kept = {key.removeprefix("fsdp_"): value for key, value in found.fsdp_config.items()}
        names = {field.name for field in dataclasses.fields(FullyShardedDataParallelPlugin)}
        odd = set(kept) - names - {"version", "offload_params"}
        assert not odd and kept["version"] == 2
    if sharding.startswith("zero"):
        from accelerate.utils import DeepSpeedPlugin

        config = json.loads((tmp_path / "deepspeed.json").read_text())
        assert config["zero_optimization"]["stage"] == int(sharding[-1])
        assert DeepSpeedPlugin is not None


@pytest.mark.parametrize("options", [o for o in SETUPS if o.get("precision") != "fp16"])
def test_axolotls_own_schema_takes_its_file(options: dict[str, Any]) -> None:
    pytest.importorskip(
        "axolotl.utils.schemas.config", reason="Axolotl is not installed", exc_type=ImportError
    )
    from axolotl.utils.schemas.config import AxolotlInputConfig

    data = yaml.safe_load(export("axolotl", **{**SFT, **options}).text)
    from axolotl.integrations.liger.args import LigerArgs

    assert set(data) <= set(AxolotlInputConfig.model_fields) | set(LigerArgs.model_fields)
    data = {key: value for key, value in data.items() if not key.startswith(("liger", "plugins"))}
    kept = AxolotlInputConfig(**data).model_dump(exclude_none=True)
    assert {key: kept[key] for key in data if not isinstance(data[key], (dict, list))} == {
        key: value for key, value in data.items() if not isinstance(value, (dict, list))
    }  # fmt: skip


@pytest.mark.parametrize("options", [o for o in SETUPS if o.get("sharding") != "fsdp"])
def test_llamafactorys_own_parser_takes_its_file(
    options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DISABLE_VERSION_CHECK", "1")
    parser = pytest.importorskip(
        "llamafactory.hparams", reason="LLaMA-Factory is not installed", exc_type=ImportError
    )
    options = {
        key: value for key, value in options.items() if key != "kernels"
    }  # Liger is a package of its own
    data = yaml.safe_load(export("llamafactory", **{**SFT, **options}).text)
    model, read, training, tuning, _ = parser.get_train_args(
        {**data, "use_cpu": True, "optim": "adamw_torch"}
    )
    assert (tuning.lora_rank, tuning.lora_alpha) == (data["lora_rank"], data["lora_alpha"])
    assert training.learning_rate == data["learning_rate"] and read.packing is data["packing"]
    assert model.disable_gradient_checkpointing is data["disable_gradient_checkpointing"]


def test_deepspeed_reads_its_file() -> None:
    config = pytest.importorskip(
        "deepspeed.runtime.config", reason="DeepSpeed is not installed", exc_type=ImportError
    )
    data = json.loads(export("deepspeed", **SFT, gpus=2, sharding="zero2").text)
    read = config.DeepSpeedConfig({**data, "train_batch_size": 16, "gradient_accumulation_steps": 8})
    assert read.zero_config.stage == 2 and read.train_micro_batch_size_per_gpu == 2


def test_tinkers_client_takes_the_arguments() -> None:
    tinker = pytest.importorskip("tinker", reason="Tinker's client is not installed", exc_type=ImportError)
    import inspect

    from .reading import python_settings

    said = python_settings(export("tinker", **SFT).text)
    known = inspect.signature(tinker.ServiceClient.create_lora_training_client).parameters
    assert {"base_model", "rank", "seed", "train_attn", "train_mlp", "train_unembed"} <= set(known) & set(
        said
    )
    kept = {name: said[name] for name in ("learning_rate", "beta1", "beta2", "eps", "weight_decay")}
    assert tinker.AdamParams(**kept).learning_rate == said["learning_rate"]
    assert "tinker" in sys.modules


def tiny_model(folder: Path) -> None:
    """A Llama of 20,640 random weights with a tokenizer of 32 words, and 64 lines of text beside it."""
    import torch
    from tokenizers import Tokenizer, models, pre_tokenizers
    from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

    words = ["<pad>", "<eos>", "<unk>", *(f"w{n}" for n in range(29))]
    inner = Tokenizer(models.WordLevel({word: n for n, word in enumerate(words)}, unk_token="<unk>"))
    inner.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=inner, pad_token="<pad>", eos_token="<eos>", unk_token="<unk>"
    )
    torch.manual_seed(0)
    config = LlamaConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=2, num_attention_heads=4, num_key_value_heads=2,
        vocab_size=32, max_position_embeddings=64, eos_token_id=1, pad_token_id=0,
    )  # fmt: skip
    LlamaForCausalLM(config).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (folder / "data").mkdir()
    lines = [json.dumps({"text": " ".join(f"w{(n * 7 + i) % 29}" for i in range(15))}) for n in range(64)]
    (folder / "data" / "train.jsonl").write_text("\n".join(lines))


def test_trl_trains_from_the_file_that_was_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """TRL's own script, on the processor: the planned number of steps, rate and parameters."""
    pytest.importorskip("trl", reason="TRL is not installed")
    import datasets
    from trl.scripts.sft import main, make_parser

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", str(tmp_path / "cache"))
    monkeypatch.chdir(tmp_path)
    tiny_model(tmp_path)
    found = export(
        "trl-sft", "./model", layers="attention,mlp", rank=4, tokens=1024, seq_len=16, batch=8, accumulation=2,
        precision="fp32", lr=0.01, train_data="./data", checkpointing="layer",
    )  # fmt: skip
    found.write(tmp_path)
    more = ["--use_cpu", "True", "--optim", "adamw_torch", "--report_to", "none", "--logging_steps", "1"]
    asked = ["--config", "trl-sft.yaml", *more, "--disable_tqdm", "True"]
    main(*make_parser().parse_args_and_config(asked, fail_with_unknown_args=True))
    state = json.loads(next((tmp_path / "out").glob("checkpoint-*/trainer_state.json")).read_text())
    assert state["global_step"] == 1024 / (8 * 16)
    assert {entry["learning_rate"] for entry in state["log_history"] if "loss" in entry} == {0.01}
    plan = estimate("./model", adapter=tmp_path / "out")
    assert found.plan is not None and plan.adapter.params == found.plan.adapter.params == 4096
    assert not [notice for notice in plan.warnings if notice.code.startswith("adapter-file")]
