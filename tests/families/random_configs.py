"""Random small configs from a seed, for the families whose switches need no strategy of their own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from random import Random
from typing import Any

Config = dict[str, Any]
KINDS = ("full_attention", "sliding_attention")
ROPES = {kind: {"rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0} for kind in KINDS}


def flag(pick: Random) -> bool:
    """True or false."""
    return pick.random() < 0.5


def decoder(
    pick: Random,
    model_type: str,
    name: str,
    *,
    head_dim: bool = True,
    switches: Sequence[str] = (),
    **own: Any,
) -> Config:
    """A small decoder: odd widths, grouped heads, one to three layers, tied or not; `own` fields override."""
    n_kv, d_head = pick.choice([1, 2, 3]), 2 * pick.randint(2, 9)
    n_heads = n_kv * pick.choice([1, 2])
    config: Config = {
        "model_type": model_type, "architectures": [name], "intermediate_size": pick.randint(9, 70),
        "hidden_size": n_heads * (4 * pick.randint(1, 6) if head_dim else d_head), "num_attention_heads": n_heads,
        "num_hidden_layers": pick.randint(1, 3), "num_key_value_heads": n_kv, "vocab_size": pick.randint(20, 90),
        "max_position_embeddings": 16384, "tie_word_embeddings": flag(pick), "pad_token_id": 0, "bos_token_id": 1,
        "eos_token_id": 2,
    }  # fmt: skip
    if head_dim:
        config["head_dim"] = d_head
    return config | {switch: flag(pick) for switch in switches} | own


def kinds(pick: Random, config: Config, of: Sequence[str] = KINDS, field: str = "layer_types") -> Config:
    """The config, with a kind for each layer under `field` or without, as its class then chooses."""
    chosen = [pick.choice(of) for _ in range(config["num_hidden_layers"])]
    return config | ({field: chosen} if flag(pick) else {})


def experts(pick: Random, **own: Any) -> Config:
    """Routed experts under their usual names."""
    return {
        "num_experts": pick.choice([4, 6]), "num_experts_per_tok": pick.randint(1, 3),
        "moe_intermediate_size": pick.randint(5, 30), **own,
    }  # fmt: skip


def dense_or_sparse(pick: Random, config: Config) -> Config:
    """The config, with MLPs or experts by layer."""
    return kinds(pick, config, ("dense", "sparse"), "mlp_layer_types")


def mellum(pick: Random) -> Config:
    """Mellum 2."""
    config = decoder(pick, "mellum", "MellumForCausalLM", switches=("attention_bias",), sliding_window=4)
    config |= {**experts(pick), "rope_parameters": ROPES}
    config["num_local_experts"] = config.pop("num_experts")
    return dense_or_sparse(pick, kinds(pick, config))


def hy_v3(pick: Random) -> Config:
    """Hunyuan 3."""
    config = decoder(pick, "hy_v3", "HYV3ForCausalLM", switches=("attention_bias", "mlp_bias"))
    return dense_or_sparse(pick, config | experts(pick, num_shared_experts=pick.randint(1, 2)))


def laguna(pick: Random) -> Config:
    """Laguna: gates by head or by channel, numbers of heads by layer."""
    config = decoder(pick, "laguna", "LagunaForCausalLM", switches=("attention_bias",), sliding_window=4)
    config |= experts(pick, shared_expert_intermediate_size=pick.randint(5, 20), rope_parameters=ROPES)
    config["gating"] = pick.choice([True, "per-head", "per-element"])
    if flag(pick):
        n_kv, layers = config["num_key_value_heads"], config["num_hidden_layers"]
        config["num_attention_heads_per_layer"] = [n_kv * pick.randint(1, 3) for _ in range(layers)]
    return dense_or_sparse(pick, kinds(pick, config))


def afmoe(pick: Random) -> Config:
    """AFMoE: norms on either side of every part."""
    config = decoder(
        pick, "afmoe", "AfmoeForCausalLM", switches=("attention_bias",), sliding_window=4,
        num_dense_layers=pick.randint(0, 2), global_attn_every_n_layers=pick.randint(1, 3),
    )  # fmt: skip
    return kinds(pick, config | experts(pick, num_shared_experts=pick.randint(1, 2)))


def cohere2_moe(pick: Random) -> Config:
    """Cohere 2 with experts beside attention."""
    config = decoder(
        pick, "cohere2_moe", "Cohere2MoeForCausalLM", switches=("attention_bias",), sliding_window=4,
        num_shared_experts=pick.randint(0, 2), first_k_dense_replace=pick.randint(0, 2),
        sliding_window_pattern=pick.randint(1, 3), prefix_dense_sliding_window_pattern=pick.randint(1, 3),
        shared_expert_combination_strategy=pick.choice(["sum", "average"]),
        prefix_dense_intermediate_size=pick.choice([None, 17]),
    )  # fmt: skip
    config["first_k_dense_replace"] = min(config["first_k_dense_replace"], config["num_hidden_layers"])
    return kinds(
        pick, config | {"num_experts": pick.choice([4, 6]), "num_experts_per_tok": pick.randint(1, 3)}
    )


def aria_text(pick: Random) -> Config:
    """Aria's text model."""
    return decoder(
        pick, "aria_text", "AriaTextForCausalLM", head_dim=False, switches=("attention_bias", "mlp_bias"),
        moe_num_experts=pick.choice([4, 6]), moe_topk=pick.randint(1, 3), moe_num_shared_experts=pick.randint(1, 2),
    )  # fmt: skip


def granitemoe_swa(pick: Random) -> Config:
    """Granite with experts, windows and sinks."""
    config = decoder(
        pick, "granitemoe_swa", "GraniteMoeSWAForCausalLM", head_dim=False, switches=("attention_bias",),
        sliding_window=4, shared_intermediate_size=pick.choice([0, 12]), num_local_experts=pick.choice([4, 6]),
        num_experts_per_tok=2,
    )  # fmt: skip
    return kinds(pick, config)


def latent(pick: Random) -> Config:
    """The shape of latent attention."""
    return {
        "q_lora_rank": pick.choice([None, pick.randint(3, 12)]), "kv_lora_rank": pick.randint(3, 12),
        "qk_rope_head_dim": pick.choice([2, 4, 6]), "qk_nope_head_dim": pick.randint(3, 9),
        "v_head_dim": pick.randint(3, 9),
    }  # fmt: skip


def minicpm3(pick: Random) -> Config:
    """MiniCPM 3."""
    switches = ("attention_bias", "mlp_bias")
    config = decoder(pick, "minicpm3", "MiniCPM3ForCausalLM", head_dim=False, switches=switches) | latent(
        pick
    )
    if flag(pick):
        config["v_head_dim"] = None
    return config | {"num_key_value_heads": config["num_attention_heads"]}


def latent_experts(model_type: str, name: str) -> Callable[[Random], Config]:
    """Latent attention with routed and shared experts."""

    def make(pick: Random) -> Config:
        config = decoder(pick, model_type, name, head_dim=False, switches=("attention_bias",)) | latent(pick)
        config |= experts(pick, n_shared_experts=pick.randint(1, 2), n_group=1, topk_group=1)
        config["n_routed_experts"] = config.pop("num_experts")
        config |= {
            "num_key_value_heads": config["num_attention_heads"],
            "first_k_dense_replace": pick.randint(0, 2),
        }
        if model_type != "axk1":
            return config
        return dense_or_sparse(pick, config | {"q_lora_rank": config["q_lora_rank"] or 5})

    return make


def emu3_text_model(pick: Random) -> Config:
    """Emu3's text model."""
    switches, rate = ("attention_bias", "mlp_bias"), pick.choice([0.0, 0.1])
    return decoder(
        pick, "emu3_text_model", "Emu3ForCausalLM", head_dim=False, switches=switches, attention_dropout=rate
    )


def mllama_text_model(pick: Random) -> Config:
    """Llama 3.2 Vision's decoder alone."""
    config = decoder(pick, "mllama_text_model", "MllamaForCausalLM", head_dim=False)
    return config | {"num_hidden_layers": 3, "cross_attention_layers": pick.choice([[1], [0, 2], []])}


def umt5(pick: Random) -> Config:
    """UMT5: a table of positions in every layer."""
    return {
        "model_type": "umt5", "architectures": ["UMT5ForConditionalGeneration"], "d_model": pick.randint(6, 30),
        "d_kv": pick.randint(3, 9), "d_ff": pick.randint(9, 40), "num_layers": pick.randint(1, 3),
        "num_decoder_layers": pick.randint(1, 3), "num_heads": pick.randint(1, 3), "vocab_size": pick.randint(20, 90),
        "decoder_start_token_id": 0, "feed_forward_proj": pick.choice(["gated-gelu", "relu"]),
        "dropout_rate": pick.choice([0.0, 0.1]), "relative_attention_num_buckets": 8,
    }  # fmt: skip


def eurobert(pick: Random) -> Config:
    """EuroBERT: Llama's layers, with every position in sight."""
    return decoder(
        pick, "eurobert", "EuroBertForMaskedLM", head_dim=False, switches=("attention_bias", "mlp_bias"),
        mask_token_id=3,
    )  # fmt: skip


def nomic_bert(pick: Random) -> Config:
    """Nomic's BERT."""
    config = decoder(pick, "nomic_bert", "NomicBertForMaskedLM", head_dim=False)
    del config["num_key_value_heads"]
    return config | {"type_vocab_size": 2, "hidden_dropout_prob": pick.choice([0.0, 0.1])}


def albert(pick: Random) -> Config:
    """ALBERT: layers that share their weights by groups."""
    heads = pick.randint(1, 3)
    return {
        "model_type": "albert", "architectures": ["AlbertForMaskedLM"], "hidden_size": heads * pick.randint(3, 9),
        "embedding_size": pick.randint(4, 20), "num_hidden_layers": pick.randint(1, 5), "num_attention_heads": heads,
        "num_hidden_groups": pick.randint(1, 3), "inner_group_num": pick.randint(1, 2), "vocab_size": 50,
        "intermediate_size": pick.randint(9, 40), "max_position_embeddings": 40, "type_vocab_size": 2,
        "tie_word_embeddings": flag(pick), "hidden_dropout_prob": pick.choice([0.0, 0.1]), "pad_token_id": 0,
    }  # fmt: skip


def fuyu(pick: Random) -> Config:
    """Fuyu, its decoder's fields nested or at the top."""
    heads = pick.randint(1, 3)
    text: Config = {
        "hidden_size": heads * 4 * pick.randint(1, 5), "intermediate_size": pick.randint(9, 40), "vocab_size": 60,
        "num_hidden_layers": pick.randint(1, 3), "num_attention_heads": heads, "max_position_embeddings": 64,
        "qk_layernorm": flag(pick), "hidden_dropout": pick.choice([0.0, 0.1]), "eos_token_id": 2,
    }  # fmt: skip
    config: Config = {
        "model_type": "fuyu", "architectures": ["FuyuForCausalLM"], "patch_size": pick.randint(1, 4),
        "num_channels": pick.choice([1, 3]), "tie_word_embeddings": flag(pick), "image_token_id": 3,
        "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    return (
        {**config, "text_config": {"model_type": "persimmon", **text}} if flag(pick) else {**config, **text}
    )


def glm4v_moe(pick: Random) -> Config:
    """GLM-4.5V."""
    text = decoder(pick, "glm4v_moe_text", "", switches=("attention_bias",)) | experts(pick)
    del text["architectures"]
    text |= {
        "n_routed_experts": text.pop("num_experts"), "n_shared_experts": pick.randint(1, 2), "n_group": 1,
        "topk_group": 1, "first_k_dense_replace": pick.randint(0, 2),
        "rope_parameters": {
            "rope_type": "default", "rope_theta": 1e4, "partial_rotary_factor": 1.0,
            "mrope_section": [text["head_dim"] // 2 - 1, 1, 0],
        },
    }  # fmt: skip
    heads = pick.choice([1, 2])
    vision = {
        "depth": pick.randint(1, 2), "num_heads": heads, "hidden_size": heads * 8,
        "out_hidden_size": text["hidden_size"],
        "intermediate_size": pick.randint(9, 40), "patch_size": 2, "image_size": 9, "attention_bias": flag(pick),
    }  # fmt: skip
    tied = text.pop("tie_word_embeddings")
    return {
        "model_type": "glm4v_moe", "architectures": ["Glm4vMoeForConditionalGeneration"], "text_config": text,
        "vision_config": vision, "tie_word_embeddings": tied,
    }  # fmt: skip


def kimi_linear(pick: Random) -> Config:
    """Kimi Linear, its shape of the delta rule at the top or nested as checkpoints have it."""
    config = decoder(
        pick, "kimi_linear", "KimiLinearForCausalLM", head_dim=False, switches=("attention_bias",)
    )
    config |= latent(pick) | experts(pick, num_shared_experts=pick.randint(1, 2))
    config["num_experts_per_token"] = config.pop("num_experts_per_tok")
    config |= {
        "num_key_value_heads": config["num_attention_heads"],
        "first_k_dense_replace": pick.randint(0, 2),
    }
    n_heads, d_head, kernel = pick.randint(1, 3), pick.choice([4, 5, 6]), pick.randint(2, 4)
    layers = config["num_hidden_layers"]
    # Without softmax attention anywhere transformers' own cache fails.
    full = [i + 1 for i in range(layers) if i == layers - 1 or flag(pick)]
    if flag(pick):
        linear = [i + 1 for i in range(layers) if i + 1 not in full]
        nested = {"num_heads": n_heads, "head_dim": d_head, "short_conv_kernel_size": kernel}
        return config | {"linear_attn_config": {**nested, "full_attn_layers": full, "kda_layers": linear}}
    types = ["full_attention" if i + 1 in full else "linear_attention" for i in range(layers)]
    shape = {"linear_num_heads": n_heads, "linear_head_dim": d_head, "linear_conv_kernel_dim": kernel}
    return config | shape | {"layer_types": types}


def modernbert(pick: Random) -> Config:
    """ModernBERT, the encoder or the decoder."""
    decodes, heads = flag(pick), pick.choice([1, 2, 3])
    config: Config = {
        "model_type": "modernbert-decoder" if decodes else "modernbert", "num_attention_heads": heads,
        "architectures": ["ModernBertDecoderForCausalLM" if decodes else "ModernBertForMaskedLM"],
        "hidden_size": heads * 4 * pick.randint(1, 5), "intermediate_size": pick.randint(9, 70),
        "num_hidden_layers": pick.randint(1, 4), "vocab_size": pick.randint(20, 90), "max_position_embeddings": 64,
        "tie_word_embeddings": flag(pick), "pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2,
        "cls_token_id": 1, "sep_token_id": 2, "local_attention": pick.choice([4, 128]),
        "mlp_dropout": pick.choice([0.0, 0.1]),
    }  # fmt: skip
    for name in ("attention_bias", "norm_bias", "mlp_bias", "decoder_bias", "classifier_bias"):
        config[name] = flag(pick)
    return kinds(pick, config)


def clip_tower(pick: Random, kind: str) -> Config:
    """The fields that CLIP's and SigLIP's towers share."""
    heads = pick.choice([1, 2, 3])
    tower: Config = {
        "model_type": kind, "hidden_size": heads * 4 * pick.randint(1, 4), "num_attention_heads": heads,
        "intermediate_size": pick.randint(9, 40), "num_hidden_layers": pick.randint(1, 3),
        "image_size": pick.choice([8, 13]), "patch_size": pick.choice([2, 4]), "num_channels": pick.choice([1, 3]),
    }  # fmt: skip
    return tower | ({"vision_use_head": flag(pick)} if kind == "siglip_vision_model" else {})


def internvit(pick: Random) -> Config:
    """InternVL's tower with its switches."""
    tower = clip_tower(pick, "internvl_vision")
    for side in ("image_size", "patch_size"):
        tower[side] = pick.choice([tower[side], [tower[side], tower[side]]])
    switches = (
        "use_mask_token", "use_absolute_position_embeddings", "attention_bias", "use_qk_norm", "use_mean_pooling"
    )  # fmt: skip
    return (
        tower
        | {name: flag(pick) for name in switches}
        | {"norm_type": pick.choice(["layer_norm", "rms_norm"])}
    )


# Name, class, tower, text models, and fields of its own.
SEEING: dict[str, tuple[str, str, tuple[tuple[str, bool], ...], Config]] = {
    "llava_next": ("LlavaNext", "clip_vision_model", (("llama", True), ("mistral", True)), {}),
    "llava_next_video": ("LlavaNextVideo", "clip_vision_model", (("llama", True),), {}),
    "llava_onevision": ("LlavaOnevision", "siglip_vision_model", (("qwen2", False), ("qwen3", True)), {}),
    "vipllava": ("VipLlava", "clip_vision_model", (("llama", True),), {"vision_feature_layer": [-1, 0]}),
    "paligemma": ("PaliGemma", "siglip_vision_model", (("gemma", True), ("gemma2", True)), {}),
    "internvl": ("InternVL", "internvl_vision", (("qwen2", False), ("llama", True), ("qwen3", True)), {}),
    "idefics3": ("Idefics3", "idefics3_vision", (("llama", True),), {"scale_factor": 3}),
    "smolvlm": ("SmolVLM", "smolvlm_vision", (("llama", True),), {}),
    "aya_vision": (
        "AyaVision",
        "siglip_vision_model",
        (("cohere2", False),),
        {"alignment_intermediate_size": 10},
    ),
    "cohere2_vision": ("Cohere2Vision", "siglip_vision_model", (("cohere2", False),), {}),
}


def seeing(name: str) -> Callable[[Random], Config]:
    """A tower before a text decoder."""
    class_name, kind, texts, own = SEEING[name]

    def make(pick: Random) -> Config:
        model_type, head_dim = pick.choice(texts)
        text = decoder(pick, model_type, "", head_dim=head_dim)
        del text["architectures"]
        tower = internvit(pick) if name == "internvl" else clip_tower(pick, kind)
        more: Config = {"alignment_intermediate_size": 12} if name == "cohere2_vision" else {}
        if name == "paligemma":
            more = {"projection_dim": text["hidden_size"], "hidden_size": text["hidden_size"]}
        if kind.startswith(("idefics3", "smolvlm")):
            tower["image_size"] = 8
        return {
            "model_type": name, "architectures": [f"{class_name}ForConditionalGeneration"], "text_config": text,
            "vision_config": tower, "tie_word_embeddings": flag(pick), "vocab_size": text["vocab_size"],
            "image_token_id": 3, "image_token_index": 3, **own, **more,
        }  # fmt: skip

    return make


CONFIGS: dict[str, Callable[[Random], Config]] = {
    "mellum": mellum, "hy_v3": hy_v3, "laguna": laguna, "afmoe": afmoe, "cohere2_moe": cohere2_moe,
    "aria_text": aria_text, "granitemoe_swa": granitemoe_swa, "minicpm3": minicpm3, "kimi_linear": kimi_linear,
    "modernbert": modernbert, "mistral4": latent_experts("mistral4", "Mistral4ForCausalLM"),
    "axk1": latent_experts("axk1", "AXK1ForCausalLM"), "emu3_text_model": emu3_text_model,
    "mllama_text_model": mllama_text_model, "umt5": umt5, "eurobert": eurobert,
    "glm4v_moe": glm4v_moe, "nomic_bert": nomic_bert, "albert": albert, "fuyu": fuyu,
    **{name: seeing(name) for name in SEEING},
}  # fmt: skip
_SEEING: list[Any] = [["lm_head"], ["down_proj"], ["embed_tokens", "down_proj"], "all-linear"]
_ATTENTION: list[Any] = [
    "all-linear",
    ["q_proj", "v_proj"],
    ["o_proj"],
    ["lm_head"],
    ["embed_tokens", "q_proj"],
]
TARGETS: dict[str, list[Any]] = {
    "modernbert": ["all-linear", ["Wo"], ["decoder"], ["tok_embeddings", "Wo"], ["Wi"]],
    "kimi_linear": ["all-linear", ["kv_b_proj", "o_proj"], ["o_proj"], ["lm_head"]],
    "minicpm3": ["all-linear", ["kv_b_proj"], ["o_proj"], ["kv_a_proj_with_mqa"], ["down_proj", "lm_head"]],
    "mistral4": ["all-linear", ["kv_b_proj"], ["o_proj"], ["lm_head"]],
    "axk1": ["all-linear", ["kv_b_proj"], ["o_proj"], ["lm_head"]],
    "umt5": ["all-linear", ["q", "v"], ["wo"], ["lm_head"], ["shared", "k"]],
    "albert": [
        "all-linear",
        ["query", "value"],
        ["ffn_output"],
        ["decoder"],
        ["word_embeddings", "key"],
        ["dense"],
    ],
    "fuyu": [["query_key_value"], ["lm_head"], ["dense_4h_to_h"], ["embed_tokens", "dense"], "all-linear"],
    "nomic_bert": [
        "all-linear",
        ["q_proj", "v_proj"],
        ["decoder"],
        ["word_embeddings", "q_proj"],
        ["o_proj"],
    ],
    "glm4v_moe": [["q_proj", "v_proj"], ["o_proj"], ["lm_head"]],
    "laguna": [*_ATTENTION, ["g_proj"]],
    "mellum": [*_ATTENTION, ["gate", "o_proj"]],
}


def targets(name: str) -> list[Any]:
    """What is adapted of a family."""
    return TARGETS.get(name, _SEEING if name in SEEING else _ATTENTION)
