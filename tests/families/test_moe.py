"""Grouped attention with routed experts: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import build
from planner.architecture.families.moe import STYLES
from planner.errors import ConfigError, InputError

from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config, examples
from .random_configs import CONFIGS

CLASSES = {
    "mixtral": "MixtralForCausalLM", "qwen2_moe": "Qwen2MoeForCausalLM", "qwen3_moe": "Qwen3MoeForCausalLM",
    "olmoe": "OlmoeForCausalLM", "phimoe": "PhimoeForCausalLM", "gpt_oss": "GptOssForCausalLM",
    "granitemoe": "GraniteMoeForCausalLM", "glm4_moe": "Glm4MoeForCausalLM", "solar_open": "SolarOpenForCausalLM",
    "minimax_m2": "MiniMaxM2ForCausalLM", "ernie4_5_moe": "Ernie4_5_MoeForCausalLM",
    "hunyuan_v1_moe": "HunYuanMoEV1ForCausalLM", "dbrx": "DbrxForCausalLM",
    "mimo_v2_flash": "MiMoV2FlashForCausalLM", "flex_olmo": "FlexOlmoForCausalLM", "dots1": "Dots1ForCausalLM",
    "exaone_moe": "ExaoneMoeForCausalLM",
}  # fmt: skip
NO_HEAD_DIM = {"olmoe", "flex_olmo", "granitemoe", "phimoe", "qwen2_moe", "ernie4_5_moe"}
SWITCHES = {
    "qwen2_moe": ("qkv_bias", "use_sliding_window"), "qwen3_moe": ("attention_bias", "use_sliding_window"),
    "olmoe": ("attention_bias",), "phimoe": ("attention_bias", "lm_head_bias"), "gpt_oss": ("attention_bias",),
    "granitemoe": ("attention_bias",), "glm4_moe": ("attention_bias", "use_qk_norm"),
    "solar_open": ("attention_bias",), "ernie4_5_moe": ("use_bias",), "hunyuan_v1_moe": ("attention_bias",),
    "mimo_v2_flash": ("attention_bias",), "flex_olmo": ("attention_bias",), "dots1": ("attention_bias",),
}  # fmt: skip
QWEN = {"decoder_sparse_step": st.integers(1, 2), "mlp_only_layers": st.sampled_from([[], [1], [0, 2]])}
SHARED = {"n_shared_experts": st.integers(1, 2)}
EXTRA: dict[str, dict[str, Any]] = {
    "qwen2_moe": {**QWEN, "shared_expert_intermediate_size": st.integers(5, 30), "sliding_window": 4},
    "qwen3_moe": {**QWEN, "sliding_window": 4},
    "mixtral": {"sliding_window": st.sampled_from([None, 4])},
    "glm4_moe": {**SHARED, "first_k_dense_replace": st.integers(0, 2), "partial_rotary_factor": 1.0},
    "solar_open": SHARED,
    "dots1": {
        **SHARED, "first_k_dense_replace": st.integers(0, 2), "n_group": 1, "topk_group": 1, "sliding_window": 4,
        "max_window_layers": st.integers(0, 3),
    },
    "exaone_moe": {
        "num_shared_experts": st.integers(1, 2), "first_k_dense_replace": st.integers(0, 2),
        "sliding_window": 4, "sliding_window_pattern": st.integers(1, 3),
    },
    "ernie4_5_moe": {
        "moe_num_shared_experts": st.integers(0, 2), "moe_layer_start_index": st.integers(0, 2),
        "moe_layer_interval": st.integers(1, 2), "moe_layer_end_index": st.sampled_from([-1, 1]),
    },
    "mimo_v2_flash": {
        "v_head_dim": st.sampled_from([6, 10]), "sliding_window_size": 4,
        "rope_parameters": {
            kind: {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0}
            for kind in ("full_attention", "sliding_attention")
        },
    },
}  # fmt: skip
EXPERT_NAMES = {
    "ernie4_5_moe": ("moe_num_experts", "moe_k"), "hunyuan_v1_moe": ("num_experts", "moe_topk"),
    "qwen2_moe": ("num_experts", "num_experts_per_tok"), "qwen3_moe": ("num_experts", "num_experts_per_tok"),
    "olmoe": ("num_experts", "num_experts_per_tok"), "glm4_moe": ("n_routed_experts", "num_experts_per_tok"),
    "solar_open": ("n_routed_experts", "num_experts_per_tok"),
    "mimo_v2_flash": ("n_routed_experts", "num_experts_per_tok"),
    "dots1": ("n_routed_experts", "num_experts_per_tok"), "flex_olmo": ("num_experts", "num_experts_per_tok"),
    "exaone_moe": ("num_experts", "num_experts_per_tok"),
}  # fmt: skip
# Names that PEFT converts into expert tensors and router weights.
PARTS_OF_EXPERTS: dict[str, list[Any]] = {
    "mixtral": [["w1", "w3"], ["w2", "gate"]],
    "qwen3_moe": [["gate_proj", "up_proj"], ["gate", "o_proj"]],
    "glm4_moe": [["down_proj"], ["gate"]],
}
# PEFT cannot wrap these types' routers, which are Linear modules that return more than a tensor.
NO_ALL_LINEAR = {"phimoe"}


ONE_LAYER = {
    "model_type": "qwen3_moe", "architectures": ["Qwen3MoeForCausalLM"], "hidden_size": 8, "intermediate_size": 9,
    "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 2, "head_dim": 4, "vocab_size": 30,
    "num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 6,
}  # fmt: skip


def dbrx_configs() -> st.SearchStrategy[dict[str, Any]]:
    """DBRX, whose fields have names of their own."""

    def make(n_kv: int, per: int, half: int, layers: int, width: int, active: int) -> dict[str, Any]:
        n_heads = n_kv * per
        return {
            "model_type": "dbrx", "architectures": ["DbrxForCausalLM"], "d_model": n_heads * 2 * half,
            "n_heads": n_heads, "n_layers": layers, "vocab_size": 50, "max_seq_len": 64, "pad_token_id": 0,
            "attn_config": {"kv_n_heads": n_kv, "rope_theta": 1e4, "clip_qkv": 8},
            "ffn_config": {"ffn_hidden_size": width, "moe_num_experts": 4, "moe_top_k": active},
        }  # fmt: skip

    small = st.integers(1, 3)
    return st.builds(
        make, st.integers(1, 2), st.integers(1, 2), st.integers(2, 6), small, st.integers(5, 30), small
    )


@st.composite
def configs(draw: st.DrawFn, model_type: str) -> dict[str, Any]:
    """Random small configs of a family."""
    if model_type == "dbrx":
        return draw(dbrx_configs())
    n, active = EXPERT_NAMES.get(model_type, ("num_local_experts", "num_experts_per_tok"))
    fixed: dict[str, Any] = {
        n: st.integers(3, 5), active: st.integers(1, 3), "moe_intermediate_size": st.integers(5, 30),
        **EXTRA.get(model_type, {}),
    }  # fmt: skip
    head_dim = model_type not in NO_HEAD_DIM
    config = draw(
        decoder_config(
            model_type, CLASSES[model_type], head_dim=head_dim, switches=SWITCHES.get(model_type, ()), **fixed
        )
    )
    if model_type == "mimo_v2_flash":
        config["num_attention_heads"] *= 2
    if model_type == "hunyuan_v1_moe" and draw(st.booleans()):
        config[active] = [draw(st.integers(1, 3)) for _ in range(config["num_hidden_layers"])]
    return config


def test_half_of_a_fused_pair_is_refused() -> None:
    arch = build(ONE_LAYER)
    with pytest.raises(InputError, match="up_proj beside it"):
        adapt(arch, AdapterSpec(rank=1, layers=None, targets=("gate_proj",), experts="peft"))
    with pytest.raises(InputError, match="gate_up_proj"):
        adapt(arch, AdapterSpec(rank=1, layers=None, targets=("gate_up_proj",), experts="peft"))


@pytest.mark.parametrize(
    ("field", "value"), [("num_experts_per_tok", 9), ("num_attention_heads", 5), ("num_experts", None)]
)
def test_fields_that_do_not_fit_are_named(field: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=field if field != "num_attention_heads" else "num_key_value_heads"):
        build({**ONE_LAYER, field: value})


def targets(model_type: str) -> list[Any]:
    """Target lists to adapt."""
    attention = ["Wqkv"] if model_type == "dbrx" else ["q_proj", "v_proj"]
    lists: list[Any] = [
        attention,
        ["out_proj" if model_type == "dbrx" else "o_proj"],
        ["lm_head", *attention],
    ]
    if model_type in PARTS_OF_EXPERTS:
        lists += PARTS_OF_EXPERTS[model_type]
    return lists if model_type in NO_ALL_LINEAR else ["all-linear", "all-linear", *lists]


def test_every_style_is_covered() -> None:
    assert {*CLASSES, *CONFIGS} >= {*STYLES, "dbrx", "mimo_v2_flash"} >= set(CLASSES)


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_inventory(model_type: str) -> None:
    @settings(max_examples=8)
    @given(configs(model_type))
    def check(config: dict[str, Any]) -> None:
        check_inventory(config)

    check()


def has_experts(config: dict[str, Any]) -> bool:
    """Whether any layer has them; where none has, PEFT refuses their names."""
    return any(matrix.kind == "experts" for matrix in build(config).matrices)


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_flops(model_type: str) -> None:
    @examples(3)
    @given(
        configs(model_type),
        st.integers(1, 3),
        st.integers(3, 9),
        st.sampled_from(targets(model_type)),
        st.booleans(),
    )
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        assume(target not in PARTS_OF_EXPERTS.get(model_type, ()) or has_experts(config))
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()
