"""Vision-language models whose decoder is a text family's: a tower, a projector, and `model.language_model`.

Text fields stand in `text_config`, where an absent one takes the default of the text class; older Qwen2-VL and
GLM-4V configs have them at the top level. A text-only step runs the decoder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from ...schema import Architecture
from ..fields import Fields
from ..trace import Trace
from . import connectors, dense, linear_attention, moe, towers_qwen
from .common import LANGUAGE_MODELS, finish, groups, has_head, read_heads, unembedding
from .experts import ExpertFields, read_experts, routed
from .vision import Tower, named

Decoder = Callable[[Trace, Fields, str], None]
Connector = Callable[[Trace, Fields, int], None]


def core(vocab: int, hidden: int, width: int, layers: int, heads: int, **more: Any) -> dict[str, Any]:
    """A text class's defaults of the fields that a top-level config must state."""
    return {
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": width, "num_hidden_layers": layers,
        "num_attention_heads": heads, **more,
    }  # fmt: skip


TEXT_DEFAULTS: dict[str, dict[str, Any]] = {
    "llama": core(32000, 4096, 11008, 32, 32, max_position_embeddings=2048),
    "mistral": core(32000, 4096, 14336, 32, 32, sliding_window=4096, max_position_embeddings=131072),
    "ministral3": core(131072, 4096, 14336, 34, 32, max_position_embeddings=262144),
    "qwen2": core(151936, 4096, 22016, 32, 32, sliding_window=4096, max_position_embeddings=32768),
    "qwen2_vl": core(
        152064, 8192, 29568, 80, 64, num_key_value_heads=8, sliding_window=4096, max_window_layers=80,
        max_position_embeddings=32768,
    ),
    "qwen3_vl": core(151936, 4096, 22016, 32, 32, max_position_embeddings=128000),
    "qwen3_vl_moe": core(151936, 2048, 5632, 24, 16, max_position_embeddings=128000),
    "gemma3_text": core(262208, 2304, 9216, 26, 8, sliding_window=4096, max_position_embeddings=131072),
    "qwen3_5": core(
        248320, 4096, 12288, 32, 16, model_type="qwen3_5_text", max_position_embeddings=32768
    ),
    "qwen3_5_moe": core(
        248320, 2048, 512, 40, 16, model_type="qwen3_5_moe_text", max_position_embeddings=32768
    ),
    "gemma": core(256000, 3072, 24576, 28, 16, max_position_embeddings=8192),
    "gemma2": core(256000, 2304, 9216, 26, 8, max_position_embeddings=8192),
    "cohere2": core(256000, 8192, 22528, 40, 64, sliding_window=4096, max_position_embeddings=8192),
    "glm4v_moe": core(
        151424, 4096, 10944, 46, 96, num_key_value_heads=8, max_position_embeddings=65536
    ),
    "glm4v": core(151552, 4096, 13696, 40, 32, num_key_value_heads=2, max_position_embeddings=32768),
}  # fmt: skip
# What Mistral 3 builds where the config has no vision_config.
MISTRAL3_TOWER = {**connectors.CLIP_TOWER, "image_size": 1540}


@dataclass(frozen=True)
class Family:
    """One model type. `tied` says which configs decide whether the head is tied: the top one alone, with its
    default, or either of the two. `open_text`: any text model may stand there, `text` where none is named;
    `language` is its place."""

    text: str
    connector: Connector
    tied: Literal["top", "top!", "either"] = "top"
    style: dense.Style | None = None
    decoder: Decoder | None = None
    flat: bool = False
    open_text: bool = False
    language: str = "model.language_model."


def text_fields(cfg: Fields, defaults: Mapping[str, Any], flat: bool = False) -> Fields:
    """The decoder's fields: `text_config` over the class's defaults, or the top level of an older config."""
    if flat and not cfg.has("text_config") and cfg.has("hidden_size"):
        return cfg
    text = cfg.sub("text_config")
    return Fields({**defaults, **text.data}, text.path)


def qwen_tower(tower: Callable[[Tower, Fields], None]) -> Connector:
    """A tower with its own merger, under `model.visual`."""

    def connect(trace: Trace, cfg: Fields, hidden: int) -> None:
        tower(Tower(trace, "model.visual."), cfg.sub("vision_config", {}))

    return connect


def mistral3(trace: Trace, cfg: Fields, hidden: int) -> None:
    """Pixtral's tower, a merger of neighbouring patches and two Linear layers."""
    width = named(trace, cfg, "pixtral", MISTRAL3_TOWER, "model.vision_tower.")
    projector = Tower(trace, "model.multi_modal_projector.", "projector")
    bias = cfg.bool("multimodal_projector_bias", False)
    projector.norm("norm", width)
    projector.linear("patch_merger.merging_layer", width * cfg.int("spatial_merge_size", 2) ** 2, width)
    projector.linear("linear_1", width * connectors.feature_layers(cfg, -1), hidden, bias)
    projector.linear("linear_2", hidden, hidden, bias)


def gemma3(trace: Trace, cfg: Fields, hidden: int) -> None:
    """SigLIP's tower, a norm and one bare projection matrix."""
    width = named(trace, cfg, "siglip_vision_model", {}, "model.vision_tower.")
    prefix = "model.multi_modal_projector."
    trace.weight(f"{prefix}mm_input_projection_weight", "projector", width, hidden, kind="parameter")
    trace.vector(f"{prefix}mm_soft_emb_norm.weight", width)


def qwen3_experts(trace: Trace, text: Fields, prefix: str) -> None:
    """Qwen3-VL's decoder with experts: Qwen3's attention, and routed experts in every or every n-th layer."""
    style, n_layers = dense.STYLES["qwen3"], text.int("num_hidden_layers")
    heads = read_heads(text, 16, 128)
    fields = ExpertFields(n_default=60, active_default=4, width_default=1408)
    experts = read_experts(text, fields, 0)
    plain, every = text.list("mlp_only_layers", []), text.int("decoder_sparse_step", 1)
    sparse = [i not in plain and experts.n > 0 and (i + 1) % every == 0 for i in range(n_layers)]
    trace.embedding(f"{prefix}embed_tokens", text.int("vocab_size"), heads.hidden)
    for has_experts, numbers in groups(sparse):
        with trace.layer("decoder", numbers, f"{prefix}layers.{{}}.") as layer:
            dense.norms(layer, text, style, heads.hidden)
            layer.add(dense.attention(layer, text, style, heads, layer.stream, None))
            if has_experts:
                layer.add(routed(layer, heads.hidden, experts, layer.stream))
            else:
                layer.add(dense.mlp(layer, text, style, heads.hidden, layer.stream))
    trace.vector(f"{prefix}norm.weight", heads.hidden)


def glm4_experts(trace: Trace, text: Fields, prefix: str) -> None:
    """GLM-4.5V's decoder: GLM-4.5's without norms on queries and keys, its experts with the class's defaults."""
    style = moe.STYLES["glm4_moe"]
    base = replace(style.base, qkv_bias="attention_bias!", qk_norm="none", head_dim=128)
    fields = replace(style.experts, n_default=128, active_default=8, width_default=1408)
    shared = moe.Shared("shared_experts", count="n_shared_experts", default=1)
    moe.decoder(trace, text, replace(style, base=base, experts=fields, shared=shared), prefix)


GLM4V_TEXT = replace(dense.STYLES["glm4"], qkv_bias=True, head_dim=None)
FAMILIES: dict[str, Family] = {
    "qwen2_vl": Family(
        "qwen2_vl", qwen_tower(towers_qwen.qwen2_vl), "either", dense.STYLES["qwen2"], flat=True
    ),
    "qwen2_5_vl": Family(
        "qwen2_vl", qwen_tower(towers_qwen.qwen2_5_vl), "either", dense.STYLES["qwen2"], flat=True
    ),
    "qwen3_vl": Family("qwen3_vl", qwen_tower(towers_qwen.qwen3_vl), "top", dense.STYLES["qwen3"]),
    "qwen3_vl_moe": Family("qwen3_vl_moe", qwen_tower(towers_qwen.qwen3_vl), decoder=qwen3_experts),
    "qwen3_5": Family("qwen3_5", qwen_tower(towers_qwen.qwen3_5), decoder=linear_attention.decoder),
    "qwen3_5_moe": Family("qwen3_5_moe", qwen_tower(towers_qwen.qwen3_5), decoder=linear_attention.decoder),
    "glm4v": Family("glm4v", qwen_tower(towers_qwen.glm4v), "either", GLM4V_TEXT, flat=True),
    "gemma3": Family("gemma3_text", gemma3, "top!", dense.STYLES["gemma3_text"]),
    "glm46v": Family("glm4v", qwen_tower(towers_qwen.glm4v), "either", GLM4V_TEXT),
    "glm4v_moe": Family("glm4v_moe", qwen_tower(towers_qwen.glm4v), "either", decoder=glm4_experts),
    "llava": Family("llama", connectors.llava, "either", open_text=True),
    "llava_next": Family("llama", connectors.llava_next, open_text=True),
    "llava_next_video": Family("llama", connectors.llava_next, "either", open_text=True),
    "llava_onevision": Family("qwen2", connectors.llava_onevision, "either", open_text=True),
    "vipllava": Family("llama", connectors.vipllava, open_text=True),
    "paligemma": Family("gemma", connectors.paligemma, "top!", open_text=True),
    "internvl": Family("qwen2", connectors.internvl, "top!", open_text=True),
    "idefics3": Family("llama", connectors.idefics3, open_text=True, language="model.text_model."),
    "smolvlm": Family("llama", connectors.idefics3, open_text=True, language="model.text_model."),
    "aya_vision": Family("cohere2", connectors.aya_vision, "top!", open_text=True),
    "cohere2_vision": Family("cohere2", connectors.cohere2_vision, "top!", open_text=True),
    "mistral3": Family("mistral", mistral3, "top!", open_text=True),
}


def is_tied(cfg: Fields, text: Fields, rule: str, text_default: bool = False) -> bool:
    """Whether the head shares the embedding's weights, by the family's rule."""
    top = bool(cfg.bool("tie_word_embeddings", rule == "top!"))
    return top or (rule == "either" and bool(text.bool("tie_word_embeddings", text_default)))


def _text(cfg: Fields, family: Family) -> tuple[Fields, dense.Style]:
    """The decoder's fields and style; where the family takes any text model, `text_config` names it."""
    if not family.open_text:
        return text_fields(cfg, TEXT_DEFAULTS[family.text], family.flat), family.style or dense.Style()
    text = cfg.sub("text_config")
    kind = text.str("model_type", family.text)
    if kind not in dense.STYLES:
        raise text.fail("model_type", f"one of {', '.join(sorted(dense.STYLES))}")
    return text_fields(cfg, TEXT_DEFAULTS.get(kind, {})), dense.STYLES[kind]


def close(trace: Trace, cfg: Fields, text: Fields, tied: bool, **extra: Any) -> Architecture:
    """The head and the finished architecture; a text model alone has its own class."""
    hidden, vocab = text.int("hidden_size"), text.int("vocab_size")
    if has_head(cfg, LANGUAGE_MODELS if text is cfg else ("ForConditionalGeneration",)):
        unembedding(trace, hidden, vocab, tied=tied)
    return finish(
        trace, cfg, n_layers=text.int("num_hidden_layers"), hidden=hidden, vocab=vocab, tied=tied,
        max_position=text.int("max_position_embeddings", None), **extra,
    )  # fmt: skip


def build(cfg: Fields) -> Architecture:
    """A model of one of the types in FAMILIES."""
    family = FAMILIES[cfg.str("model_type")]
    trace = Trace()
    text, style = _text(cfg, family)
    family.connector(trace, cfg, text.int("hidden_size"))
    if family.decoder:
        family.decoder(trace, text, family.language)
    else:
        dense.decoder(trace, text, style, family.language)
    return close(trace, cfg, text, is_tied(cfg, text, family.tied, style.tied))
