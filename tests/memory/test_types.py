"""Model types whose layers no other type has: the analytic peak against the simulated one, each where its own rule
shows (trained in full, under autocast, pairs on MLPs)."""

from __future__ import annotations

from typing import Any

import pytest

from planner import flops
from planner.adapter import AdapterSpec, adapt
from planner.adapter.whole import NOTHING_WHOLE, trained_whole
from planner.architecture.build import build
from planner.memory import estimate_memory
from planner.memory.peak import WORKSPACE_BYTES, WORKSPACES
from planner.objective import step_tally
from planner.setup import Setup

pytest.importorskip("torch")

USUAL: dict[str, Any] = {
    "hidden_size": 512, "intermediate_size": 1408, "num_hidden_layers": 4, "num_attention_heads": 8,
    "num_key_value_heads": 4, "vocab_size": 8192, "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    "max_position_embeddings": 1024, "tie_word_embeddings": False,
}  # fmt: skip
EXPERTS = {"moe_intermediate_size": 256, "num_experts": 8, "num_local_experts": 8, "num_experts_per_tok": 2}
LATENT = {
    "q_lora_rank": 128, "kv_lora_rank": 64, "qk_nope_head_dim": 64, "qk_rope_head_dim": 32, "v_head_dim": 64,
}  # fmt: skip
HYBRID = {
    "num_hidden_layers": 6, "num_key_value_heads": 8, "tie_word_embeddings": True,
    "layers_block_type": ["mamba", "hybrid", "mamba", "hybrid", "mamba", "hybrid"],
}  # fmt: skip
ZAMBA = {**HYBRID, "model_type": "zamba", "n_mamba_heads": 2, "attn_layer_period": 2, "attn_layer_offset": 1}
ZAMBA2 = {**HYBRID, "model_type": "zamba2", "num_mem_blocks": 1, "adapter_rank": 32, "chunk_size": 64}
DEEPSEEK = {
    **EXPERTS, **LATENT, "model_type": "deepseek_v32", "index_n_heads": 4, "index_head_dim": 64, "index_topk": 256,
    "n_routed_experts": 8, "n_shared_experts": 1, "n_group": 2, "topk_group": 1, "first_k_dense_replace": 1,
    "num_key_value_heads": 8,
}  # fmt: skip
MBART = {
    "model_type": "mbart", "d_model": 512, "encoder_layers": 4, "decoder_layers": 4, "encoder_attention_heads": 8,
    "decoder_attention_heads": 8, "encoder_ffn_dim": 1408, "decoder_ffn_dim": 1408, "dropout": 0.0,
    "decoder_start_token_id": 1,
}  # fmt: skip
NEMOTRON_3 = {
    **EXPERTS, "model_type": "nemotron_h", "moe_latent_size": 256, "n_routed_experts": 8, "n_shared_experts": 1,
    "moe_shared_expert_intermediate_size": 512, "layers_block_type": ["moe", "full_attention"] * 2,
    "num_hidden_layers": 4, "n_group": 1, "topk_group": 1,
}  # fmt: skip
BIOGPT = {"model_type": "biogpt", "hidden_dropout_prob": 0.1, "attention_probs_dropout_prob": 0.1}
WHISPER = {
    **MBART, "model_type": "whisper", "max_source_positions": 1500, "max_target_positions": 512, "num_mel_bins": 80,
    "num_key_value_heads": 8,
    "tie_word_embeddings": True,
}  # fmt: skip
ALBERT = {"model_type": "albert", "embedding_size": 128}
FULL, AUTOCAST = {"method": "full"}, {"precision": "autocast"}
WITHIN = {"zamba, all": 0.04, "deepseek v3.2": 0.025}  # peaks that small tensors make; others within 1.5%

CASES: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "zamba": ("ZambaForCausalLM", ZAMBA, {}),
    "zamba, all": ("ZambaForCausalLM", ZAMBA, {**FULL, **AUTOCAST}),
    "zamba2": ("Zamba2ForCausalLM", ZAMBA2, {"precision": "autocast"}),
    "zamba2, all": ("Zamba2ForCausalLM", ZAMBA2, FULL),
    "doge": ("DogeForCausalLM", {"model_type": "doge"}, {}),
    "doge, all": ("DogeForCausalLM", {"model_type": "doge"}, FULL),
    "falcon of two norms": (
        "FalconForCausalLM",
        {"model_type": "falcon", "new_decoder_architecture": True, "num_kv_heads": 4},
        {},
    ),
    "granite with windows": ("GraniteSWAForCausalLM", {"model_type": "granite_swa"}, AUTOCAST),
    "gpt-oss": ("GptOssForCausalLM", {"model_type": "gpt_oss", **EXPERTS, "head_dim": 64}, AUTOCAST),
    "ernie with experts": (
        "Ernie4_5_MoeForCausalLM",
        {"model_type": "ernie4_5_moe", **EXPERTS, "moe_num_experts": 8, "moe_k": 2, "moe_num_shared_experts": 1},
        AUTOCAST,
    ),
    "albert": ("AlbertForMaskedLM", ALBERT, AUTOCAST),
    "albert, all": ("AlbertForMaskedLM", ALBERT, FULL),
    "gpt-neo": (
        "GPTNeoForCausalLM",
        {"model_type": "gpt_neo", "num_layers": 4, "num_heads": 8, "attention_types": [[["global", "local"], 2]]},
        {},
    ),
    "deepseek v3.2": ("DeepseekV32ForCausalLM", DEEPSEEK, {}),
    "nanochat": ("NanoChatForCausalLM", {"model_type": "nanochat"}, AUTOCAST),
    "bitnet": ("BitNetForCausalLM", {"model_type": "bitnet"}, {}),
    "olmo hybrid": (
        "OlmoHybridForCausalLM",
        {"model_type": "olmo_hybrid", "layer_types": ["linear_attention"] * 3 + ["full_attention"]},
        {},
    ),
    "a matrix before the layers": ("RoCBertForMaskedLM", {"model_type": "roc_bert"}, {"checkpointing": "layer"}),
    "values padded for flash": (
        "MiniCPM3ForCausalLM",
        {"model_type": "minicpm3", **LATENT, "num_key_value_heads": 8},
        {"attention_kernel": "flash", "checkpointing": "layer"},
    ),
    "values of a latent under autocast": (
        "YoutuForCausalLM",
        {"model_type": "youtu", **LATENT, "num_key_value_heads": 8},
        {"precision": "autocast"},
    ),
    "t5, masks under checkpoints": (
        "T5ForConditionalGeneration",
        {"model_type": "t5", "d_model": 512, "d_ff": 1408, "d_kv": 64, "num_layers": 4, "num_heads": 8},
        {"packing": "padded", "checkpointing": "layer", "micro_batch": 8},
    ),
    "a head that tiles pass by": (
        "RobertaForCausalLM",
        {"model_type": "roberta", "is_decoder": True},
        {"objective": "grpo", "generation": "server", "loss": "tiled", "reference": "none", "prompt_tokens": 128},
    ),
    "apertus": ("ApertusForCausalLM", {"model_type": "apertus"}, {**AUTOCAST, "checkpointing": "layer"}),
    "nemotron 3": ("NemotronHForCausalLM", NEMOTRON_3, {"checkpointing": "none"}),
    "zamba, checkpoints inside": ("ZambaForCausalLM", ZAMBA, {"checkpointing": "layer"}),
    "biogpt, dropped in float32": (
        "BioGptForCausalLM", BIOGPT, {"attention_kernel": "eager", "precision": "autocast", "checkpointing": "layer"},
    ),
    "whisper, keys of another length": (
        "WhisperForConditionalGeneration", WHISPER, {**FULL, "attention_kernel": "eager", "checkpointing": "none"},
    ),
    "mbart in float16": ("MBartForConditionalGeneration", MBART, {"precision": "fp16"}),
    "reference beside 4 bits": (
        "LlamaForCausalLM",
        {"model_type": "llama"},
        {"method": "qlora", "quantize": "nf4", "objective": "kto", "loss": "tiled"},
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", sorted(CASES))
def test_a_type_of_its_own(case: str) -> None:
    from planner.simulate.core import simulate_step

    name, fields, options = CASES[case]
    config = {**USUAL, **fields, "architectures": [name]}
    setup = Setup(**{"method": "lora", "micro_batch": 2, "seq_len": 512, **options})
    arch = build(config)
    spec = (
        None if setup.method == "full" else AdapterSpec(rank=8, layers=("attention", "mlp"), experts="none")
    )
    pairs = () if spec is None else adapt(arch, spec)
    whole = NOTHING_WHOLE if spec is None else trained_whole(arch, spec, pairs)
    found = estimate_memory(arch, setup, pairs, whole)
    ours = found.allocated_bytes - WORKSPACES * WORKSPACE_BYTES
    assert ours == pytest.approx(
        simulate_step(config, spec, setup, arch=arch).peak.bytes, rel=WITHIN.get(case, 0.015)
    )


def test_a_clamped_encoder_runs_its_last_product_again_in_float16() -> None:
    """FLOPs of a checkpointed step equal the simulated ones, in float16 and in bfloat16, of which they differ."""
    from planner.simulate.core import simulate_step

    config = {**USUAL, **MBART, "architectures": ["MBartForConditionalGeneration"]}
    arch, spec, found = build(config), AdapterSpec(rank=8, layers=("attention",)), set()
    pairs = adapt(arch, spec)
    for precision in ("fp16", "bf16"):
        setup = Setup(
            method="lora", seq_len=128, checkpointing="layer", attention_kernel="eager", precision=precision
        )
        counted = flops.flops(step_tally(arch, setup, pairs, batch=1))
        assert counted == simulate_step(config, spec, setup, arch=arch).total_flops
        found.add(counted)
    assert len(found) == 2


def test_pairs_beside_a_table_that_two_stacks_share_meet_nothing() -> None:
    """transformers' stacks look tokens up by modules of their own: the first layers' inputs need no gradient, and no
    FLOP is of the pair."""
    from planner.simulate.core import simulate_step

    config = {
        **USUAL,
        **MBART,
        "tie_word_embeddings": True,
        "architectures": ["MBartForConditionalGeneration"],
    }
    arch = build(config)
    setup = Setup(method="lora", micro_batch=2, seq_len=256, attention_kernel="eager")
    found = []
    for layers in (("mlp",), ("mlp", "embedding")):
        spec = AdapterSpec(rank=8, layers=layers)
        pairs, simulated = adapt(arch, spec), simulate_step(config, spec, setup, arch=arch)
        found.append(flops.flops(step_tally(arch, setup, pairs, batch=2)))
        assert found[-1] == simulated.total_flops
        ours = (
            estimate_memory(arch, setup, pairs, NOTHING_WHOLE).allocated_bytes - WORKSPACES * WORKSPACE_BYTES
        )
        assert ours == pytest.approx(simulated.peak.bytes, rel=0.005)
    assert found[0] == found[1]
