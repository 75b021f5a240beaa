"""Latent attention with routed experts: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner import estimate
from planner.architecture.build import build
from planner.errors import ConfigError
from planner.flops import compressed_pairs

from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config, examples

CLASSES = {
    "deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM", "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
    "deepseek_v32": "DeepseekV32ForCausalLM", "glm_moe_dsa": "GlmMoeDsaForCausalLM",
    "youtu": "YoutuForCausalLM",
}  # fmt: skip
DIRECT_QUERIES = ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite", "youtu")
INDEXED = ("deepseek_v32", "glm_moe_dsa")


@st.composite
def configs(draw: st.DrawFn, model_type: str) -> dict[str, Any]:
    """Random small configs of a family."""
    ranks = st.integers(3, 12)
    fixed: dict[str, Any] = {
        "n_routed_experts": st.sampled_from([4, 6]), "num_experts_per_tok": st.integers(1, 4), "n_group": 1,
        "topk_group": 1, "n_shared_experts": st.integers(1, 2), "moe_intermediate_size": st.integers(5, 30),
        "q_lora_rank": st.one_of(st.none(), ranks) if model_type in DIRECT_QUERIES else ranks,
        "kv_lora_rank": ranks, "qk_rope_head_dim": st.sampled_from([2, 4, 6]),
        "qk_nope_head_dim": st.integers(3, 9), "v_head_dim": st.integers(3, 9),
        "first_k_dense_replace": st.integers(0, 2),
    }  # fmt: skip
    if model_type == "deepseek_v2":
        # Its rotation reads pairs of numbers as complex ones, which stand at even places only.
        fixed |= {"kv_lora_rank": st.sampled_from([4, 10]), "qk_nope_head_dim": st.sampled_from([2, 6])}
    if model_type in INDEXED:
        fixed |= {"index_n_heads": st.integers(1, 3), "index_head_dim": st.integers(6, 11), "index_topk": 3}
    name = CLASSES[model_type]
    config = draw(decoder_config(model_type, name, head_dim=False, switches=("attention_bias",), **fixed))
    config["num_key_value_heads"] = config["num_attention_heads"]
    layers = config["num_hidden_layers"]
    if model_type not in DIRECT_QUERIES[:3] and draw(st.booleans()):
        config["mlp_layer_types"] = [draw(st.sampled_from(["dense", "sparse"])) for _ in range(layers)]
    if model_type == "glm_moe_dsa":
        config["indexer_types"] = [
            "full",
            *(draw(st.sampled_from(["full", "shared"])) for _ in range(layers - 1)),
        ]
    return config


def targets(model_type: str) -> list[Any]:
    """Target lists to adapt."""
    lists: list[Any] = [["kv_a_proj_with_mqa"], ["kv_b_proj", "o_proj"], ["o_proj"], ["lm_head", "kv_b_proj"]]
    if model_type in INDEXED:
        lists.append(["wq_b", "q_a_proj", "weights_proj"])
    return ["all-linear", "all-linear", *lists]


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_inventory(model_type: str) -> None:
    @settings(max_examples=8)
    @given(configs(model_type))
    def check(config: dict[str, Any]) -> None:
        check_inventory(config)

    check()


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_flops(model_type: str) -> None:
    @examples(4)
    @given(
        configs(model_type),
        st.integers(1, 3),
        st.integers(3, 9),
        st.sampled_from(targets(model_type)),
        st.booleans(),
    )
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


# ----------------------------------------------------------------------------------------------- DeepSeek V4


@st.composite
def v4_configs(draw: st.DrawFn) -> dict[str, Any]:
    """Random small DeepSeek V4 configs: windows of the compressors shorter and longer than the sequences."""
    n_heads, groups = draw(st.sampled_from([2, 4])), draw(st.sampled_from([1, 2]))
    layers = draw(st.integers(1, 3))
    kinds = ["sliding_attention", "compressed_sparse_attention", "heavily_compressed_attention"]
    d_head = draw(st.sampled_from([8, 12]))
    return {
        "model_type": "deepseek_v4", "architectures": ["DeepseekV4ForCausalLM"], "vocab_size": 40,
        "hidden_size": draw(st.integers(6, 20)), "num_hidden_layers": layers, "num_attention_heads": n_heads,
        "num_key_value_heads": 1, "head_dim": d_head, "qk_rope_head_dim": 4, "q_lora_rank": draw(st.integers(3, 9)),
        "o_groups": groups, "o_lora_rank": draw(st.integers(3, 7)), "index_n_heads": draw(st.integers(1, 3)),
        "index_head_dim": d_head, "index_topk": 2, "sliding_window": 4, "hc_mult": draw(st.integers(2, 3)),
        "n_routed_experts": 4, "num_experts_per_tok": draw(st.integers(1, 3)), "num_hash_layers": 1,
        "moe_intermediate_size": draw(st.integers(5, 20)), "max_position_embeddings": 4096,
        "layer_types": [draw(st.sampled_from(kinds)) for _ in range(layers)],
        "compress_rates": {kinds[1]: draw(st.sampled_from([2, 4])), kinds[2]: draw(st.sampled_from([3, 8]))},
        "tie_word_embeddings": draw(st.booleans()), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip


V4_TARGETS = [
    ["q_a_proj", "q_b_proj"], ["kv_proj"], ["gate_proj", "weights_proj"], ["o_b_proj"], ["lm_head", "kv_proj"]
]  # fmt: skip


@settings(max_examples=8)
@given(v4_configs())
def test_inventory_of_deepseek_v4(config: dict[str, Any]) -> None:
    check_inventory(config)


@examples(8)
@given(v4_configs(), st.integers(1, 3), st.integers(3, 9), st.sampled_from(V4_TARGETS), st.booleans())
def test_flops_of_deepseek_v4(
    config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool
) -> None:
    assume("weights_proj" not in target or "compressed_sparse_attention" in config["layer_types"])
    check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)


@given(st.integers(1, 40), st.integers(2, 9))
def test_compressed_pairs_against_counting(seq_len: int, rate: int) -> None:
    assert compressed_pairs(seq_len, rate) == sum((query + 1) // rate for query in range(seq_len))


# ------------------------------------------------------------------------------------------------- Kimi K2.5


@st.composite
def kimi_k25_configs(draw: st.DrawFn) -> dict[str, Any]:
    """A random decoder behind a random tower."""
    heads = draw(st.integers(1, 3))
    vision = {
        "hidden_size": 8 * heads, "num_attention_heads": heads, "intermediate_size": draw(st.integers(5, 30)),
        "num_hidden_layers": draw(st.integers(1, 3)), "patch_size": draw(st.integers(2, 6)),
        "pos_emb_height": draw(st.integers(2, 5)), "pos_emb_width": draw(st.integers(2, 5)),
        "merge_kernel_size": [draw(st.integers(1, 3)), draw(st.integers(1, 3))],
    }  # fmt: skip
    text = draw(configs("deepseek_v3"))
    return {
        "model_type": "kimi_k25", "architectures": ["Kimi_K25ForConditionalGeneration"], "text_config": text,
        "vision_config": vision, "projection_hidden_size": 8 * heads, "tie_word_embeddings": draw(st.booleans()),
    }  # fmt: skip


@given(kimi_k25_configs())
def test_kimi_k25_inventory(config: dict[str, Any]) -> None:
    check_inventory(config)


@settings(max_examples=2)
@given(kimi_k25_configs())
def test_kimi_k25_flops(config: dict[str, Any]) -> None:
    check_flops(config, 2, 9, targets=[["o_proj"]], checkpointing=False)


def test_kimi_k25_equals_the_published_total() -> None:
    """1,026,879,376,368 numbers in its safetensors files, 23,040 of them the routers' correction biases."""
    assert estimate("moonshotai/Kimi-K2.5").model.params == 1_026_879_376_368 - 60 * 384


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("num_experts_per_tok", 9),
        ("num_key_value_heads", 1),
        ("n_routed_experts", None),
        ("q_lora_rank", None),
    ],
)
def test_fields_that_do_not_fit_are_named(field: str, value: Any) -> None:
    config = {
        "model_type": "deepseek_v32", "hidden_size": 16, "vocab_size": 40, "intermediate_size": 20,
        "num_hidden_layers": 2, "num_attention_heads": 2, "n_routed_experts": 4, "num_experts_per_tok": 2,
        "n_shared_experts": 1, "moe_intermediate_size": 6, "q_lora_rank": 5, "index_n_heads": 2,
        "index_head_dim": 8,
    }  # fmt: skip
    build(config)
    with pytest.raises(ConfigError, match=field):
        build({**config, field: value})
