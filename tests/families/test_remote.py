"""Decoders without a class in transformers: published totals, and shapes that another class shares."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.adapter import AdapterSpec, adapt, params
from planner.architecture.build import build
from planner.errors import ConfigError, UnsupportedArchitectureError
from planner.flops import Step, step_macs
from planner.schema import Architecture

from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config

MODELS = Path(__file__).parents[2] / "data" / "models"
TYPES = ("chatglm", "internlm2", "internlm3", "minicpm", "mimo", "nemotron-nas")
# Rotary frequencies that the checkpoint stores as a buffer.
STORED_BUFFERS = {"THUDM/chatglm3-6b": 32, "THUDM/glm-4-9b": 32}


def catalogue() -> list[tuple[str, dict[str, Any], int]]:
    """Models of these types with a published total: name, config, parameters."""
    found = []
    for row in csv.DictReader((MODELS / "SOURCES.csv").open()):
        config = json.loads((MODELS / f"{row['model'].replace('/', '__')}.json").read_text())
        if config["model_type"] in TYPES and row["published_params"]:
            total = int(row["published_params"]) - STORED_BUFFERS.get(row["model"], 0)
            found.append((row["model"], config, total))
    return found


@pytest.mark.parametrize(
    ("name", "config", "total"), catalogue(), ids=lambda v: v if isinstance(v, str) else ""
)
def test_the_published_total(name: str, config: dict[str, Any], total: int) -> None:
    assert build(config).params == total, name


def test_the_published_total_of_models_whose_source_gives_none() -> None:
    sizes = {
        "openbmb__MiniCPM-2B-sft-bf16": 2724880896,
        "nvidia__Llama-3_3-Nemotron-Super-49B-v1": 49867145216,
    }
    for name, total in sizes.items():
        assert build(json.loads((MODELS / f"{name}.json").read_text())).params == total


@given(decoder_config("internlm", "InternLMForCausalLM", head_dim=False, switches=["bias"]), st.booleans())
def test_internlm_is_llama_with_biases_in_attention(config: dict[str, Any], checkpointing: bool) -> None:
    ours = build(config)
    theirs = build({**config, "model_type": "llama", "attention_bias": config["bias"]})
    assert {m.name: m.params for m in ours.matrices} == {m.name: m.params for m in theirs.matrices}
    assert ours.params == theirs.params
    assert total_macs(ours, checkpointing) == total_macs(theirs, checkpointing)


def total_macs(arch: Architecture, checkpointing: bool) -> int:
    return step_macs(arch, Step(3, 7, checkpointing), None).total


def lora_macs(arch: Architecture, checkpointing: bool, **layers: Any) -> tuple[int, int]:
    adapted = adapt(arch, AdapterSpec(rank=2, **layers))
    return params(adapted), step_macs(arch, Step(3, 7, checkpointing), adapted).total


@given(decoder_config("internlm3", "LlamaForCausalLM"), st.booleans(), st.booleans())
def test_internlm3_is_llama(config: dict[str, Any], bias: bool, checkpointing: bool) -> None:
    config.update(qkv_bias=bias, bias=bias)
    check_inventory(config)
    check_flops(config, 2, 5, checkpointing=checkpointing)


@pytest.mark.parametrize(("model_type", "like"), [("minicpm", "llama"), ("mimo", "qwen2")])
def test_the_names_and_work_of_another_type(model_type: str, like: str) -> None:
    @given(decoder_config(model_type, "AnyForCausalLM", head_dim=False), st.booleans())
    def check(config: dict[str, Any], checkpointing: bool) -> None:
        ours, theirs = build(config), build({**config, "model_type": like})
        assert {m.name: m.params for m in ours.matrices} == {m.name: m.params for m in theirs.matrices}
        assert ours.params == theirs.params
        assert total_macs(ours, checkpointing) == total_macs(theirs, checkpointing)
        linear = {"layers": ("all-linear",)}
        assert lora_macs(ours, checkpointing, **linear) == lora_macs(theirs, checkpointing, **linear)

    check()


@given(decoder_config("mimo", "MiMoForCausalLM", head_dim=False))
def test_mimo_stores_prediction_layers_that_a_step_does_not_run(config: dict[str, Any]) -> None:
    plain, more = build(config), build({**config, "num_nextn_predict_layers": 2})
    hidden, n_layers = config["hidden_size"], config["num_hidden_layers"]
    per_layer = sum(m.params // n_layers for m in plain.matrices if m.name.startswith("model.layers"))
    assert more.params - plain.params == 2 * (per_layer + 2 * hidden * hidden + 5 * hidden)
    assert total_macs(more, False) == total_macs(plain, False)


@given(decoder_config("internlm2", "InternLM2ForCausalLM", head_dim=False, switches=["bias"]), st.booleans())
def test_internlm2_is_llama_with_one_matrix_for_three(config: dict[str, Any], checkpointing: bool) -> None:
    bias = {"attention_bias": config["bias"], "mlp_bias": False}
    ours, llama = build(config), build({**config, "model_type": "llama", **bias})
    assert ours.params == llama.params
    assert total_macs(ours, checkpointing) == total_macs(llama, checkpointing)
    mlp = {"layers": ("mlp", "unembedding")}
    assert lora_macs(ours, checkpointing, **mlp) == lora_macs(llama, checkpointing, **mlp)
    spec = AdapterSpec(rank=1, layers=("attention",), layout="tinker")
    assert params(adapt(ours, spec)) == params(adapt(llama, spec))


@given(decoder_config("glm", "GlmForCausalLM", tie_word_embeddings=False), st.booleans(), st.booleans())
def test_chatglm_is_glm_with_one_matrix_for_three(
    config: dict[str, Any], bias: bool, checkpointing: bool
) -> None:
    config["attention_bias"] = bias
    renamed = {
        "model_type": "chatglm", "architectures": ["ChatGLMModel"], "num_layers": config["num_hidden_layers"],
        "padded_vocab_size": config["vocab_size"], "ffn_hidden_size": config["intermediate_size"],
        "kv_channels": config["head_dim"], "multi_query_attention": True, "hidden_size": config["hidden_size"],
        "multi_query_group_num": config["num_key_value_heads"], "add_qkv_bias": bias,
        "num_attention_heads": config["num_attention_heads"],
    }  # fmt: skip
    ours, glm = build(renamed), build(config)
    assert ours.params == glm.params
    assert total_macs(ours, checkpointing) == total_macs(glm, checkpointing)


DECI = {"model_type": "nemotron-nas", "hidden_size": 12, "num_attention_heads": 4, "vocab_size": 20}
USUAL = {"attention": {"n_heads_in_group": 2}, "ffn": {"ffn_mult": 64.0}}
BLOCKS: dict[str, tuple[dict[str, Any], int, int]] = {
    # Settings, parameters, multiply-adds a position in a forward pass without the scores of 5 positions.
    "usual": (USUAL, 2 * 144 + 2 * 72 + 3 * 12 * 512 + 24, 2 * 144 + 2 * 72 + 3 * 12 * 512 + 2 * 12 * 5),
    "no attention": ({**USUAL, "attention": {"no_op": True}}, 3 * 12 * 512 + 12, 3 * 12 * 512),
    "linear attention": (
        {**USUAL, "attention": {"replace_with_linear": True}}, 144 + 3 * 12 * 512 + 24, 144 + 3 * 12 * 512,
    ),
    "no mlp": ({**USUAL, "ffn": {"no_op": True}}, 2 * 144 + 2 * 72 + 12, 2 * 144 + 2 * 72 + 2 * 12 * 5),
    "linear mlp": (
        {**USUAL, "ffn": {"replace_with_linear": True}}, 3 * 144 + 2 * 72 + 24, 3 * 144 + 2 * 72 + 2 * 12 * 5,
    ),
    "nothing": ({"attention": {"no_op": True}, "ffn": {"no_op": True}}, 0, 0),
}  # fmt: skip


@given(st.lists(st.sampled_from(sorted(BLOCKS)), min_size=1, max_size=4))
def test_every_deci_layer_has_its_own_shape(names: list[str]) -> None:
    blocks = [BLOCKS[name] for name in names]
    arch = build({**DECI, "num_hidden_layers": len(names), "block_configs": [b[0] for b in blocks]})
    assert arch.params == 2 * 20 * 12 + 12 + sum(b[1] for b in blocks)
    forward = 3 * 5 * (20 * 12 + sum(b[2] for b in blocks))
    assert step_macs(arch, Step(3, 5), None).forward == forward
    assert step_macs(arch, Step(3, 5), None).total == 3 * forward


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"block_configs": [USUAL]}, "block_configs"),
        ({"block_configs": [USUAL, 7]}, "block_configs"),
        ({"block_configs": [USUAL, {"attention": {"no_op": True}, "ffn": {}}]}, r"block_configs\[1\].ffn.ffn_mult"),
        ({"block_configs": [{**USUAL, "attention": {"n_heads_in_group": 3}}, USUAL]}, "n_heads_in_group"),
    ],
)  # fmt: skip
def test_a_broken_deci_config_names_its_field(change: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        build({**DECI, "num_hidden_layers": 2, **change})


@pytest.mark.parametrize(
    "config",
    [
        {"model_type": "chatglm", "position_encoding_2d": True},
        {"model_type": "chatglm", "vision_config": {"depth": 1}},
        {"model_type": "minicpm", "num_experts": 8},
    ],
)
def test_relatives_with_another_layout_have_no_builder(config: dict[str, Any]) -> None:
    with pytest.raises(UnsupportedArchitectureError):
        build(config)
