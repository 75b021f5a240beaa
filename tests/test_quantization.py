"""Bytes of quantised models: against the modules that hold such weights, hand counts, and published sizes."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner import estimate
from planner.architecture.build import build
from planner.errors import ConfigError, PlannerError
from planner.stored.quant_layouts import awq, bnb4, bnb8, fp8_blocks, gptq, mxfp4
from planner.stored.quantization import METHODS
from planner.stored.weights import Stored, stored

LLAMA: dict[str, Any] = {
    "model_type": "llama",
    "hidden_size": 256,
    "intermediate_size": 320,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "vocab_size": 512,
    "tie_word_embeddings": False,
    "dtype": "bfloat16",
}
MOE = LLAMA | {
    "model_type": "qwen3_moe",
    "num_experts": 4,
    "num_experts_per_tok": 2,
    "moe_intermediate_size": 96,
    "mlp_only_layers": [],
    "decoder_sparse_step": 1,
}
# (d_in, d_out) of a layer's matrices.
LAYER = ((256, 256), (256, 128), (256, 128), (256, 256), (256, 320), (256, 320), (320, 256))
REST = 2 * (2 * 512 * 256 + 5 * 256)  # both tables and five norms at 2 bytes
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 32, "symmetric": True}
GROUPS = {"group_0": {"targets": ["Linear"], "weights": INT4}}


def kept(quantisation: Mapping[str, Any], base: Mapping[str, Any] = LLAMA) -> Stored:
    """How a config with this quantisation is stored."""
    return stored({**base, "quantization_config": dict(quantisation)}, build(base))


def layers(linear: Any) -> int:
    """Bytes of both layers' linear weights."""
    return sum(2 * linear(d_in, d_out) for d_in, d_out in LAYER)


@pytest.mark.parametrize(
    ("quantisation", "linear"),
    [
        pytest.param(
            {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}, lambda i, o: bnb4(i, o, False), id="nf4"
        ),
        pytest.param(
            {
                "quant_method": "bitsandbytes",
                "load_in_4bit": True,
                "bnb_4bit_use_double_quant": True,
                "llm_int8_skip_modules": ["lm_head"],
            },
            lambda i, o: bnb4(i, o, True),
            id="fp4-double",
        ),
        pytest.param({"quant_method": "bitsandbytes", "load_in_8bit": True}, bnb8, id="int8"),
        pytest.param(
            {"quant_method": "gptq", "bits": 4, "group_size": 128},
            lambda i, o: gptq(i, o, 4, 128),
            id="gptq",
        ),
        pytest.param(
            {"quant_method": "awq", "bits": 4, "group_size": 128, "version": "gemm"},
            lambda i, o: awq(i, o, 4, 128),
            id="awq",
        ),
        pytest.param(
            {"quant_method": "fp8", "weight_block_size": [128, 128]},
            lambda i, o: fp8_blocks(i, o, (128, 128), 4),
            id="fp8",
        ),
        pytest.param({"quant_method": "fbgemm_fp8"}, lambda i, o: i * o + 4 * o, id="fbgemm"),
        pytest.param(
            {
                "quant_method": "compressed-tensors",
                "format": "pack-quantized",
                "config_groups": GROUPS,
                "ignore": ["lm_head"],
            },
            lambda i, o: i * o // 2 + o * (i // 32) * 2 + 16,
            id="int4",
        ),
    ],
)
def test_linear_layers_are_quantised_and_the_rest_is_not(quantisation: dict[str, Any], linear: Any) -> None:
    about = kept(quantisation)
    assert about.bytes == layers(linear) + REST
    assert about.quantization is not None
    assert about.quantization["params"] == layers(lambda i, o: i * o)
    assert about.quantization["bytes"] == layers(linear)


def test_hand_counts_of_single_layers() -> None:
    # 4096 x 4096 at 4 bits is 8 MiB; a scale for each 64, or a byte each and 4 for each 256 of them.
    weights, blocks = 8 * 2**20, 2**24 // 64
    assert bnb4(4096, 4096, False) == weights + 4 * blocks + 64
    assert bnb4(4096, 4096, True) == weights + blocks + 4 * blocks // 256 + 1024 + 64
    assert bnb8(4096, 1024) == 4096 * 1024 + 4096 + 1
    # qweight (512, 4096) int32, scales (32, 4096) fp16, qzeros (32, 512) int32, g_idx (4096) int32
    assert gptq(4096, 4096, 4, 128) == 4 * 512 * 4096 + 2 * 32 * 4096 + 4 * 32 * 512 + 4 * 4096
    assert gptq(4096, 4096, 3, -1) == 4 * 384 * 4096 + 2 * 4096 + 4 * 384 + 4 * 4096
    # qweight (4096, 512) int32, scales (32, 4096) fp16, qzeros (32, 512) int32
    assert awq(4096, 4096, 4, 128) == 4 * 4096 * 512 + 2 * 32 * 4096 + 4 * 32 * 512
    assert mxfp4(2880, 5760) == 5760 * 90 * 17
    assert fp8_blocks(7168, 576, (128, 128), 4) == 7168 * 576 + 4 * 5 * 56


@pytest.mark.parametrize(("d_in", "d_out"), [(256, 320), (200, 130)])
def test_fp8_layers_are_those_of_transformers(d_in: int, d_out: int) -> None:
    import torch
    from transformers.integrations.fbgemm_fp8 import FbgemmFp8Linear
    from transformers.integrations.finegrained_fp8 import FP8Linear

    with torch.device("meta"):
        blocks = FP8Linear(d_in, d_out, block_size=(128, 128))
        rows = FbgemmFp8Linear(d_in, d_out, bias=False)
    assert parameter_bytes(blocks) == fp8_blocks(d_in, d_out, (128, 128), 4)
    assert parameter_bytes(rows) == d_in * d_out + 4 * d_out


def parameter_bytes(module: Any) -> int:
    """Bytes of a module's parameters."""
    return sum(p.numel() * p.element_size() for p in module.parameters() if p is not None)


def test_mxfp4_experts_are_those_of_transformers() -> None:
    import torch
    from transformers import GptOssConfig
    from transformers.integrations.mxfp4 import Mxfp4GptOssExperts

    base = {
        **LLAMA, "model_type": "gpt_oss", "hidden_size": 64, "intermediate_size": 96, "num_local_experts": 4,
        "num_experts_per_tok": 2, "head_dim": 16, "layer_types": ["full_attention"] * 2,
    }  # fmt: skip
    config = GptOssConfig(**{k: v for k, v in base.items() if k not in ("model_type", "dtype")})
    with torch.device("meta"):
        experts = Mxfp4GptOssExperts(config)
    blocks = sum(p.numel() * p.element_size() for name, p in experts.named_parameters() if "bias" not in name)
    about = kept({"quant_method": "mxfp4"}, base)
    assert about.quantization is not None
    assert about.quantization["bytes"] == 2 * (blocks + blocks // 16)  # a scale for each 16 bytes


@pytest.mark.parametrize(
    ("model", "total"),
    # total_size in model.safetensors.index.json of the hub's files: they hold nothing beside the parameters
    [("openai/gpt-oss-20b", 13_761_264_768)],
)
def test_published_sizes_to_the_byte(model: str, total: int) -> None:
    assert estimate(model).model.weight_bytes == total


def test_int4_experts() -> None:
    model = estimate("moonshotai/Kimi-K2.5").model
    assert model.quantization is not None
    assert model.quantization["params"] == 60 * 384 * 3 * 7168 * 2048


def test_parameters_do_not_depend_on_quantisation() -> None:
    plain = estimate(LLAMA).model
    small = estimate({**LLAMA, "quantization_config": {"load_in_4bit": True}}).model
    assert (small.params, small.params_active) == (plain.params, plain.params_active)
    assert plain.weight_bytes == 2 * plain.params and plain.quantization is None
    assert small.weight_bytes is not None and small.weight_bytes < plain.weight_bytes


def test_experts_count_one_by_one() -> None:
    about = kept({"quant_method": "fp8", "weight_block_size": [128, 128]}, MOE)
    attention = sum(fp8_blocks(i, o, (128, 128), 4) for i, o in LAYER[:4])
    expert = 2 * fp8_blocks(256, 96, (128, 128), 4) + fp8_blocks(96, 256, (128, 128), 4)
    assert about.quantization is not None
    assert about.quantization["bytes"] == 2 * (attention + 4 * expert)


@pytest.mark.parametrize(("version", "quantised"), [("4.57.1", True), ("5.23.0", False), (None, False)])
def test_bitsandbytes_takes_experts_only_where_they_were_modules(
    version: str | None, quantised: bool
) -> None:
    about = kept({"load_in_4bit": True}, {**MOE, "transformers_version": version})
    assert about.quantization is not None
    experts = 2 * 4 * 3 * 256 * 96
    attention = 2 * sum(i * o for i, o in LAYER[:4])
    assert about.quantization["params"] == attention + (experts if quantised else 0)


@pytest.mark.parametrize(
    ("skip", "left"),
    [
        (["model.layers.0", "lm_head"], 1),
        (["model.layers.*.mlp", "model.layers.*.self_attn", "lm_head"], 0),
        (["layers.1.self_attn", "model.layers.1.mlp", "lm_head"], 1),
    ],
)
def test_skip_lists_are_read_as_transformers_reads_them(skip: list[str], left: int) -> None:
    about = kept({"quant_method": "fp8", "modules_to_not_convert": skip})
    assert about.quantization is not None
    assert about.quantization["params"] == left * sum(i * o for i, o in LAYER)


def test_ignore_lists_are_read_as_compressed_tensors_reads_them() -> None:
    ignore = ["lm_head", "re:.*self_attn.*", "model.layers.0.mlp.down_proj"]
    about = kept(
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": GROUPS,
            "ignore": ignore,
        }
    )
    assert about.quantization is not None
    assert about.quantization["params"] == 5 * 256 * 320


FIELDS = (
    "bits group_size desc_act lm_head dynamic modules_in_block_to_quantize version format checkpoint_format "
    "modules_to_not_convert ignored_layers weight_block_size scale_fmt expert_dtype activation_scheme load_in_4bit "
    "load_in_8bit bnb_4bit_quant_type bnb_4bit_use_double_quant llm_int8_skip_modules config_groups ignore targets "
    "weights num_bits type strategy symmetric block_structure actorder input_activations sparsity_config a"
).split()
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 200), st.integers(), st.floats(),
    st.sampled_from(
        "float-quantized pack-quantized int float group block channel nf4 Linear re:.*mlp re:( -:x".split()
    ),
)  # fmt: skip
VALUES = st.recursive(
    LEAVES,
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from(FIELDS), below, max_size=6),
    max_leaves=12,
)


@settings(max_examples=300, deadline=None)
@given(method=st.sampled_from([*METHODS, "other"]), fields=st.dictionaries(st.sampled_from(FIELDS), VALUES))
def test_any_quantisation_gives_bytes_or_a_clear_error(method: str, fields: dict[str, Any]) -> None:
    try:
        about = kept({**fields, "quant_method": method})
    except PlannerError:
        return
    assert (about.bytes is None) == bool(about.notices)
    assert about.bytes is None or about.bytes > 0


def test_unknown_quantisation_is_said() -> None:
    plan = estimate({**LLAMA, "quantization_config": {"quant_method": "aqlm"}})
    assert plan.model.weight_bytes is None and plan.model.quantization is not None
    assert plan.model.quantization["method"] == "aqlm"
    assert [notice.code for notice in plan.warnings].count("quantization-unknown") == 1


def test_an_unknown_dtype_leaves_the_bytes_open() -> None:
    base = {key: value for key, value in LLAMA.items() if key != "dtype"}
    assert estimate(base).model.weight_bytes is None
    assert estimate({**base, "torch_dtype": "torch.float16"}).model.weight_bytes is not None
    assert estimate({**base, "dtype": "auto"}).model.weight_bytes is None


@pytest.mark.parametrize(
    "quantisation",
    [
        7,
        [1],
        {"quant_method": 4},
        {"quant_method": "gptq", "bits": "four"},
        {"quant_method": "gptq", "bits": 4, "group_size": 0},
        {"quant_method": "fp8", "weight_block_size": [0, 128]},
        {"quant_method": "fp8", "weight_block_size": [128]},
        {"quant_method": "fp8", "modules_to_not_convert": [None]},
        {"quant_method": "bitsandbytes", "load_in_4bit": "yes"},
        {"quant_method": "compressed-tensors", "config_groups": {}},
        {"quant_method": "compressed-tensors", "config_groups": {"a": {"weights": {"num_bits": -1}}}},
    ],
)
def test_bad_fields_are_clear_errors(quantisation: Any) -> None:
    with pytest.raises(ConfigError, match="quantization_config"):
        estimate({**LLAMA, "quantization_config": quantisation})


@pytest.mark.parametrize(
    "pattern",
    ["(a+)+$", "(.*)*x", ".*" * 30 + "x", "(", "[", "a{99999999999}", "(?=a)", r"(a)\1", "x" * 900 + "*"],
)
def test_hostile_patterns_end_soon(pattern: str) -> None:
    start = time.process_time()
    for quantisation in (
        {"quant_method": "fp8", "modules_to_not_convert": [pattern] * 1000},
        {
            "quant_method": "compressed-tensors",
            "format": "pack-quantized",
            "config_groups": GROUPS,
            "ignore": [f"re:{pattern}"] * 1000,
        },
    ):
        with contextlib.suppress(PlannerError):
            kept(quantisation, {**LLAMA, "num_hidden_layers": 200})
    assert time.process_time() - start < 4
