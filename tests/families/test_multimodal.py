"""Vision-language models: random small towers and decoders, matrix by matrix; text-only steps to the last FLOP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.adapter import AdapterSpec, adapt, params
from planner.architecture.build import build
from planner.errors import ConfigError

from .. import oracle
from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config

Config = dict[str, Any]
SLOW = settings(max_examples=3)


CLASSES = {
    "qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL", "qwen3_vl_moe": "Qwen3VLMoe",
    "qwen3_5": "Qwen3_5", "qwen3_5_moe": "Qwen3_5Moe",
    "glm4v": "Glm4v", "glm46v": "Glm46V",
}  # fmt: skip


@st.composite
def qwen_tower(draw: st.DrawFn, hidden: int) -> Config:
    """The fields that Qwen's towers and GLM-4V's share."""
    heads = draw(st.sampled_from([1, 2, 3]))
    return {
        "depth": draw(st.integers(1, 3)), "num_heads": heads, "hidden_size": heads * 4 * draw(st.integers(1, 4)),
        "intermediate_size": draw(st.integers(9, 40)), "out_hidden_size": hidden,
        "patch_size": draw(st.sampled_from([2, 3])), "spatial_merge_size": draw(st.sampled_from([1, 2])),
        "temporal_patch_size": draw(st.sampled_from([1, 2])), "in_channels": draw(st.sampled_from([1, 3])),
    }  # fmt: skip


@st.composite
def clip_tower(draw: st.DrawFn, kind: str) -> Config:
    """The fields that CLIP, SigLIP and Pixtral share."""
    heads = draw(st.sampled_from([1, 2, 3]))
    tower = {
        "model_type": kind, "hidden_size": heads * 4 * draw(st.integers(1, 4)), "num_attention_heads": heads,
        "intermediate_size": draw(st.integers(9, 40)), "num_hidden_layers": draw(st.integers(1, 3)),
        "image_size": draw(st.sampled_from([8, 13])), "patch_size": draw(st.sampled_from([2, 4])),
        "num_channels": draw(st.sampled_from([1, 3])),
    }  # fmt: skip
    if kind == "siglip_vision_model":
        tower["vision_use_head"] = draw(st.booleans())
    return tower


def wrap(model_type: str, architecture: str, text: Config, vision: Config, **more: Any) -> Config:
    """A vision-language config; the text config leaves out what belongs to the top."""
    tied = text.pop("tie_word_embeddings")
    text.pop("architectures")
    return {
        "model_type": model_type, "architectures": [architecture], "text_config": text, "vision_config": vision,
        "tie_word_embeddings": tied, **more,
    }  # fmt: skip


def rope(text: Config) -> Config:
    """Rotations whose three sections together are half of a head."""
    half = (text.get("head_dim") or text["hidden_size"] // text["num_attention_heads"]) // 2
    return {"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [half - 1, 1, 0]}


@st.composite
def qwen(draw: st.DrawFn, model_type: str) -> Config:
    """Qwen2-VL to Qwen3-VL."""
    old = model_type in ("qwen2_vl", "qwen2_5_vl")
    switches = () if old else ("attention_bias",)
    text = draw(decoder_config(f"{model_type}_text", "", head_dim=not old, switches=switches))
    text["rope_parameters"] = rope(text)
    vision = draw(qwen_tower(text["hidden_size"]))
    if model_type == "qwen2_vl":
        vision["embed_dim"], vision["hidden_size"] = vision["hidden_size"], text["hidden_size"]
        vision["mlp_ratio"] = draw(st.sampled_from([1, 3]))
    if model_type == "qwen3_vl_moe":
        text |= {
            "num_experts": draw(st.sampled_from([4, 7])), "num_experts_per_tok": 2, "moe_intermediate_size": 6,
            "mlp_only_layers": draw(st.sampled_from([[], [0]])), "decoder_sparse_step": draw(st.integers(1, 2)),
        }  # fmt: skip
    if model_type.startswith("qwen3_vl"):
        vision["num_position_embeddings"] = 16
        vision["deepstack_visual_indexes"] = draw(st.sampled_from([[], [0], [0, 1]]))
    return wrap(model_type, f"{CLASSES[model_type]}ForConditionalGeneration", text, vision)


@st.composite
def glm4v(draw: st.DrawFn, model_type: str = "glm4v") -> Config:
    """GLM-4V and GLM-4.6V."""
    text = draw(decoder_config("glm4v_text", "", head_dim=False))
    text["rope_parameters"] = rope(text)
    vision = draw(qwen_tower(text["hidden_size"]))
    vision |= {"image_size": 9, "attention_bias": draw(st.booleans())}
    return wrap(model_type, f"{CLASSES[model_type]}ForConditionalGeneration", text, vision)


@st.composite
def gemma3(draw: st.DrawFn) -> Config:
    """Gemma 3 with SigLIP."""
    text = draw(decoder_config("gemma3_text", "", switches=("attention_bias",)))
    vision = draw(clip_tower("siglip_vision_model"))
    return wrap("gemma3", "Gemma3ForConditionalGeneration", text, vision, mm_tokens_per_image=1)


@st.composite
def llava(draw: st.DrawFn) -> Config:
    """LLaVA with any of three towers and three decoders."""
    kind, has_head_dim = draw(st.sampled_from([("llama", True), ("mistral", True), ("qwen2", False)]))
    text = draw(decoder_config(kind, "", head_dim=has_head_dim))
    vision = draw(clip_tower(draw(st.sampled_from(["clip_vision_model", "siglip_vision_model", "pixtral"]))))
    return wrap(
        "llava", "LlavaForConditionalGeneration", text, vision,
        vision_feature_layer=draw(st.sampled_from([-1, [-1], [-1, 0]])),
        multimodal_projector_bias=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def mistral3(draw: st.DrawFn) -> Config:
    """Mistral 3 and Ministral 3 with Pixtral."""
    text = draw(decoder_config(draw(st.sampled_from(["mistral", "ministral3"])), ""))
    return wrap(
        "mistral3", "Mistral3ForConditionalGeneration", text, draw(clip_tower("pixtral")),
        vision_feature_layer=draw(st.sampled_from([-1, [-1, 0]])), spatial_merge_size=draw(st.integers(1, 2)),
        multimodal_projector_bias=draw(st.booleans()),
    )  # fmt: skip


@st.composite
def mllama(draw: st.DrawFn) -> Config:
    """Llama 3.2 Vision, with and without cross-attention layers."""
    text = draw(decoder_config("mllama_text_model", "", head_dim=False))
    text["cross_attention_layers"] = draw(st.sampled_from([[0], [1], [1, 2]]))
    heads = draw(st.sampled_from([1, 2]))
    vision = {
        "hidden_size": heads * 4, "attention_heads": heads, "intermediate_size": draw(st.integers(9, 40)),
        "num_hidden_layers": draw(st.integers(1, 2)), "num_global_layers": draw(st.integers(1, 2)),
        "image_size": 8, "patch_size": 4, "vision_output_dim": draw(st.integers(9, 20)), "max_num_tiles": 2,
        "supported_aspect_ratios": [[1, 1], [1, 2], [2, 1]], "intermediate_layers_indices": [0],
    }  # fmt: skip
    text["num_hidden_layers"] = max(text["num_hidden_layers"], 2)
    return wrap("mllama", "MllamaForConditionalGeneration", text, vision)


@st.composite
def qwen3_5(draw: st.DrawFn, model_type: str) -> Config:
    """Qwen3.5, dense or with experts."""
    text = draw(decoder_config(f"{model_type}_text", "", partial_rotary_factor=0.5))
    n, d = text["num_hidden_layers"], text["head_dim"]
    kinds = ["linear_attention", "full_attention"]
    text |= {
        # Without softmax attention anywhere transformers' own cache fails.
        "layer_types": [draw(st.sampled_from(kinds)) for _ in range(n - 1)] + ["full_attention"],
        "linear_num_key_heads": 2, "linear_num_value_heads": draw(st.sampled_from([2, 4])),
        "linear_key_head_dim": 5, "linear_value_head_dim": draw(st.sampled_from([3, 6])), "head_dim": 4 * d,
    }  # fmt: skip
    text["rope_parameters"] = rope(text) | {"partial_rotary_factor": 0.5, "mrope_section": [d - 1, 1, 0]}
    if model_type == "qwen3_5_moe":
        text |= {
            "num_experts": 5, "num_experts_per_tok": 2, "moe_intermediate_size": 8,
            "shared_expert_intermediate_size": 7,
        }  # fmt: skip
    vision = draw(qwen_tower(text["hidden_size"])) | {"num_position_embeddings": 16}
    return wrap(model_type, f"{CLASSES[model_type]}ForConditionalGeneration", text, vision)


@st.composite
def gemma4_towers(draw: st.DrawFn) -> Config:
    """Gemma 4's towers, each there or not."""
    towers: Config = {"vision_config": None, "audio_config": None}
    if draw(st.booleans()):
        towers["vision_config"] = {
            "model_type": "gemma4_vision", "hidden_size": draw(st.integers(4, 20)), "head_dim": 8,
            "num_attention_heads": 4, "num_key_value_heads": draw(st.sampled_from([2, 4])),
            "intermediate_size": 9, "num_hidden_layers": 2, "patch_size": 2, "position_embedding_size": 12,
        }  # fmt: skip
    if draw(st.booleans()):
        towers["audio_config"] = {
            "model_type": "gemma4_audio", "hidden_size": 8, "num_attention_heads": 2, "num_hidden_layers": 2,
            "subsampling_conv_channels": [8, 3], "conv_kernel_size": 3, "output_proj_dims": 11,
        }  # fmt: skip
    return towers


@st.composite
def gemma4(draw: st.DrawFn) -> Config:
    """Gemma 4: shared keys and values, inputs of every layer's own, experts, equal keys and values."""
    text = draw(decoder_config("gemma4_text", "", switches=("attention_bias", "use_double_wide_mlp")))
    types, shared = draw(
        st.sampled_from([("f", 0), ("sf", 0), ("fsf", 0), ("sfsf", 2), ("sffs", 1), ("fsfff", 3), ("ff", 1)])
    )
    names = {"s": "sliding_attention", "f": "full_attention"}
    text |= {
        "num_hidden_layers": len(types), "layer_types": [names[t] for t in types], "num_kv_shared_layers": shared,
        # transformers cannot run shared keys and values without inputs of the layers' own.
        "hidden_size_per_layer_input": draw(st.sampled_from([5] if shared else [0, 5])),
        "vocab_size_per_layer_input": 90,
        "global_head_dim": 2 * text["head_dim"], "sliding_window": 4,
        "attention_k_eq_v": draw(st.booleans()), "num_global_key_value_heads": draw(st.sampled_from([None, 1])),
        "enable_moe_block": draw(st.booleans()),
    }  # fmt: skip
    if text["enable_moe_block"]:
        text |= {"num_experts": 5, "top_k_experts": 2, "moe_intermediate_size": 8}
    towers = draw(gemma4_towers())
    return wrap("gemma4", "Gemma4ForConditionalGeneration", text, towers.pop("vision_config"), **towers)


@st.composite
def llama4(draw: st.DrawFn) -> Config:
    """Llama 4, with experts in every layer, in every second or in none; its inner model ties the head."""
    text = draw(decoder_config("llama4_text", "", switches=("attention_bias", "use_qk_norm")))
    text |= {
        "num_local_experts": draw(st.sampled_from([3, 4])), "num_experts_per_tok": draw(st.integers(1, 2)),
        "intermediate_size_mlp": draw(st.integers(9, 40)), "interleave_moe_layer_step": draw(st.integers(1, 2)),
        "no_rope_layer_interval": 2, "attention_chunk_size": draw(st.sampled_from([2, 8192])),
    }  # fmt: skip
    heads = draw(st.sampled_from([1, 2]))
    vision = {
        "hidden_size": heads * 8, "num_attention_heads": heads, "intermediate_size": heads * 32,
        "num_hidden_layers": draw(st.integers(1, 2)), "image_size": 8, "patch_size": 2, "projector_input_dim": 12,
        "projector_output_dim": 12, "vision_output_dim": 12, "num_channels": draw(st.sampled_from([1, 3])),
    }  # fmt: skip
    tied = text["tie_word_embeddings"]
    config = wrap("llama4", "Llama4ForConditionalGeneration", text, vision)
    config["text_config"]["tie_word_embeddings"] = tied
    return config | {"tie_word_embeddings": False}


CONFIGS: dict[str, Callable[[], st.SearchStrategy[Config]]] = {
    "qwen2_vl": lambda: qwen("qwen2_vl"), "qwen2_5_vl": lambda: qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: qwen("qwen3_vl"), "glm4v": glm4v,
    "glm46v": lambda: glm4v("glm46v"), "gemma3": gemma3, "llava": llava, "mistral3": mistral3,
    "mllama": mllama, "gemma4": gemma4, "qwen3_5": lambda: qwen3_5("qwen3_5"),
    "qwen3_5_moe": lambda: qwen3_5("qwen3_5_moe"), "qwen3_vl_moe": lambda: qwen("qwen3_vl_moe"), "llama4": llama4,
}  # fmt: skip


# Gemma 4's tower has modules of these names that PEFT cannot adapt; Qwen3.5 need not have every mixer.
TARGETS: dict[str, list[Any]] = {
    "gemma4": [
        ["lm_head"], ["language_model.layers.0.self_attn.k_proj"], ["language_model.layers.0.mlp.down_proj"],
        ["language_model.embed_tokens"],
    ],
    "qwen3_5": [["lm_head"], ["up_proj"], ["embed_tokens", "down_proj"]],
    "qwen3_vl_moe": [["q_proj", "v_proj"], ["lm_head"], ["o_proj"], ["embed_tokens"]],
    "qwen3_5_moe": [["lm_head"], ["up_proj"], ["embed_tokens"]],
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_inventory(model_type: str) -> None:
    @given(CONFIGS[model_type]())
    def check(config: Config) -> None:
        check_inventory(config)

    check()


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_flops_of_a_text_only_step(model_type: str) -> None:
    targets = TARGETS.get(
        model_type, [["q_proj", "v_proj"], ["lm_head"], ["o_proj"], ["embed_tokens", "v_proj"]]
    )
    if model_type != "llama4":  # There PEFT wraps the router too, whose two results it then cannot add to.
        targets = ["all-linear", *targets]

    @SLOW
    @given(
        CONFIGS[model_type](), st.integers(1, 2), st.integers(3, 7), st.sampled_from(targets), st.booleans()
    )
    def check(config: Config, batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()


@pytest.mark.parametrize(("model_type", "name"), [("llama4", "Llama4"), ("gemma4", "Gemma4")])
def test_the_text_model_alone(model_type: str, name: str) -> None:
    @SLOW
    @given(CONFIGS[model_type]())
    def check(config: Config) -> None:
        text = config["text_config"] | {"architectures": [f"{name}ForCausalLM"]}
        check_inventory(text)
        check_flops(text, 1, 4, targets=[["q_proj"]])

    check()


def test_all_linear_on_llama_4() -> None:
    @SLOW
    @given(llama4())
    def check(config: Config) -> None:
        model = oracle.with_lora(oracle.meta_model(config), 2)
        adapted = adapt(build(config), AdapterSpec(rank=2, layers=("all-linear",), experts="peft"))
        assert params(adapted) == sum(p.numel() for p in model.parameters() if p.requires_grad)

    check()


LAYERS = {"num_hidden_layers": 2}
SPARSE_CONFIGS: dict[str, tuple[str, Config, Config]] = {
    "qwen2_vl": ("Qwen2VL", LAYERS, {"depth": 1}), "qwen2_5_vl": ("Qwen2_5_VL", LAYERS, {"depth": 1}),
    "qwen3_vl": ("Qwen3VL", LAYERS, {"depth": 1}), "glm4v": ("Glm4v", LAYERS, {"depth": 1}),
    "glm46v": ("Glm46V", LAYERS, {"depth": 1}),
    "qwen3_5": ("Qwen3_5", LAYERS, {"depth": 1}), "qwen3_5_moe": ("Qwen3_5Moe", LAYERS, {"depth": 1}),
    "qwen3_vl_moe": ("Qwen3VLMoe", LAYERS, {"depth": 1}), "llama4": ("Llama4", LAYERS, LAYERS),
    "gemma3": ("Gemma3", LAYERS, LAYERS), "gemma4": ("Gemma4", LAYERS, LAYERS),
    "llava": ("Llava", LAYERS, LAYERS), "mistral3": ("Mistral3", LAYERS, LAYERS),
    "mllama": ("Mllama", {"num_hidden_layers": 5}, {**LAYERS, "num_global_layers": 1}),
}  # fmt: skip


def test_every_type_has_a_sparse_config() -> None:
    assert set(SPARSE_CONFIGS) == set(CONFIGS)


@pytest.mark.parametrize("model_type", sorted(SPARSE_CONFIGS))
@pytest.mark.parametrize("with_tower", [True, False])
def test_absent_fields_take_the_defaults_of_the_class(model_type: str, with_tower: bool) -> None:
    name, text, vision = SPARSE_CONFIGS[model_type]
    config: Config = {
        "model_type": model_type, "architectures": [f"{name}ForConditionalGeneration"], "text_config": dict(text),
    }  # fmt: skip
    if with_tower:
        config["vision_config"] = dict(vision)
    if model_type == "gemma4":
        config["audio_config"] = {"model_type": "gemma4_audio"}
    check_inventory(config)


@pytest.mark.parametrize("model_type", ["qwen2_vl", "qwen2_5_vl", "glm4v"])
def test_text_fields_at_the_top_level_mean_the_same(model_type: str) -> None:
    @SLOW
    @given(CONFIGS[model_type]())
    def check(config: Config) -> None:
        text = {k: v for k, v in config["text_config"].items() if k != "model_type"}
        flat = text | {k: v for k, v in config.items() if k != "text_config"}
        nested_arch, flat_arch = build(config), build(flat)
        assert flat_arch.matrices == nested_arch.matrices
        assert flat_arch.vectors == nested_arch.vectors
        assert flat_arch.blocks == nested_arch.blocks

    check()


@pytest.mark.parametrize(
    ("layers", "expected"), [(("mlp",), 4325376), (("attention",), 2965504), (("unembedding",), 253440)]
)
def test_qwen3_5_27b_as_tinker_counts_it(layers: tuple[str, ...], expected: int) -> None:
    text = {
        "num_hidden_layers": 64, "hidden_size": 5120, "intermediate_size": 17408, "num_attention_heads": 24,
        "num_key_value_heads": 4, "head_dim": 256, "vocab_size": 248320, "linear_num_key_heads": 16,
        "linear_num_value_heads": 48, "linear_key_head_dim": 128, "linear_value_head_dim": 128,
    }  # fmt: skip
    arch = build({"model_type": "qwen3_5", "text_config": text, "vision_config": {"depth": 2}})
    spec = AdapterSpec(rank=1, layers=layers, layout="tinker", experts="shared-outer")
    assert params(adapt(arch, spec)) == expected


@pytest.mark.parametrize(
    ("model_type", "broken", "field"),
    [
        ("qwen3_vl", {}, "text_config"),
        ("qwen3_vl", {"text_config": {}, "vision_config": {"num_heads": 7}}, "vision_config.num_heads"),
        ("qwen2_vl", {"text_config": {"num_key_value_heads": 5}}, "text_config.num_key_value_heads"),
        ("llava", {"text_config": {"model_type": "gpt2"}}, "text_config.model_type"),
        ("llava", {"text_config": {}, "vision_config": {"model_type": "vit"}}, "vision_config.model_type"),
        ("gemma3", {"text_config": {}, "vision_config": {"image_size": 3}}, "vision_config.image_size"),
        ("gemma4", {"text_config": {"layer_types": ["full_attention"]}}, "text_config.layer_types"),
        ("gemma4", {"text_config": {"num_kv_shared_layers": 29}}, "text_config.num_kv_shared_layers"),
        ("mllama", {"text_config": {"cross_attention_layers": ["a"]}}, "text_config.cross_attention_layers"),
    ],
)
def test_a_broken_config_names_the_field(model_type: str, broken: Config, field: str) -> None:
    with pytest.raises(ConfigError, match=f"config field {field}"):
        build({"model_type": model_type, **broken})
