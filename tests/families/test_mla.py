"""Latent attention with routed experts: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config

CLASSES = {
    "deepseek_v2": "DeepseekV2ForCausalLM", "deepseek_v3": "DeepseekV3ForCausalLM",
    "kimi_k2": "DeepseekV3ForCausalLM", "glm4_moe_lite": "Glm4MoeLiteForCausalLM",
    "deepseek_v32": "DeepseekV32ForCausalLM", "glm_moe_dsa": "GlmMoeDsaForCausalLM",
}  # fmt: skip
DIRECT_QUERIES = ("deepseek_v2", "deepseek_v3", "kimi_k2", "glm4_moe_lite")
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
        config["indexer_types"] = ["full", *(draw(st.sampled_from(["full", "shared"])) for _ in range(layers - 1))]
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
    @settings(max_examples=6)
    @given(
        configs(model_type), st.integers(1, 3), st.integers(3, 9), st.sampled_from(targets(model_type)), st.booleans()
    )
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()
