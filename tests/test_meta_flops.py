"""FLOPs of architectures without a builder, read off their forward pass, against torch's counter and the builders."""

from __future__ import annotations

import json
from typing import Any

import pytest

from planner import facts
from planner.adapter import AdapterSpec, adapt
from planner.architecture.build import BUILDERS, build, build_natively
from planner.architecture.meta.inventory import read
from planner.architecture.meta.model import build_model
from planner.flops import Step, step_macs
from planner.schema import Architecture

from .family_checks import check_flops

pytest.importorskip("torch")

USUAL: dict[str, Any] = {
    "hidden_size": 48, "intermediate_size": 72, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 12, "vocab_size": 90, "max_position_embeddings": 512, "pad_token_id": 0,
    "bos_token_id": 1, "eos_token_id": 2, "sliding_window": 16,
}  # fmt: skip
MOE: dict[str, Any] = {
    "moe_intermediate_size": 20, "num_experts": 6, "n_routed_experts": 6, "num_local_experts": 6,
    "num_experts_per_tok": 2, "n_group": 1, "topk_group": 1, "n_shared_experts": 1, "num_shared_experts": 1,
    "first_k_dense_replace": 1, "num_dense_layers": 1,
}  # fmt: skip
GPT: dict[str, Any] = {
    "n_embd": 48,
    "n_layer": 2,
    "n_head": 4,
    "n_positions": 256,
    "rotary_dim": 4,
    "vocab_size": 90,
}
BOTH: dict[str, Any] = {
    "d_model": 48, "encoder_layers": 2, "decoder_layers": 3, "encoder_attention_heads": 4,
    "decoder_attention_heads": 2, "encoder_ffn_dim": 72, "decoder_ffn_dim": 56, "vocab_size": 90,
    "max_position_embeddings": 256, "dropout": 0.1, "decoder_start_token_id": 2,
}  # fmt: skip
LATENT: dict[str, Any] = {
    "q_lora_rank": 20, "kv_lora_rank": 16, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4, "v_head_dim": 10,
    "num_key_value_heads": 4, "head_dim": 4,
}  # fmt: skip
SMALL: dict[str, tuple[str, dict[str, Any]]] = {
    "helium": ("HeliumForCausalLM", USUAL),
    "cwm": ("CwmForCausalLM", {**USUAL, "layer_types": ["full_attention", "sliding_attention"]}),
    "jais2": ("Jais2ForCausalLM", USUAL),
    "nanochat": ("NanoChatForCausalLM", {k: v for k, v in USUAL.items() if k != "head_dim"}),
    "vaultgemma": ("VaultGemmaForCausalLM", USUAL),
    "persimmon": ("PersimmonForCausalLM", USUAL),
    "nemotron": ("NemotronForCausalLM", USUAL),
    "minicpm3": ("MiniCPM3ForCausalLM", {**USUAL, **LATENT}),
    "youtu": ("YoutuForCausalLM", {**USUAL, **LATENT}),
    "codegen": ("CodeGenForCausalLM", GPT),
    "gpt_neo": (
        "GPTNeoForCausalLM",
        {"hidden_size": 48, "num_layers": 2, "num_heads": 4, "vocab_size": 90, "max_position_embeddings": 256,
         "attention_types": [[["global", "local"], 1]]},
    ),
    "xglm": (
        "XGLMForCausalLM",
        {"d_model": 48, "num_layers": 2, "attention_heads": 4, "ffn_dim": 72, "vocab_size": 90,
         "max_position_embeddings": 256, "dropout": 0.0},
    ),
    "roformer": ("RoFormerForMaskedLM", {**USUAL, "embedding_size": 24}),
    "electra": ("ElectraForMaskedLM", {**USUAL, "embedding_size": 24}),
    "modernbert": ("ModernBertForMaskedLM", {**USUAL, "cls_token_id": 1, "sep_token_id": 2}),
    "nomic_bert": ("NomicBertForMaskedLM", USUAL),
    "bart": ("BartForConditionalGeneration", BOTH),
    "mbart": ("MBartForConditionalGeneration", {**BOTH, "dropout": 0.0, "tie_word_embeddings": False}),
    "pegasus": ("PegasusForConditionalGeneration", BOTH),
    "blenderbot-small": ("BlenderbotSmallForConditionalGeneration", BOTH),
    "umt5": (
        "UMT5ForConditionalGeneration",
        {"d_model": 48, "d_kv": 10, "d_ff": 72, "num_layers": 2, "num_decoder_layers": 1, "num_heads": 4,
         "vocab_size": 90, "decoder_start_token_id": 0},
    ),
    "afmoe": ("AfmoeForCausalLM", {**USUAL, **MOE}),
    "dots1": ("Dots1ForCausalLM", {**USUAL, **MOE}),
    "flex_olmo": ("FlexOlmoForCausalLM", {**USUAL, **MOE}),
    "exaone_moe": ("ExaoneMoeForCausalLM", {**USUAL, **MOE}),
    "laguna": ("LagunaForCausalLM", {**USUAL, **MOE}),
    "inkling_text": ("InklingForCausalLM", {**USUAL, **MOE}),
    "granite_swa": ("GraniteSWAForCausalLM", USUAL),
    "diffllama": ("DiffLlamaForCausalLM", USUAL),
    "gemma3n_text": (
        "Gemma3nForCausalLM",
        {**USUAL, "num_hidden_layers": 4, "num_kv_shared_layers": 2, "intermediate_size": [72] * 4,
         "layer_types": ["sliding_attention", "full_attention"] * 2, "vocab_size_per_layer_input": 90,
         "hidden_size_per_layer_input": 8, "laurel_rank": 4, "activation_sparsity_pattern": [0.0] * 4},
    ),
    "albert": ("AlbertForMaskedLM", {**USUAL, "embedding_size": 24, "num_hidden_layers": 3}),
    "layoutlm": ("LayoutLMForMaskedLM", {**USUAL, "max_2d_position_embeddings": 64}),
    "fnet": ("FNetForMaskedLM", USUAL),
    "xlm": (
        "XLMWithLMHeadModel",
        {"emb_dim": 48, "n_layers": 2, "n_heads": 4, "n_words": 90, "vocab_size": 90, "max_position_embeddings": 512},
    ),
    "prophetnet": (
        "ProphetNetForConditionalGeneration",
        {"hidden_size": 48, "encoder_ffn_dim": 72, "num_encoder_layers": 2, "num_encoder_attention_heads": 4,
         "decoder_ffn_dim": 56, "num_decoder_layers": 2, "num_decoder_attention_heads": 2, "vocab_size": 90,
         "max_position_embeddings": 600, "decoder_start_token_id": 0},
    ),
}  # fmt: skip
NEVER_CHECKPOINTED = ("xlm",)  # its class refuses it
HERE = {t: config for t, config in SMALL.items() if t not in BUILDERS}


def small(model_type: str) -> dict[str, Any]:
    name, fields = HERE[model_type]
    return {"model_type": model_type, "architectures": [name], **fields}


@pytest.mark.parametrize("model_type", NEVER_CHECKPOINTED)
def test_what_is_never_checkpointed_is_refused_by_its_class(model_type: str) -> None:
    with pytest.raises(ValueError, match="does not support"):
        build_model(small(model_type)).gradient_checkpointing_enable()


@pytest.mark.parametrize(
    ("model_type", "checkpointing"),
    [(each, on) for each in HERE for on in (False, True) if not on or each not in NEVER_CHECKPOINTED],
)
def test_a_step_equals_the_counter(model_type: str, checkpointing: bool) -> None:
    config = small(model_type)
    assert build(config).flops_gap is None
    experts = any(m.kind == "experts" for m in build(config).matrices)
    # PEFT's materialised experts are held to the counter with the families that have them.
    targets: tuple[Any, ...] = (("q_proj", "o_proj"),) if experts else ("all-linear",)
    check_flops(config, 2, 21, targets=targets, checkpointing=checkpointing)


@pytest.mark.parametrize("config", [
    {"model_type": "pegasus_x", "d_model": 32, "encoder_layers": 1, "decoder_layers": 1, "vocab_size": 90},
    {"model_type": "recurrent_gemma", "num_hidden_layers": 1, "hidden_size": 32, "num_attention_heads": 2,
     "num_key_value_heads": 1, "intermediate_size": 48, "vocab_size": 90, "lru_width": 32},
    # Switches to full attention for good where a sequence is short.
    {"model_type": "big_bird", "num_hidden_layers": 1, "hidden_size": 48, "num_attention_heads": 4},
    {"model_type": "rwkv", "num_hidden_layers": 1, "hidden_size": 32},
], ids=lambda config: str(config["model_type"]))  # fmt: skip
def test_what_does_not_fit_is_a_gap_with_a_reason(config: dict[str, Any]) -> None:
    assert config["model_type"] not in BUILDERS  # else it belongs to the tests of its builder
    arch = build(config)
    assert (
        arch.flops_gap is not None and arch.flops_gap.startswith("No exact FLOP count: ") and not arch.blocks
    )


# -------------------------------------------------------------------------------------- against the builders

EXACT_BOTH_WAYS = (
    "llama qwen3 gemma2 gemma3 gpt2 gpt_neox phi falcon opt starcoder2 mixtral qwen3_moe gpt_oss deepseek_v3 "
    "glm4_moe llama4 granitemoe lfm2 roberta xlm-roberta mllama qwen2_vl mistral3 deepseek_v32".split()
)


def catalogue_config(model_type: str) -> dict[str, Any] | None:
    for name in facts.model_ids():
        if facts.model(name).model_type == model_type:
            found: dict[str, Any] = json.loads(facts.model_config_path(name).read_text(encoding="utf-8"))
            return found
    return None


def fewer_layers(config: dict[str, Any]) -> dict[str, Any]:
    """The config with at most eight layers."""
    text = config.get("text_config")
    if isinstance(text, dict):
        return {**config, "text_config": fewer_layers(text)}
    for key in ("num_hidden_layers", "n_layer", "n_layers", "num_layers"):
        if key in config:
            n = min(8, config[key])
            short = {k: v[:n] for k, v in config.items() if isinstance(v, list) and len(v) == config[key]}
            return {**config, **short, key: n}
    return config


@pytest.mark.parametrize("model_type", EXACT_BOTH_WAYS)
def test_both_routes_count_the_same(model_type: str) -> None:
    config = catalogue_config(model_type)
    assert config is not None
    if model_type not in ("mllama", "opt"):
        config = fewer_layers(config)
    builder, meta = build_natively(config), read(build_model(config), config, "transformers")
    assert builder.flops_gap is None and meta.flops_gap is None
    for step in (Step(1, 100), Step(3, 64, checkpointing=True)):
        assert sums(builder, step, None) == sums(meta, step, None)
        for layers in ("all-linear", "attention", "unembedding"):
            spec = AdapterSpec(rank=2, layers=(layers,), experts="per-expert")
            assert sums(builder, step, spec) == sums(meta, step, spec)


def sums(arch: Architecture, step: Step, spec: AdapterSpec | None) -> tuple[int, ...]:
    tally = step_macs(arch, step, adapt(arch, spec) if spec else None)
    return tally.forward, tally.backward, tally.recompute, tally.attention, tally.hidden
