"""What `export peft` writes, loaded by PEFT on the meta device: it trains exactly the printed count."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

import planner
from planner import PlannerError, estimate, export
from planner.cli.main import cli
from planner.errors import InputError
from planner.exports import peft_config

from . import oracle
from .test_peft import MODELS

VISION: dict[str, Any] = {
    "model_type": "qwen2_5_vl", "architectures": ["Qwen2_5_VLForConditionalGeneration"],
    "vision_config": {"depth": 2, "hidden_size": 16, "intermediate_size": 18, "num_heads": 2, "out_hidden_size": 16,
                      "fullatt_block_indexes": [1]},
    "text_config": {"model_type": "qwen2_5_vl_text", "hidden_size": 16, "intermediate_size": 22,
                    "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1, "vocab_size": 40,
                    "max_position_embeddings": 64},
}  # fmt: skip
GEMMA3: dict[str, Any] = {
    "model_type": "gemma3", "architectures": ["Gemma3ForConditionalGeneration"], "mm_tokens_per_image": 4,
    "vision_config": {"model_type": "siglip_vision_model", "hidden_size": 16, "intermediate_size": 18,
                      "num_hidden_layers": 2, "num_attention_heads": 2, "image_size": 16, "patch_size": 4},
    "text_config": {"model_type": "gemma3_text", "hidden_size": 16, "intermediate_size": 22, "num_hidden_layers": 2,
                    "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "vocab_size": 40,
                    "sliding_window": 8, "layer_types": ["sliding_attention", "full_attention"]},
}  # fmt: skip
# Built by transformers, with a head at the top whose name modules below bear, too; with two tables on one weight.
GIT: dict[str, Any] = {
    "model_type": "git", "architectures": ["GitForCausalLM"], "hidden_size": 16, "intermediate_size": 22,
    "num_hidden_layers": 2, "num_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 64,
    "vision_config": {"hidden_size": 16, "intermediate_size": 22, "num_hidden_layers": 1, "num_attention_heads": 2,
                      "image_size": 16, "patch_size": 8},
}  # fmt: skip
PROPHETNET: dict[str, Any] = {
    "model_type": "prophetnet", "architectures": ["ProphetNetForConditionalGeneration"], "hidden_size": 16,
    "encoder_ffn_dim": 22, "num_encoder_layers": 1, "num_encoder_attention_heads": 2, "decoder_ffn_dim": 22,
    "num_decoder_layers": 2, "num_decoder_attention_heads": 2, "vocab_size": 40, "max_position_embeddings": 64,
}  # fmt: skip
CASES: list[tuple[str, dict[str, Any]]] = [
    *((name, {"layers": "all", "experts": "none"}) for name in MODELS),
    *((name, {"layers": "all-linear", "experts": "peft", "use_rslora": True}) for name in MODELS),
    *((name, {"layers": "attention,embedding", "experts": "none", "bias": "all"}) for name in MODELS),
    ("llama", {"layers": "all", "layers_to_transform": "0,2", "variant": "dora"}),
    ("llama", {"layers": "all", "rank_pattern": "q_proj=2,layers.1.mlp.down_proj=7", "alpha_pattern": "o_proj=5"}),
    ("llama", {"layers": "attention", "modules_to_save": "lm_head,embed_tokens"}),
    ("llama", {"target_regex": r".*\.(1|2)\.mlp\.(up|down)_proj"}),
    ("llama", {"layers": "all-linear", "exclude_modules": "layers.1.self_attn.q_proj,up_proj"}),
    ("gpt2", {"targets": "c_attn,mlp.c_proj"}),
    ("t5", {"layers": "attention,mlp", "layers_to_transform": 1}),
    ("qwen3_moe", {"layers": "all-linear", "experts": "peft", "alpha": 6}),
    ("qwen3_moe", {"layers": "attention,router", "experts": "peft"}),
    ("qwen3_moe", {"layers": "attention", "target_parameters": "experts.gate_up_proj,experts.down_proj",
                   "rank_pattern": "experts.gate_up_proj=1,experts.down_proj=2"}),
    ("qwen3_moe", {"targets": "down_proj", "experts": "scaled"}),
    ("qwen3_moe", {"targets": "down_proj", "experts": "per-expert"}),
    ("deepseek_v3", {"layers": "all-linear", "experts": "none"}),
    ("deepseek_v3", {"layers": "mlp,attention", "experts": "none", "layers_to_transform": "0-1"}),
    ("gpt_oss", {"targets": "q_proj,down_proj", "experts": "scaled"}),
    ("gpt_oss", {"layers": "attention,unembedding", "target_parameters": "layers.1.mlp.experts.down_proj"}),
    ("gemma3", {"layers": "vision,projector,attention", "bias": "all"}),
    ("vision", {"layers": "all"}),
    ("vision", {"layers": "vision"}),
    ("vision", {"layers": "all-linear"}),
    ("vision", {"layers": "mlp,projector", "modules_to_save": "patch_embed"}),
    ("git", {"layers": "all"}),
    ("git", {"layers": "unembedding,embedding", "rank_pattern": "output=3"}),
    ("prophetnet", {"layers": "embedding,unembedding"}),
    ("prophetnet", {"layers": "attention", "layers_to_transform": 0}),
]  # fmt: skip


def config_of(name: str) -> dict[str, Any]:
    own = {"vision": VISION, "gemma3": GEMMA3, "git": GIT, "prophetnet": PROPHETNET}
    return own.get(name) or MODELS[name]


def peft_count(config: dict[str, Any], folder: Path) -> tuple[int, str]:
    """Trainable parameters of the model with the exported config, and what PEFT prints."""
    from peft import LoraConfig, get_peft_model

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        loaded = LoraConfig.from_pretrained(str(folder))
        loaded.task_type = None
        trainable, total = get_peft_model(oracle.meta_model(config), loaded).get_nb_trainable_parameters()
    share = 100 * trainable / total
    return trainable, f"trainable params: {trainable:,d} || all params: {total:,d} || trainable%: {share:.4f}"


@pytest.mark.parametrize(("name", "options"), CASES)
def test_peft_trains_the_printed_count(name: str, options: dict[str, Any], tmp_path: Path) -> None:
    config = config_of(name)
    options = {"rank": 4, **options}
    plan = estimate(config, **options)
    export("peft", config, output=tmp_path / "new", **options)
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["adapter_config.json"]
    trainable, line = peft_count(config, tmp_path / "new")
    assert plan.adapter.params == trainable
    assert plan.adapter.peft_line == line
    assert estimate(config, adapter=tmp_path / "new").adapter.params == trainable


@pytest.mark.parametrize(
    ("name", "options", "said"),
    [
        ("qwen3_moe", {"layers": "all"}, "--experts none --target-parameters experts.gate_up_proj,experts.down_proj"),
        ("qwen3_moe", {"layers": "all", "experts": "per-expert"}, "--rank-pattern experts.gate_up_proj=4"),
        ("qwen3_moe", {"layers": "mlp", "experts": "shared-outer"}, "--target-parameters"),
        ("phi3", {"layers": "attention", "layout": "tinker"}, "--layout modules"),
        ("deepseek_v3", {"layers": "all", "experts": "none", "variant": "dora"}, "--exclude-modules down_proj"),
    ],
)  # fmt: skip
def test_what_peft_cannot_train_is_refused_with_the_nearest(
    name: str, options: dict[str, Any], said: str, tmp_path: Path
) -> None:
    with pytest.raises(InputError, match="PEFT") as caught:
        export("peft", MODELS[name], rank=4, output=tmp_path / "x", **options)
    assert said in str(caught.value)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize("experts", ["scaled", "per-expert", "shared-outer"])
@pytest.mark.parametrize("name", ["qwen3_moe", "mixtral", "gpt_oss", "deepseek_v3"])
def test_the_nearest_that_an_error_names_trains_its_count(name: str, experts: str, tmp_path: Path) -> None:
    with pytest.raises(InputError) as caught:
        export("peft", MODELS[name], rank=4, layers="all", experts=experts)
    words = str(caught.value).split()
    said = {
        words[i].strip("-").replace("-", "_"): words[i + 1].rstrip(".")
        for i, w in enumerate(words)
        if w[:2] == "--"
    }
    export("peft", MODELS[name], rank=4, output=tmp_path, **said)
    trainable, _ = peft_count(MODELS[name], tmp_path)
    assert f"{trainable:,} parameters" in str(caught.value)


def test_scales_follow_the_options() -> None:
    plain = peft_config(MODELS["qwen3_moe"], rank=4, alpha=6, layers="all-linear", experts="peft")
    assert plain["alpha_pattern"] == {r"model\.layers\.\d+\.mlp\.experts\.gate_up_proj": 12}
    named = peft_config(
        MODELS["llama"], alpha=8, alpha_pattern={"q_proj": 3}, targets="q_proj,v_proj", rank=2
    )
    assert named["alpha_pattern"] == {r"model\.layers\.\d+\.self_attn\.q_proj": 3}
    assert (named["r"], named["lora_alpha"], named["task_type"]) == (2, 8, "CAUSAL_LM")


def test_a_failed_write_leaves_the_old_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "adapter_config.json"
    file.write_text("old")

    def fail(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", fail)
    with pytest.raises(PlannerError, match="No space left"):
        export("peft", MODELS["llama"], rank=2, output=tmp_path)
    assert file.read_text() == "old"
    assert list(tmp_path.iterdir()) == [file]


def test_the_command_prints_or_writes(tmp_path: Path) -> None:
    model = "meta-llama/Llama-3.1-8B"
    run = CliRunner().invoke(cli, ["export", "peft", "-m", model, "--targets", "q_proj", "-r", "8"])
    assert run.exit_code == 0, run.output
    data = json.loads(run.stdout)
    assert (data["base_model_name_or_path"], data["target_modules"], data["r"]) == (model, ["q_proj"], 8)
    run = CliRunner().invoke(
        cli, ["export", "peft", "-m", model, "--targets", "q_proj", "-r", "8", "-o", str(tmp_path)]
    )
    assert run.exit_code == 0 and run.stdout == ""
    assert json.loads((tmp_path / "adapter_config.json").read_text()) == data
    again = CliRunner().invoke(cli, ["estimate", "--adapter", str(tmp_path), "--json"])
    assert again.exit_code == 0, again.output
    assert json.loads(again.stdout)["adapter"]["params"] == 32 * 8 * (4096 + 4096)
    both = CliRunner().invoke(cli, ["estimate", "--adapter", str(tmp_path), "--rank", "32"])
    assert both.exit_code == 2 and "--rank" in both.stderr


def test_unknown_names_are_input_errors() -> None:
    with pytest.raises(InputError, match="peft"):
        export("pefft", MODELS["llama"])
    with pytest.raises(InputError, match="layers"):
        export("peft", MODELS["llama"], layer="all")
    assert planner.export is export
