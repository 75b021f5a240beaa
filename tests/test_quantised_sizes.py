"""Bytes of quantised checkpoints against published files: golden/quantised_sizes.csv, each with its source.

A file is larger than its tensors by its header, which names each of them in 60 to 200 bytes. What transformers has
no parameters for is added by hand: biases of zeros that AutoGPTQ kept in 2023, and DeepSeek's corrections of routers.
"""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from planner import facts
from planner.architecture.build import build
from planner.schema import Architecture
from planner.stored.weights import stored

TABLE = Path(__file__).parent / "golden" / "quantised_sizes.csv"
ROWS = list(csv.DictReader(TABLE.read_text(encoding="utf-8").splitlines()))
LLAMA: dict[str, Any] = {"model_type": "llama", "vocab_size": 32000, "tie_word_embeddings": False}
# The fields of the configs beside the files.
LLAMAS: dict[str, dict[str, Any]] = {
    "wizard-vicuna-30b": {
        "hidden_size": 6656, "intermediate_size": 17920, "num_attention_heads": 52, "num_hidden_layers": 60,
        "torch_dtype": "float16",
    },
    "mythomax-l2-13b": {
        "hidden_size": 5120, "intermediate_size": 13824, "num_attention_heads": 40, "num_hidden_layers": 40,
        "torch_dtype": "float16",
    },
    "genz-70b": {
        "hidden_size": 8192, "intermediate_size": 28672, "num_attention_heads": 64, "num_hidden_layers": 80,
        "num_key_value_heads": 8, "torch_dtype": "bfloat16",
    },
}  # fmt: skip
QWEN: dict[str, Any] = {
    "model_type": "qwen3_5", "architectures": ["Qwen3_5ForConditionalGeneration"], "dtype": "bfloat16",
    "text_config": {
        "model_type": "qwen3_5_text", "hidden_size": 5120, "intermediate_size": 17408, "num_hidden_layers": 64,
        "num_attention_heads": 24, "num_key_value_heads": 4, "head_dim": 256, "linear_num_key_heads": 16,
        "linear_num_value_heads": 48, "linear_key_head_dim": 128, "linear_value_head_dim": 128, "vocab_size": 248320,
    },
    "vision_config": {
        "depth": 27, "hidden_size": 1152, "intermediate_size": 4304, "num_heads": 16, "out_hidden_size": 5120,
        "patch_size": 16, "spatial_merge_size": 2, "temporal_patch_size": 2, "num_position_embeddings": 2304,
    },
}  # fmt: skip
INT4 = {"num_bits": 4, "type": "int", "strategy": "group", "group_size": 128, "symmetric": False}
# Its second group is for layers of multi-token prediction, which transformers' model has not.
COMPRESSED = {
    "quant_method": "compressed-tensors", "format": "pack-quantized",
    "config_groups": {
        "group_0": {"format": "pack-quantized", "targets": ["Linear"], "weights": INT4},
        "group_mtp": {
            "format": "pack-quantized", "targets": [r"re:.*mtp\..*proj$"], "weights": {**INT4, "group_size": 32},
        },
    },
    "ignore": ["re:model.visual.*", "lm_head", "mtp.fc", "re:.*linear_attn.in_proj_[ab]$"],
}  # fmt: skip


def shipped(name: str) -> dict[str, Any]:
    """A config of the catalogue."""
    found: dict[str, Any] = json.loads(facts.model_config_path(name).read_text(encoding="utf-8"))
    return found


def config_of(row: dict[str, str]) -> dict[str, Any]:
    """The config with its quantisation."""
    if row["model"] == "qwen3.6-27b":
        return {**QWEN, "quantization_config": COMPRESSED}
    if row["model"] == "gpt-oss-20b":
        return shipped("openai/gpt-oss-20b")
    if row["method"] == "fp8":  # the layer that predicts the next token but one is a layer more
        named = {"kimi-k2": "moonshotai/Kimi-K2-Instruct", "deepseek-v3": "deepseek-ai/DeepSeek-V3"}
        found = shipped(named[row["model"]])
        return {**found, "num_hidden_layers": found["num_hidden_layers"] + found["num_nextn_predict_layers"]}
    given = {"quant_method": row["method"], "bits": int(row["bits"]), "group_size": int(row["group_size"])}
    if row["model"] == "deepseek-v3":
        more = {"version": "gemm", "zero_point": True, "modules_to_not_convert": ["mlp.gate."]}
        base = shipped("deepseek-ai/DeepSeek-V3")
        return {**base, "torch_dtype": "float16", "quantization_config": {**given, **more}}
    return {**LLAMA, **LLAMAS[row["model"]], "quantization_config": {**given, "desc_act": True, "sym": True}}


def beside(row: dict[str, str], arch: Architecture) -> int:
    """Bytes of tensors for which transformers has no parameters."""
    if row["method"] == "gptq":
        inside = [m for m in arch.matrices if m.kind == "linear" and "{}" in m.name]
        return sum(2 * m.d_out * len(m.layers) for m in inside)
    if row["method"] == "fp8":
        corrections = 4 * sum(m.d_out * len(m.layers) for m in arch.matrices if m.role == "router")
        d, vocab = arch.hidden_size, arch.vocab_size
        # Its own copies of the table and the head, what joins the two streams, and three norms, in bfloat16.
        predicts = 2 * (2 * vocab * d + 2 * d * d + 3 * d)
        return corrections + predicts * (row["model"] == "deepseek-v3")
    return 58 * 256 * 2 if row["model"] == "deepseek-v3" else 0


def tensors(arch: Architecture) -> int:
    """How many tensors a file in FP8 has: each expert's matrices by themselves, with scales where they are FP8."""
    plain = [m for m in arch.matrices if m.role in ("embedding", "unembedding", "router")]
    scaled = [m for m in arch.matrices if m not in plain]
    pieces = sum(2 * len(m.logical) * m.experts * len(m.layers) for m in scaled)
    return pieces + sum(len(m.layers) for m in plain) + sum(len(v.layers) for v in arch.vectors)


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row['model']} {row['bits']} {row['group_size']}")
def test_bytes_are_those_of_the_file(row: dict[str, str]) -> None:
    config = config_of(row)
    arch = build(config)
    about = stored(config, arch)
    assert about.bytes is not None and about.quantization is not None
    rest = int(row["published_bytes"]) - about.bytes - beside(row, arch)
    if row["measure"] == "total_size":
        assert rest == 0
        return
    if row["measure"] == "files":
        assert 125 < rest / tensors(arch) < 132
        return
    modules = sum(len(m.layers) for m in arch.matrices) + sum(len(v.layers) for v in arch.vectors)
    assert 60 * modules < rest < 5 * 200 * modules and rest < about.bytes / 10_000
