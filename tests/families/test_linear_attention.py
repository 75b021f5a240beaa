"""Hybrids with linear attention: random configurations, matrix by matrix and to the last FLOP."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.adapter import AdapterSpec, adapt, params
from planner.architecture.build import build
from planner.errors import ConfigError

from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config

CLASSES = {
    "qwen3_5_text": "Qwen3_5ForCausalLM", "qwen3_5_moe_text": "Qwen3_5MoeForCausalLM",
    "qwen3_next": "Qwen3NextForCausalLM", "olmo_hybrid": "OlmoHybridForCausalLM", "minimax": "MiniMaxForCausalLM",
}  # fmt: skip
TARGETS: dict[str, list[Any]] = {
    "qwen3_5_text": [["in_proj_qkv"], ["in_proj_a", "q_proj"], ["in_proj_b"], ["in_proj_z", "lm_head"]],
    "qwen3_5_moe_text": [
        ["in_proj_qkv"],
        ["in_proj_a", "q_proj"],
        ["out_proj"],
        ["shared_expert_gate", "out_proj"],
    ],
    "qwen3_next": [["in_proj_qkvz"], ["in_proj_ba"], ["out_proj", "q_proj"]],
    "olmo_hybrid": [["q_proj", "v_proj"], ["a_proj"], ["b_proj"], ["o_proj"], ["embed_tokens", "g_proj"]],
    "minimax": [["qkv_proj"], ["output_gate"], ["q_proj", "out_proj"]],
}
GOLDEN = {
    # hidden, layers, heads, kv heads, key heads, value heads, mlp width or (experts, width, shared), vocabulary,
    # then the published parameters per rank: mlp, attention, unembedding.
    "Qwen3.5-4B": (2560, 32, 16, 4, 16, 32, 9216, 248320, (1130496, 897024, 250880)),
    "Qwen3.5-9B": (4096, 32, 16, 4, 16, 32, 12288, 248320, (1572864, 1130496, 252416)),
    "Qwen3.5-27B": (5120, 64, 24, 4, 16, 48, 17408, 248320, (4325376, 2965504, 253440)),
    "Qwen3.5-35B-A3B": (2048, 40, 16, 2, 16, 32, (256, 512, 512), 248320, (16281600, 1013760, 250368)),
    "Qwen3.5-397B-A17B": (4096, 60, 32, 2, 16, 64, (512, 1024, 1024), 248320, (96030720, 2841600, 252416)),
}


@st.composite
def configs(draw: st.DrawFn, model_type: str) -> dict[str, Any]:
    """Random small configs of a family, with its own switches; both mixers among two to four layers."""
    n_layers = draw(st.integers(2, 4))
    kinds = draw(
        st.lists(
            st.sampled_from(["linear_attention", "full_attention"]), min_size=n_layers, max_size=n_layers
        )
    )
    kinds[draw(st.integers(0, 1))] = "linear_attention"
    if "full_attention" not in kinds:
        kinds[-1] = "full_attention"
    if "linear_attention" not in kinds:
        kinds[0] = "linear_attention"
    n_key = draw(st.integers(2, 3))
    fixed: dict[str, Any] = {
        "num_hidden_layers": n_layers,
        "layer_types": kinds,
        "linear_num_key_heads": n_key,
        "linear_num_value_heads": n_key * draw(st.integers(1, 2)),
        "linear_key_head_dim": draw(st.integers(3, 9)),
        "linear_value_head_dim": draw(st.integers(3, 9)),
        "linear_conv_kernel_dim": draw(st.integers(2, 4)),
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0},
        "block_size": draw(st.integers(5, 9)),
    }
    if model_type in ("qwen3_next", "qwen3_5_moe_text", "minimax"):
        fixed |= {
            "num_experts": 4,
            "num_local_experts": 4,
            "num_experts_per_tok": draw(st.integers(1, 3)),
            "moe_intermediate_size": 4 * draw(st.integers(1, 4)),
            "shared_expert_intermediate_size": draw(st.integers(3, 20)),
            "intermediate_size": 4 * draw(st.integers(2, 6)),
        }
    if model_type == "qwen3_next":
        fixed |= {
            "decoder_sparse_step": draw(st.integers(1, 2)),
            "mlp_only_layers": draw(st.sampled_from([[], [0]])),
        }
    if model_type == "minimax":
        fixed.pop("num_experts")
    wide = model_type != "olmo_hybrid"
    switches = [] if model_type == "minimax" else ["attention_bias"]
    return draw(decoder_config(model_type, CLASSES[model_type], head_dim=wide, switches=switches, **fixed))


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_inventory(model_type: str) -> None:
    @settings(max_examples=8)
    @given(configs(model_type))
    def check(config: dict[str, Any]) -> None:
        check_inventory(config)

    check()


@pytest.mark.parametrize("model_type", sorted(CLASSES))
def test_flops(model_type: str) -> None:
    # Lengths below the convolution's kernel, within a chunk of 64, a whole chunk and beyond.
    lengths = st.sampled_from([2, 7, 64, 70, 131])

    @settings(max_examples=4)
    @given(
        configs(model_type), st.integers(1, 2), lengths, st.sampled_from(TARGETS[model_type]), st.booleans()
    )
    def check(config: dict[str, Any], batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


@pytest.mark.parametrize("model_type", sorted(CLASSES))
@settings(max_examples=1)
@given(st.data())
def test_all_linear_flops(model_type: str, data: st.DataObject) -> None:
    config = data.draw(configs(model_type))
    check_flops(config, 2, 66, full=False, checkpointing=data.draw(st.booleans()))


def golden_config(row: tuple[Any, ...]) -> dict[str, Any]:
    """The text config of a row of GOLDEN."""
    hidden, n_layers, heads, kv, n_key, n_value, width, vocab, _ = row
    moe = isinstance(width, tuple)
    config = {
        "model_type": "qwen3_5_moe_text" if moe else "qwen3_5_text", "architectures": ["Qwen3_5ForCausalLM"],
        "hidden_size": hidden, "num_hidden_layers": n_layers, "num_attention_heads": heads,
        "num_key_value_heads": kv, "head_dim": 256, "linear_num_key_heads": n_key,
        "linear_num_value_heads": n_value, "vocab_size": vocab,
    }  # fmt: skip
    names = ("num_experts", "moe_intermediate_size", "shared_expert_intermediate_size")
    return config | (dict(zip(names, width, strict=True)) if moe else {"intermediate_size": width})


@pytest.mark.parametrize("model", sorted(GOLDEN))
def test_tinker_layout(model: str) -> None:
    arch = build(golden_config(GOLDEN[model]))
    counts = tuple(
        params(adapt(arch, AdapterSpec(rank=1, layers=(name,), layout="tinker", experts="shared-outer")))
        for name in ("mlp", "attention", "unembedding")
    )
    assert counts == GOLDEN[model][-1]


@pytest.mark.parametrize(
    ("model_type", "field", "value"),
    [
        ("qwen3_5_text", "linear_num_value_heads", 33),
        ("qwen3_5_text", "layer_types", ["linear_attention"]),
        ("qwen3_5_text", "layer_types", ["mamba"] * 3),
        ("qwen3_next", "num_experts_per_tok", 1000),
        ("minimax", "num_experts_per_tok", 9),
        ("olmo_hybrid", "layer_types", ["linear_attention"] * 3),
        ("olmo_hybrid", "linear_num_value_heads", 3),
    ],
)
def test_bad_fields_are_named(model_type: str, field: str, value: Any) -> None:
    config = {
        "model_type": model_type, "hidden_size": 32, "num_hidden_layers": 3, "num_attention_heads": 4,
        "num_key_value_heads": 2, "intermediate_size": 20, "vocab_size": 50, "linear_num_key_heads": 2,
        "linear_num_value_heads": 4, field: value,
    }  # fmt: skip
    with pytest.raises(ConfigError, match=field):
        build(config)
