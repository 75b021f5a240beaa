"""Decoders from before Llama: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from planner.architecture.build import build
from planner.architecture.families.legacy import STYLES
from planner.errors import ConfigError

from ..family_checks import check_flops, check_inventory
from ..strategies import examples

CLASSES = {
    "gpt2": "GPT2LMHeadModel", "gptj": "GPTJForCausalLM", "gpt_neox": "GPTNeoXForCausalLM",
    "opt": "OPTForCausalLM", "bloom": "BloomForCausalLM", "falcon": "FalconForCausalLM",
    "mpt": "MptForCausalLM", "gpt_bigcode": "GPTBigCodeForCausalLM", "phi": "PhiForCausalLM",
    "gpt-sw3": "GPT2LMHeadModel", "persimmon": "PersimmonForCausalLM", "gpt_neo": "GPTNeoForCausalLM",
    "codegen": "CodeGenForCausalLM", "gpt_neox_japanese": "GPTNeoXJapaneseForCausalLM", "xglm": "XGLMForCausalLM",
    "biogpt": "BioGptForCausalLM", "ctrl": "CTRLLMHeadModel", "openai-gpt": "OpenAIGPTLMHeadModel",
}  # fmt: skip
ATTENTION = {
    "gpt2": ["c_attn"], "gptj": ["q_proj", "v_proj"], "gpt_neox": ["query_key_value"], "opt": ["q_proj", "v_proj"],
    "bloom": ["query_key_value"], "falcon": ["query_key_value"], "mpt": ["Wqkv", "down_proj"],
    "gpt_bigcode": ["c_attn"], "phi": ["q_proj", "dense"], "gpt-sw3": ["c_attn"], "persimmon": ["query_key_value"],
    "gpt_neo": ["q_proj", "v_proj"], "codegen": ["qkv_proj"], "gpt_neox_japanese": ["query_key_value"],
    "xglm": ["q_proj", "v_proj"], "biogpt": ["k_proj", "fc1"], "ctrl": ["Wq", "Wv"], "openai-gpt": ["c_attn"],
}  # fmt: skip
EXTRA: dict[str, dict[str, Any]] = {
    "gpt2": {"n_inner": [None, 21], "resid_pdrop": [0.0, 0.1], "reorder_and_upcast_attn": [False, True]},
    "gptj": {"n_inner": [None, 30], "resid_pdrop": [0.0, 0.1]},
    "gpt_neox": {"use_parallel_residual": [True, False], "attention_bias": [True, False],
                 "hidden_dropout": [0.0, 0.2]},
    "opt": {"do_layer_norm_before": [True, False], "enable_bias": [True, False], "dropout": [0.0, 0.1],
            "layer_norm_elementwise_affine": [True, False], "word_embed_proj_dim": [None, 6],
            "_remove_final_layer_norm": [False, True]},
    "bloom": {"apply_residual_connection_post_layernorm": [False, True], "hidden_dropout": [0.0, 0.1]},
    "falcon": {"bias": [False, True], "alibi": [False, True], "ffn_hidden_size": [None, 25],
               "hidden_dropout": [0.0, 0.1]},
    "mpt": {"attn_config": [None, {"attn_pdrop": 0}, {"attn_pdrop": 1}]},
    "gpt_bigcode": {"multi_query": [True, False], "n_inner": [None, 19], "resid_pdrop": [0.0, 0.1]},
    "phi": {"qk_layernorm": [False, True], "num_key_value_heads": [None, 1], "resid_pdrop": [0.0, 0.1]},
    "gpt-sw3": {"n_inner": [None, 21]}, "openai-gpt": {}, "ctrl": {"dff": [19, 30]},
    "persimmon": {"qk_layernorm": [None, False], "hidden_dropout": [0.0, 0.1]},
    "gpt_neo": {"intermediate_size": [None, 21], "resid_dropout": [0.0, 0.1], "window_size": [4]},
    "codegen": {"n_inner": [None, 21], "resid_pdrop": [0.0, 0.1]},
    "gpt_neox_japanese": {"intermediate_multiple_size": [None, 3], "hidden_dropout": [0.0, 0.1]},
    "xglm": {"dropout": [0.0, 0.1]}, "biogpt": {"hidden_dropout_prob": [0.0, 0.1]},
}  # fmt: skip
# Classes that cannot recompute activations.
NO_CHECKPOINTS = {"gpt_neox_japanese", "ctrl", "openai-gpt"}
FALCONS: list[dict[str, Any]] = [
    {"multi_query": True, "parallel_attn": True},
    {"multi_query": True, "parallel_attn": False},
    {"multi_query": False, "parallel_attn": True},
    {"new_decoder_architecture": True, "num_kv_heads": 1},
    {"new_decoder_architecture": True, "num_kv_heads": 2, "num_ln_in_parallel_attn": 1},
]


@st.composite
def configs(draw: st.DrawFn, model_type: str) -> dict[str, Any]:
    """A random small config in the family's own spelling, with its own switches."""
    hidden, layers, heads, positions = STYLES[model_type].fields
    n_heads = draw(st.sampled_from([2, 4]))
    config: dict[str, Any] = {
        "model_type": model_type,
        "architectures": [CLASSES[model_type]],
        hidden: n_heads * 2 * draw(st.integers(4, 9)),
        layers: draw(st.integers(1, 3)),
        heads: n_heads,
        positions: 64,
        "vocab_size": draw(st.integers(20, 90)),
        "tie_word_embeddings": draw(st.booleans()),
        "pad_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    }
    width = STYLES[model_type].width
    if width is not None and width[1]:
        config[width[0]] = draw(st.integers(9, 70))
    if model_type in ("gptj", "codegen"):
        config["rotary_dim"] = 4
    if model_type == "codegen":
        config["n_head"] = 4
        config["n_embd"] = 8 * draw(st.integers(2, 6))
    if model_type == "gpt_neo":
        kinds = st.sampled_from(["global", "local"])
        config["attention_types"] = [[[draw(kinds)], 1] for _ in range(config["num_layers"])]
    if model_type in ("gpt_neox", "phi", "persimmon", "gpt_neox_japanese"):
        config["partial_rotary_factor"] = config["rotary_pct"] = 1.0
    for name, values in EXTRA[model_type].items():
        config[name] = draw(st.sampled_from(values))
    if model_type == "falcon":
        config.update(draw(st.sampled_from(FALCONS)))
    return {key: value for key, value in config.items() if value is not None}


def test_every_style_is_covered() -> None:
    assert set(CLASSES) == set(STYLES) == set(ATTENTION) == set(EXTRA)


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_inventory(model_type: str) -> None:
    @given(configs(model_type), st.booleans())
    def check(config: dict[str, Any], bare: bool) -> None:
        if bare:
            config["architectures"] = [re.sub("(LMHeadModel|ForCausalLM)$", "Model", CLASSES[model_type])]
        check_inventory(config)

    check()


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_flops(model_type: str) -> None:
    style = STYLES[model_type]
    table, head = style.embedding.rsplit(".", 1)[-1], style.head
    attention, output = ATTENTION[model_type], [style.output.rsplit(".", 1)[-1]]
    targets = ["all-linear", attention, output, [head], [table, *attention]]

    @examples(4)
    @given(configs(model_type), st.integers(1, 3), st.integers(3, 9), st.sampled_from(targets), st.booleans())
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        checkpointing = checkpointing and model_type not in NO_CHECKPOINTS
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


GPT2 = {"model_type": "gpt2", "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": 8, "vocab_size": 20}
FALCON = {"model_type": "falcon", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 4,
          "vocab_size": 20}  # fmt: skip


@pytest.mark.parametrize(
    ("config", "field"),
    [
        ({**GPT2, "n_head": 3}, "n_head"),
        ({**GPT2, "n_layer": None}, "n_layer"),
        ({**GPT2, "add_cross_attention": True}, "add_cross_attention"),
        ({**FALCON, "new_decoder_architecture": True, "parallel_attn": False}, "parallel_attn"),
        ({**FALCON, "new_decoder_architecture": True, "num_kv_heads": 3}, "num_kv_heads"),
        ({**FALCON, "num_ln_in_parallel_attn": 2}, "num_ln_in_parallel_attn"),
        ({**FALCON, "vocab_size": None}, "vocab_size"),
    ],
)
def test_a_config_that_no_class_could_run_is_refused(config: dict[str, Any], field: str) -> None:
    with pytest.raises(ConfigError, match=field):
        build(config)


def test_the_usual_spelling_of_a_field_is_understood_too() -> None:
    usual = {**GPT2, "n_embd": None, "hidden_size": 16, "n_positions": None, "max_position_embeddings": 8}
    assert build(usual).params == build(GPT2).params


def test_skipped_layers_leave_no_fixed_count() -> None:
    opt = {"model_type": "opt", "hidden_size": 8, "ffn_dim": 9, "num_hidden_layers": 1, "num_attention_heads": 2,
           "vocab_size": 20, "max_position_embeddings": 8}  # fmt: skip
    assert build(opt).flops_gap is None
    assert "layerdrop" in (build({**opt, "layerdrop": 0.1}).flops_gap or "")


def test_sliced_products_pass_adapters_by() -> None:
    bloom = {"model_type": "bloom", "hidden_size": 8, "n_layer": 1, "n_head": 2, "vocab_size": 20}
    assert build({**bloom, "pretraining_tp": 4}).flops_gap is None
    assert build({**bloom, "pretraining_tp": 4, "slow_but_exact": True}).flops_gap is not None
