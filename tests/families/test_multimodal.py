"""Vision-language models: random small towers and decoders, matrix by matrix; text-only steps to the last FLOP."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from planner.architecture.build import build
from planner.errors import ConfigError

from ..family_checks import check_flops, check_inventory
from ..strategies import decoder_config

Config = dict[str, Any]
SLOW = settings(max_examples=3)


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
    if model_type == "qwen3_vl":
        vision["num_position_embeddings"] = 16
        vision["deepstack_visual_indexes"] = draw(st.sampled_from([[], [0], [0, 1]]))
    names = {"qwen2_vl": "Qwen2VL", "qwen2_5_vl": "Qwen2_5_VL", "qwen3_vl": "Qwen3VL"}
    return wrap(model_type, f"{names[model_type]}ForConditionalGeneration", text, vision)


@st.composite
def glm4v(draw: st.DrawFn) -> Config:
    """GLM-4V."""
    text = draw(decoder_config("glm4v_text", "", head_dim=False))
    text["rope_parameters"] = rope(text)
    vision = draw(qwen_tower(text["hidden_size"]))
    vision |= {"image_size": 9, "attention_bias": draw(st.booleans())}
    return wrap("glm4v", "Glm4vForConditionalGeneration", text, vision)


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


CONFIGS: dict[str, Callable[[], st.SearchStrategy[Config]]] = {
    "qwen2_vl": lambda: qwen("qwen2_vl"), "qwen2_5_vl": lambda: qwen("qwen2_5_vl"),
    "qwen3_vl": lambda: qwen("qwen3_vl"), "glm4v": glm4v, "gemma3": gemma3, "llava": llava, "mistral3": mistral3,
}  # fmt: skip


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_inventory(model_type: str) -> None:
    @given(CONFIGS[model_type]())
    def check(config: Config) -> None:
        check_inventory(config)

    check()


@pytest.mark.parametrize("model_type", sorted(CONFIGS))
def test_flops_of_a_text_only_step(model_type: str) -> None:
    targets = ["all-linear", ["q_proj", "v_proj"], ["lm_head"], ["o_proj"], ["embed_tokens", "down_proj"]]

    @SLOW
    @given(CONFIGS[model_type](), st.integers(1, 2), st.integers(3, 7), st.sampled_from(targets), st.booleans())
    def check(config: Config, batch: int, seq_len: int, target: Any, checkpointing: bool) -> None:
        check_flops(config, batch, seq_len, targets=[target], checkpointing=checkpointing)

    check()
