"""Headers of safetensors files against the inventory: what transformers saves agrees, what is broken is named."""

from __future__ import annotations

import json
import os
import struct
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest

from planner.architecture.build import build
from planner.schema import Architecture
from planner.stored import checkpoint, tensor_files
from planner.stored.tensor_files import BrokenFileError, Tensor, read_header
from planner.stored.weights import stored

SMALL = {
    "hidden_size": 16,
    "intermediate_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 6,
    "vocab_size": 48,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "pad_token_id": 0,
}
EXPERTS = {"moe_intermediate_size": 8, "num_experts_per_tok": 2, "num_local_experts": 4, "num_experts": 4}
BERT = {
    "hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24, "vocab_size": 48,
    "max_position_embeddings": 32,
}  # fmt: skip
MLA = {
    "n_routed_experts": 8, "n_group": 2, "topk_group": 1, "q_lora_rank": 8, "kv_lora_rank": 8, "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4, "v_head_dim": 4, "first_k_dense_replace": 1, "num_key_value_heads": 4, "head_dim": 4,
}  # fmt: skip
V4 = {
    "vocab_size": 40, "hidden_size": 6, "num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1,
    "head_dim": 8, "qk_rope_head_dim": 4, "q_lora_rank": 3, "o_groups": 1, "o_lora_rank": 3, "index_n_heads": 1,
    "index_head_dim": 8, "index_topk": 2, "sliding_window": 4, "hc_mult": 2, "n_routed_experts": 4,
    "num_experts_per_tok": 1, "num_hash_layers": 1, "moe_intermediate_size": 5, "pad_token_id": 0, "bos_token_id": 1,
    "layer_types": ["compressed_sparse_attention", "heavily_compressed_attention"], "eos_token_id": 2,
    "compress_rates": {"compressed_sparse_attention": 2, "heavily_compressed_attention": 3},
}  # fmt: skip
HYBRID = {
    "layer_types": ["linear_attention", "full_attention"], "linear_num_key_heads": 2, "linear_num_value_heads": 2,
    "linear_key_head_dim": 3, "linear_value_head_dim": 3, "linear_conv_kernel_dim": 2, "num_key_value_heads": 4,
}  # fmt: skip
# The class, and its config's fields.
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": False, "attention_bias": True}),
    "llama-tied": ("LlamaForCausalLM", {**SMALL, "tie_word_embeddings": True}),
    "qwen3_moe": ("Qwen3MoeForCausalLM", {**SMALL, **EXPERTS}),
    "mixtral": ("MixtralForCausalLM", {**SMALL, **EXPERTS}),
    "gpt_oss": ("GptOssForCausalLM", {**SMALL, **EXPERTS}),
    "deepseek_v3": ("DeepseekV3ForCausalLM", {**SMALL, **EXPERTS, **MLA}),
    "deepseek_v4": ("DeepseekV4ForCausalLM", V4),
    "phimoe": ("PhimoeForCausalLM", {**SMALL, **EXPERTS, "head_dim": 4}),
    "granitemoe": ("GraniteMoeForCausalLM", {**SMALL, **EXPERTS, "head_dim": 4}),
    "olmo_hybrid": ("OlmoHybridForCausalLM", {**SMALL, **HYBRID, "head_dim": 4}),
    "gpt_neox": ("GPTNeoXForCausalLM", SMALL),
    "phi3": ("Phi3ForCausalLM", {**SMALL, "hidden_size": 32}),
    "gpt2": ("GPT2LMHeadModel", {"n_embd": 16, "n_layer": 2, "n_head": 4, "vocab_size": 48, "n_positions": 32}),
    "bert": ("BertForMaskedLM", BERT),
    "bert-without-head": ("BertModel", BERT),
    "t5": ("T5ForConditionalGeneration", {"d_model": 16, "d_ff": 24, "num_layers": 2, "num_heads": 4, "d_kv": 4,
                                          "vocab_size": 48}),
}  # fmt: skip


def save(folder: Path, name: str, **options: Any) -> Architecture:
    """Save a small model of transformers there; its inventory."""
    import transformers

    cls = getattr(transformers, MODELS[name][0])
    cls(cls.config_class(**MODELS[name][1])).save_pretrained(folder, **options)
    return architecture(folder)


def architecture(folder: Path) -> Architecture:
    """The inventory of a folder's config."""
    return build(json.loads((folder / "config.json").read_text(encoding="utf-8")))


def write(path: Path, tensors: Mapping[str, tuple[str, tuple[int, ...]]]) -> None:
    """A safetensors file of zeros, by the format's description alone."""
    header, place = {}, 0
    for name, (dtype, shape) in tensors.items():
        size = Tensor(name, dtype, shape).bytes
        header[name] = {"dtype": dtype, "shape": list(shape), "data_offsets": [place, place + size]}
        place += size
    data = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(struct.pack("<Q", len(data)) + data)
        file.truncate(8 + len(data) + place)


def rewritten(folder: Path, change: Callable[[dict[str, tuple[str, tuple[int, ...]]]], None]) -> None:
    """The folder's file again, with other tensors."""
    path = folder / "model.safetensors"
    tensors = {t.name: (t.dtype, t.shape) for t in read_header(str(path))}
    change(tensors)
    write(path, tensors)


def said(folder: Path, arch: Architecture) -> tuple[checkpoint.Checkpoint | None, list[tuple[str, str]]]:
    """The check's result, its notices as (code, message)."""
    found, notices = checkpoint.check(str(folder), arch)
    return found, [(notice.code, notice.message) for notice in notices]


@pytest.mark.parametrize("name", MODELS)
def test_what_transformers_saves_agrees(name: str, tmp_path: Path) -> None:
    from safetensors import safe_open

    arch = save(tmp_path, name)
    found, notices = said(tmp_path, arch)
    assert notices == []
    assert found is not None and found.agrees and found.params == arch.params
    with safe_open(tmp_path / "model.safetensors", "numpy") as file:
        tensors = [file.get_tensor(key) for key in file.keys()]  # noqa: SIM118
    assert found.tensors == len(tensors)
    assert found.bytes == sum(tensor.nbytes for tensor in tensors)


def test_shards_are_read_by_their_index(tmp_path: Path) -> None:
    arch = save(tmp_path, "llama", max_shard_size="8KB")
    assert (tmp_path / tensor_files.INDEX).exists() and len(list(tmp_path.glob("model-*.safetensors"))) > 2
    found, notices = said(tmp_path, arch)
    assert notices == [] and found is not None and found.params == arch.params
    # A file that the index does not name is not the model's.
    write(tmp_path / "other.safetensors", {"x": ("F32", (3,))})
    assert said(tmp_path, arch) == (found, [])


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    arch = save(tmp_path, "llama", max_shard_size="8KB")
    lost = sorted(tmp_path.glob("model-*.safetensors"))[1]
    lost.unlink()
    found, notices = said(tmp_path, arch)
    assert found is not None and not found.agrees and found.params < arch.params
    assert [code for code, _ in notices] == ["checkpoint-unreadable", "checkpoint-mismatch"]
    assert f"{lost.name} is missing" in notices[0][1]
    assert "missing" in notices[1][1]


def test_a_wrong_shape_is_named(tmp_path: Path) -> None:
    arch = save(tmp_path, "llama")
    name = "model.layers.1.self_attn.k_proj.weight"
    rewritten(tmp_path, lambda tensors: tensors.update({name: ("F32", (16, 12))}))
    found, notices = said(tmp_path, arch)
    assert found is not None and not found.agrees and found.params == arch.params - 16 * 12
    assert notices[0][0] == "checkpoint-mismatch"
    assert f"1 tensor has another shape: {name} (16 x 12, expected 12 x 16)" in notices[0][1]


def test_missing_and_extra_tensors_are_counted(tmp_path: Path) -> None:
    arch = save(tmp_path, "qwen3_moe")

    def change(tensors: dict[str, Any]) -> None:
        del tensors["model.layers.0.mlp.experts.3.up_proj.weight"]
        del tensors["model.norm.weight"]
        tensors["model.layers.0.mlp.adapter.weight"] = ("BF16", (2, 2))

    rewritten(tmp_path, change)
    found, notices = said(tmp_path, arch)
    assert found is not None and not found.agrees
    message = notices[0][1]
    assert "2 tensors are missing" in message and "(3 of 4)" in message
    assert "1 tensor is in no layer of the inventory: model.layers.0.mlp.adapter.weight" in message


def test_other_spellings_buffers_and_further_heads_agree(tmp_path: Path) -> None:
    arch = save(tmp_path, "llama-tied")

    def change(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            tensors[name.removeprefix("model.")] = tensors.pop(name)
        tensors["lm_head.weight"] = tensors["embed_tokens.weight"]  # stored, though tied
        tensors["layers.0.self_attn.rotary_emb.inv_freq"] = ("F32", (3,))
        tensors["layers.2.eh_proj.weight"] = ("F32", (16, 32))  # multi-token prediction

    rewritten(tmp_path, change)
    found, notices = said(tmp_path, arch)
    assert notices == [] and found is not None and found.params == arch.params


def test_stacked_experts_agree_too(tmp_path: Path) -> None:
    arch = save(tmp_path, "mixtral")

    def change(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            if ".experts." in name:
                del tensors[name]
        for layer in range(2):
            path = f"model.layers.{layer}.mlp.experts"
            tensors[f"{path}.gate_up_proj"] = ("BF16", (4, 48, 16))
            tensors[f"{path}.down_proj"] = ("BF16", (4, 16, 24))

    rewritten(tmp_path, change)
    found, notices = said(tmp_path, arch)
    assert notices == [] and found is not None and found.params == arch.params


@pytest.mark.parametrize(
    "entries",
    [
        # a matrix of 16 inputs and 24 outputs, as each format stores it
        {"qweight": ("I32", (2, 24)), "qzeros": ("I32", (1, 3)), "scales": ("F16", (1, 24)), "g_idx": ("I32", (16,))},
        {"qweight": ("I32", (16, 3)), "qzeros": ("I32", (1, 3)), "scales": ("F16", (1, 24))},
        {"weight_packed": ("I32", (24, 2)), "weight_scale": ("BF16", (24, 1)), "weight_shape": ("I64", (2,))},
        {"weight": ("U8", (192, 1)), "weight.absmax": ("F32", (6,)), "weight.quant_map": ("F32", (16,)),
         "weight.quant_state.bitsandbytes__nf4": ("U8", (80,))},
        {"weight": ("I8", (24, 16)), "SCB": ("F32", (24,)), "weight_format": ("U8", ())},
        {"weight": ("F8_E4M3", (24, 16)), "weight_scale_inv": ("F32", (1, 1))},
    ],
    ids=["gptq", "awq", "int4", "nf4", "int8", "fp8"],
)  # fmt: skip
def test_quantised_tensors_hold_the_inventory(entries: dict[str, Any], tmp_path: Path) -> None:
    arch = save(tmp_path, "llama")

    def change(tensors: dict[str, Any]) -> None:
        for name in list(tensors):
            if name.endswith(("gate_proj.weight", "up_proj.weight")):
                del tensors[name]
                tensors.update({name.removesuffix("weight") + end: entry for end, entry in entries.items()})

    rewritten(tmp_path, change)
    found, notices = said(tmp_path, arch)
    assert notices == [] and found is not None and found.params == arch.params
    # Half of the weights are not those weights.
    first = next(iter(entries))
    dtype, shape = entries[first]
    entries = {**entries, first: (dtype, (shape[0] + 1, *shape[1:]))}
    rewritten(
        tmp_path, lambda tensors: tensors.update({"model.layers.0.mlp.up_proj." + first: entries[first]})
    )
    assert said(tmp_path, arch)[1][0][0] == "checkpoint-mismatch"


def test_mxfp4_blocks_hold_the_experts(tmp_path: Path) -> None:
    base = {**MODELS["gpt_oss"][1], "model_type": "gpt_oss", "hidden_size": 32, "intermediate_size": 64}
    arch = build(base)
    path = "model.layers.{}.mlp.experts."
    tensors = {
        f"{path.format(layer)}{name}": entry
        for layer in range(2)
        for name, entry in {
            "gate_up_proj_blocks": ("U8", (4, 128, 1, 16)),
            "gate_up_proj_scales": ("U8", (4, 128, 1)),
            "down_proj_blocks": ("U8", (4, 32, 2, 16)),
            "down_proj_scales": ("U8", (4, 32, 2)),
        }.items()
    }
    write(tmp_path / "model.safetensors", tensors)
    found, _ = said(tmp_path, arch)
    assert found is not None and found.params == 2 * 4 * 3 * 32 * 64


def header(data: bytes, claimed: int | None = None) -> bytes:
    """The beginning of a file: a length and a header."""
    return struct.pack("<Q", len(data) if claimed is None else claimed) + data


def entry(**changes: Any) -> bytes:
    """A header with one tensor, some of its fields changed."""
    fields = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8], **changes}
    return header(json.dumps({"x": fields}).encode()) + bytes(8)


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (b"", "no header"),
        (b"\x00\x01", "no header"),
        (header(b"{}", 10**18), "claims a header"),
        (header(b"{}", 2**64 - 1), "claims a header"),
        (header(b"{}", 3), "claims a header"),
        (header(b"{"), "not valid JSON"),
        (header(b"\xff\xfe"), "not valid JSON"),
        (header(b"[" * 50_000), "not valid JSON"),
        (header(b"[]"), "not a JSON object"),
        (header(b'{"x": 3}'), "no object"),
        (entry(dtype="F33"), "dtype 'F33'"),
        (entry(dtype=["F32"]), "dtype"),
        (entry(shape=[-1]), "shape"),
        (entry(shape=[True]), "shape"),
        (entry(shape=[2.0]), "shape"),
        (entry(shape="2"), "shape"),
        (entry(shape=[2**62] * 30), "its shape needs"),
        (entry(data_offsets=[0]), "place"),
        (entry(data_offsets=[8, 0]), "-8 bytes"),
        (entry(data_offsets=[8, 16]), "cut short"),
    ],
)
def test_broken_files_are_refused(data: bytes, complaint: str, tmp_path: Path) -> None:
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(BrokenFileError, match=complaint):
        read_header(str(path))
    found, notices = said(tmp_path, build({"model_type": "llama", **SMALL}))
    assert found is None and [code for code, _ in notices] == ["checkpoint-unreadable"]


def test_a_truncated_file_is_named(tmp_path: Path) -> None:
    arch = save(tmp_path, "gpt2")
    path = tmp_path / "model.safetensors"
    os.truncate(path, path.stat().st_size - 1)
    found, notices = said(tmp_path, arch)
    assert found is None and "model.safetensors ends before" in notices[0][1]


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "model.safetensors")
    found, notices = said(tmp_path, build({"model_type": "llama", **SMALL}))
    assert found is None and "not a regular file" in notices[0][1]


@pytest.mark.parametrize(
    ("index", "complaint"),
    [
        (b"{", "not valid JSON"),
        (b"[]", "not a JSON object"),
        (b"{}", "no weight_map"),
        (b'{"weight_map": {"x": 3}}', "no weight_map"),
        (b'{"weight_map": {"x": "../x.safetensors"}}', "outside its folder"),
        (b'{"weight_map": {"x": ""}}', "outside its folder"),
    ],
)
def test_broken_indices_are_refused(index: bytes, complaint: str, tmp_path: Path) -> None:
    (tmp_path / tensor_files.INDEX).write_bytes(index)
    found, notices = said(tmp_path, build({"model_type": "llama", **SMALL}))
    assert found is None and complaint in notices[0][1]


def test_only_headers_are_read(tmp_path: Path) -> None:
    # A file of 16 GB, all hole: reading it would take seconds.
    config = {
        "model_type": "llama",
        **SMALL,
        "hidden_size": 2**15,
        "vocab_size": 2**17,
        "num_hidden_layers": 1,
    }
    write(tmp_path / "model.safetensors", {"model.embed_tokens.weight": ("F32", (2**17, 2**15))})
    start = time.process_time()
    found, _ = said(tmp_path, build(config))
    assert time.process_time() - start < 1
    assert found is not None and found.params == 2**32 and found.bytes == 2**34


def test_folders_without_files_cost_no_import(tmp_path: Path) -> None:
    config = {"model_type": "llama", **SMALL}
    assert stored(config, build(config), str(tmp_path)).checkpoint is None
    (tmp_path / "config.json").write_text(json.dumps(config), encoding="utf-8")
    code = (
        f"import sys, planner; planner.estimate({str(tmp_path)!r}, rank=4); "
        "print([name for name in ('checkpoint', 'quantization') if f'planner.{name}' in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    assert run.stdout.strip() == "[]"


def test_the_plan_says_what_the_files_say(tmp_path: Path) -> None:
    from planner import estimate

    arch = save(tmp_path, "llama")
    model = estimate(str(tmp_path), rank=4).to_dict()["model"]
    assert model["checkpoint"] == {
        "tensors": 29, "params": arch.params, "bytes": 4 * arch.params, "agrees": True,
    }  # fmt: skip
    assert model["weight_bytes"] == model["checkpoint"]["bytes"]
    rewritten(tmp_path, lambda tensors: tensors.update({"more": ("F32", (2,))}))
    plan = estimate(str(tmp_path), rank=4).to_dict()
    assert plan["model"]["checkpoint"]["agrees"] is False
    assert "checkpoint-mismatch" in [notice["code"] for notice in plan["warnings"]]
